"""Ctrl-C while a command is still being imported."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

# As if Ctrl-C came when a module is looked for.
INTERRUPT = """
import sys
before = set(sys.modules)
class Interrupt:
    def find_spec(self, name, *_):
        if name == {module!r}:
            print(",".join(sorted(set(sys.modules) - before)))
            raise KeyboardInterrupt
sys.meta_path.insert(0, Interrupt())
from zmqinfer.__main__ import main
sys.argv = ["zmqinfer", "simulate", "mixed"]
main()
"""


@pytest.mark.parametrize("module", ["zmqinfer.cli", "click", "zmqinfer.cli.simulate", "numpy"])
def test_ctrl_c_ends_a_command_that_is_still_imported(module: str) -> None:
    """Without a traceback; what comes before anything can catch it is next to nothing."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPT.format(module=module)], capture_output=True, text=True, timeout=30, check=False
    )

    assert (done.returncode, done.stderr.strip()) == (130, "")
    if module == "zmqinfer.cli":
        assert set(done.stdout.strip().split(",")) <= {"__future__", "zmqinfer", "zmqinfer.__main__"}


def test_the_shells_command_begins_there() -> None:
    """As `python -m zmqinfer` does."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())

    assert project["project"]["scripts"] == {"zmqinfer": "zmqinfer.__main__:main"}
