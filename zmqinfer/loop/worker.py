"""A worker's turn, in two halves: it takes in what has come and names the batches to begin, then sends what there is.

Between the halves a shell may run short batches itself.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.inbox import Inbox
from zmqinfer.loop.ports import Reporter
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.records import PAYLOAD, Kind, Record
from zmqinfer.tensor import Buffer, SharedPayload

__all__ = ["Done", "WorkerLoop"]

# A batch, what became of its calls, and for how long the model ran, in seconds.
Done: TypeAlias = tuple[Batch, list[Outcome], float]

# Returns the parts of a payload in its client's memory, None if they cannot be had.
Read: TypeAlias = Callable[[SharedPayload], list[Buffer] | None]

# A socket that is not connected yet does not say when it will be: what waits to leave is tried so often.
_RETRY_S = 0.010


class WorkerLoop:
    """Turns a worker.

    Attributes:
        done: batches that have run; any thread may add to it.
        inbox: what the next turn is to do besides.
        is_due: whether the present turn does what time asks for.
        is_in_danger: whether the batches that `take_in` just named may end this process: what was sent before should
            have left by then.
    """

    def __init__(
        self, machine: WorkerMachine, dialler: Dialler[Any], report: Reporter, read: Read = lambda _: None
    ) -> None:
        self.done: deque[Done] = deque()
        self.is_due = self.is_in_danger = False
        self._machine = machine
        self._dialler = dialler
        self._report = report
        self._read = read
        self.inbox = Inbox()
        self._due: float | None = None
        # How long what the sockets hold may have waited while this node was not looking.
        self._gap = 0.0

    def drain(self) -> None:
        """Has the next turn begin to leave; from any thread or signal handler."""
        self.inbox.put(self._machine.drain)

    def take_in(self, now: float, away_s: float) -> dict[int, deque[Batch]]:
        """Takes what has come, and returns the batches to begin, by the numbers of their models.

        Args:
            away_s: for how long nobody looked, beyond what was waited for; what is found may be so old.
        """
        machine = self._machine
        self._gap = max(self._gap, away_s)
        self._answer()
        # A backlog takes several turns: until it is gone everything in it may be as old.
        if not self._dialler.drain(self._on_message, now, machine.on_broken):
            self._gap = 0.0
        self.inbox.empty(now)
        self.is_due = machine.is_leaving or (self._due is not None and self._due <= now)
        if self.is_due:
            machine.on_timer(now)
        begun = machine.take_batches(now)
        self.is_in_danger = machine.is_in_danger
        if self.is_in_danger:
            machine.is_in_danger = False
            self._dialler.flush(now)
        return begun

    def send_out(self, now: float) -> float | None:
        """Sends what there is to send; returns when to turn again if nothing comes before, or None."""
        machine = self._machine
        self._answer()
        is_stuck = self._dialler.flush(now)
        for news, say in ((machine.events, self._report.info), (machine.warnings, self._report.warning)):
            for event, values in news:
                say(event, **values)
            news.clear()
        due = self._due = machine.wake_at()
        return now + _RETRY_S if is_stuck and (due is None or due > now + _RETRY_S) else due

    def is_over(self) -> bool:
        """Whether that was the last turn."""
        return self._machine.is_drained or bool(self._machine.ended_by)

    def _answer(self) -> None:
        """Answers the batches that have run."""
        while self.done:
            self._machine.on_batch_done(*self.done.popleft())

    def _on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        if kind is Kind.REQUEST:
            for record in records:
                if type(record[PAYLOAD]) is tuple:
                    record[PAYLOAD] = self._read(record[PAYLOAD])
        self._machine.on_message(number, kind, records, now, self._gap)
