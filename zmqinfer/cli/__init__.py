"""The `zmqinfer` command.

    options    turns declared settings into options, with their environment variables
    nodes      gateway, worker: one node in the foreground
    up         gateways and workers of this machine, supervised
    ask        status, models, ring, drain: questions to running gateways
    shown      what these print for people
    infer      one request from the shell
    bench      load and report
    simulate   a cluster with faults in virtual time

Each command's module is imported when it is called: start-up matters for one that is called often.
"""

from __future__ import annotations

import contextlib
import errno
import importlib
import os
import re
import sys
from typing import Any

import click

from zmqinfer import __version__
from zmqinfer.errors import ConfigError, NotFound, Unavailable, UsageError, ZmqInferError
from zmqinfer.launch.pulse import Pulse
from zmqinfer.node.descriptors import raise_limit

__all__ = ["EXIT_FAILED", "EXIT_NOBODY", "EXIT_USAGE", "main"]

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_NOBODY = 3

# Of the process, and of the system: no descriptors.
_EXHAUSTED = {errno.EMFILE, errno.ENFILE}

# Where each is, what it does in a few words, and how it is called.
_COMMANDS = {
    "up": (
        "up",
        "Serve models or a function on this machine.",
        ["zmqinfer up", "zmqinfer up scorer:predict --workers 4", "zmqinfer up --models models/"],
    ),
    "gateway": (
        "nodes",
        "Run one gateway in the foreground.",
        ["zmqinfer gateway --clients tcp://127.0.0.1:5555 --workers tcp://127.0.0.1:5556"],
    ),
    "worker": (
        "nodes",
        "Run one worker in the foreground.",
        ["zmqinfer worker --gateway tcp://127.0.0.1:5556 --models models/"],
    ),
    "infer": (
        "infer",
        "Send one request.",
        ["echo '[1, 2, 3]' | zmqinfer infer echo -", "zmqinfer infer digits images.npy --batch"],
    ),
    "status": (
        "ask",
        "Show gateways, workers and counters.",
        ["zmqinfer status", "zmqinfer status --wait-workers 3 --timeout-s 30"],
    ),
    "models": ("ask", "List the models that can be called.", ["zmqinfer models"]),
    "ring": (
        "ask",
        "Show who owns which share of the keys.",
        ["zmqinfer ring --explain user-42", "zmqinfer ring --without worker_2"],
    ),
    "drain": ("ask", "Let a worker finish what it holds and leave.", ["zmqinfer drain worker_2"]),
    "bench": (
        "bench",
        "Make load, check every answer, and report.",
        ["zmqinfer bench --preset medium", "zmqinfer bench --model scorer --input rows.npy --rate 500"],
    ),
    "report": ("bench", "Draw the pictures and the report again.", ["zmqinfer report results"]),
    "simulate": (
        "simulate",
        "Run a cluster with faults in virtual time.",
        ["zmqinfer simulate mixed --schedules 200", "zmqinfer simulate scenario.toml --out results"],
    ),
}


class _Lazy(click.Group):
    """A group whose commands live in modules that are imported when they are needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's signature
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"zmqinfer.cli.{_COMMANDS[cmd_name][0]}")
        command = getattr(module, cmd_name)
        assert isinstance(command, click.Command)
        # As all that is written is folded, but what begins so.
        command.epilog = "\n".join(["\b", "Examples:", *(f"  {example}" for example in _COMMANDS[cmd_name][2])])
        for option in command.params:
            if isinstance(option, click.Option) and option.envvar is None:
                # Named for what the user writes, not for the parameter behind it.
                spelling = max(option.opts, key=len).lstrip("-").replace("-", "_")
                option.envvar = f"ZMQINFER_{cmd_name}_{spelling}".upper()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002 - click's signature
        """Lists the commands without importing any of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text, _) in _COMMANDS.items()])


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="zmqinfer")
def cli() -> None:
    """Serve models over ZeroMQ, where the unit on the wire is a batch, not a message.

    Exit codes: 0 done or drained, 1 it ran and something failed, 2 wrong usage or configuration,
    3 nobody there, 4 gave up on a crash loop.
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code; no traceback reaches a user."""
    _open_standard_streams()
    # Only for what `up` and its like start: they say the sentence themselves, once for all that have the same.
    parent = Pulse.inherited()
    raise_limit()
    try:
        code: Any = cli.main(arguments, prog_name="zmqinfer", standalone_mode=False, obj=parent)
    except click.exceptions.Abort:
        code = 130
    except click.ClickException as error:
        code = error.exit_code
        origins = _origins(error.message, arguments)
        if parent is not None:
            parent.say(error.format_message() + origins)
        else:
            with contextlib.suppress(OSError):
                error.show()
                if origins:
                    click.echo(origins.strip(), err=True)
    except (ConfigError, UsageError) as error:
        code = _say(error, EXIT_USAGE, parent, _origins(str(error), arguments))
    except (NotFound, Unavailable) as error:
        code = _say(error, EXIT_NOBODY, parent, _origins(str(error), arguments))
    except ZmqInferError as error:
        code = _say(error, EXIT_FAILED, parent)
    except UnicodeEncodeError as error:
        # What the shell passed on was no UTF-8; Python keeps such bytes as halves of characters.
        wrong = ConfigError(f"{error.object!r} is no text in UTF-8, expected one; mend the argument")
        code = _say(wrong, EXIT_USAGE, parent)
    except BrokenPipeError:
        # Whoever read our output has enough of it.
        sys.stderr.close()
        code = EXIT_FAILED
    except OSError as error:
        if error.errno in _EXHAUSTED:
            text = f"cannot go on ({error.strerror}); raise the limit with: ulimit -n"
        else:
            text = f"cannot write to {error.filename or 'standard output'} ({error.strerror})"
        code = _say(ConfigError(text), EXIT_USAGE, parent)
    sys.exit(code if isinstance(code, int) else 0)


def _origins(sentence: str, arguments: list[str] | None) -> str:
    """Names the variables from which the options or values in a sentence came: nobody sees them in the command."""
    words = sys.argv[1:] if arguments is None else arguments
    name = next((word for word in words if word in _COMMANDS), "")
    command = cli.get_command(click.Context(cli), name)
    origins = ""
    for option in command.params if command is not None else ():
        value = os.environ.get(option.envvar, "") if isinstance(option.envvar, str) else ""
        # Shorter values are in many sentences.
        signs = [*option.opts, value] if len(value) > 3 else option.opts
        is_meant = any(re.search(rf"(?<![\w-]){re.escape(sign)}(?![\w-])", sentence) for sign in signs)
        if value and is_meant and not _is_given(option, words):
            origins += f" ({max(option.opts, key=len)} is from {option.envvar})"
    return origins


def _is_given(option: click.Parameter, words: list[str]) -> bool:
    """Whether an option is in the command, whose words win over the environment."""
    return any(word.partition("=")[0] in (*option.opts, *option.secondary_opts) for word in words)


def _open_standard_streams() -> None:
    """Opens those that the shell closed, else the next socket gets their numbers, and what is printed."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free. Our children are to have it too.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def _say(error: Exception, code: int, parent: Pulse | None, origins: str = "") -> int:
    name = f" ({error.code})" if isinstance(error, ZmqInferError) else ""
    # A model's own words may hold anything, also what moves a terminal's cursor.
    sentence = "".join(c if c.isprintable() else " " for c in str(error)) + name + origins
    if parent is not None:
        parent.say(sentence)
        return code
    with contextlib.suppress(OSError):  # on a full disk the exit code alone has to tell it
        click.echo(f"zmqinfer: {sentence}", err=True)
    return code
