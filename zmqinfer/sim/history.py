"""What was asked, what ran, and how each call ended; and what must hold of all that.

Each call's input holds its number, so that a model can note that it ran, and the answer can be told from
that of any other call.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from zlib import crc32

import msgpack

from zmqinfer.errors import Executed, Status
from zmqinfer.scenario import TimedModel

__all__ = ["INPUT", "OUTPUT_LAYOUT", "Call", "History", "Violation", "answer_to", "is_poison"]

# A caller has its outcome so long after the deadline at the latest.
GRACE_S = 0.25
# Time that a node cannot know of: in a poll during which it was stopped.
POLL_S = 1.0
# So long after the last fault everything works again: reconnects, and sessions that have to be found lost first.
RECOVERY_S = 5.0
_BODY = struct.Struct("<qq")
# A row of inputs and one of outputs.
INPUT: bytes = msgpack.packb([["", "INT64", [2]]])
OUTPUT_LAYOUT: bytes = msgpack.packb([["y", "INT64", [3]]])
ROW_BYTES, ANSWER_BYTES = 16, 24


class Violation(AssertionError):
    """Something that must never happen has happened."""


def body_of(number: int, *, is_poison: bool) -> bytes:
    """Returns a call's input."""
    return _BODY.pack(number, is_poison)


def is_poison(row: bytes) -> bool:
    """Whether an input ends the process that runs it."""
    return bool(_BODY.unpack(row)[1])


def answer_to(model: str, row: bytes) -> bytes:
    """Returns what a model makes of an input: another thing for each of both."""
    return crc32(model.encode()).to_bytes(8, "little") + row


@dataclass(slots=True)
class Call:
    """One call, from its caller's point of view.

    Attributes:
        runs: when it began to run, on any worker.
        status: how it ended; None while it has not.
        executed: whether it may have run, as its outcome says.
        has_hung: whether its batch was made to take much longer than it should.
        has_failed: whether a model raised for it.
        has_vanished: whether its worker was killed, or its connection lost, soon after it had begun it alone: one that
            cannot come back for two seconds cannot be told from one that has ended.
        kills: how many workers it ended.
        is_given_up: whether its client was killed or took it back, so that nobody waits for its outcome.
        is_fleeting: whether its caller takes it back, if it has not ended before.
        tag: its client's; one that was refused at once has none.
    """

    number: int
    model: str
    body: bytes
    sent_at: float
    deadline: float
    may_run_twice: bool
    runs: list[float] = field(default_factory=list)
    status: Status | None = None
    executed: Executed = Executed.MAYBE
    ended_at: float = 0.0
    is_given_up: bool = False
    has_hung: bool = False
    has_failed: bool = False
    has_vanished: bool = False
    kills: int = 0
    is_fleeting: bool = False
    tag: int = -1


