"""Figures about workers: one killed, one stopped, one long in a batch, all on a busy machine."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from trials.nodes import Node
from trials.promises.cluster import GONE, JOINED, Cluster, Event, Model, books_amiss
from trials.promises.load import RIGHT, Call, Load, ask, complaints, counted
from trials.promises.row import Row
from trials.promises.witness import Run
from zmqinfer.aio import AsyncClient

__all__ = ["batch", "busy", "kill", "stop"]

KILL_S = 0.1
STOP_S = 2.0
# Long enough to be found in the journal, and for nobody to mind.
_HELD_S = 0.1
_SHORT = Model()
_LONG = "long"
# What a worker's log says when it has lost a gateway, or an engine.
_WORKER_COMPLAINS = ("gateway silent", "gateway forgot us", "gateway says", "cannot read a message", "stuck in a batch")


def moved_s(calls: list[Call], runs: dict[int, list[Run]], since: float, until: float) -> tuple[float, int]:
    """Returns how long after `since` the last call sent before `until` began the run that answered it.

    Only of those that began it after `since`: these are all that the lost worker held, and whatever else waited then.
    The second figure is how many calls had been begun before `since` by somebody else than who answered them.
    """
    last_s, begun = 0.0, 0
    for call in calls:
        if not call.sent_at < until or call.ended_at < since or call.outcome != RIGHT:
            continue
        own = runs[call.number]
        answering = max((run for run in own if run.ended_at <= call.ended_at), key=lambda run: run.ended_at)
        if answering.began_at > since:
            last_s = max(last_s, answering.began_at - since)
            begun += any(run.began_at <= since for run in own)
    return last_s, begun


async def kill(
    folder: Path, *, repeats: int = 10, rate_per_s: float = 1_000, rest_s: float = 0.6, within_s: float = KILL_S
) -> Row:
    """Kills one of three workers under load, again and again.

    The gateway dispatches what the worker held in the turn in which its log says that the worker is gone. That this is
    so is measured from outside: the witness' journal says when each call that was sent before the kill, and not yet
    run then, began to run elsewhere. The last one may wait for all others, because what may have ended the worker
    runs alone: so many batches more are allowed.
    """
    row = Row("kill", f"what a killed worker held is dispatched elsewhere within {within_s * 1e3:.0f} ms; 0 failed")
    kills: list[tuple[float, Event]] = []
    async with Cluster(folder, models=(_SHORT,)) as cluster, cluster.client() as client:
        async with Load(client, rate_per_s) as load:
            for number in range(repeats):
                await asyncio.sleep(rest_s)
                victim = cluster.workers[number % len(cluster.workers)]
                killed_at = time.monotonic()
                victim.send(signal.SIGKILL)
                await victim.ended()
                kills.append((killed_at, await cluster.until_event(GONE, f"worker={victim.name} ", killed_at)))
                await asyncio.sleep(rest_s)
                victim.start()
                await cluster.until_ready(client)
        (gateway,) = await client.status()
        _judge_kills(row, kills, load.calls, cluster.runs(), within_s)
    row.mistakes += complaints(load.calls) + books_amiss(gateway)
    return row


def _judge_kills(
    row: Row, kills: list[tuple[float, Event]], calls: list[Call], runs: dict[int, list[Run]], within_s: float
) -> None:
    """Sets when each worker was killed, and given up, against which call ran where and when."""
    found = [moved_s(calls, runs, at, at) for at, _ in kills]
    moved = [int(event.values.partition("moved=")[2].split()[0]) for _, event in kills]
    dispatched_ms = [(event.at - at) * 1e3 for at, event in kills]
    running_ms = [last_s * 1e3 for last_s, _ in found]
    row.figures = {
        "worst_ms": max(dispatched_ms),
        "median_ms": statistics.median(dispatched_ms),
        "running_worst_ms": max(running_ms),
        "running_median_ms": statistics.median(running_ms),
        "moved": sum(moved),
        "calls": len(calls),
    }
    row.measured = (
        f"{len(kills)} kills, {sum(moved)} calls held: dispatched after {max(dispatched_ms):.0f} ms at worst, median"
        f" {statistics.median(dispatched_ms):.0f}; the last of them running after {max(running_ms):.0f} ms at worst,"
        f" median {statistics.median(running_ms):.0f}; {counted(calls)}"
    )
    row.expect(max(dispatched_ms) <= within_s * 1e3, f"a worker was given up only after {max(dispatched_ms):.0f} ms")
    for held, took_ms in zip(moved, running_ms, strict=True):
        allowed_ms = within_s * 1e3 + held * _SHORT.a_ms
        row.expect(took_ms <= allowed_ms, f"of {held} calls the last ran after {took_ms:.0f} ms, not {allowed_ms:.0f}")
    row.expect(sum(begun for _, begun in found), "no worker held a running call when it was killed")


async def stop(folder: Path, *, repeats: int = 5, rate_per_s: float = 500, rest_s: float = 1.0) -> Row:
    """Stops one of three workers with default settings, and lets it go on half a second after it was given up.

    Measured as for `kill`, for all calls that were sent before the gateway gave the worker up. Each time it is the
    worker that is in the middle of a batch, which it ends when it goes on: too late, as the journal shows. The gateway
    counts the late answers that come; some are lost with the connection that was closed meanwhile.
    """
    row = Row(
        "stop",
        f"what a stopped worker holds is dispatched again within {STOP_S:g} s; its late answers are dropped,"
        " it joins again; nothing twice, nothing failed",
    )
    stops: list[tuple[float, Event]] = []
    back_s: list[float] = []
    calls: list[Call] = []
    async with Cluster(folder) as cluster, cluster.client() as client:
        async with Load(client, rate_per_s) as load:
            for _ in range(repeats):
                await asyncio.sleep(rest_s)
                held, victim = await _in_a_batch(cluster, client)
                stopped_at = time.monotonic()
                victim.send(signal.SIGSTOP)
                stops.append((stopped_at, await cluster.until_event(GONE, f"worker={victim.name} ", stopped_at)))
                await asyncio.sleep(0.5)
                goes_on_at = time.monotonic()
                victim.send(signal.SIGCONT)
                back_s.append(await cluster.until_ready(client) - goes_on_at)
                calls.append(await held)
            await asyncio.sleep(rest_s)
        calls += load.calls
        (gateway,) = await client.status()
        runs = cluster.runs()
        joined = len(cluster.events(JOINED))
    wanted = len(cluster.workers) + repeats
    row.expect(joined == wanted, f"workers joined {joined} times, expected {wanted}")
    _judge_stops(row, stops, back_s, calls, runs, gateway)
    row.mistakes += complaints(calls) + books_amiss(gateway)
    return row


def _judge_stops(
    row: Row,
    stops: list[tuple[float, Event]],
    back_s: list[float],
    calls: list[Call],
    runs: dict[int, list[Run]],
    gateway: dict[str, Any],
) -> None:
    """Sets when each worker was stopped, given up and ready again against which call ran where and when."""
    took_s = [moved_s(calls, runs, at, event.at)[0] for at, event in stops]
    # The lost worker's run ended after another one had answered.
    late = sum(call.ended_at < run.ended_at < float("inf") for call in calls for run in runs.get(call.number, ()))
    outcomes = gateway["requests"]["outcomes"]
    row.figures = {
        "worst_s": max(took_s),
        "median_s": statistics.median(took_s),
        "back_worst_s": max(back_s),
        "late": late,
        "late_replies": gateway["late_replies"],
        "calls": len(calls),
    }
    row.measured = (
        f"{len(stops)} stops: running elsewhere after {max(took_s):.2f} s at worst, median"
        f" {statistics.median(took_s):.2f}; {late} calls ended there too, {gateway['late_replies']} such answers were"
        f" dropped; ready again after {max(back_s):.2f} s at worst; {counted(calls)}"
    )
    row.expect(max(took_s) <= STOP_S, f"a call ran elsewhere only after {max(took_s):.2f} s")
    row.expect(late >= len(stops), f"{late} calls of {len(stops)} stopped workers ended late: nothing was held up")
    row.expect(outcomes == {"OK": len(calls)}, f"{len(calls)} calls were made, the gateway ended {outcomes}")


async def _in_a_batch(cluster: Cluster, client: AsyncClient) -> tuple[asyncio.Task[Call], Node]:
    """Makes a call that takes a while longer, and returns it with the worker that has just begun it."""
    calls: list[Call] = []
    held = asyncio.create_task(ask(client, longer_s=_HELD_S, calls=calls))
    while not calls or not (found := cluster.runs().get(calls[0].number)):
        await asyncio.sleep(0.005)
    return held, next(worker for worker in cluster.workers if worker.pid == found[0].pid)


async def batch(folder: Path, *, long_s: float = 10.0, rate_per_s: float = 200) -> Row:
    """Runs batches of ten seconds beside other calls: a model's first, its second, and one among short ones.

    The first two are what their model always does. The third, by design, is stuck after a second: what waits behind
    it goes elsewhere, but the batch goes on, and its calls run once. No session may be lost for any of them.
    """
    row = Row("batch", f"a batch of {long_s:g} s on a healthy worker is no failure: no session lost, each ran once")
    models = (_SHORT, Model(_LONG, long_s * 1e3, 4))
    async with Cluster(folder, workers=2, models=models) as cluster, cluster.client() as client:
        async with Load(client, rate_per_s, deadline_s=3 * long_s) as load:
            await asyncio.sleep(1.0)
            among = asyncio.create_task(ask(client, longer_s=long_s, deadline_s=3 * long_s))
            # One key, one worker: the second time it knows how long its batches take.
            always = [await ask(client, model=_LONG, key="one", deadline_s=3 * long_s) for _ in range(2)]
            long_calls = [*always, await among]
        (gateway,) = await client.status()
        runs = cluster.runs()
        lost = cluster.events(GONE)
        verdicts = [event for event in cluster.events() if f"model={_LONG}" in event.values and event.is_verdict]
    twice = [call.number for call in (*long_calls, *load.calls) if len(runs[call.number]) != 1]
    slowest_s = max(call.took_s for call in load.calls)
    row.figures = {"slowest_other_s": slowest_s, "lost": len(lost), "twice": len(twice), "calls": len(load.calls)}
    row.measured = (
        f"{len(long_calls)} such batches: {len(lost)} sessions lost, {len(verdicts)} verdicts on a model that always"
        f" takes so long, {len(twice)} calls ran twice; {len(load.calls):,} others, of which the slowest took"
        f" {slowest_s:.2f} s"
    )
    row.expect(not lost, f"a worker was given up: {[event.values for event in lost]}")
    row.expect(not verdicts, f"{_LONG} always takes so long, but: {[event.what for event in verdicts]}")
    row.expect(not twice, f"calls ran more than once: {twice[:10]}")
    row.mistakes += complaints([*long_calls, *load.calls]) + books_amiss(gateway)
    return row


async def busy(folder: Path, *, seconds: float = 60.0, rate_per_s: float = 50) -> Row:
    """Makes all cores busy with two processes each, and sends a few calls beside them."""
    row = Row("busy", f"{seconds:g} s at 100 % CPU: no worker or gateway given up or put out, 0 failed")
    async with Cluster(folder, gateways=2) as cluster, cluster.client() as client:
        with burning(2 * (os.cpu_count() or 1), 2 * seconds) as burners:
            async with Load(client, rate_per_s) as load:
                await asyncio.sleep(seconds)
        gateways = await client.status()
        verdicts = [
            *(event for event in cluster.events() if event.is_verdict),
            *(event for worker in cluster.workers for event in cluster.events(*_WORKER_COMPLAINS, of=worker)),
        ]
    took_s = sorted(call.took_s for call in load.calls)
    row.figures = {"verdicts": len(verdicts), "slowest_s": took_s[-1], "calls": len(took_s)}
    row.measured = (
        f"{burners} processes that burn: {len(verdicts)} verdicts; {len(took_s):,} calls, half within"
        f" {statistics.median(took_s) * 1e3:.0f} ms, the slowest {took_s[-1] * 1e3:.0f} ms"
    )
    row.mistakes += [f"{event.what}: {event.values}" for event in verdicts[:5]]
    row.mistakes += complaints(load.calls) + [amiss for gateway in gateways for amiss in books_amiss(gateway)]
    return row


@contextmanager
def burning(processes: int, at_most_s: float) -> Iterator[int]:
    """Keeps so many processes busy until the end of the block, and no longer than that; yields how many."""
    code = f"import time\nuntil = time.monotonic() + {at_most_s}\nwhile time.monotonic() < until: pass"
    burners = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(processes)]
    try:
        yield processes
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()
