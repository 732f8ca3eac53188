"""Load from one asyncio program: N tasks, each of which awaits one call after the other.

A call takes one row as a numpy array and gives one. The size of every answer is looked at. Its values are
compared with the right ones for every 64th answer of a task and for its last: comparing all would cost the
client more than the call does, and be held against the peer.
"""

import argparse
import asyncio
import json
import time
from array import array
from collections.abc import Awaitable, Callable
from typing import Protocol

import numpy as np

from bench.command import whole, within
from bench.peers.bodies import rows
from bench.peers.models import MODELS, Floats

__all__ = [
    "CHECK_EVERY",
    "DISTINCT_BYTES",
    "WARM_UP_S",
    "CallFailed",
    "Caller",
    "is_right",
    "measure",
    "parser",
    "quantile",
    "report",
]

WARM_UP_S = 0.5
READY_S = 20.0  # a peer that has just been started may still be loading
RETRY_S = 0.05
CHECK_EVERY = 64  # a power of two
# Distinct inputs at most: 200 rows of the big model would fill 120 MB and measure the memory.
DISTINCT_BYTES = 16 << 20


class CallFailed(Exception):
    """The peer refused, or the connection broke; the connection has to be opened anew."""


class Caller(Protocol):
    """One task's way to the peer."""

    def infer(self, x: Floats) -> Awaitable[Floats]:
        """Return the future answer to one row; raises one of the `failures` given to `measure`."""

    async def reopen(self) -> None:
        """Connect, or connect again after a failure; raises OSError if nobody listens."""


async def measure(
    open_caller: Callable[[], Caller],
    model: str,
    in_flight: int,
    seconds: float,
    *,
    failures: tuple[type[BaseException], ...] = (CallFailed, OSError),
) -> dict[str, float]:
    """Wait for the peer, warm up, and return the figures of `seconds` of load (keys as printed)."""
    load = _Load(model, failures)
    callers = [open_caller() for _ in range(in_flight)]
    for caller in callers:
        await load.until_ready(caller)
    tasks = [asyncio.create_task(load.call_and_call(place, caller)) for place, caller in enumerate(callers)]
    await asyncio.sleep(WARM_UP_S)
    load.start()
    await asyncio.sleep(seconds)
    figures = load.stop()
    await asyncio.gather(*tasks)
    return {**figures, "wrong": load.wrong}


class _Load:
    """What the tasks count; the measured window is between `start` and `stop`."""

    def __init__(self, model: str, failures: tuple[type[BaseException], ...]) -> None:
        run, values_in, self._values_out = MODELS[model]
        self._rows = rows(model, max(1, min(256, DISTINCT_BYTES // (4 * values_in))))
        self._right = run(self._rows)
        self._model = model
        self._caught = failures
        self._latencies_s = array("d")
        self._failures = self._is_over = 0
        self._started_at = self._cpu_s = 0.0
        self.wrong = 0

    def start(self) -> None:
        del self._latencies_s[:]
        self._failures = 0
        self._cpu_s = time.process_time()
        self._started_at = time.perf_counter()

    def stop(self) -> dict[str, float]:
        wall_s = time.perf_counter() - self._started_at
        used_s = time.process_time() - self._cpu_s
        latencies_s = sorted(self._latencies_s)
        failures = self._failures
        self._is_over = 1
        return {
            "answered": len(latencies_s),
            "failures": failures,
            "seconds": round(wall_s, 4),
            "p50_ms": round(1e3 * quantile(latencies_s, 0.50), 4),
            "p99_ms": round(1e3 * quantile(latencies_s, 0.99), 4),
            "cpu_s": round(used_s, 4),
        }

    async def until_ready(self, caller: Caller) -> None:
        """Connect and be answered once, however long the peer takes to start."""
        give_up_at = time.monotonic() + READY_S
        is_ready = False
        while not is_ready:
            try:
                await caller.reopen()
                await caller.infer(self._rows[0])
                is_ready = True
            except self._caught:
                if time.monotonic() > give_up_at:
                    raise
                await asyncio.sleep(RETRY_S)

    async def call_and_call(self, place: int, caller: Caller) -> None:
        place %= len(self._rows)
        x, right = self._rows[place], self._right[place]
        record, values_out, infer, clock = self._latencies_s.append, self._values_out, caller.infer, time.perf_counter
        answers = 0
        y = right
        now = clock()
        while not self._is_over:
            asked_at = now
            try:
                y = await infer(x)
            except self._caught:
                self._failures += 1
                await self._reopen(caller)
                now = clock()
                continue
            now = clock()
            record(now - asked_at)
            answers += 1
            if y.size != values_out or (not answers & (CHECK_EVERY - 1) and not is_right(self._model, y, right)):
                self.wrong += 1
        self.wrong += not is_right(self._model, y, right)

    async def _reopen(self, caller: Caller) -> None:
        try:
            await caller.reopen()
        except OSError:
            await asyncio.sleep(RETRY_S)  # a peer that is gone must not make the loop spin


def is_right(model: str, y: Floats, right: Floats) -> bool:
    """Whether an answer of a model is the right one."""
    if model == "echo":
        return np.array_equal(y, right)
    # A batch of another size is rounded otherwise: 1e-5 was seen. Answers to different rows differ by 1e-2 or more.
    return np.allclose(y, right, atol=1e-4)


def quantile(ascending: list[float], part: float) -> float:
    """Return a quantile of sorted values, 0 of none."""
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))] if ascending else 0.0


def parser(about: str | None) -> argparse.ArgumentParser:
    """Return the command line of a client."""
    form = argparse.RawDescriptionHelpFormatter
    options = argparse.ArgumentParser(description=about, formatter_class=form)
    options.add_argument("--model", choices=MODELS, default="echo")
    options.add_argument("--port", type=int, required=True, help="of the peer on 127.0.0.1")
    options.add_argument("--in-flight", type=whole, default=50, help="tasks that call (%(default)s)")
    options.add_argument("--seconds", type=within, default=3.0, help="measured seconds (%(default)s)")
    return options


def report(figures: dict[str, float]) -> None:
    """Print the figures as one line of JSON."""
    keys = ("answered", "failures", "wrong", "seconds", "p50_ms", "p99_ms", "cpu_s")
    print(json.dumps({key: figures[key] for key in keys}))
