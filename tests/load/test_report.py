"""The text report: what stands in it, and that it fits a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from zmqinfer.errors import ConfigError
from zmqinfer.load import report
from zmqinfer.load.report import report_text, write_report
from zmqinfer.load.results import (
    Batching,
    BenchResult,
    ClosedLoop,
    Configuration,
    LoadResult,
    Machine,
    OpenLoop,
    Round,
    Versions,
)
from zmqinfer.load.statistics import Latencies


def scenario(
    name: str,
    *,
    model: str = "digits",
    in_flight: int = 50,
    successes: int = 1000,
    failures: Mapping[str, int] | None = None,
    walls_s: tuple[float, ...] = (0.5, 0.4, 0.6),
    batching: Batching | None = None,
) -> LoadResult:
    latencies = Latencies.of(np.linspace(1.0, 2.0, successes))
    sent = successes + sum((failures or {}).values())
    rounds = tuple(Round(sent, wall_s, latencies, failures or {}) for wall_s in walls_s)
    workers = {"worker_10": 900, "worker_2": 1000, "worker_1": 1100}
    return LoadResult(name, model, ClosedLoop(in_flight, sent), rounds, workers, 14.25, 0.75, batching)


MEDIUM = scenario("medium")
RESULT = BenchResult(
    scenarios=(MEDIUM,),
    comparison=(),
    machine=Machine(2, "A Processor", 24 * 2**30, "Linux-6.1", "CPython 3.11.8"),
    versions=Versions("0.1.0", "27.0", "4.3.5", "2.0", "1.1"),
    configuration=Configuration(3, ("tcp://127.0.0.1:5555",), {"policy": "adaptive"}),
    started_at="2026-01-31T12:00:00+00:00",
    command="zmqinfer bench --preset medium",
)


def line_of(text: str, start: str) -> str:
    """The one line that starts so, with single spaces."""
    (line,) = [line for line in text.splitlines() if line.strip().startswith(start)]
    return " ".join(line.split())


def test_headline_counts_failures_and_wrong_answers_of_everything() -> None:
    """It stands in the third line, and counts a scenario that is both asked for and compared once."""
    failing = scenario("heavy", failures={"OVERLOADED": 5})
    wrong = scenario("light")
    first = wrong.rounds[0]
    wrong = replace(wrong, rounds=(replace(first, sent=first.sent + 2, wrong_answers=2),))

    text = report_text(replace(RESULT, comparison=(MEDIUM, failing, wrong)))

    headline = "FAILED: 7,017 requests, 7,000 successes, 15 failures, 2 wrong answers"
    assert text.splitlines()[0] == "zmqinfer benchmark of 2026-01-31 12:00:00 UTC"
    assert text.splitlines()[2] == headline
    assert report.headline(RESULT) == "OK: 3,000 requests, 3,000 successes, 0 failures, 0 wrong answers"


def test_figures_are_the_median_rounds_with_units_and_spread() -> None:
    text = report_text(RESULT)

    assert line_of(text, "throughput") == "throughput 2,000 requests/s spread 41.7 %"
    assert line_of(text, "latency mean") == "latency mean 1.500 ms"
    assert line_of(text, "latency p50") == "latency p50 1.499 ms spread 0.0 %"
    assert line_of(text, "latency p99 ") == "latency p99 1.990 ms"
    assert line_of(text, "latency max") == "latency max 2.000 ms"
    assert line_of(text, "mean batch size") == "mean batch size 14.25 rows"
    assert line_of(text, "load imbalance").startswith("load imbalance 10.0 %")
    assert line_of(text, "load generator") == "load generator 0.50 cores 0.75 s of CPU"
    assert "NOT STEADY" in text
    assert "NOT STEADY" not in report_text(replace(RESULT, scenarios=(scenario("s", walls_s=(1.0, 1.01, 1.02)),)))


def test_figure_without_ten_samples_beyond_it_is_a_dash_with_a_note() -> None:
    text = report_text(RESULT)
    few = report_text(replace(RESULT, scenarios=(scenario("few", successes=15),)))

    assert line_of(text, "latency p99.9") == "latency p99.9 - ms"
    assert "- fewer than 10 samples lie beyond it: p99.9 takes 10,000 successes a round" in text
    assert line_of(few, "latency p50") == "latency p50 - ms"
    assert "p50 takes 20, p95 takes 200, p99 takes 1,000" in few
    assert "samples lie beyond" not in report_text(replace(RESULT, scenarios=(scenario("all", successes=10_000),)))


def test_workers_stand_in_natural_order_with_their_shares() -> None:
    text = report_text(RESULT)

    assert line_of(text, "worker_1 ") == "worker_1 1,100 36.7 %"
    assert text.index("worker_1 ") < text.index("worker_2 ") < text.index("worker_10 ")


def test_loads_stand_side_by_side_lightest_first() -> None:
    """Of two scenarios with one name the one that was asked for counts; an open loop comes last."""
    open_loop = replace(scenario("steady"), load=OpenLoop(2000.0, 10.0))
    compared = (
        open_loop,
        scenario("heavy", in_flight=100),
        replace(MEDIUM, mean_batch_size=1.0),
        scenario("light", in_flight=20),
    )

    found = report.side_by_side(replace(RESULT, comparison=compared))

    assert [s.name for s in found] == ["light", "medium", "heavy", "steady"]
    assert found[1] == MEDIUM
    text = report_text(replace(RESULT, comparison=compared))
    assert line_of(text, "heavy digits") == "heavy digits 100 in flight 2,000 1.499 1.990 14.25 0"
    assert line_of(text, "steady digits").startswith("steady digits 2,000 requests/s")
    assert "side by side" not in report_text(RESULT)


def test_batching_on_and_off_are_compared_with_their_ratio() -> None:
    on, off = Batching.ON, Batching.OFF
    compared = (
        scenario("b", batching=off, walls_s=(2.0,)),
        scenario("b", batching=on, walls_s=(0.5,)),
        scenario("b", model="sleep", batching=on, walls_s=(0.1,), failures={"MODEL_ERROR": 3}),
        scenario("b", model="sleep", batching=off, successes=0, failures={"MODEL_ERROR": 3}),
        scenario("b", model="half", batching=on),
    )

    text = report_text(replace(RESULT, comparison=compared))

    assert "  digits: 4.00 times the throughput with batching" in text
    assert "  sleep: no ratio, one side had no success" in text
    assert line_of(text, "digits on").startswith("digits on 50 in flight 2,000")
    assert line_of(text, "sleep on").endswith(" 3")
    assert "half" not in text
    assert "side by side" not in text, "the sides of that comparison are no loads of their own"


def test_scenario_that_failed_altogether_is_reported() -> None:
    text = report_text(
        replace(RESULT, scenarios=(scenario("dead", successes=0, failures={"UNAVAILABLE": 9, "OVERLOADED": 11}),))
    )

    assert text.splitlines()[2].startswith("FAILED: 60 requests, 0 successes, 60 failures")
    assert "  failures: 33 OVERLOADED, 27 UNAVAILABLE" in text
    assert line_of(text, "throughput") == "throughput 0.0 requests/s"
    assert line_of(text, "latency mean") == "latency mean - ms"


def test_machine_versions_and_command_are_told() -> None:
    text = report_text(RESULT)

    assert "machine   2 cores, A Processor, 24.0 GiB of memory" in text
    assert "versions  zmqinfer 0.1.0, pyzmq 27.0, libzmq 4.3.5, numpy 2.0, msgpack 1.1" in text
    assert "cluster   3 workers, tcp://127.0.0.1:5555" in text
    assert "settings  policy = adaptive" in text
    assert "command   zmqinfer bench --preset medium" in text


def test_no_line_is_longer_than_a_terminal_and_none_can_be_forged() -> None:
    """Names, errors and the command are other people's; control characters and line ends become ?."""
    long = "a_very_long_name_" * 20
    hostile = "x\nOK: 1 request\x1b[31m\udc80"
    failures = {f"CODE_{i}": 10**9 for i in range(30)}
    result = replace(
        RESULT,
        scenarios=(scenario(long, model=long, failures=failures), scenario(hostile, model=hostile)),
        comparison=tuple(scenario("b", model=long, batching=b, walls_s=(1e-6,)) for b in Batching),
        configuration=Configuration(300, (long, "tcp://127.0.0.1:5557"), {long: long, "b": hostile}),
        command=f"zmqinfer {long} {hostile}",
    )
    result = replace(result, scenarios=(replace(result.scenarios[0], worker_requests={long: 10**12, hostile: 1}),))

    text = report_text(result)

    assert max(len(line) for line in text.splitlines()) <= report.WIDTH <= 100
    assert all(c.isprintable() or c == "\n" for c in text)
    assert not any(line.startswith("OK: 1") for line in text.splitlines())


def test_report_is_written_as_a_file(tmp_path: Path) -> None:
    path = write_report(RESULT, tmp_path)

    assert path == tmp_path / "performance_report.txt"
    assert path.read_text() == report_text(RESULT)
    with pytest.raises(ConfigError, match="cannot write"):
        write_report(RESULT, path)


@pytest.mark.parametrize(
    ("name", "width", "expected"),
    [
        ("short", 9, "short"),
        ("exactly_9", 9, "exactly_9"),
        ("worker_with_10", 9, "wor..h_10"),
        ("tab\t", 9, "tab?"),
    ],
)
def test_long_name_gives_its_middle(name: str, width: int, expected: str) -> None:
    assert report.fitted(name, width) == expected


@pytest.mark.parametrize(
    ("latency_ms", "words"),
    [
        (None, "-"),
        (0.0, "0.00 us"),
        (0.00512, "5.12 us"),
        (0.5, "0.500 ms"),
        (123.4, "123 ms"),
        (999.6, "1.00 s"),
        (61_000.0, "61.0 s"),
    ],
)
def test_time_has_three_digits_and_a_unit(latency_ms: float | None, words: str) -> None:
    assert report.short_time(latency_ms) == words
