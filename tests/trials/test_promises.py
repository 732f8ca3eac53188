"""Short forms of the figures hold, and what does not hold is found."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from trials.promises import __main__ as command
from trials.promises import gateways, workers
from trials.promises.cluster import read_events
from trials.promises.load import RIGHT, Call, complaints, counted
from trials.promises.row import Row, table
from trials.promises.witness import Run, Witness, answer_to, input_of, read_journal

# What is said -------------------------------------------------------------------------------------


def test_a_row_holds_until_something_does_not() -> None:
    """Each mistake is a sentence, and the table has a word for the whole."""
    row = Row("kill", "0 failed", "a long text that has to be broken somewhere within its own column of the table")
    row.expect([1], "there is nothing")
    assert "  ok" in table([row])

    row.expect(0, "2 calls failed")

    assert row.mistakes == ["2 calls failed"]
    shown = table([row]).splitlines()
    assert shown[1].startswith("kill ")
    assert shown[1].endswith("  NOT")
    assert "column of the table" in shown[2]


def test_calls_that_failed_are_named() -> None:
    """And a load without a call proves nothing."""
    right, late = Call(1, 10.0, 5.0, 5.1, RIGHT), Call(2, 10.0, 5.0, 5.5, "WORKER_LOST")

    assert complaints([right]) == []
    assert complaints([]) == ["no call was made"]
    (said,) = complaints([right, late])
    assert "1 of 2 calls" in said
    assert "number 2, ended with WORKER_LOST after 0.500 s" in said
    assert counted([right, late]) == "2 calls, 1 failed"


@pytest.mark.parametrize("holds", [True, False])
def test_the_command_says_whether_all_holds(
    holds: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In its exit code, its table and its file."""

    async def figure(_folder: Path) -> Row:
        return Row("fake", "all", "some", {"part": 0.5}, [] if holds else ["half is missing"])

    monkeypatch.setattr(command, "FIGURES", {"fake": figure})
    monkeypatch.setattr("sys.argv", ["promises", "--only", "fake", "--json", str(tmp_path / "out.json")])
    monkeypatch.setattr("signal.signal", lambda *_: None)

    code = command.main()

    assert code == (0 if holds else 1)
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split() == ["fake", "all", "some", "ok" if holds else "NOT"]
    assert ("half is missing" in said.err) is not holds
    (written,) = json.loads((tmp_path / "out.json").read_text())
    assert written["holds"] is holds
    assert written["figures"] == {"part": 0.5}


# What is measured ---------------------------------------------------------------------------------


def test_the_journal_tells_which_call_ran_where_and_when(tmp_path: Path) -> None:
    """A batch without an end has not ended."""
    path = tmp_path / "journal"
    model = Witness(0.0, str(path))
    model.load()
    began = time.monotonic()

    x = np.stack([input_of(7), input_of(8)])
    assert np.array_equal(model.infer({"x": x})["y"], answer_to(x))
    model.close()
    with path.open("a") as journal:
        journal.write("begins 1e9 99 8\n")

    runs = read_journal(path)
    assert set(runs) == {7, 8}
    first, second = runs[8]
    assert first.pid == os.getpid()
    assert began <= first.began_at <= first.ended_at <= time.monotonic()
    assert second == Run(99, 1e9)


def test_events_have_the_instants_of_the_log() -> None:
    """To a millisecond; other lines are none."""
    now = time.time()
    stamp = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(now))
    log = f'drained and stopped\n{stamp},250 INFO    zmqinfer.gateway worker gone worker=w1 cause="it left" moved=3\n'

    (event,) = read_events(log)

    assert (event.what, event.values) == ("worker gone", 'worker=w1 cause="it left" moved=3')
    assert event.at == pytest.approx(int(now) + 0.25 - time.time() + time.monotonic(), abs=0.01)


def test_a_moved_call_counts_from_the_fault_to_the_run_that_answered_it() -> None:
    """Not the run that the lost worker began, nor one that it goes on with when it is back."""
    calls = [
        Call(1, 10.0, 4.99, 5.2, RIGHT),  # begun by the lost worker, and again elsewhere
        Call(2, 10.0, 4.99, 5.02, RIGHT),  # on another worker all along
        Call(3, 10.0, 5.5, 9.0, RIGHT),  # sent after the fault
    ]
    runs = {
        1: [Run(11, 4.995, 8.0), Run(12, 5.15, 5.16), Run(11, 8.1, 8.2)],
        2: [Run(12, 4.995, 5.005)],
        3: [Run(12, 8.9, 8.95)],
    }

    assert workers.moved_s(calls, runs, 5.0, 5.0) == (pytest.approx(0.15), 1)


# What is promised ---------------------------------------------------------------------------------


async def _kill(folder: Path) -> Row:
    # How fast it is, is for the long form, on a quiet machine.
    return await workers.kill(folder, repeats=2, rest_s=0.3, within_s=2.0)


async def _stop(folder: Path) -> Row:
    return await workers.stop(folder, repeats=1, rest_s=0.3)


async def _gateways_killed(folder: Path) -> Row:
    return await gateways.gateways_killed(folder, rate_per_s=300, rest_s=0.5, away_s=0.5)


async def _reconnect(folder: Path) -> Row:
    return await gateways.reconnect(folder, clients=40, processes=2, away_s=0.3)


@pytest.mark.slow
@pytest.mark.parametrize("figure", [_kill, _stop, _gateways_killed, _reconnect])
def test_short_form_holds(figure: Callable[[Path], Coroutine[Any, Any, Row]], tmp_path: Path) -> None:
    """On real processes; the long forms are `./run.sh promises`."""
    row = asyncio.run(figure(tmp_path / "cluster"))

    assert row.mistakes == []
    assert all(np.isfinite(value) for value in row.figures.values()), row.figures
