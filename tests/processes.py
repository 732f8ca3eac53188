"""Real processes for tests: started, watched and ended by their ids, each with its output in a file."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import numpy as np

from zmqinfer.cli import main

__all__ = [
    "Process",
    "Processes",
    "children_of",
    "command_of",
    "free_addresses",
    "here",
    "is_running",
    "parsed",
    "run",
    "saved",
    "wait_until",
]

T = TypeVar("T")

# The cores are shared with whatever else runs: a bound is for hanging, not for measuring.
PATIENCE_S = 30.0
ROOT = Path(__file__).parents[1]


def wait_until(condition: Callable[[], T], timeout_s: float = PATIENCE_S, what: str = "") -> T:
    """Asks until the answer is true, and returns it; an `AssertionError` when the time is up."""
    give_up_at = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < give_up_at, f"{what or condition} was not so within {timeout_s:g} s"
        time.sleep(0.01)
    return answer


def free_addresses(count: int) -> list[str]:
    """Loopback addresses with ports that nobody listens at now, all different."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def _environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("ZMQINFER_")}
    # One thread each: five processes on two cores must not spin for them.
    threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return {**own, **threads, "MPLBACKEND": "Agg", **(extra or {})}


def run(
    *arguments: str | Path,
    stdin: bytes = b"",
    cwd: Path | None = None,
    environment: dict[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
) -> subprocess.CompletedProcess[str]:
    """Runs `zmqinfer` to its end. No command may ever show a user a traceback, so that is asserted of each."""
    done = subprocess.run(
        [sys.executable, "-m", "zmqinfer", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        cwd=cwd,
        env=_environment(environment),
        timeout=timeout_s,
        check=False,
    )
    output, errors = done.stdout.decode(), done.stderr.decode()
    assert "Traceback" not in output + errors, errors
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


def here(
    *arguments: str | Path, cwd: Path | None = None, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Does in this process what `run` does in one of its own, some ten times as fast; for what starts no node.

    What `main` lets through, of which Python would make a traceback, is raised.
    """
    output, errors, code = io.StringIO(), io.StringIO(), 0
    with (
        contextlib.chdir(cwd or Path.cwd()),
        mock.patch.dict(os.environ, _environment(environment), clear=True),
        mock.patch("zmqinfer.cli.raise_limit"),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main([*map(str, arguments)])
        except SystemExit as end:
            code = int(end.code or 0)
    return subprocess.CompletedProcess(arguments, code, output.getvalue(), errors.getvalue())


@dataclass
class Process:
    """One running `zmqinfer`."""

    popen: subprocess.Popen[bytes]
    log_file: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.popen.pid

    @property
    def log(self) -> str:
        """What it has said so far, on both outputs."""
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def says(self, text: str) -> None:
        """Waits until `text` is in its log."""
        wait_until(
            lambda: text in self.log or self.popen.poll() is not None, what=f"{text!r} in the log of {self.popen.args}"
        )
        assert text in self.log, f"ended with {self.popen.poll()} without {text!r}:\n{self.log}"

    def sends(self, number: signal.Signals) -> None:
        """Gives it a signal."""
        self.popen.send_signal(number)

    def ends(self, timeout_s: float = PATIENCE_S) -> int:
        """Waits for its end and returns its exit code."""
        code = self.popen.wait(timeout_s)
        assert "Traceback" not in self.log, self.log
        return code


@dataclass
class Processes:
    """Starts processes, and at the end of a test ends those that still run."""

    folder: Path
    started: list[Process] = field(default_factory=list)

    def start(
        self,
        *arguments: str | Path,
        cwd: Path | None = None,
        environment: dict[str, str] | None = None,
        redirect: str = "",
        program: Sequence[str | Path] = (sys.executable, "-m", "zmqinfer"),
    ) -> Process:
        """Starts `zmqinfer`, or another program; `redirect` is a shell's, and leaves the log empty."""
        shell = ["sh", "-c", f'exec "$@" {redirect}', "sh"] if redirect else []
        path = self.folder / f"process_{len(self.started)}.log"
        with path.open("wb") as log:
            popen = subprocess.Popen(
                [*shell, *map(str, (*program, *arguments))],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=cwd,
                env=_environment(environment),
            )
        process = Process(popen, path)
        self.started.append(process)
        return process

    def worker(self, name: str, gateway: str, *arguments: str | Path) -> Process:
        """Starts a worker, of the shipped models if it is not told another thing."""
        source = [] if {"--models", "--function"} & {*map(str, arguments)} else ["--demo"]
        return self.start("worker", "--name", name, "--gateway", gateway, *source, *arguments)

    def end(self) -> None:
        """Ends all, politely first and the last one first: workers leave while their gateway still answers."""
        for process in reversed(self.started):
            if process.popen.poll() is not None:
                continue
            process.sends(signal.SIGCONT)
            process.sends(signal.SIGTERM)
            try:
                process.popen.wait(10)
            except subprocess.TimeoutExpired:
                for pid in [*children_of(process.pid), process.pid]:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                process.popen.wait()


def children_of(pid: int) -> list[int]:
    """The ids of a process's children."""
    done = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False)
    return [int(word) for word in done.stdout.split()]


def command_of(pid: int) -> str:
    """The command line of a process."""
    done = subprocess.run(["ps", "-o", "args=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout


def is_running(pid: int) -> bool:
    """Whether a process with this id lives and is no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in {"", "Z"}


def saved(path: Path, array: Any) -> Path:
    """Writes an array to a .npy file."""
    np.save(path, array)
    return path


def parsed(done: subprocess.CompletedProcess[str]) -> Any:
    """The JSON that a command printed."""
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
