"""Makes the load and checks every answer.

Closed loop: so many tasks each send their next request when the last was answered. Open loop:
requests leave at random instants of a given rate whether or not the earlier ones were answered,
and each one's latency counts from the instant at which it *should* have left; a generator that
falls behind, or a server that stalls, cannot hide the wait.

The answers are kept and compared when the round is over, so checking costs no latency; large ones earlier, 64 MiB at a
time.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable

import numpy as np

from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError
from zmqinfer.load.measured import worked
from zmqinfer.load.results import Batching, ClosedLoop, LoadResult, OpenLoop, Round
from zmqinfer.load.statistics import Latencies
from zmqinfer.load.workload import Workload
from zmqinfer.machine.client.codec import Output

__all__ = ["PRESETS", "Progress", "run_scenario", "sleep_until"]

PRESETS = {
    "light": ClosedLoop(concurrency=20, requests=1_000),
    "medium": ClosedLoop(concurrency=50, requests=5_000),
    "heavy": ClosedLoop(concurrency=100, requests=10_000),
}
WARM_UP_REQUESTS = 200
MIN_ROUNDS = 3
MIN_SECONDS = 3.0
# A closed loop so fast that its rounds take milliseconds would run hundreds; more tell nothing more.
MAX_ROUNDS = 200
_WOKEN_S = 0.000_15

# Called with how many answers there are so far.
Progress = Callable[[int], None]


class _Collector:
    """What came of the requests of one round."""

    def __init__(self, workload: Workload, progress: Progress | None) -> None:
        self._workload = workload
        self._kept_answers = workload.kept_answers
        self._progress = progress
        self._asked: list[int] = []
        self._got: list[Output] = []
        self._took_ms: list[float] = []
        # Of what was compared already: how long the right answers took, and how many were none.
        self._latencies_ms: list[float] = []
        self._wrong = 0
        self._failures: Counter[str] = Counter()
        self._answers = 0

    async def ask(self, client: AsyncClient, number: int, intended_at: float) -> None:
        """Sends input `number` and keeps what comes."""
        workload = self._workload
        which = number % len(workload.inputs)
        try:
            y = await client.infer(workload.model, workload.inputs[which])
        except ZmqInferError as error:
            self._failures[error.code] += 1
        else:
            self._took_ms.append((time.perf_counter() - intended_at) * 1e3)
            self._asked.append(which)
            self._got.append(y)
            if len(self._got) >= self._kept_answers:
                self._compare()
        self._answers += 1
        if self._progress is not None and not self._answers & 255:
            self._progress(256)

    def _compare(self) -> None:
        right = self._workload.right(self._asked, self._got)
        self._latencies_ms += np.asarray(self._took_ms)[right].tolist()
        self._wrong += len(right) - int(right.sum())
        for kept in (self._asked, self._got, self._took_ms):
            kept.clear()

    def round(self, wall_s: float) -> Round:
        """Checks every answer and returns the round; a wrong answer's latency does not count."""
        self._compare()
        sent = len(self._latencies_ms) + self._wrong + sum(self._failures.values())
        return Round(sent, wall_s, Latencies.of(self._latencies_ms), dict(self._failures), self._wrong)


async def run_scenario(
    client: AsyncClient,
    name: str,
    workload: Workload,
    load: ClosedLoop | OpenLoop,
    *,
    batching: Batching | None = None,
    progress: Progress | None = None,
) -> LoadResult:
    """Warms up, runs rounds until there are at least 3 of them and 3 s have passed, and returns all."""
    warm_up = _Collector(workload, None)
    await _closed(client, warm_up, ClosedLoop(min(20, WARM_UP_REQUESTS), WARM_UP_REQUESTS))
    before = await client.status()
    cpu_before = time.process_time()
    rounds: list[Round] = []
    spent_s = cpu_s = 0.0
    while len(rounds) < MAX_ROUNDS and (spent_s < MIN_SECONDS or len(rounds) < MIN_ROUNDS):
        collector = _Collector(workload, progress)
        cpu_before = time.process_time()
        began = time.perf_counter()
        if isinstance(load, ClosedLoop):
            await _closed(client, collector, load)
        else:
            await _open(client, collector, load, seed=len(rounds))
        wall_s = time.perf_counter() - began
        cpu_s += time.process_time() - cpu_before
        spent_s += wall_s
        rounds.append(collector.round(wall_s))
        if isinstance(load, OpenLoop):
            break
    after = await client.status()
    requests, mean_batch_size = worked(before, after)
    return LoadResult(
        name,
        workload.model,
        load,
        tuple(rounds),
        worker_requests=requests,
        mean_batch_size=mean_batch_size,
        client_cpu_s=cpu_s,
        batching=batching,
    )


async def sleep_until(instant: float) -> bool:
    """Sleeps until an instant of `time.perf_counter()`; False if it is past.

    An event loop rounds its timers up to whole milliseconds, which would be counted as latency. A thread that sleeps is
    back in the loop 0.1 ms late, so it is woken that much too soon, and the rest is waited for in turns of the loop. It
    costs 0.1 ms of CPU, which is not worth it for the shortest waits, those of high rates.
    """
    wait_s = instant - time.perf_counter()
    if wait_s <= 0:
        return False
    if wait_s < 2 * _WOKEN_S:
        await asyncio.sleep(wait_s)
        return True
    await asyncio.to_thread(time.sleep, wait_s - _WOKEN_S)
    while time.perf_counter() < instant:  # noqa: ASYNC110 - nobody is to tell it
        await asyncio.sleep(0)
    return True


async def _closed(client: AsyncClient, collector: _Collector, load: ClosedLoop) -> None:
    numbers = iter(range(load.requests))

    async def caller() -> None:
        for number in numbers:
            await collector.ask(client, number, time.perf_counter())

    await asyncio.gather(*(caller() for _ in range(load.concurrency)))


async def _open(client: AsyncClient, collector: _Collector, load: OpenLoop, seed: int) -> None:
    random = np.random.default_rng(seed)
    count = max(1, round(load.rate_per_s * load.duration_s))
    began = time.perf_counter()
    intended = began + np.cumsum(random.exponential(1 / load.rate_per_s, count))
    tasks: set[asyncio.Task[None]] = set()
    for number, at in enumerate(intended.tolist()):
        if not await sleep_until(at) and not number & 15:
            await asyncio.sleep(0)
        task = asyncio.create_task(collector.ask(client, number, at))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    if tasks:
        await asyncio.gather(*tasks)
