"""Tests that need more than the others: how many of them ran, mark by mark.

tests/marks.toml records how many tests have each of these marks. The tests of a mark whose needs are not met are
skipped with the reason. After a full run pytest says for each mark how many ran, and the session fails if that are
fewer than recorded; unless the environment variable ZMQINFER_WITHOUT names the mark: `ZMQINFER_WITHOUT=netns,chaos`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from bench.packages import Missing

__all__ = ["WITHOUT", "Count", "Marks", "is_full", "recorded"]

WITHOUT = "ZMQINFER_WITHOUT"
# Options of pytest that leave tests out, or run none.
_SELECTING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "collectonly", "lf", "stepwise", "maxfail")


def recorded(path: Path) -> dict[str, int]:
    """Reads how many tests have each mark."""
    return {mark: int(count) for mark, count in tomllib.loads(path.read_text()).items()}


@dataclass
class Count:
    """What became of the tests of one mark.

    Attributes:
        recorded: how many there are to be.
        found: the ids of those that there are.
        ran: the ids of those that were called and did not skip themselves.
        missing: why they cannot run here; empty if they can.
        is_left_out: whether the environment says that they need not run.
    """

    recorded: int
    found: set[str] = field(default_factory=set)
    ran: set[str] = field(default_factory=set)
    missing: str = ""
    is_left_out: bool = False

    @property
    def is_right(self) -> bool:
        """Whether nothing is to be said against it."""
        is_complete = self.is_left_out or len(self.ran) == self.recorded
        return is_complete and len(self.found) == self.recorded

    def told(self, mark: str) -> str:
        """Returns a line for the end of the run."""
        line = f"{mark}: {len(self.ran)} of {self.recorded} ran"
        if len(self.found) != self.recorded:
            return f"{line}; {len(self.found)} tests have the mark: write that in tests/marks.toml if it is meant"
        if self.is_left_out:
            return f"{line}, left out by {WITHOUT}"
        if self.missing:
            line += f": {self.missing}"
        return line if self.is_right else f"{line}; to leave them out: {WITHOUT}={mark}"


class Marks:
    """Counts for pytest, as one of its plug-ins."""

    def __init__(
        self, numbers: Mapping[str, int], needs: Mapping[str, Callable[[], None]], without: str, *, is_full: bool
    ) -> None:
        """Takes what is recorded, what to ask whether tests of a mark can run, and the environment's word.

        Args:
            numbers: how many tests have each mark.
            needs: for some marks, what raises `Missing` if their tests cannot run here.
            without: marks with commas between them.
            is_full: whether all tests are to run, so that the numbers are judged.
        """
        left_out = {word.strip() for word in without.split(",") if word.strip()}
        if left_out - set(numbers):
            raise pytest.UsageError(f"{WITHOUT} is {without!r}, expected some of {', '.join(numbers)}")
        self._needs = needs
        self._is_full = is_full
        self.counts = {mark: Count(number, is_left_out=mark in left_out) for mark, number in numbers.items()}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Counts the tests of each mark, and skips those that cannot run."""
        for mark, count in self.counts.items():
            own = [item for item in items if item.get_closest_marker(mark) is not None]
            count.found = {item.nodeid for item in own}
            reason = self._reason(mark, count) if own else ""
            if reason:
                for item in own:
                    item.add_marker(pytest.mark.skip(reason=reason))

    def _reason(self, mark: str, count: Count) -> str:
        if count.is_left_out:
            return f"left out by {WITHOUT}"
        try:
            self._needs.get(mark, lambda: None)()
        except Missing as missing:
            count.missing = str(missing)
        return count.missing

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Counts a test that was called."""
        if report.when == "call" and not report.skipped:
            for count in self.counts.values():
                if report.nodeid in count.found:
                    count.ran.add(report.nodeid)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        """Fails the session if fewer ran than are recorded."""
        if self._is_full and exitstatus == pytest.ExitCode.OK and not all(one.is_right for one in self.counts.values()):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Says how many ran."""
        if self._is_full:
            terminalreporter.section("tests that need more")
            for mark, count in self.counts.items():
                terminalreporter.write_line(count.told(mark), red=not count.is_right)


def is_full(config: pytest.Config) -> bool:
    """Whether nobody has chosen among the tests."""
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not any(
        config.getoption(name, default=None) for name in _SELECTING
    )
