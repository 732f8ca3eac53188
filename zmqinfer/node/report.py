"""The only module that logs: one event, one line; a fixed sentence, then key=value pairs.

Values may come from peers, so they are cut and escaped. Never bodies, never keys, and no line
for a request: those are counted.
"""

from __future__ import annotations

import logging

__all__ = ["Report"]

_MAX_VALUE = 256


class Report:
    """The voice of one node."""

    def __init__(self, node: str) -> None:
        self._logger = logging.getLogger(f"zmqinfer.{node}")

    def info(self, event: str, **values: object) -> None:
        """Says something that a person would want to know."""
        self._say(logging.INFO, event, values)

    def warning(self, event: str, **values: object) -> None:
        """Says that something was wrong and was coped with."""
        self._say(logging.WARNING, event, values)

    def error(self, event: str, **values: object) -> None:
        """Says that something was wrong and was not coped with."""
        self._say(logging.ERROR, event, values)

    def _say(self, level: int, event: str, values: dict[str, object]) -> None:
        if self._logger.isEnabledFor(level):
            pairs = " ".join(f"{key}={_shown(value)}" for key, value in values.items())
            self._logger.log(level, "%s %s", event, pairs)


def _shown(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)[:_MAX_VALUE]
    if text.isprintable() and " " not in text and text:
        return text
    return '"' + text.encode("unicode_escape").decode().replace('"', '\\"') + '"'
