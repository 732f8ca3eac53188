"""What a benchmark found, and its way through the file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.errors import ConfigError
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
from zmqinfer.load.stored import RESULTS_FILE, read_results, write_atomically, write_results
from zmqinfer.load.summary import summarize

MEDIUM = LoadResult(
    name="medium",
    model="digits",
    load=ClosedLoop(50, 1003),
    rounds=tuple(
        Round(1003, wall_s, Latencies.of(np.linspace(0.1, 9.0, 1000)), {"OVERLOADED": 2}, wrong_answers=1)
        for wall_s in (0.5, 0.4, 0.6)
    ),
    worker_requests={"worker_1": 1600, "worker_2": 1409},
    mean_batch_size=14.25,
    client_cpu_s=1.5,
)
OPEN = LoadResult("sleep", "sleep", OpenLoop(20.0, 2.0), (Round(1, 2.0, Latencies.of([3.5])),), batching=Batching.OFF)
DEAD = LoadResult("dead", "echo", ClosedLoop(1, 1), (Round(1, 0.1, Latencies.of([]), {"UNAVAILABLE": 1}),))
RESULT = BenchResult(
    scenarios=(MEDIUM,),
    comparison=(OPEN, DEAD),
    machine=Machine(2, "A Processor", None, "Linux", "CPython 3.11.8"),
    versions=Versions("0.1.0", "27.0", "4.3.5", "2.0", "1.1"),
    configuration=Configuration(
        3, ("tcp://127.0.0.1:5555",), {"policy": "adaptive", "window": 20, "x": None, "on": True}
    ),
    started_at="2026-01-31T12:00:00+00:00",
    command="zmqinfer bench --preset medium",
)


def test_results_come_back_from_the_file_as_they_were(tmp_path: Path) -> None:
    path = write_results(RESULT, tmp_path / "new" / "results")

    assert path == tmp_path / "new" / "results" / RESULTS_FILE
    assert read_results(path.parent) == RESULT
    assert read_results(path) == RESULT
    assert [p.name for p in path.parent.iterdir()] == [RESULTS_FILE]


@pytest.mark.slow
@given(samples=st.lists(st.floats(0, 3e5), max_size=30), wall_s=st.floats(1e-6, 1e6), name=st.text())
def test_any_round_comes_back_as_it_was(
    samples: list[float], wall_s: float, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = replace(
        RESULT,
        scenarios=(replace(OPEN, name=name, rounds=(Round(len(samples), wall_s, Latencies.of(samples)),)),),
    )
    directory = tmp_path_factory.getbasetemp() / "any"

    write_results(result, directory)

    assert read_results(directory) == result


def test_file_carries_the_summary_and_no_long_lines_of_samples(tmp_path: Path) -> None:
    document = json.loads(write_results(RESULT, tmp_path).read_text())

    assert document["schema"] == 1
    assert document["scenarios"][0]["summary"]["failed"] == summarize(MEDIUM).failed == 6
    assert document["scenarios"][0]["rounds"][0]["latencies"]["p50_ms"] == MEDIUM.rounds[0].latencies.p50_ms
    assert len(document["scenarios"][0]["rounds"][0]["latencies"]["histogram"]["counts"]) < 200


def test_keys_of_a_later_version_are_ignored(tmp_path: Path) -> None:
    path = write_results(RESULT, tmp_path)
    document = json.loads(path.read_text())
    document["weather"] = "fine"
    document["scenarios"][0]["rounds"][0]["weather"] = "fine"
    path.write_text(json.dumps(document))

    assert read_results(tmp_path) == RESULT


def _without(document: Any, *path: Any) -> None:
    for key in path[:-1]:
        document = document[key]
    del document[path[-1]]


def _with(value: Any, *path: Any) -> Callable[[Any], None]:
    def change(document: Any) -> None:
        for key in path[:-1]:
            document = document[key]
        document[path[-1]] = value

    return change


FIRST = ("scenarios", 0)
WRONG = [
    (lambda d: _without(d, "schema"), "schema None, expected 1"),
    (_with(2, "schema"), "schema 2, expected 1; read it with the zmqinfer that wrote it"),
    (_with(True, "schema"), "schema True"),
    (lambda d: _without(d, "machine", "cores"), "machine.cores is missing, expected int"),
    (_with("two", "machine", "cores"), "machine.cores is 'two', expected int"),
    (_with(True, "machine", "cores"), "machine.cores is True, expected int"),
    (_with(1.5, "machine", "memory_bytes"), "machine.memory_bytes is 1.5, expected int or null"),
    (_with([], "scenarios"), "scenarios is empty"),
    (_with({}, "scenarios"), "scenarios is {}, expected list"),
    (_with([], *FIRST, "rounds"), r"scenarios\[0\]: .*rounds is empty"),
    (_with({"rate_per_s": 1}, *FIRST, "load"), r"scenarios\[0\].load is .*, expected ClosedLoop or OpenLoop"),
    (_with("maybe", *FIRST, "batching"), r"batching is 'maybe', expected Batching or null"),
    (
        _with("fast", *FIRST, "rounds", 1, "wall_s"),
        r"scenarios\[0\].rounds\[1\].wall_s is 'fast', expected number",
    ),
    (
        _with(0, *FIRST, "rounds", 1, "wall_s"),
        r"scenarios\[0\].rounds\[1\]: wall_s is 0.0, expected more than 0",
    ),
    (_with(1004, *FIRST, "rounds", 0, "sent"), "sent is 1004, but 1003 requests have an outcome"),
    (_with({"A": -1, "B": 3}, *FIRST, "rounds", 0, "failures"), "counts, expected 0 or more"),
    (_with({"w": -1}, *FIRST, "worker_requests"), "counts, expected 0 or more"),
    (_with([1], *FIRST, "worker_requests"), r"worker_requests is \[1\], expected object"),
    (_with([1], *FIRST, "rounds", 0, "latencies", "histogram", "counts"), "its histogram holds 1"),
    (_with(float("nan"), *FIRST, "mean_batch_size"), "mean_batch_size is nan"),
    (_with(10**400, *FIRST, "rounds", 0, "wall_s"), "too large"),
    (_with("noon", "started_at"), "noon"),
    (_with("2026-01-31T12:00:00", "started_at"), "expected an instant in UTC"),
]


@pytest.mark.parametrize(("change", "said"), WRONG)
def test_wrong_file_is_refused_with_the_place(change: Callable[[Any], None], said: str, tmp_path: Path) -> None:
    """One ConfigError that names the file, the key, the value and what was expected."""
    path = write_results(RESULT, tmp_path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))

    with pytest.raises(ConfigError, match=said) as refusal:
        read_results(tmp_path)

    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b'{"schema": 1', b"null", b"[1]", b"1"])
def test_file_that_is_no_results_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / RESULTS_FILE).write_bytes(content)

    with pytest.raises(ConfigError, match=RESULTS_FILE):
        read_results(tmp_path)


def test_missing_results_say_how_to_make_some(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"no results at .*{RESULTS_FILE}; make some with: zmqinfer bench --out"):
        read_results(tmp_path)
    with pytest.raises(ConfigError, match="no results at"):
        read_results(tmp_path / "nowhere")


def test_failed_write_leaves_the_old_file_and_no_draft(tmp_path: Path) -> None:
    """The place is a directory, so the last step fails; nothing is left behind."""
    taken = tmp_path / "report.txt"
    taken.mkdir()

    with pytest.raises(ConfigError, match=r"cannot write .*report.txt: Is a directory; choose another place"):
        write_atomically(taken, b"new")

    assert [p.name for p in tmp_path.iterdir()] == ["report.txt"]


def test_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("")

    with pytest.raises(ConfigError, match="cannot write"):
        write_results(RESULT, tmp_path / "results")


def test_clean_means_that_every_request_got_its_right_answer() -> None:
    assert not RESULT.is_clean
    assert not replace(RESULT, scenarios=(OPEN,)).is_clean, "a comparison counts too"
    assert replace(RESULT, scenarios=(OPEN,), comparison=()).is_clean
    wrong = replace(OPEN, rounds=(Round(2, 2.0, Latencies.of([3.5]), wrong_answers=1),))
    assert not replace(RESULT, scenarios=(wrong,), comparison=()).is_clean


def test_machine_and_versions_describe_this_process() -> None:
    machine, versions = Machine.here(), Versions.installed()

    assert machine.cores >= 1
    assert machine.cpu_model
    assert machine.memory_bytes is None or machine.memory_bytes > 2**20
    assert machine.python.startswith("CPython 3.") or machine.python
    assert versions.numpy == np.__version__
    assert versions.libzmq.count(".") == 2
