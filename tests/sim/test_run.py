"""Whole runs."""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import subprocess
import sys
import tomllib
from concurrent.futures import ProcessPoolExecutor
from importlib import resources

from zmqinfer.scenario import Scenario
from zmqinfer.sim.run import faults_of, run
from zmqinfer.sim.world import World


def shipped(name: str) -> Scenario:
    return Scenario.of(tomllib.loads((resources.files("zmqinfer.sim") / "scenarios" / f"{name}.toml").read_text()))


MIXED, LOSSES, RECONNECTS = shipped("mixed"), shipped("losses"), shipped("reconnects")
LARGE = shipped("large")


def test_without_faults_everything_is_answered() -> None:
    """But for what is taken back."""
    result = run(Scenario(deadline_s=(5.0, 6.0), models=MIXED.models), 1)
    assert not result.violation
    assert result.outcomes.keys() <= {"OK", "given up"}
    assert result.outcomes["OK"] > 100


def test_losses_of_nodes_fail_no_call() -> None:
    """Of calls that have time to be moved."""
    with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as pool:
        results = list(pool.map(run, itertools.repeat(LOSSES), range(12)))
    assert not [result for result in results if result.violation]
    for kind in ("crash_worker", "freeze_worker", "crash_gateway", "freeze_gateway"):
        assert sum(result.fired[kind] for result in results) > 3


def test_requests_that_come_twice_violate_nothing() -> None:
    """And enough of them do, while their twins run or after that."""
    joined = replayed = 0
    for seed in range(6):
        worlds: list[World] = []
        assert not run(RECONNECTS, seed, watch=worlds.append).violation
        (world,) = worlds
        joined += sum(worker.machine.tasks.joined for worker in world.workers.values())
        replayed += sum(worker.machine.tasks.replayed for worker in world.workers.values())
    assert joined > 3
    assert replayed > 30


def test_a_thousand_workers_share_the_work() -> None:
    """A part of a second of what `zmqinfer simulate large` does for a hundred."""
    worlds: list[World] = []
    assert not run(dataclasses.replace(LARGE, duration_s=0.3), 1, [], worlds.append).violation
    (world,) = worlds
    worked = [worker for worker in world.workers.values() if any(engine.batches for engine in worker._engines)]
    assert world.history.outcomes().keys() == {"OK"}
    assert len(worked) > 700  # of 53 bursts or so


def test_one_seed_is_one_run() -> None:
    """Another is another, and so is one with a fault less."""
    first = run(MIXED, 5)
    assert run(MIXED, 5) == first
    assert run(MIXED, 6).digest != first.digest
    assert run(MIXED, 5, faults_of(MIXED, 5)[1:]).digest != first.digest


def test_hash_seed_does_not_matter() -> None:
    """In processes of their own."""
    command = [sys.executable, "-m", "zmqinfer", "simulate", "mixed", "--seed", "7", "--schedules", "2", "--jobs", "1"]
    said = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=False
        ).stdout.splitlines()[0].partition("digest ")[2]
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert len(said.pop()) == 16
