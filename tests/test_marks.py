"""Tests that need more are counted: fewer than recorded fail a full run, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.marks import Count, Marks
from tests.processes import ROOT

CONFTEST = """
import os
from bench.packages import Missing
from tests.marks import Marks, is_full

def pytest_configure(config):
    def moon():
        if "MOONLESS" in os.environ:
            raise Missing("there is no moon; wait for it")
    numbers = {"moon": int(os.environ.get("RECORDED", "2"))}
    marks = Marks(numbers, {"moon": moon}, os.environ.get("WITHOUT", ""), is_full=is_full(config))
    config.pluginmanager.register(marks)
"""
TESTS = """
import os
import pytest

def test_by_day(): pass

@pytest.mark.moon
def test_by_night(): pass

@pytest.mark.moon
def test_at_full_moon():
    if "CLOUDS" in os.environ:
        pytest.skip("not seen")
"""
SETTINGS = """
[tool.pytest.ini_options]
testpaths = ["checks"]
addopts = ["--import-mode=importlib"]
markers = ["moon: needs the moon"]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "arguments", "code", "words"),
    [
        ({}, [], 0, "moon: 2 of 2 ran\n"),
        (
            {"MOONLESS": "1"},
            [],
            1,
            "moon: 0 of 2 ran: there is no moon; wait for it; to leave them out: ZMQINFER_WITHOUT=moon\n",
        ),
        ({"MOONLESS": "1", "WITHOUT": "moon"}, [], 0, "moon: 0 of 2 ran, left out by ZMQINFER_WITHOUT\n"),
        ({"CLOUDS": "1"}, [], 1, "moon: 1 of 2 ran; to leave them out: ZMQINFER_WITHOUT=moon\n"),
        ({"MOONLESS": "1", "RECORDED": "3"}, ["-k", "night"], 0, "there is no moon; wait for it\n"),
    ],
)
def test_a_full_run_says_how_many_ran(
    tmp_path: Path, environment: dict[str, str], arguments: list[str], code: int, words: str
) -> None:
    """It fails if fewer ran than are recorded; who chose among the tests hears only why some are skipped."""
    (tmp_path / "checks").mkdir()
    (tmp_path / "checks" / "conftest.py").write_text(CONFTEST)
    (tmp_path / "checks" / "test_sky.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text(SETTINGS)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider", *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    said = done.stdout + done.stderr
    assert done.returncode == code, said
    assert words in said
    assert ("tests that need more" in said) == (not arguments)


@pytest.mark.parametrize("recorded", [1, 2, 3])
def test_more_or_fewer_tests_than_recorded_are_wrong_whether_they_ran_or_not(recorded: int) -> None:
    """Also those of a mark that is left out."""
    for count in (Count(recorded, {"a", "b"}, {"a", "b"}), Count(recorded, {"a", "b"}, is_left_out=True)):
        assert count.is_right == (recorded == 2)
        assert ("; 2 tests have the mark" in count.told("moon")) == (recorded != 2)


def test_a_mark_that_is_none_cannot_be_left_out() -> None:
    """It is named."""
    with pytest.raises(pytest.UsageError, match="ZMQINFER_WITHOUT is 'sun', expected some of moon"):
        Marks({"moon": 2}, {}, "sun", is_full=True)
