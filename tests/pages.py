"""Blocks of the documentation that are written by a program, each between `<!-- NAME: begin -->` and its end."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

__all__ = ["DOCS", "inside", "rewrite"]

DOCS = Path(__file__).parents[1] / "docs"


def inside(page: Path, name: str) -> str:
    """Returns what a block of a page holds."""
    return _split(page, name)[1]


def rewrite(page: Path, name: str, lines: Iterable[str]) -> None:
    """Writes a block again, and nothing else of its page."""
    before, _, after = _split(page, name)
    page.write_text(before + "\n".join(lines) + after, encoding="utf-8")


def _split(page: Path, name: str) -> tuple[str, str, str]:
    """What stands before, in and after a block."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(f"<!-- {name}: begin -->\n")
    held, end, after = rest.partition(f"\n<!-- {name}: end -->")
    assert begin, f"{page.name} has no block {name!r}"
    assert end, f"{page.name}: block {name!r} does not end"
    return before + begin, held, end + after
