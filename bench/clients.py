"""The clients of two commits in turns: each figure as the median of the pairs' ratios, after over before.

Run from the repository's root, on a quiet machine:

    .venv/bin/python -m bench.clients main~5 main

Both commits call echo with 64 float32 at the same gateway and two workers, which are this checkout's:

    one          p50 of one `Client.infer` at a time
    threads      16 threads that share a `Client`, each one call at a time: calls a second
    threads_p50  and their p50
    many         `Client.infer_many`, 1,024 in flight: results a second
    tasks        200 tasks that share an `AsyncClient`: calls a second
    async_many   `AsyncClient.infer_many` with a plain source, 1,024 in flight: results a second
    async_source the same with an asynchronous source

A commit is a name that git knows, or a folder with a checkout, such as `.`.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import repeat
from pathlib import Path
from typing import Any

import numpy as np

from bench.command import Command, whole, within
from bench.trees import ROOT, tree_of

X = np.arange(64, dtype=np.float32)
WARM_UP_S = 0.3
THREADS, TASKS, IN_FLIGHT = 16, 200, 1_024
# Of these less is better.
TIMES = ("one", "threads_p50")


def one(address: str) -> None:
    """One thread, one call at a time."""
    from zmqinfer import Client

    with Client(address) as client:
        for seconds in _asked():
            say(one=statistics.median(_calls(client, seconds)) * 1e6)


def threads(address: str) -> None:
    """Many threads, each one call at a time."""
    from zmqinfer import Client

    with Client(address) as client, ThreadPoolExecutor(THREADS) as pool:
        for seconds in _asked():
            parts = pool.map(_calls, repeat(client, THREADS), repeat(seconds))
            latencies_s = [latency_s for part in parts for latency_s in part]
            say(threads=len(latencies_s) / seconds, threads_p50=statistics.median(latencies_s) * 1e6)


def _calls(client: Any, seconds: float) -> list[float]:
    """The latencies of one call after the other."""
    latencies_s: list[float] = []
    until = time.perf_counter() + seconds
    while (began := time.perf_counter()) < until:
        client.infer("echo", X)
        latencies_s.append(time.perf_counter() - began)
    return latencies_s


def _inputs(seconds: float) -> Iterator[Any]:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        yield X


async def _async_inputs(seconds: float) -> AsyncIterator[Any]:
    for x in _inputs(seconds):
        yield x


def many(address: str) -> None:
    """Results of one stream."""
    from zmqinfer import Client

    with Client(address) as client:
        for seconds in _asked():
            say(many=sum(1 for _ in client.infer_many("echo", _inputs(seconds), in_flight=IN_FLIGHT)) / seconds)


def asynchronous(address: str) -> None:
    """What the asyncio client does."""
    asyncio.run(_asynchronous(address))


async def _asynchronous(address: str) -> None:
    from zmqinfer import AsyncClient

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


def _start(tree: Path, role: str, address: str, stack: ExitStack) -> subprocess.Popen[str]:
    """Begins one role with the package of a tree, and this file; its end is that of its input."""
    script = f"import sys; sys.path[:0] = [{str(tree)!r}]; import zmqinfer; sys.path[0] = {str(ROOT)!r}"
    script += f"; from bench import clients; clients.ROLES[{role!r}]({address!r})"
    command = [sys.executable, "-P", "-c", script]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    return stack.enter_context(child)


def _measure(child: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{seconds}\n")
    child.stdin.flush()
    figures: dict[str, float] = json.loads(child.stdout.readline())
    return figures


def compare(before: Path, after: Path, roles: list[str], repeats: int, seconds: float) -> list[str]:
    """Returns a line for each figure: its medians, and the median of after over before."""
    from zmqinfer.launch.processes import ProcessCluster

    found: dict[str, list[tuple[float, float]]] = {}
    with ProcessCluster(2) as cluster:
        for role in roles:
            with ExitStack() as stack:
                pair = [_start(tree, role, cluster.clients_address, stack) for tree in (before, after)]
                for child in pair:
                    _measure(child, WARM_UP_S)
                for number in range(repeats):
                    # Who is first changes, for whatever the machine does meanwhile.
                    early, late = (_measure(child, seconds) for child in (pair if number % 2 else pair[::-1]))
                    if not number % 2:
                        early, late = late, early
                    for name in early:
                        found.setdefault(name, []).append((early[name], late[name]))
    lines = [f"{'figure':<14} {'before':>10} {'after':>10} {'ratio':>7}  of all pairs"]
    for name, pairs in found.items():
        ratios = sorted(late / early for early, late in pairs)
        early, late = (statistics.median(side) for side in zip(*pairs, strict=True))
        unit = "us" if name in TIMES else "/s"
        span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        lines.append(f"{name:<14} {early:>8,.0f}{unit} {late:>8,.0f}{unit} {statistics.median(ratios):>7.3f}  {span}")
    return lines


def main() -> None:
    """Prints the ratios."""
    options = Command("python -m bench.clients", __doc__)
    options.add_argument("before")
    options.add_argument("after")
    options.add_argument("--only", choices=ROLES, action="append", help="one of the measurements; may be repeated")
    options.add_argument("--repeats", type=whole, default=21, help="of each commit, in turns (%(default)s)")
    options.add_argument("--seconds", type=within, default=0.25, help="of each measurement (%(default)s)")
    asked = options.parse_args()
    with ExitStack() as stack:
        before, after = (
            Path(name).resolve() if Path(name, "zmqinfer").is_dir() else tree_of(name, stack)
            for name in (asked.before, asked.after)
        )
        print("\n".join(compare(before, after, asked.only or list(ROLES), asked.repeats, asked.seconds)))


if __name__ == "__main__":
    main()
