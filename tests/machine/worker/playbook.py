"""A worker and the time it lives in."""

from __future__ import annotations

from typing import Any

import numpy as np

from zmqinfer.config import WorkerSettings
from zmqinfer.errors import EXECUTED, Executed
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import MAX_CALLS, Kind, Record
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import layout_of
from zmqinfer.wire import decode, encode

__all__ = [
    "MAYBE",
    "NO",
    "START",
    "YES",
    "Shift",
    "X",
    "asks",
    "layout",
]

START = 1_000.0
X = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
NO, YES, MAYBE = (EXECUTED.index(executed) for executed in (Executed.NO, Executed.YES, Executed.MAYBE))


def layout(dtype: str = "<f4", shape: tuple[int, ...] = (1,), name: str = "") -> bytes:
    return layout_of({name: np.zeros(shape, dtype)}, None).raw


def asks(
    tag: int,
    model: str = "m",
    version: int = 1,
    *,
    rows: int = 1,
    budget_s: float = 30.0,
    raw: bytes | None = None,
    payload: Any = None,
    places: int = 1,
) -> Record:
    """A REQUEST as a gateway sends it, for these places of a block."""
    rows = max(rows, places.bit_count())
    body = bytes(4 * rows) if payload is None else payload
    raw = layout() if raw is None else raw
    return [
        tag,
        places,
        b"id " + (MAX_CALLS * tag).to_bytes(8, "big"),
        model,
        version,
        None,
        int(budget_s * 1e6),
        4,
        1,
        None,
        rows,
        raw,
        body,
    ]


class Shift:
    """A worker and the time it lives in; gateways are numbers. Everything said passes through the wire's codec."""

    def __init__(
        self,
        *cards: ModelCard,
        gateways: int = 1,
        settings: WorkerSettings | None = None,
        limits: BatchLimits | None = None,
    ) -> None:
        self.now = START
        self.machine = WorkerMachine(
            settings or WorkerSettings(),
            name="w1",
            session=b"0123456789abcdef",
            agent="test",
            cards=list(cards) or [ModelCard("m", 1, X, limits or BatchLimits())],
            gateways=[f"tcp://gateway{number}" for number in range(gateways)],
            now=START,
        )
        self._said: list[tuple[int, Kind, Record]] = []
        self.beats = 0
        self._collect()

    def welcomed(self, *, heartbeat_ms: int = 500) -> Shift:
        for number in range(len(self.machine.links)):
            self.hears(number, Kind.WELCOME, [b"%016d" % number, "gateway", heartbeat_ms, 2**27, []])
        self._said.clear()
        return self

    def hears(self, number: int, kind: Kind, *records: Record, gap: float = 0.0) -> Shift:
        for _, (head, *parts) in encode(kind, list(records), 2**40):
            self.machine.on_message(number, *decode(bytes(head), parts), self.now, gap)
        return self._stepped()

    def begins(self) -> list[Batch]:
        """The batches that idle engines take now."""
        begun = [batch for batches in self.machine.take_batches(self.now).values() for batch in batches]
        self._stepped()
        return begun

    def runs(self, batch: Batch, *outcomes: Outcome, compute_s: float = 0.01) -> Shift:
        """By default each task gets one outcome for all of its calls."""
        answers = list(outcomes) or [(task.calls, b"layout", b"yyyy" * task.calls) for task in batch.tasks]
        self.machine.on_batch_done(batch, answers, compute_s)
        return self._stepped()

    def works(self) -> Shift:
        """Runs all that it has."""
        while batches := self.begins():
            for batch in batches:
                self.runs(batch)
        return self

    def _has_ended(self) -> bool:
        return self.machine.is_drained or bool(self.machine.ended_by)

    def waits(self, seconds: float) -> Shift:
        until = self.now + seconds
        stuck = 0
        while not self._has_ended() and (due := self.machine.wake_at()) is not None and due <= until:
            stuck = stuck + 1 if due <= self.now else 0
            assert stuck < 10, f"the machine wants to be woken at {due} again and again"
            self.now = max(self.now, due)
            self.machine.on_timer(self.now)
            self._stepped()
        self.now = until
        return self

    def _stepped(self) -> Shift:
        self.machine.check()
        self._collect()
        return self

    def _collect(self) -> None:
        batch = self.machine.dirty.copy()
        self.machine.dirty.clear()
        for outbox in batch:
            for head, *parts in outbox.messages(self.now):
                kind, records = decode(bytes(head), parts)
                assert isinstance(outbox.address, int)
                self._said += [(outbox.address, kind, record) for record in records]

    def said(self, kind: Kind, number: int = 0) -> list[Record]:
        found = [word for word in self._said if word[:2] == (number, kind)]
        self._said = [word for word in self._said if word[:2] != (number, kind)]
        return [record for _, _, record in found]

    def says(self, kind: Kind, number: int = 0) -> Record:
        records = self.said(kind, number)
        assert len(records) == 1, (kind, records, self._said)
        return records[0]

    def says_nothing(self) -> Shift:
        assert not self._said, self._said
        return self
