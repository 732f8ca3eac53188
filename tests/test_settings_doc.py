"""The documentation lists settings, the keys of scenarios and the kinds of faults as they are declared.

PYTHONPATH=. python tests/test_settings_doc.py --write     writes the tables again
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest

from tests.pages import DOCS, inside, rewrite
from zmqinfer.cli import cli
from zmqinfer.config import ClientSettings, GatewaySettings, ModelSettings, Setting, WorkerSettings
from zmqinfer.scenario import FAULTS, Scenario, TimedModel
from zmqinfer.sim.faults import LASTS_S

# Over at once, whatever time was drawn.
MOMENTS = {"cut", "join_worker", "overload", "poison"}


def table(settings: Callable[[], Iterable[Setting]]) -> list[str]:
    rows = ["| setting | default | unit | allowed | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {shown(one.default)} | {one.unit} | {allowed(one)} | {one.meaning} |" for one in settings()
    ]
    return rows


def faults() -> list[str]:
    rows = ["| kind | lasts, in s | what happens |", "|---|---|---|"]
    for kind, meaning in FAULTS.items():
        lasts = "" if kind in MOMENTS else "{:g} to {:g}".format(*LASTS_S[kind])
        rows.append(f"| `{kind}` | {lasts} | {meaning} |")
    return rows


def shown(value: Any) -> str:
    if type(value) is bool:
        return str(value).lower()
    if type(value) is tuple:
        return "{:g} to {:g}".format(*value)
    return f"{value:,}" if isinstance(value, int | float) else f"`{value}`" if value else "empty"


def allowed(one: Setting) -> str:
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.low is None or one.high is None:
        return "true, false" if type(one.default) is bool else "text"
    return f"{one.low:,} to {one.high:,}"


# Each block's page and what it holds.
BLOCKS: dict[str, tuple[Path, Callable[[], list[str]]]] = {
    "gateway settings": (DOCS / "OPERATIONS.md", partial(table, GatewaySettings.describe)),
    "worker settings": (DOCS / "OPERATIONS.md", partial(table, WorkerSettings.describe)),
    "client settings": (DOCS / "OPERATIONS.md", partial(table, ClientSettings.describe)),
    "model settings": (DOCS / "OPERATIONS.md", partial(table, ModelSettings.describe)),
    "scenario keys": (DOCS / "PERFORMANCE.md", partial(table, Scenario.describe)),
    "scenario models": (DOCS / "PERFORMANCE.md", partial(table, TimedModel.describe)),
    "faults": (DOCS / "RELIABILITY.md", faults),
}


@pytest.mark.parametrize("name", list(BLOCKS))
def test_page_lists_what_is_declared(name: str) -> None:
    """If not: PYTHONPATH=. python tests/test_settings_doc.py --write."""
    page, lines = BLOCKS[name]

    assert inside(page, name) == "\n".join(lines()), "run: PYTHONPATH=. python tests/test_settings_doc.py --write"


def test_every_option_has_the_variable_of_its_name() -> None:
    """ZMQINFER_<COMMAND>_<OPTION>, as the page says."""
    with click.Context(cli) as context:
        for command in cli.list_commands(context):
            found = cli.get_command(context, command)
            assert found is not None
            for option in [param for param in found.params if isinstance(param, click.Option)]:
                spelling = max(option.opts, key=len).lstrip("-").replace("-", "_")
                assert option.envvar == f"ZMQINFER_{command}_{spelling}".upper()


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    for name, (page, lines) in BLOCKS.items():
        rewrite(page, name, lines())
