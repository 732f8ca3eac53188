"""What is logged, and how much of it."""

from __future__ import annotations

import logging

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
    report.warning("cut off", peer="a\nb", why="x" * 300, took_s=1.23456)

    (line,) = caplog.messages
    assert line == f'cut off peer="a\\nb" why={"x" * 256} took_s=1.235'


def test_an_event_that_peers_repeat_is_ten_lines_a_second(
    report: Report, now: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    """Others are not held up by it, and the next line says how many were left out."""
    for peer in range(1_000):
        report.warning("cut off", peer=peer)
    report.info("worker joined", name="w1")

    assert len(caplog.messages) == 11
    assert caplog.messages[-1] == "worker joined name=w1"
    now[0] += 1.0
    report.warning("cut off", peer=7)
    report.warning("cut off", peer=8)
    assert caplog.messages[-2:] == ["cut off peer=7 not_logged_before=990", "cut off peer=8"]
