"""Settings for all tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from hypothesis import settings

from tests.marks import WITHOUT, Marks, is_full, recorded
from trials import netns

# The cores are shared with whatever else runs: a slow example is no failure.
settings.register_profile("zmqinfer", deadline=None, derandomize=True)
settings.load_profile("zmqinfer")
# Under nohup, or in the background of a script: what the tests start would ignore it too, as it should for its users.
for number, usual in ((signal.SIGHUP, signal.SIG_DFL), (signal.SIGINT, signal.default_int_handler)):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, usual)


def pytest_configure(config: pytest.Config) -> None:
    """Counts the tests that need more."""
    numbers = recorded(Path(__file__).with_name("marks.toml"))
    marks = Marks(numbers, {"netns": netns.require}, os.environ.get(WITHOUT, ""), is_full=is_full(config))
    config.pluginmanager.register(marks, "marks")
