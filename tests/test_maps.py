"""The maps of the packages, in their docstrings, name what is in them."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = [
    *(f"zmqinfer/{package}" for package in ("launch", "loop", "machine", "node", "policy")),
    *(f"zmqinfer/machine/{package}" for package in ("client", "gateway", "worker")),
    "bench",
    "trials",
]


@pytest.mark.parametrize("package", PACKAGES)
def test_map_names_each_module_once(package: str) -> None:
    """And none that is not there."""
    folder = ROOT / package
    there = [path.stem for path in folder.iterdir() if path.suffix == ".py" or (path.is_dir() and any(path.iterdir()))]

    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text())) or ""
    named = re.findall(r"^ *(\w+) {2,}\S", text, re.MULTILINE)

    assert sorted(named) == sorted(name for name in there if not name.startswith("__"))


def test_files_that_the_architecture_names_are_there() -> None:
    """In the package, or from the root."""
    named = re.findall(r"\b(?:[a-z_]+/)+[a-z_]+\.py\b", (ROOT / "docs" / "ARCHITECTURE.md").read_text())

    assert len(named) > 50
    assert [name for name in named if not (ROOT / name).exists() and not (ROOT / "zmqinfer" / name).exists()] == []
