"""Calls at a steady rate, each answer checked."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zmqinfer import AsyncClient
from zmqinfer.errors import ZmqInferError
from zmqinfer.tensor import Array
from zmqinfer.zoo.heldout import heldout

__all__ = ["SHOWN_FAILURES", "Load"]

CAPACITY_S = 3.0
BURST_S = 0.004
# After a pause of this machine the load catches up in several bursts, not in one that gateways would refuse.
MAX_BURST = 1_000
DIGITS_EVERY = 16
INPUTS = 1_024
# Each length is a layout of its own, and calls of different layouts share neither block nor batch.
LENGTHS = (1, 7, 64, 200)
# Up to here each whole number is a float32 of its own, so that an answer shows whose it is.
NUMBERS = 2**24
SHOWN_FAILURES = 10


class Load:
    """Calls whose answers are checked, and the count of what became of them."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        lengths = random.choice(LENGTHS, INPUTS)
        self._inputs: list[NDArray[np.float32]] = [random.random(length, np.float32) for length in lengths]
        self._images = list(heldout().images)
        self._logits: list[NDArray[Any]] = []
        self.calls = 0
        self.failed = 0
        self.wrong = 0
        self.examples: list[str] = []

    def input_of(self, number: int) -> NDArray[np.float32]:
        """Returns the vector of this call, which says whose it is."""
        x = self._inputs[number % INPUTS].copy()
        x[0] = number % NUMBERS
        return x

    def is_echo(self, x: NDArray[np.float32], y: object) -> bool:
        """Whether `y` is `x`."""
        return isinstance(y, np.ndarray) and y.dtype == x.dtype and np.array_equal(x, y)

    def check(self, x: NDArray[np.float32], y: object, who: str) -> None:
        """Counts an answer of "echo"."""
        self.calls += 1
        if not self.is_echo(x, y):
            self.note_wrong(f"{who}: the answer to {x.shape} from {x[0]:.0f} on is {y!r:.80}")

    def note_wrong(self, what: str) -> None:
        """Counts a wrong answer."""
        self.wrong += 1
        self._keep(f"wrong: {what}")

    def note_failed(self, what: str) -> None:
        """Counts a call without an answer."""
        self.failed += 1
        self._keep(f"failed: {what}")

    def _keep(self, what: str) -> None:
        if len(self.examples) < SHOWN_FAILURES:  # a list without a bound would be the leak that we look for
            self.examples.append(what)

    async def capacity(self, client: AsyncClient) -> float:
        """Returns how many calls a second `infer_many` gets through, and asks for the digits' right answers."""
        self._logits = [np.asarray(y) async for y in client.infer_many("digits", self._images)]
        asked: deque[NDArray[np.float32]] = deque()
        began = time.perf_counter()

        def inputs() -> Iterator[Array]:
            number = 0
            while time.perf_counter() - began < CAPACITY_S:
                asked.append(self.input_of(number))
                yield asked[-1]
                number += 1

        before = self.calls
        async for y in client.infer_many("echo", inputs()):
            self.check(asked.popleft(), y, "infer_many")
        return (self.calls - before) / (time.perf_counter() - began)

    async def run(self, client: AsyncClient, rate: float, is_over: Callable[[], bool]) -> None:
        """Sends calls at this rate until it is over, and returns when the last has ended."""
        sent, began = 0, time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not is_over():
                due = int((time.perf_counter() - began) * rate)
                for number in range(sent, min(due, sent + MAX_BURST)):
                    tasks.create_task(self._ask(client, number))
                    sent += 1
                await asyncio.sleep(BURST_S)

    async def _ask(self, client: AsyncClient, number: int) -> None:
        try:
            if number % DIGITS_EVERY:
                x = self.input_of(number)
                self.check(x, await client.infer("echo", x), "the load")
                return
            which = number // DIGITS_EVERY % len(self._images)
            y = await client.infer("digits", self._images[which])
            self.calls += 1
            if not (isinstance(y, np.ndarray) and np.allclose(y, self._logits[which], 1e-3, 1e-3)):
                self.note_wrong(f"call {number}: image {which} gave {y!r:.80}")
        except ZmqInferError as error:
            self.calls += 1
            self.note_failed(f"call {number}: {error!r}")