class History:
    """All calls of a run.

    Attributes:
        healed_at: when the last fault is over. From a few seconds later on nothing has an excuse any more.
        hidden_s: so long after its deadline a call may begin to run, and do nothing but waste the work: for a node
            it has time left, because it does not know how long it was on its way.
        open: how many calls somebody waits for.
    """

    def __init__(self, promised_s: float = 0.0, most_kills: int = 0) -> None:
        """Notes nothing yet.

        Args:
            promised_s: calls that have at least so long must be answered right, those excepted that hang, fail or kill.
            most_kills: so many workers may a call end; 0: any number.
        """
        self._most_kills = most_kills or 10**6
        self._promised_s = promised_s or float("inf")
        self.calls: list[Call] = []
        self.healed_at = float("inf")
        self.hidden_s = POLL_S
        self.open = 0

    def begin(self, model: TimedModel, deadline_s: float, now: float, *, is_poison: bool = False) -> Call:
        """Notes a new call."""
        number = len(self.calls)
        body = body_of(number, is_poison=is_poison)
        call = Call(number, model.name, body, now, now + deadline_s, model.idempotent)
        self.calls.append(call)
        self.open += 1
        return call

    def give_up(self, call: Call) -> None:
        """Notes that nobody waits for a call any more."""
        if call.status is None and not call.is_given_up:
            call.is_given_up = True
            self.open -= 1

    def ran(self, row: bytes, now: float) -> None:
        """Notes that a model began to run an input."""
        call = self.of(row)
        call.runs.append(now)
        if not call.may_run_twice and len(call.runs) > 1:
            raise Violation(f"call {call.number} may not run twice and ran at {call.runs}")
        if now > call.deadline + self.hidden_s:
            raise Violation(f"call {call.number} ran {now - call.deadline:.3f} s after its deadline")
        if call.status is not None and call.executed is Executed.NO:
            raise Violation(f"call {call.number} ended as {call.status.name}, said not to have run, and ran at {now}")

    def of(self, row: bytes) -> Call:
        """Returns the call that an input belongs to."""
        return self.calls[int(_BODY.unpack(row)[0])]

    def kill(self, row: bytes) -> None:
        """Notes that an input has ended its worker."""
        call = self.of(row)
        call.kills += 1
        if call.kills > self._most_kills:
            raise Violation(f"call {call.number} has ended {call.kills} workers")

    def end(self, call: Call, status: Status, answer: bytes, executed: Executed, now: float, resumed_at: float) -> None:
        """Notes how a call ended, and checks that it may.

        Args:
            answer: the row of the output, of a result.
            executed: as the reply says.
            resumed_at: when its client was last frozen until; none can answer while it is.
        """
        if call.status is not None:
            raise Violation(f"call {call.number} ended as {call.status.name} and as {status.name}")
        if call.is_given_up:
            raise Violation(f"call {call.number} was taken back and ended as {status.name} all the same")
        self.open -= 1
        call.status = status
        call.executed = executed
        call.ended_at = now
        if status is Status.OK and answer != answer_to(call.model, call.body):
            raise Violation(f"call {call.number} of {call.model!r} was answered {answer.hex()}")
        if call.executed is Executed.NO and call.runs:
            raise Violation(f"call {call.number} ended as {status.name}, said not to have run, and ran at {call.runs}")
        if call.executed is Executed.YES and not call.runs:
            raise Violation(f"call {call.number} ended as {status.name}, said to have run, and never ran")
        if status is Status.MODEL_ERROR and not call.has_failed:
            raise Violation(f"call {call.number} ended as {status.name}, and no model raised for it")
        if status is Status.POISONED and not (call.kills or call.has_vanished):
            raise Violation(f"call {call.number} ended as {status.name}, and has ended no worker")
        is_excused = call.has_hung or call.has_failed or call.has_vanished or call.kills
        if status is not Status.OK and call.deadline - call.sent_at >= self._promised_s and not is_excused:
            raise Violation(f"call {call.number} ended as {status.name} after {now - call.sent_at:.3f} s")
        late_s = now - max(call.deadline, resumed_at)
        if late_s > GRACE_S:
            raise Violation(f"call {call.number} ended {late_s:.3f} s after its deadline")
        is_healed = call.deadline > max(self.healed_at, call.sent_at) + RECOVERY_S
        if status is Status.DEADLINE_EXCEEDED and is_healed and not call.has_hung:
            raise Violation(
                f"call {call.number} of {call.sent_at:.3f} s waited until {call.deadline:.3f} s for nothing:"
                f" all had healed at {self.healed_at:.3f} s"
            )

    def check_all_ended(self) -> None:
        """Raises `Violation` if anybody still waits."""
        waiting = [call.number for call in self.calls if call.status is None and not call.is_given_up]
        if waiting:
            raise Violation(f"{len(waiting)} calls never ended, the first is {waiting[0]}")

    def outcomes(self) -> dict[str, int]:
        """Returns how many calls ended in which way."""
        counts = Counter("given up" if call.status is None else call.status.name for call in self.calls)
        return dict(sorted(counts.items()))
