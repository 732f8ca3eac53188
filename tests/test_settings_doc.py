"""docs/OPERATIONS.md lists the settings as zmqinfer/config.py declares them.

python tests/test_settings_doc.py --write     writes the tables again
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click
import pytest

from zmqinfer.cli import cli
from zmqinfer.config import ClientSettings, GatewaySettings, ModelSettings, Setting, Settings, WorkerSettings

PAGE = Path(__file__).parents[1] / "docs" / "OPERATIONS.md"
# What each block on the page holds: between `<!-- NAME: begin -->` and `<!-- NAME: end -->`.
SETTINGS: dict[str, type[Settings]] = {
    "gateway settings": GatewaySettings,
    "worker settings": WorkerSettings,
    "client settings": ClientSettings,
    "model settings": ModelSettings,
}


def table(settings: type[Settings]) -> str:
    rows = ["| setting | default | unit | allowed | meaning |", "|---|---|---|---|---|"]
    rows += [
        f"| `{one.name}` | {shown(one.default)} | {one.unit} | {allowed(one)} | {one.meaning} |"
        for one in settings.describe()
    ]
    return "\n".join(rows)


def shown(value: Any) -> str:
    if type(value) is bool:
        return str(value).lower()
    return f"{value:,}" if isinstance(value, int | float) else f"`{value}`" if value else "empty"


def allowed(one: Setting) -> str:
    if one.choices:
        return ", ".join(f"`{choice}`" for choice in one.choices)
    if one.low is None or one.high is None:
        return "true, false" if type(one.default) is bool else "text"
    return f"{one.low:,} to {one.high:,}"


def block(name: str) -> str:
    return table(SETTINGS[name])


def split(page: str, name: str) -> tuple[str, str, str]:
    """What stands before, in and after a block."""
    before, begin, rest = page.partition(f"<!-- {name}: begin -->\n")
    inside, end, after = rest.partition(f"\n<!-- {name}: end -->")
    assert begin, f"{PAGE.name} has no block {name!r}"
    assert end, f"{PAGE.name}: block {name!r} does not end"
    return before + begin, inside, end + after


@pytest.mark.parametrize("name", list(SETTINGS))
def test_page_lists_what_is_declared(name: str) -> None:
    """If not: python tests/test_settings_doc.py --write."""
    page = PAGE.read_text(encoding="utf-8")

    assert split(page, name)[1] == block(name), "run: python tests/test_settings_doc.py --write"


def test_every_option_has_the_variable_of_its_name() -> None:
    """ZMQINFER_<COMMAND>_<OPTION>, as the page says."""
    with click.Context(cli) as context:
        for command in cli.list_commands(context):
            found = cli.get_command(context, command)
            assert found is not None
            for option in [param for param in found.params if isinstance(param, click.Option)]:
                spelling = max(option.opts, key=len).lstrip("-").replace("-", "_")
                assert option.envvar == f"ZMQINFER_{command}_{spelling}".upper()


def write() -> None:
    page = PAGE.read_text(encoding="utf-8")
    for name in list(SETTINGS):
        before, _, after = split(page, name)
        page = before + block(name) + after
    PAGE.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:] != ["--write"]:
        sys.exit(__doc__)
    write()
