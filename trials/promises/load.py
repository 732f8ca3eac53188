"""Calls at a steady rate, whatever became of the earlier ones; each answer is checked."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

import numpy as np

from trials.promises.cluster import WITNESS
from trials.promises.witness import answer_to, input_of
from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError

__all__ = ["RIGHT", "Call", "Load", "ask", "complaints", "counted"]

RIGHT, WRONG = "right", "wrong"
DEADLINE_S = 10.0
_TICK_S = 0.002
# No two calls of this process are alike.
_numbers = itertools.count(1)


@dataclass(slots=True)
class Call:
    """One call, and what became of it: right, wrong, or the code of its error."""

    number: int
    deadline_s: float
    sent_at: float
    ended_at: float = float("inf")
    outcome: str = ""
    attempts: int = 1

    @property
    def took_s(self) -> float:
        """From when it was to be sent to its end."""
        return self.ended_at - self.sent_at


async def ask(
    client: AsyncClient,
    *,
    model: str = WITNESS,
    deadline_s: float = DEADLINE_S,
    longer_s: float = 0.0,
    key: str | None = None,
    calls: list[Call] | None = None,
    due_at: float | None = None,
) -> Call:
    """Makes one call and checks its answer; adds it to `calls` when it is sent.

    Args:
        due_at: the time counts from when it was to be sent, on `time.monotonic`, if that is not now.
    """
    call = Call(next(_numbers), deadline_s, time.monotonic() if due_at is None else due_at)
    if calls is not None:
        calls.append(call)
    x = input_of(call.number, longer_s)
    try:
        y = await client.infer(model, x, deadline_s=deadline_s, key=key)
    except ZmqInferError as error:
        call.outcome, call.attempts = error.code, error.attempts
    else:
        call.outcome = RIGHT if isinstance(y, np.ndarray) and np.array_equal(y, answer_to(x)) else WRONG
    call.ended_at = time.monotonic()
    return call


class Load:
    """Calls at a steady rate from the start of a block to its end, which waits for all answers."""

    def __init__(
        self, client: AsyncClient, rate_per_s: float, *, deadline_s: float = DEADLINE_S, model: str = WITNESS
    ) -> None:
        self.calls: list[Call] = []
        self._client = client
        self._rate_per_s = rate_per_s
        self._deadline_s = deadline_s
        self._model = model
        self._is_over = False
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._is_over = True
        if kind is not None:
            self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=kind is not None)

    async def _run(self) -> None:
        began = time.monotonic()
        sent = 0
        async with asyncio.TaskGroup() as tasks:
            while not self._is_over:
                due = int((time.monotonic() - began) * self._rate_per_s)
                for number in range(sent, due):
                    tasks.create_task(
                        ask(
                            self._client, model=self._model, deadline_s=self._deadline_s, calls=self.calls,
                            due_at=began + number / self._rate_per_s,
                        )
                    )  # fmt: skip
                sent = max(sent, due)
                await asyncio.sleep(_TICK_S)


def counted(calls: Iterable[Call]) -> str:
    """Returns how many calls there were, and how many of them were not answered right."""
    outcomes = [call.outcome for call in calls]
    return f"{len(outcomes):,} calls, {len(outcomes) - outcomes.count(RIGHT)} failed"


def complaints(calls: Iterable[Call]) -> list[str]:
    """Returns a sentence if there are calls that were not answered right, or if there are none at all."""
    everyone = list(calls)
    bad = [call for call in everyone if call.outcome != RIGHT]
    if not everyone:
        return ["no call was made"]
    if not bad:
        return []
    first = bad[0]
    which = f"the first, number {first.number}, ended with {first.outcome} after {first.took_s:.3f} s"
    return [f"{len(bad):,} of {len(everyone):,} calls were not answered right, {which}"]
