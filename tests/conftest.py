"""Settings for all tests, and the count of those that need more than every machine has."""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

# The cores are shared with whatever else runs: a slow example is no failure.
settings.register_profile("zmqinfer", deadline=None, derandomize=True)
settings.load_profile("zmqinfer")

RECORDED: dict[str, int] = tomllib.loads((Path(__file__).parent / "marks.toml").read_text())


class Census:
    """Counts what ran, so that a test that a machine cannot run is never missed in silence."""

    def __init__(self, config: pytest.Config, without: set[str]) -> None:
        self._config = config
        self._without = without
        self._ran: Counter[str] = Counter()

    @property
    def _is_whole(self) -> bool:
        option = self._config.option
        whole = self._config.args_source is pytest.Config.ArgsSource.TESTPATHS
        return whole and not (option.keyword or option.markexpr or option.collectonly or option.lf)

    def _missing(self) -> dict[str, str]:
        """The marks of which fewer ran than there should, and what is to be said of it."""
        return {
            mark: f"{mark}: {self._ran[mark]} of {count} ran" + (", left out" if mark in self._without else "")
            for mark, count in RECORDED.items()
            if self._ran[mark] < count
        }

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and not report.skipped:
            self._ran.update(mark for mark in RECORDED if mark in report.keywords)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_whole and not self._missing().keys() <= self._without and not session.exitstatus:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self._is_whole:
            return
        missing = self._missing()
        for mark, count in RECORDED.items():
            terminalreporter.write_line(missing.get(mark, f"{mark}: {self._ran[mark]} of {count} ran"))
        if not missing.keys() <= self._without:
            terminalreporter.write_line("too few; to leave some out: ZMQINFER_WITHOUT=netns,chaos")


def pytest_configure(config: pytest.Config) -> None:
    """Begins to count."""
    without = set(filter(None, os.environ.get("ZMQINFER_WITHOUT", "").split(",")))
    if unknown := without - RECORDED.keys():
        raise pytest.UsageError(f"ZMQINFER_WITHOUT names {', '.join(sorted(unknown))}, expected: {', '.join(RECORDED)}")
    config.pluginmanager.register(Census(config, without))
