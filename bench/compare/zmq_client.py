"""The client of zmqinfer in a comparison: a process of its own, which prints what the peers' clients print.

python -m bench.compare.zmq_client async --address tcp://127.0.0.1:5555 --model echo --in-flight 50 --seconds 3

async   N tasks, each of which awaits `AsyncClient.infer`, one call after the other
many    one `Client.infer_many` with N in flight; a latency is from the input's being taken to its result
sync    one thread that calls `Client.infer`, one call after the other
"""

from __future__ import annotations

import argparse
import asyncio
import time
from array import array
from collections import deque
from collections.abc import Awaitable, Iterator

import numpy as np

from bench.command import whole, within
from bench.peers.bodies import rows
from bench.peers.load import CHECK_EVERY, DISTINCT_BYTES, WARM_UP_S, is_right, measure, quantile, report
from bench.peers.models import MODELS, Floats
from zmqinfer import AsyncClient, Client
from zmqinfer.errors import ZmqInferError
from zmqinfer.machine.client.codec import Output

__all__: list[str] = []


class _Caller:
    """One task's way to the gateway; all tasks share one client, as they would in a program."""

    def __init__(self, client: AsyncClient, model: str) -> None:
        self._client = client
        self._model = model

    def infer(self, x: Floats) -> Awaitable[Floats]:
        return self._client.infer(self._model, x)  # type: ignore[return-value]

    async def reopen(self) -> None:
        """Does nothing: the client reconnects by itself."""


async def _tasks(address: str, model: str, in_flight: int, seconds: float, memory_mb: int) -> dict[str, float]:
    async with AsyncClient(address, shared_memory_mb=memory_mb) as client:
        return await measure(
            lambda: _Caller(client, model), model, in_flight, seconds, failures=(ZmqInferError, OSError)
        )


class _Stream:
    """Inputs until a time is up, and the latencies of their results."""

    def __init__(self, model: str) -> None:
        self._inputs = rows(model, max(1, min(256, DISTINCT_BYTES // (4 * MODELS[model].values_in))))
        self._right = MODELS[model].run(self._inputs)
        self._model = model
        self._sent_at: deque[float] = deque()
        self.latencies_s = array("d")
        self.failures = self.wrong = 0

    def inputs(self, until: float) -> Iterator[Floats]:
        """Yields inputs in turn."""
        count = len(self._inputs)
        number = 0
        while (now := time.perf_counter()) < until:
            self._sent_at.append(now)
            yield self._inputs[number % count]
            number += 1

    def take(self, results: Iterator[Output | ZmqInferError]) -> None:
        """Takes results in the order of the inputs."""
        sent_at, record, clock = self._sent_at.popleft, self.latencies_s.append, time.perf_counter
        count = len(self._inputs)
        for number, result in enumerate(results):
            record(clock() - sent_at())
            if isinstance(result, ZmqInferError):
                self.failures += 1
            elif not number & (CHECK_EVERY - 1) and not self._is_right(result, self._right[number % count]):
                self.wrong += 1

    def one(self, client: Client, model: str, until: float) -> None:
        """Calls one after the other."""
        for x, right in zip(self.inputs(until), self._endless(), strict=False):
            try:
                y = client.infer(model, x)
            except ZmqInferError:
                self.failures += 1
                y = right
            self.latencies_s.append(time.perf_counter() - self._sent_at.popleft())
            self.wrong += not self._is_right(y, right)

    def _is_right(self, y: Output, right: Floats) -> bool:
        return isinstance(y, np.ndarray) and is_right(self._model, y, right)  # type: ignore[arg-type]

    def _endless(self) -> Iterator[Floats]:
        while True:
            yield from self._right


def _threadless(
    kind: str, address: str, model: str, in_flight: int, seconds: float, memory_mb: int
) -> dict[str, float]:
    with Client(address, shared_memory_mb=memory_mb) as client:
        for lasts_s in (WARM_UP_S, seconds):
            stream = _Stream(model)
            began_at, cpu_s = time.perf_counter(), time.process_time()
            if kind == "sync":
                stream.one(client, model, began_at + lasts_s)
            else:
                inputs = stream.inputs(began_at + lasts_s)
                stream.take(client.infer_many(model, inputs, in_flight=in_flight, return_errors=True))
            wall_s, used_s = time.perf_counter() - began_at, time.process_time() - cpu_s
    latencies_s = sorted(stream.latencies_s)
    return {
        "answered": len(latencies_s) - stream.failures,
        "failures": stream.failures,
        "wrong": stream.wrong,
        "seconds": wall_s,
        "p50_ms": 1e3 * quantile(latencies_s, 0.50),
        "p99_ms": 1e3 * quantile(latencies_s, 0.99),
        "cpu_s": used_s,
    }


def _main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("kind", choices=("async", "many", "sync"))
    options.add_argument("--address", required=True)
    options.add_argument("--model", choices=MODELS, default="echo")
    options.add_argument("--in-flight", type=whole, default=50)
    options.add_argument("--seconds", type=within, default=3.0)
    options.add_argument("--frames", action="store_true", help="large inputs in messages, not in shared memory")
    asked = options.parse_args()
    how = (asked.address, asked.model, asked.in_flight, asked.seconds, 0 if asked.frames else 256)
    report(asyncio.run(_tasks(*how)) if asked.kind == "async" else _threadless(asked.kind, *how))


if __name__ == "__main__":
    _main()
