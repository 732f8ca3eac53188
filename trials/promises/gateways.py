"""Figures about gateways: the only one stopped, one of two and the only one killed, a thousand clients at once."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path
from typing import Any

from bench.children import Child, Children, follow_the_parent, say
from trials.promises.cluster import GONE, JOINED, Cluster, Event, books_amiss
from trials.promises.load import RIGHT, Call, Load, ask, complaints, counted
from trials.promises.row import Row
from zmqinfer.aio import AsyncClient

__all__ = ["be_clients", "gateway_stopped", "gateways_killed", "reconnect"]

# A call ends by its deadline and so much.
OVER_S = 0.25
RECONNECT_S = 10.0
CLIENTS = 1_000
_PROCESSES = 10
_LISTENS = "gateway listens"
_EXPIRED = "DEADLINE_EXCEEDED"


async def gateway_stopped(
    folder: Path, *, stopped_s: float = 10.0, short_s: float = 1.0, rate_per_s: float = 100
) -> Row:
    """Stops the only gateway and lets it go on, under calls with much time and calls with little.

    Workers find it silent, close their connections and greet it again, as new lives, and it gives up their earlier
    ones: that is what they say, so only workers that it found silent itself count as verdicts.
    """
    row = Row(
        "gateway_stopped",
        f"the only gateway stopped for {stopped_s:g} s: no worker taken for dead, calls with more time all answered,"
        f" those with less end within it and {OVER_S * 1e3:.0f} ms",
    )
    async with Cluster(folder, workers=2) as cluster, cluster.client() as client:
        patient = Load(client, rate_per_s, deadline_s=3 * stopped_s)
        hasty = Load(client, rate_per_s / 2, deadline_s=short_s)
        async with patient, hasty:
            await asyncio.sleep(1.0)
            cluster.gateways[0].send(signal.SIGSTOP)
            await asyncio.sleep(stopped_s)
            cluster.gateways[0].send(signal.SIGCONT)
            await cluster.until_ready(client)
            await asyncio.sleep(2.0)
        (gateway,) = await client.status()
        runs = cluster.runs()
        gone = cluster.events(GONE)
        out = cluster.events("worker out", "worker is stuck in a batch")
    twice = sum(len(runs.get(call.number, [])) > 1 for call in (*patient.calls, *hasty.calls))
    row.figures |= {"moved": gateway["requests"]["moved"], "twice": twice}
    row.measured = f"{gateway['requests']['moved']} calls moved, {twice} ran twice; "
    _judge_stopped(row, patient.calls, hasty.calls, gone, out)
    row.mistakes += books_amiss(gateway)
    return row


def _judge_stopped(row: Row, patient: list[Call], hasty: list[Call], gone: list[Event], out: list[Event]) -> None:
    """Looks at what became of calls with much time and with little, and at what the gateway said of its workers."""
    dead = [event for event in gone if 'cause="silent' in event.values]
    over_s = max(call.took_s - call.deadline_s for call in (*patient, *hasty))
    expired = sum(call.outcome == _EXPIRED for call in hasty)
    row.figures |= {
        "over_ms": over_s * 1e3,
        "verdicts": len(dead) + len(out),
        "new_lives": len(gone) - len(dead),
        "calls": len(patient) + len(hasty),
    }
    row.measured += (
        f"{len(dead) + len(out)} verdicts; with {patient[0].deadline_s:g} s {counted(patient)}; with"
        f" {hasty[0].deadline_s:g} s {len(hasty):,} calls, {expired:,} expired, the last {over_s * 1e3:.0f} ms over its"
        " time"
    )
    row.expect(not dead, f"workers that lived were given up: {[event.values for event in dead]}")
    row.expect(not out, f"workers were put out: {[event.values for event in out]}")
    row.expect(over_s <= OVER_S, f"a call ended {over_s * 1e3:.0f} ms after its deadline")
    row.expect(expired, "no call had too little time: the gateway was not away")
    row.mistakes += complaints(patient) + complaints(call for call in hasty if call.outcome != _EXPIRED)


async def gateways_killed(folder: Path, *, rate_per_s: float = 500, rest_s: float = 4.0, away_s: float = 1.0) -> Row:
    """Kills one of two gateways for good; then the only one of another cluster, which starts again."""
    row = Row(
        "gateways_killed",
        f"one of two gateways killed; the only one killed and back after {away_s:g} s: 0 failed within their"
        " deadlines, and workers and clients find it by themselves",
    )
    one_of_two = await _killed(folder / "one_of_two", row, rate_per_s, rest_s, gateways=2, away_s=None)
    the_only = await _killed(folder / "the_only", row, rate_per_s, rest_s, gateways=1, away_s=away_s)
    row.measured = f"one of two: {one_of_two}; the only one: {the_only}"
    return row


async def _killed(
    folder: Path, row: Row, rate_per_s: float, rest_s: float, *, gateways: int, away_s: float | None
) -> str:
    """Kills the first gateway, and starts it again unless it stays away; returns what became of the calls."""
    async with Cluster(folder, gateways=gateways) as cluster, cluster.client() as client:
        victim = cluster.gateways[0]
        async with Load(client, rate_per_s) as load:
            await asyncio.sleep(1.0)
            killed_at = time.monotonic()
            victim.send(signal.SIGKILL)
            await victim.ended()
            if away_s is not None:
                await asyncio.sleep(away_s)
                victim.start()
                await cluster.until_ready(client)
            await asyncio.sleep(rest_s)
        # One that stays away does not answer.
        left = await client.status(timeout_s=1.0)
        row.expect(all(worker.is_running for worker in cluster.workers), f"{folder.name}: a worker has ended")
    slowest_s = max(call.took_s for call in load.calls)
    pending = sum(call.sent_at < killed_at < call.ended_at for call in load.calls)
    row.figures |= {f"slowest_{folder.name}_s": slowest_s, f"calls_{folder.name}": len(load.calls)}
    row.expect(pending, f"{folder.name}: no call was pending when its gateway was killed")
    row.mistakes += complaints(load.calls) + [amiss for gateway in left for amiss in books_amiss(gateway)]
    return f"{counted(load.calls)}, {pending} were pending then, the slowest took {slowest_s:.2f} s"


async def reconnect(folder: Path, *, clients: int = CLIENTS, processes: int = _PROCESSES, away_s: float = 1.0) -> Row:
    """Kills the only gateway of many connected clients, each of which calls at once, and starts it again.

    Its return is when its log says that it listens. The clients are `AsyncClient`s, each with a connection and a
    session of its own, and share processes.
    """
    row = Row(
        "reconnect",
        f"{clients:,} clients call as their gateway is killed: all served within {RECONNECT_S:g} s of its return,"
        " no worker taken for dead",
    )
    each = clients // processes
    async with Cluster(folder) as cluster, cluster.client() as client:
        gateway = cluster.gateways[0]
        with Children("trials.promises") as children:
            crowd = [children.start("clients", addresses=cluster.addresses, count=each) for _ in range(processes)]
            for child in crowd:
                await _heard(children, child)
            (before,) = await client.status()
            gateway.send(signal.SIGKILL)
            await gateway.ended()
            for child in crowd:
                child.process.send_signal(signal.SIGUSR1)
            await asyncio.sleep(away_s)
            killed_at = time.monotonic()
            gateway.start()
            back_at = (await cluster.until_event(_LISTENS, "", killed_at)).at
            said = [await _heard(children, child) for child in crowd]
        (after,) = await client.status()
        events = [event for event in cluster.events() if event.at > back_at]
    last_s = max(one["last_at"] for one in said) - back_at
    failures = [failure for one in said for failure in one["failures"]]
    served = sum(one["right"] for one in said)
    verdicts = [event for event in events if event.is_verdict]
    joined = sum(event.what == JOINED for event in events)
    row.figures = {"last_s": last_s, "served": served, "verdicts": len(verdicts)}
    row.measured = f"{served:,} served, the last after {last_s:.2f} s; {len(verdicts)} verdicts on workers"
    row.expect(before["clients"] == clients + 1, f"{before['clients']:,} clients were connected, with this one")
    row.expect(served == clients, f"{len(failures):,} calls failed, the first with {failures[:1]}")
    row.expect(last_s <= RECONNECT_S, f"the last was served after {last_s:.2f} s")
    row.expect(joined == len(cluster.workers), f"{joined} workers joined, expected {len(cluster.workers)}")
    row.mistakes += [f"{event.what}: {event.values}" for event in verdicts[:5]] + books_amiss(after)
    return row


async def _heard(children: Children, child: Child) -> dict[str, Any]:
    return await asyncio.to_thread(children.hear, child, 60.0)


def be_clients(addresses: list[str], count: int) -> None:
    """Is many clients: all call once, and once more at SIGUSR1."""
    follow_the_parent()
    asyncio.run(_be_clients(addresses, count))


async def _be_clients(addresses: list[str], count: int) -> None:
    called = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, called.set)
    crowd = [AsyncClient(addresses, connect_timeout_s=30.0) for _ in range(count)]
    first = await asyncio.gather(*(ask(client, deadline_s=30.0) for client in crowd))
    say(failures=[call.outcome for call in first if call.outcome != RIGHT])
    await called.wait()
    calls = await asyncio.gather(*(ask(client, deadline_s=30.0) for client in crowd))
    say(
        right=sum(call.outcome == RIGHT for call in calls),
        failures=[call.outcome for call in calls if call.outcome != RIGHT],
        last_at=max(call.ended_at for call in calls),
    )
    for client in crowd:
        await client.close()
