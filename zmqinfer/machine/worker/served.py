"""One model of a worker: what it takes, what waits for it, what it runs, and what it has earned."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from zmqinfer.errors import InvalidArgument, TooLarge
from zmqinfer.machine.worker.task import Batch, Bound, Task
from zmqinfer.policy.batching import Batcher, BatchLimits
from zmqinfer.records import LAYOUT, PAYLOAD, PLACES, ROWS, Record
from zmqinfer.signature import Signature
from zmqinfer.tensor import parse_layout, payload_bytes

if TYPE_CHECKING:
    from zmqinfer.config import ModelSettings
    from zmqinfer.scenario import TimedModel

__all__ = ["ModelCard", "ServedModel"]

# Batches shorter than this are so many that a gateway must be allowed to send ahead: as many rows as run in
# `_AHEAD_S`. A bare prototype with batches of 32: 64 credits 181-236,000 req/s, 256 271,000, 512 299,000.
_SHORT_BATCH_S = 0.001
_AHEAD_S = 0.005
_MAX_CREDITS = 1_024
# An engine whose batches were all shorter than this, over so many of them, is short. The two hand-overs to a thread and
# back cost 1.6 of a worker's 7 us for a request at 200 in flight, and 0.12 of 0.53 ms at one in flight.
_SHORT_S = 0.000_5
_TRIALS = 50
_FORGET = 0.9
# A batch that takes so many times as long as expected, and a second at least, is stuck: this engine gets no more.
_STUCK = 4.0
_STUCK_S = 1.0
# The first one may have a model to warm up, and nobody knows how long that takes.
_STUCK_FIRST_S = 30.0
# Layouts remembered for each model; a caller who varies the shape more than that pays for parsing.
_MAX_BOUND = 1_024


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a worker announces of one model, and how it batches it."""

    name: str
    version: int
    signature: Signature
    limits: BatchLimits
    idempotent: bool = True
    hedge: bool = False

    @classmethod
    def of(
        cls, name: str, version: int, signature: Signature, own: ModelSettings | TimedModel, max_rows: int = 0
    ) -> ModelCard:
        """Returns the card of a model with settings of its own; `max_rows` is its worker's bound, 0 for none."""
        limits = BatchLimits(max_rows or own.max_batch_size, own.max_wait_ms / 1000, own.policy == "timed")
        return cls(name, version, signature, limits, own.idempotent, own.hedge)


class ServedModel:
    """A model's waiting requests, and the batches that its engine has.

    Attributes:
        number: what the gateways know it by.
        running: batches that were handed to the engine, the one that runs first.
        ahead: those of them that it has not begun; it takes them from the left, on a thread of its own.
        credits: rows that the gateways may have under way here.
        is_served: whether it takes requests; else what it runs is its last.
        is_stuck: whether the first of `running` takes much longer than it should.
    """

    __slots__ = (
        "_bound", "_longest_s", "_shapes", "ahead", "batcher", "card", "credits", "is_served", "is_stuck", "number",
        "running",
    )  # fmt: skip

    def __init__(self, number: int, card: ModelCard) -> None:
        self.number = number
        self.card = card
        self.batcher: Batcher[Task] = Batcher(card.limits)
        self.running: list[Batch] = []
        self.ahead: deque[Batch] = deque()
        self.credits = 2 * card.limits.max_rows
        self.is_served, self.is_stuck = True, False
        # The longest recent batch; a long one is remembered for some dozens that are shorter: it may
        # be the system that was long, which on busy cores is often so.
        self._longest_s = 0.0
        self._bound: dict[bytes, Bound] = {}
        self._shapes: dict[tuple[tuple[str, tuple[int, ...]], ...], Bound] = {}

    def fit(self, record: Record) -> tuple[Bound, int]:
        """Returns what a request's input looks like to the model, and the bytes of its payload.

        Raises:
            InvalidArgument: the input does not fit the signature, or its payload not its layout.
            ProtocolError: the layout is none.
            TooLarge: a call has more rows than a batch.
        """
        bound = self._bound.get(record[LAYOUT]) or self._bind(record[LAYOUT])
        rows, payload = record[ROWS], record[PAYLOAD]
        if type(payload) is bytes:
            size = len(payload)
            fits = size == bound.layout.row_bytes * rows
        else:
            size = payload_bytes(payload)
            fits = [len(part) for part in payload] == [field.row_bytes * rows for field in bound.layout.fields]
        if not fits:
            wanted = bound.layout.row_bytes * rows
            raise InvalidArgument(f"the payload has {size:,} bytes, {rows} rows of its layout have {wanted:,}")
        most = self.card.limits.max_rows
        if rows > most and record[PLACES].bit_count() == 1:
            raise TooLarge(f"the request has {rows} rows, model {self.card.name!r} takes {most}; split it")
        return bound, size

    def _bind(self, raw: bytes) -> Bound:
        layout = parse_layout(raw)
        order = self.card.signature.order(layout, self.card.name)
        # One object for one shape, however the caller named or ordered its inputs.
        shape = tuple((layout.fields[place].dtype, layout.fields[place].shape) for place in order)
        if len(self._bound) >= _MAX_BOUND:
            self._bound.clear()
            self._shapes.clear()
        if order == tuple(range(len(order))):
            bound = self._shapes.setdefault(shape, Bound(layout, order, self.number))
        else:
            bound = Bound(layout, order, self.number)
        self._bound[raw] = bound
        return bound

    def learn(self, rows: int, compute_s: float) -> None:
        """Notes how long a batch of so many rows took."""
        self.batcher.curve.learn(rows, compute_s)
        self._longest_s = max(compute_s, self._longest_s * _FORGET)

    def patience_s(self, rows: int) -> float:
        """Returns after how long a batch of so many rows is stuck."""
        curve = self.batcher.curve
        if not curve.batches:
            return _STUCK_FIRST_S
        return max(_STUCK_S, _STUCK * max(curve.predict(rows), self._longest_s))

    def is_short(self) -> bool:
        """Whether its batches are so short that handing one to another thread costs more than it gains."""
        return self.batcher.curve.batches >= _TRIALS and self._longest_s < _SHORT_S

    def earned_credits(self) -> int:
        """Returns how many rows may be under way to this engine, from what its batches were seen to cost."""
        rows = self.card.limits.max_rows
        one_s = self.batcher.curve.predict(rows)
        if not 0 < one_s < _SHORT_BATCH_S:
            return 2 * rows
        return max(2 * rows, min(int(rows * _AHEAD_S / one_s), _MAX_CREDITS))
