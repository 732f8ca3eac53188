"""A test that a machine cannot run is never missed in silence."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = """
[tool.pytest.ini_options]
testpaths = ["tests"]
addopts = ["--import-mode=importlib", "--strict-markers"]
markers = ["netns: counted", "chaos: counted"]
"""
TESTS = """
import pytest

@pytest.mark.netns
def test_one():
    pass

@pytest.mark.netns
@pytest.mark.skipif(WITHOUT_ROOT, reason="not root")
def test_two():
    pass

@pytest.mark.chaos
def test_three():
    pass
"""


def counted(folder: Path, *words: str, without_root: bool, left_out: str = "") -> tuple[int, str]:
    """Runs a project of three tests that has our conftest; returns how it ended and what it said."""
    tests = folder / "tests"
    tests.mkdir()
    (folder / "pyproject.toml").write_text(PROJECT)
    shutil.copy(Path(__file__).with_name("conftest.py"), tests)
    (tests / "marks.toml").write_text("netns = 2\nchaos = 1\n")
    (tests / "test_it.py").write_text(TESTS.replace("WITHOUT_ROOT", str(without_root)))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *words],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, "ZMQINFER_WITHOUT": left_out},
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("without_root", "left_out", "code", "said"),
    [
        (False, "", 0, "netns: 2 of 2 ran\nchaos: 1 of 1 ran\n"),
        (True, "", 1, "netns: 1 of 2 ran\nchaos: 1 of 1 ran\ntoo few"),
        (True, "netns", 0, "netns: 1 of 2 ran, left out\nchaos: 1 of 1 ran\n"),
        (False, "nets", 4, "ZMQINFER_WITHOUT names nets, expected: netns, chaos"),
    ],
)
def test_fewer_than_recorded_fails(tmp_path: Path, without_root: bool, left_out: str, code: int, said: str) -> None:
    """Unless they are left out by name."""
    ended, text = counted(tmp_path, without_root=without_root, left_out=left_out)

    assert said in text
    assert ended == code


@pytest.mark.slow
def test_a_part_of_the_tests_is_not_counted(tmp_path: Path) -> None:
    """Who asks for some has left out the others himself."""
    ended, text = counted(tmp_path, "-k", "one", without_root=True)

    assert ended == 0
    assert "ran" not in text
