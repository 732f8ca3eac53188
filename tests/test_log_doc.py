"""The table of log events in docs/OPERATIONS.md has what the code logs, each at its level."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from tests.pages import DOCS
from zmqinfer.policy.rotation import Standing

PACKAGE = Path(__file__).parents[1] / "zmqinfer"
LEVELS = {"info": "INFO", "warning": "WARNING", "error": "ERROR", "raised": "WARNING", "_report": "INFO"}
LISTS = {"events": "INFO", "warnings": "WARNING"}
# Of sentences that are put together: what the changing word may be.
WORDS = {"word": ["goes on", "is stuck in a batch"], "standing.value": [standing.value for standing in Standing]}


def sentences(node: ast.expr) -> list[str]:
    """What an expression that is a sentence may say."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return [node.value]
    if isinstance(node, ast.JoinedStr):
        prefix, changing = node.values
        assert isinstance(prefix, ast.Constant)
        assert isinstance(changing, ast.FormattedValue)
        return [f"{prefix.value}{word}" for word in WORDS[ast.unparse(changing.value)]]
    return []


def logged(call: ast.Call) -> Iterator[tuple[str, str]]:
    """The level and the sentence of each event that a call logs, or leaves for a shell to log."""
    if not isinstance(call.func, ast.Attribute) or not call.args:
        return
    name, owner, first = call.func.attr, ast.unparse(call.func.value), call.args[0]
    if name == "append" and owner.removeprefix("self.") in LISTS and isinstance(first, ast.Tuple):
        yield from ((LISTS[owner.removeprefix("self.")], text) for text in sentences(first.elts[0]))
    elif (name in LEVELS and ("report" in owner.lower())) or name == "_report":
        level = LEVELS[name]
        if name == "raised" and len(call.args) > 2:
            level = ast.unparse(call.args[2]).removeprefix("logging.")
        yield from ((level, text) for text in sentences(first))


def test_the_table_of_log_events_is_complete() -> None:
    """Operators look for lines by these sentences, and set alarms on these levels."""
    said = {
        event
        for path in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call)
        for event in logged(node)
    }

    section = (DOCS / "OPERATIONS.md").read_text(encoding="utf-8").partition("\n## Logs\n")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| \w+ \| ([A-Z]+) \| ([^|]+) \|", section, re.MULTILINE))

    assert said == listed
    assert len(said) > 30
