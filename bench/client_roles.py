"""What `python -m bench.clients` measures: a process with a cluster and a client of one commit.

Run by its path, with that commit's package on the path, so it imports nothing of bench. It measures each time
that its parent tells it for how long, and prints what it found.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat

import numpy as np

from zmqinfer import AsyncClient, Client
from zmqinfer.launch.processes import ProcessCluster

X = np.arange(64, dtype=np.float32)
THREADS, TASKS, IN_FLIGHT = 16, 200, 1_024


def one(address: str) -> None:
    """One thread, one call at a time."""
    with Client(address) as client:
        for seconds in _asked():
            say(one=statistics.median(_calls(client, seconds)) * 1e6)


def threads(address: str) -> None:
    """Many threads, each one call at a time."""
    with Client(address) as client, ThreadPoolExecutor(THREADS) as pool:
        for seconds in _asked():
            parts = pool.map(_calls, repeat(client, THREADS), repeat(seconds))
            latencies_s = [latency_s for part in parts for latency_s in part]
            say(threads=len(latencies_s) / seconds, threads_p50=statistics.median(latencies_s) * 1e6)


def _calls(client: Client, seconds: float) -> list[float]:
    """The latencies of one call after the other."""
    latencies_s: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        client.infer("echo", X)
        latencies_s.append(time.perf_counter() - began)
    return latencies_s


def _inputs(seconds: float) -> Iterator[np.ndarray]:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield X


async def _async_inputs(seconds: float) -> AsyncIterator[np.ndarray]:
    for x in _inputs(seconds):
        yield x


def many(address: str) -> None:
    """Results of one stream."""
    with Client(address) as client:
        for seconds in _asked():
            say(many=sum(1 for _ in client.infer_many("echo", _inputs(seconds), in_flight=IN_FLIGHT)) / seconds)


def asynchronous(address: str) -> None:
    """What the asyncio client does."""
    asyncio.run(_asynchronous(address))


async def _asynchronous(address: str) -> None:
    async def caller(until: float) -> int:
        count = 0
        while time.perf_counter() < until:
            await client.infer("echo", X)
            count += 1
        return count

    async with AsyncClient(address) as client:
        for seconds in _asked():  # nothing else has to go on meanwhile
            until = time.perf_counter() + seconds
            figures = {"tasks": sum(await asyncio.gather(*(caller(until) for _ in range(TASKS)))) / seconds}
            for name, inputs in (("async_many", _inputs), ("async_source", _async_inputs)):
                count = 0
                async for _ in client.infer_many("echo", inputs(seconds), in_flight=IN_FLIGHT):
                    count += 1
                figures[name] = count / seconds
            say(**figures)


ROLES = {"one": one, "threads": threads, "many": many, "asynchronous": asynchronous}


def say(**figures: float) -> None:
    """Tells the parent."""
    print(json.dumps(figures), flush=True)


def _asked() -> Iterator[float]:
    """How long to measure, each time that the parent says so."""
    for line in sys.stdin:
        yield float(line)


if __name__ == "__main__":
    with ProcessCluster(2) as cluster:
        ROLES[sys.argv[1]](cluster.clients_address)
