"""Bundles of records over the hops of zmqinfer, from an asyncio program with one `await` per call.

One loop with 200 tasks, each of which awaits `infer(x)`, numpy array in and numpy array out. All calls of
one turn of the loop leave in one message, so the bundles grow with the load and no timer is involved; this
is what zmqinfer's AsyncClient is compared with.

    python -m bench.floors.bundle_asyncio --seconds 3 --json

Gateway and workers are those of bundle_sync. The event loop is asyncio's own, as in the product. Left out:
what bundle_sync leaves out, except arrays and futures; names, dtypes and shapes of tensors (all vectors of
64 float32); cancellation and `asyncio.wait_for`. Each task compares its last answer with what it asked.
"""

import asyncio
from collections.abc import Callable
from time import perf_counter
from typing import Any

import msgpack
import numpy as np
import numpy.typing as npt
import zmq

from bench.children import say
from bench.floors.bundle_sync import REQUEST, gateway, worker
from bench.floors.common import VALUES, WARM_UP_S, Stopwatch, main, run_floor
from bench.peers.models import MODELS

__all__ = ["run"]

Vector = npt.NDArray[np.float32]

FLOAT32 = np.dtype(np.float32)
EVENTS = int(zmq.EVENTS)
POLLIN = int(zmq.POLLIN)


def run(in_flight: int = 200, seconds: float = 3.0, *, workers: int = 2, model: str = "echo") -> dict[str, Any]:
    """Measure this floor; takes `seconds` plus about two for processes and warm-up."""
    return run_floor("bench.floors.bundle_asyncio", in_flight=in_flight, seconds=seconds, workers=workers, model=model)


class _Client:
    """One DEALER on the running loop: a bundle per turn out, a future per call back."""

    def __init__(self, gateway: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = zmq.Context().socket(zmq.DEALER)
        self._socket.connect(gateway)
        self._loop.add_reader(self._socket.FD, self._drain)
        self._outbox: list[tuple[int, bytes]] = []
        self._pending: dict[int, asyncio.Future[Vector]] = {}
        self._last_tag = 0

    def infer(self, x: Vector) -> asyncio.Future[Vector]:
        """Return the future answer to `x`; what is asked in one turn of the loop leaves together."""
        if not self._outbox:
            self._loop.call_soon(self._flush)
        self._last_tag = tag = self._last_tag + 1
        self._outbox.append((tag, x.tobytes()))
        self._pending[tag] = answer = self._loop.create_future()
        return answer

    def _flush(self) -> None:
        self._socket.send(msgpack.packb((1, REQUEST, self._outbox)))
        self._outbox.clear()
        # libzmq signals on its FD once per change. A send takes in what has arrived meanwhile and with it the
        # signal, so nobody would call `_drain` for it.
        self._drain()

    def _drain(self) -> None:
        # No bound: there are never more messages than requests in flight.
        recv, release = self._socket.recv, self._pending.pop
        option: Callable[[int], Any] = self._socket.get
        while option(EVENTS) & POLLIN:
            for tag, body in msgpack.unpackb(recv())[2]:
                release(tag).set_result(np.frombuffer(body, FLOAT32))


def client(gateway: str, in_flight: int, seconds: float, model: str) -> None:
    """Run `in_flight` tasks that call one after the other."""
    asyncio.run(_call(gateway, in_flight, seconds, model))


async def _call(gateway: str, in_flight: int, seconds: float, model: str) -> None:
    client = _Client(gateway)
    stopwatch = Stopwatch()
    record = stopwatch.latencies_s.append
    is_over = False

    async def call_and_call(x: Vector, right: Vector) -> None:
        now = perf_counter()
        while not is_over:
            asked_at = now
            y = await client.infer(x)
            now = perf_counter()
            record(now - asked_at)
        assert np.allclose(right, y, rtol=1e-3)

    rows = np.random.default_rng(1).random((in_flight, VALUES), np.float32)
    callers = [asyncio.create_task(call_and_call(*pair)) for pair in zip(rows, MODELS[model].run(rows), strict=True)]
    await asyncio.sleep(WARM_UP_S)
    stopwatch.start()
    await asyncio.sleep(seconds)
    figures = stopwatch.stop()
    is_over = True
    await asyncio.gather(*callers)
    say(**figures)


if __name__ == "__main__":
    main(__doc__, run, {"client": client, "gateway": gateway, "worker": worker}, in_flight=200)
