"""What the gateway's workers have in hand: tags, credits, and which reply belongs to which request."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from zmqinfer.errors import Status
from zmqinfer.machine.block import covering, cut_reply
from zmqinfer.machine.flight import Flight
from zmqinfer.machine.ledger import RAN_NO
from zmqinfer.machine.members import WorkerSession
from zmqinfer.machine.routes import Engine
from zmqinfer.records import ALONE, BATCH_ROWS, CALLS, COMPUTE_US, MAX_CALLS, MODEL_VERSION, RAN, STATUS, TAG, Record

__all__ = ["Dispatches"]


class Dispatches:
    """Dispatched requests by the tag of their first call; those that nobody waits for stay as tombstones.

    Attributes:
        late_replies: answers to calls that had ended or moved.
        stray_replies: answers from a worker that was not given the call.
    """

    __slots__ = ("_divide", "_open", "_tag", "late_replies", "stray_replies")

    def __init__(self, first_tag: int, divide: Callable[[Flight, int], Flight]) -> None:
        """Makes an empty table; `divide` cuts the first calls off a flight, in all other tables too."""
        self._tag = first_tag - first_tag % MAX_CALLS
        self._divide = divide
        self._open: dict[int, Flight] = {}
        self.late_replies = self.stray_replies = 0

    def send(self, flight: Flight, engine: Engine) -> None:
        """Gives a request to an engine, under new tags."""
        self._tag = tag = self._tag + MAX_CALLS
        flight.tag = tag
        flight.engine = engine
        self._open[tag] = flight
        record = flight.record
        record[TAG] = tag
        record[MODEL_VERSION] = flight.route.version
        if flight.is_suspect:
            record[ALONE : ALONE + 1] = [True]
        elif len(record) > ALONE and record[ALONE] is True:  # it is acquitted
            record[ALONE] = None
        engine.placement.take(engine, flight.rows)
        engine.worker.outbox.put_request(record, flight.deadline, flight.size)

    def enter(self, flight: Flight) -> None:
        """Notes a part of a request that was divided while its worker had it."""
        self._open[flight.tag] = flight

    def take(self, worker: WorkerSession, record: Record) -> Iterator[tuple[Flight, Record]]:
        """Yields the requests that a REPLY answers, each with its part of it; their credit is given back.

        A worker may answer a block in parts, and the gateway may have divided it since: both are cut
        until they are alike.
        """
        rest: Record | None = record
        while rest is not None:
            part, rest = rest, None
            flight = self._open.get(part[TAG]) or covering(self._open, part[TAG])
            engine = flight.engine if flight is not None else None
            if flight is None or engine is None or engine.worker is not worker:
                if flight is None:
                    self.late_replies += 1
                else:
                    self.stray_replies += 1
                    worker.strays += 1
                if part[CALLS] > 1:
                    _, rest = cut_reply(part, 1)
                continue
            if flight.tag < part[TAG]:
                self._divide(flight, part[TAG] - flight.tag)
            if flight.calls > part[CALLS]:
                flight = self._divide(flight, part[CALLS])
            elif flight.calls < part[CALLS]:
                part, rest = cut_reply(part, flight.calls)
            del self._open[flight.tag]
            self._count(engine, flight, part)
            if flight.client is None and flight.rival is None:
                self.late_replies += flight.calls
            yield flight, part

    @staticmethod
    def _count(engine: Engine, flight: Flight, record: Record) -> None:
        rows = flight.rows
        engine.placement.give_back(engine, rows)
        engine.answered += flight.calls
        if record[RAN] != RAN_NO:
            engine.route.ran_rows += rows
        if record[STATUS]:
            # How long it took says nothing: what fails may fail at once.
            engine.failed += flight.calls if record[STATUS] == Status.MODEL_ERROR else 0
        elif record[BATCH_ROWS]:
            engine.answered_rows += rows
            part = rows / record[BATCH_ROWS]
            engine.batches += part
            engine.busy_us += part * record[COMPUTE_US]

    def awaited_from(self, engine: Engine) -> list[Flight]:
        """Returns what an engine has that somebody waits for."""
        return [flight for flight in self._open.values() if flight.engine is engine and flight.client is not None]

    def withdraw(self, worker: WorkerSession) -> list[Flight]:
        """Takes out and returns all that a lost worker held, tombstones too, in the order in which it was sent.

        Its replies are late from now on.
        """
        held = [flight for flight in self._open.values() if flight.engine and flight.engine.worker is worker]
        for flight in held:
            del self._open[flight.tag]
            assert flight.engine is not None
        # A part that was divided off is behind others in the table.
        held.sort(key=lambda flight: flight.tag)
        return held

    def check(self) -> tuple[int, dict[Engine, int]]:
        """Asserts that the tags agree.

        Returns:
            how many calls somebody waits for, and the rows of each engine.
        """
        awaited = 0
        held: dict[Engine, int] = {}
        for tag, flight in self._open.items():
            assert flight.tag == tag
            assert flight.engine is not None
            held[flight.engine] = held.get(flight.engine, 0) + flight.rows
            awaited += flight.calls if flight.client is not None else 0
        return awaited, held
