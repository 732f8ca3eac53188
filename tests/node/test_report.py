"""What is logged, and how much of it."""

from __future__ import annotations

import json
import logging
import re

import pytest

from zmqinfer.node.report import Report


@pytest.fixture
def now() -> list[float]:
    return [100.0]


@pytest.fixture
def report(now: list[float], caplog: pytest.LogCaptureFixture) -> Report:
    caplog.set_level(logging.INFO, "zmqinfer.gateway")
    return Report("gateway", lambda: now[0])


def test_values_of_peers_are_cut_and_escaped(report: Report, caplog: pytest.LogCaptureFixture) -> None:
    """One event, one line, whatever a peer calls itself."""
    report.warning("cut off", peer="a\nb", why="x" * 600, took_s=1.23456)

    (line,) = caplog.messages
    assert line == f'cut off peer="a\\nb" why={"x" * 512} took_s=1.235'


def test_each_line_says_which_node_it_is(caplog: pytest.LogCaptureFixture) -> None:
    """Many may log to one place."""
    caplog.set_level(logging.INFO, "zmqinfer.worker")
    Report("worker", worker="w1").info("stuck in a batch", model="m")

    assert caplog.messages == ["stuck in a batch model=m worker=w1"]


def test_what_logging_raises_ends_nobody(report: Report, caplog: pytest.LogCaptureFixture) -> None:
    """A program's filters are its own; and what costs is not asked for a line that is not written."""
    raising = logging.getLogger("zmqinfer.gateway")

    def refuse(_: logging.LogRecord) -> bool:
        raise RuntimeError("of the program's own")

    raising.addFilter(refuse)
    try:
        report.warning("raised", at=lambda: "here")
    finally:
        raising.removeFilter(refuse)
    report.warning("raised", at=lambda: 1 / 0)
    report.warning("raised", at=lambda: "there")
    Report("gateway").warning("raised", at=lambda: "again")
    caplog.set_level(logging.ERROR, "zmqinfer.gateway")
    report.warning("raised", at=lambda: 1 / 0)

    assert caplog.messages == ["raised at=there", "raised at=again"]


def failing() -> BaseException:
    try:
        try:
            json.loads("[")
        except ValueError as cause:
            raise KeyError("secret") from cause
    except KeyError as error:
        return error


@pytest.mark.parametrize("has_tracebacks", [True, False])
def test_what_was_raised_is_a_line_and_where_debugging_the_whole_traceback(
    caplog: pytest.LogCaptureFixture, has_tracebacks: bool
) -> None:
    """Also that of what it came from, but never the words of either, which may hold an input."""
    report = Report("model", has_tracebacks=has_tracebacks, model="m:1")
    report.raised("raised", failing())
    caplog.set_level(logging.DEBUG, "zmqinfer.model")
    report.raised("raised", failing())

    first, second = caplog.messages
    line = r'raised error=KeyError at="test_report\.py:\d+ failing" model=m:1'
    assert re.fullmatch(line, first.split("\n")[0])
    assert ("\n" in first) is has_tracebacks
    assert re.match(line, second)
    cause, effect = second.split("\nJSONDecodeError\n")
    assert re.search(r'decoder\.py", line \d+, in raw_decode\n', cause)
    assert re.search(
        r'test_report\.py", line \d+, in failing\n    raise KeyError\("secret"\) from cause\nKeyError$', effect
    )
    assert "Expecting value:" not in second


def test_an_event_that_peers_repeat_is_ten_lines_a_second(
    report: Report, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """In the long run. The last line before the others says so, and the next one how many there were."""
    for peer in range(1_000):
        report.warning("cut off", peer=peer)
    report.info("worker joined", name="w1")

    assert len(caplog.messages) == 501
    assert caplog.messages[-2:] == ["cut off peer=499 from_here_at_most_per_s=10", "worker joined name=w1"]
    now[0] += 0.25
    for peer in range(3):
        report.warning("cut off", peer=peer)
    assert caplog.messages[-2:] == [
        "cut off peer=0 not_logged_before=500",
        "cut off peer=1 from_here_at_most_per_s=10",
    ]


def test_who_is_lost_at_once_is_named(report: Report, caplog: pytest.LogCaptureFixture) -> None:
    """As when the network between a gateway and all of its workers fails."""
    for number in range(256):
        report.info("worker gone", worker=f"w{number}")

    assert len(caplog.messages) == 256
    assert not any("per_s" in line for line in caplog.messages)
