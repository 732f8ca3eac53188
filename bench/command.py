"""What all commands of the benchmarks have in common: how they are asked, and that they end their processes."""

from __future__ import annotations

import argparse
import signal
import sys
from types import TracebackType

__all__ = ["Command", "whole", "within"]


class Command(argparse.ArgumentParser):
    """The options of a benchmark; once they are read, SIGTERM ends it as Ctrl-C does, with all that it started.

    Neither shows people a traceback.
    """

    def __init__(self, prog: str, about: str | None) -> None:
        """Takes the command as people write it, and the module's docstring."""
        super().__init__(prog=prog, description=about, formatter_class=argparse.RawDescriptionHelpFormatter)

    def parse_args(self, *arguments: object) -> argparse.Namespace:  # type: ignore[override]
        """Reads the options, or ends the process with a sentence."""
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        sys.excepthook = _say_interrupted
        return super().parse_args(*arguments)  # type: ignore[call-overload, no-any-return]


def _say_interrupted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("interrupted", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def whole(text: str) -> int:
    """Reads a count from 1; argparse tells people of the ValueError."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def within(text: str) -> float:
    """Reads a time of more than 0 and at most an hour, in seconds."""
    number = float(text)
    if not 0 < number <= 3_600:
        raise argparse.ArgumentTypeError(f"{text} is not more than 0 and at most 3,600 s")
    return number
