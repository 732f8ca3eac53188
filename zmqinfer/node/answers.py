"""What a reply tells beside the output: who gave it, how long that took, and the body as it travelled."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from zmqinfer.errors import ZmqInferError
from zmqinfer.loop.client import Owner, Taker, end
from zmqinfer.machine.client.codec import Output
from zmqinfer.records import (
    ATTEMPTS,
    BATCH_ROWS,
    COMPUTE_US,
    OUTPUT,
    PLACES,
    QUEUE_US,
    RESULT,
    SERVED_VERSION,
    WORKER,
    Record,
)
from zmqinfer.tensor import Payload

__all__ = ["Answer", "CallInfo", "KeepsReply"]


@dataclass(frozen=True, slots=True)
class CallInfo:
    """How a call was served.

    Attributes:
        worker: the name of the worker that answered; empty if none did.
        version: of the model, which the gateway chose if the call named none; 0 if none ran.
        attempts: how often the call was asked for, 1 if it was not refused before.
        batch_rows: of the batch that it ran in, those of others included.
        queue_us: from its arrival at the worker to the start of that batch.
        compute_us: what that batch took.
        round_trip_us: from the call to the reply, as the client saw it.
    """

    worker: str
    version: int
    attempts: int
    batch_rows: int
    queue_us: int
    compute_us: int
    round_trip_us: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What a body was answered with.

    Attributes:
        layout: what one row of the outputs looks like, in msgpack: a list of [name, dtype, shape].
        payload: their values, one behind the other as bytes, or in a buffer each.
        info: how the call was served.
    """

    layout: bytes
    payload: Payload
    info: CallInfo


# What a `CallInfo` begins with, out of a reply.
_INFO = (WORKER, SERVED_VERSION, ATTEMPTS, BATCH_ROWS, QUEUE_US, COMPUTE_US)


class KeepsReply(Taker):
    """Keeps the reply to one call, for who asks for more than its output; mixed into an owner."""

    _reply: Record | None = None
    _place = 0
    _arrived_at = 0.0

    def __init__(self, *arguments: Any, **words: Any) -> None:
        super().__init__(*arguments, **words)
        self._began_at = time.monotonic()

    def take(self, reply: Record, place: int, outcomes: Sequence[Output | ZmqInferError]) -> None:
        """Notes a reply that is for several calls, and which of them this is, and ends the wait."""
        # It is looked at when somebody asks: most never do.
        self._reply, self._place, self._arrived_at = reply, place, time.monotonic()
        end(cast("Owner", self), outcomes[0])

    def call_info(self) -> CallInfo:
        """Returns what the reply tells, which is there."""
        reply = self._reply
        assert reply is not None
        round_trip_us = round((self._arrived_at - self._began_at) * 1e6)
        return CallInfo(*[*[reply[place] for place in _INFO], round_trip_us])

    def answer(self) -> Answer:
        """Returns the result as it travelled, which is there."""
        reply = self._reply
        assert reply is not None
        payload = reply[OUTPUT]
        calls = reply[PLACES].bit_count()
        if type(payload) is bytes and calls > 1:
            size = len(payload) // calls
            payload = payload[self._place * size : (self._place + 1) * size]
        return Answer(reply[RESULT], payload, self.call_info())
