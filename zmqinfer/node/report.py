"""The only module that logs: one event, one line; a fixed sentence, then key=value pairs. Tracebacks have more lines.

Values may come from peers, so they are cut and escaped; and peers may cause events, so of each that goes on and on
there are a few lines a second, and of the others the number. Never bodies, never keys, nor what a model says of them,
and no line for a request but where its model failed: those are counted.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
import traceback
from collections.abc import Callable

from zmqinfer.loop.ports import Reporter
from zmqinfer.origin import origin

__all__ = ["Report", "level", "start_logging"]

# A path, and what is wrong with what lies there.
_MAX_VALUE = 512
# Lines of one event a second in the long run, and at once: as many workers may be lost.
_LINES_PER_S, _LINES_AT_ONCE = 10.0, 500.0
# A traceback has so many frames at most, the innermost ones, and so many errors that led to one another.
_MAX_DEPTH, _MAX_CHAIN = 40, 5


def start_logging(level: str) -> None:
    """Sends log lines to standard error, one event a line."""
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s %(message)s")


def level() -> str:
    """Returns the level that is logged here, for a child's `start_logging`."""
    return logging.getLevelName(logging.getLogger("zmqinfer").getEffectiveLevel())


class Report(Reporter):
    """The voice of one node.

    Args:
        node: its kind.
        has_tracebacks: whether tracebacks are logged in full below level DEBUG too.
        about: what is said at the end of each line, as which of several nodes it is.
    """

    def __init__(
        self, node: str, clock: Callable[[], float] = time.monotonic, *, has_tracebacks: bool = False, **about: object
    ) -> None:
        self._logger = logging.getLogger(f"zmqinfer.{node}")
        self._clock = clock
        self._has_tracebacks = has_tracebacks
        self._about = about
        # For each event when it was last, how many lines it may have had then, and how many were left out.
        self._said: dict[str, tuple[float, float, int]] = {}

    def info(self, event: str, **values: object) -> None:
        """Says something that a person would want to know."""
        self._say(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """Says that something was wrong and was coped with."""
        self._say(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        """Says that something was wrong and was not coped with."""
        self._say(logging.ERROR, event, values)

    def raised(self, event: str, error: BaseException, level: int = logging.WARNING) -> None:
        """Names the class of what was raised and where, but never its words: they may hold inputs."""
        is_whole = self._has_tracebacks or self._logger.isEnabledFor(logging.DEBUG)
        values: dict[str, object] = {"error": type(error).__name__, "at": functools.partial(origin, error)}
        self._say(level, event, values, functools.partial(_traceback, error) if is_whole else None)

    def _say(self, level: int, event: str, values: dict[str, object], more: Callable[[], str] | None = None) -> None:
        if not self._logger.isEnabledFor(level):
            return
        now = self._clock()
        at, lines, left_out = self._said.get(event, (now, _LINES_AT_ONCE, 0))
        lines = min(lines + _LINES_PER_S * (now - at), _LINES_AT_ONCE)
        if lines < 1:
            self._said[event] = now, lines, left_out + 1
            return
        self._said[event] = now, lines - 1, 0
        if left_out:
            values = {**values, "not_logged_before": left_out}
        if lines < 2:
            values = {**values, "from_here_at_most_per_s": int(_LINES_PER_S)}
        # A program's own handlers and filters may raise, and who reports goes on.
        with contextlib.suppress(Exception):
            pairs = " ".join(f"{key}={_shown(value)}" for key, value in (values | self._about).items())
            self._logger.log(level, "%s %s%s", event, pairs, f"\n{more()}" if more else "")


def _traceback(error: BaseException) -> str:
    """Returns the traceback of an error, and before it those of what it came from, all without their words."""
    chain = [error]
    while len(chain) < _MAX_CHAIN:
        last = chain[-1]
        cause = last.__context__ if last.__cause__ is None and not last.__suppress_context__ else last.__cause__
        if cause is None:
            break
        chain.append(cause)
    return "\n".join(
        "".join(traceback.format_tb(one.__traceback__, limit=-_MAX_DEPTH)) + type(one).__name__
        for one in reversed(chain)
    )


def _shown(value: object) -> str:
    if callable(value):  # it costs something, and is only asked of lines that are written
        value = value()
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)[:_MAX_VALUE]
    if text.isprintable() and " " not in text and text:
        return text
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'
