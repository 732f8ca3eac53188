"""One figure: what is asked, what was measured, and what does not hold."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from dataclasses import dataclass, field

__all__ = ["Row", "table"]

_WIDTHS = (16, 44, 56)


@dataclass
class Row:
    """A line of the table.

    Attributes:
        name: what `--only` takes.
        asked: the bound, for people.
        measured: what came out, for people.
        figures: the same as numbers.
        mistakes: a sentence for each thing that does not hold.
    """

    name: str
    asked: str
    measured: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    mistakes: list[str] = field(default_factory=list)

    @property
    def holds(self) -> bool:
        """Whether it is as was asked."""
        return not self.mistakes

    def expect(self, is_so: object, otherwise: str) -> None:
        """Notes a sentence unless something is so."""
        if not is_so:
            self.mistakes.append(otherwise)


def table(rows: Iterable[Row]) -> str:
    """Returns the rows for people, each text broken within its column."""
    lines = [_line(("what", "asked", "measured"), "")]
    for row in rows:
        columns = [
            textwrap.wrap(text, width) for text, width in zip((row.name, row.asked, row.measured), _WIDTHS, strict=True)
        ]
        for number in range(max(map(len, columns))):
            texts = [column[number] if number < len(column) else "" for column in columns]
            lines.append(_line(texts, "" if number else "ok" if row.holds else "NOT"))
    return "\n".join(lines)


def _line(texts: Iterable[str], verdict: str) -> str:
    return "  ".join([*(f"{text:<{width}}" for text, width in zip(texts, _WIDTHS, strict=True)), verdict]).rstrip()
