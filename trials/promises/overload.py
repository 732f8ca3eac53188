"""Goodput under more calls than the workers can take."""

from __future__ import annotations

import asyncio
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from trials.promises.cluster import Cluster, Model, books_amiss
from trials.promises.load import RIGHT, WRONG, Call, Load
from trials.promises.row import Row

__all__ = ["goodput"]

# So slow that neither gateway nor load is what is measured: 200 calls a second.
MODEL = Model(a_ms=40.0, max_batch_size=4)
WORKERS = 2
CAPACITY_PER_S = WORKERS * MODEL.max_batch_size / (MODEL.a_ms / 1e3)
TIMES = (2, 5, 10)
PART_OF_PEAK = 0.9
REFUSED_S = 0.05
_DEADLINE_S = 0.5
_WARM_UP_S = 1.0
_REFUSED = "OVERLOADED"


@dataclass(frozen=True)
class Level:
    """What came of a load of so many times the capacity."""

    times: float
    per_s: float
    refused_s: list[float]
    repeated: int
    others: list[Call]
    cpu: float


async def goodput(folder: Path, *, seconds: float = 8.0) -> Row:
    """Sends 0.95, 2, 5 and 10 times what the workers can take, in an open loop, with half a second for each call.

    A client asks again for some of what was refused, after a pause, and an error says how often it was sent: what was
    sent once shows how long the gateway's own refusal takes, and only that is held against the bound. The first second
    of each load is not counted: a queue that has just begun has no rate yet, and refuses nobody.
    """
    row = Row(
        "goodput",
        f"at {', '.join(map(str, TIMES))} times the capacity {PART_OF_PEAK * 100:g} % of the peak, and refusals"
        f" within {REFUSED_S * 1e3:g} ms",
    )
    async with Cluster(folder, workers=WORKERS, models=(MODEL,)) as cluster:
        levels = [await _level(cluster, times, seconds) for times in (0.95, *TIMES)]
        async with cluster.client() as client:
            (gateway,) = await client.status()
    peak = max(level.per_s for level in levels)
    parts = []
    for level in levels[1:]:
        name = f"{level.times:g}x"
        part = level.per_s / peak
        refused_ms = sorted(took_s * 1e3 for took_s in level.refused_s) or [float("inf")]
        p99_ms = refused_ms[int(0.99 * (len(refused_ms) - 1))]
        row.figures |= {
            f"part_{name}": part,
            f"refused_p99_ms_{name}": p99_ms,
            f"refused_max_ms_{name}": refused_ms[-1],
        }
        parts.append(
            f"{name}: {part * 100:.0f} %, {len(level.refused_s):,} refused, half within"
            f" {statistics.median(refused_ms):.1f} ms, 99 % within {p99_ms:.1f}, the last {refused_ms[-1]:.1f}"
            f" ({level.repeated:,} after repeats), {len(level.others)} ended otherwise, {level.cpu * 100:.0f} % of a"
            " core for the load"
        )
        row.expect(part >= PART_OF_PEAK, f"{name}: {level.per_s:.0f} right answers a second, the peak is {peak:.0f}")
        row.expect(p99_ms <= REFUSED_S * 1e3, f"{name}: one in a hundred refusals takes {p99_ms:.1f} ms or more")
    row.figures |= {"peak_per_s": peak, "capacity_per_s": CAPACITY_PER_S}
    row.measured = f"peak {peak:.0f}/s of {CAPACITY_PER_S:.0f}; {'; '.join(parts)}"
    row.expect(not any(call.outcome == WRONG for level in levels for call in level.others), "answers were wrong")
    row.mistakes += books_amiss(gateway)
    return row


async def _level(cluster: Cluster, times: float, seconds: float) -> Level:
    """Loads the cluster, and returns what came of the calls sent after the first second."""
    async with cluster.client() as client:
        await client.models()
        used_s, began = time.process_time(), time.monotonic()
        async with Load(client, times * CAPACITY_PER_S, deadline_s=_DEADLINE_S) as load:
            await asyncio.sleep(_WARM_UP_S + seconds)
            until = time.monotonic()
            cpu = (time.process_time() - used_s) / (until - began)
    since = began + _WARM_UP_S
    calls = [call for call in load.calls if call.sent_at >= since]
    right = sum(call.outcome == RIGHT and since <= call.ended_at < until for call in load.calls)
    refused = [call for call in calls if call.outcome == _REFUSED]
    return Level(
        times,
        right / (until - since),
        [call.took_s for call in refused if call.attempts == 1],
        sum(call.attempts > 1 for call in refused),
        [call for call in calls if call.outcome not in {RIGHT, _REFUSED}],
        cpu,
    )
