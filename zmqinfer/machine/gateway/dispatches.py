"""What the gateway's workers have in hand: tags, credits, and which reply belongs to which dispatch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from zmqinfer.errors import Status
from zmqinfer.machine.block import Parts, reply_part
from zmqinfer.machine.gateway.members import Replica, WorkerSession
from zmqinfer.machine.gateway.requests import Dispatch, Request
from zmqinfer.records import (
    ALONE,
    BATCH_ROWS,
    COMPUTE_US,
    KEY,
    MODEL_VERSION,
    PLACES,
    RAN,
    RAN_NO,
    STATUS,
    TAG,
    Kind,
    Record,
)

__all__ = ["Dispatches"]


class Dispatches:
    """All dispatches by their tags, tombstones too.

    Attributes:
        late_replies: answers to calls that had ended or moved.
        stray_replies: answers from a worker that was not given the call.
    """

    __slots__ = ("_divide", "_open", "_tag", "late_replies", "stray_replies")

    def __init__(self, first_tag: int, divide: Callable[[Request, int], Request]) -> None:
        """Makes an empty table; `divide` cuts some of the calls off a request, in all tables."""
        self._tag = first_tag
        self._divide = divide
        self._open: Parts[Dispatch] = Parts()
        self.late_replies = self.stray_replies = 0

    def send(self, request: Request, replica: Replica) -> Dispatch:
        """Gives a request to a replica, under a new tag."""
        self._tag = tag = self._tag + 1
        dispatch = Dispatch(tag, request, replica)
        request.dispatches += (dispatch,)
        self._open.add(tag, dispatch)
        record = request.record.copy()
        record[TAG] = tag
        record[KEY] = None  # it has found its worker
        record[MODEL_VERSION] = request.route.version
        if request.is_suspect:
            dispatch.is_alone = True
            record[ALONE : ALONE + 1] = [True]
        elif len(record) > ALONE and record[ALONE] is True:
            record[ALONE] = None  # that is for a gateway to say
        replica.placement.take(replica, request.rows)
        replica.worker.outbox.put_request(record, request.deadline, request.size)
        return dispatch

    def enter(self, head: Request) -> None:
        """Notes the dispatches of a request that was cut off from another one while workers had it."""
        for dispatch in head.dispatches:
            self._open.add(dispatch.tag, dispatch)

    @staticmethod
    def recall(dispatches: Iterable[Dispatch]) -> None:
        """Asks workers for what they have not begun; what they have begun they answer as always."""
        for dispatch in dispatches:
            dispatch.replica.worker.outbox.put(Kind.CANCEL, [dispatch.tag, dispatch.places])

    def take(self, worker: WorkerSession, record: Record) -> Iterator[tuple[Dispatch, Record]]:
        """Yields the dispatches that a REPLY ends, each with its part of it; their credit is given back.

        A worker may answer in parts, and this gateway may have divided the block: both are cut until they are alike.
        """
        tag, places = record[TAG], record[PLACES]
        late = places
        for dispatch in self._open.about(tag, places):
            request = dispatch.request
            own = request.places & places
            late ^= own
            if dispatch.replica.worker is not worker:
                self.stray_replies += own.bit_count()
                worker.strays += own.bit_count()
                continue
            if own != request.places:
                request = self._divide(request, own)
                (dispatch,) = [one for one in request.dispatches if one.tag == tag]  # noqa: PLW2901 - the part of it
            part = record if own == places else reply_part(record, own)
            self._end(dispatch)
            self._count(dispatch, part)
            if not request.is_open:
                self.late_replies += request.calls
            yield dispatch, part
        self.late_replies += late.bit_count()

    def _end(self, dispatch: Dispatch) -> None:
        self._open.remove(dispatch.tag, dispatch)
        request = dispatch.request
        if len(request.dispatches) == 1:
            request.dispatches = ()
        else:
            request.dispatches = tuple([other for other in request.dispatches if other is not dispatch])

    @staticmethod
    def _count(dispatch: Dispatch, record: Record) -> None:
        replica, request = dispatch.replica, dispatch.request
        rows = request.rows
        replica.placement.give_back(replica, rows)
        replica.answered += request.calls
        if record[RAN] != RAN_NO:
            request.route.ran_rows += rows
        if record[STATUS]:
            # How long it took says nothing: what fails may fail at once.
            replica.failed += request.calls if record[STATUS] == Status.MODEL_ERROR else 0
        elif record[BATCH_ROWS]:
            replica.answered_rows += rows
            part = rows / record[BATCH_ROWS]
            replica.batches += part
            replica.busy_us += part * record[COMPUTE_US]

    def recall_all_of(self, replica: Replica) -> None:
        """Asks a replica that should get no work for what it has not begun, and somebody waits for."""
        self.recall([one for one in self._open if one.replica is replica and one.request.is_open])

    def take_all_of(self, worker: WorkerSession) -> list[Dispatch]:
        """Takes out and returns all that a lost worker had, tombstones too, in the order in which it was sent."""
        held = [dispatch for dispatch in self._open if dispatch.replica.worker is worker]
        for dispatch in held:
            self._end(dispatch)
        # The parts of one block lie in the order of their division.
        held.sort(key=lambda dispatch: (dispatch.tag, dispatch.places & -dispatch.places))
        return held

    def check(self) -> tuple[int, dict[Replica, int]]:
        """Asserts that all agree; returns how many calls workers have, without tombstones, and the rows by replica."""
        awaited = 0
        held: dict[Replica, int] = {}
        for dispatch in self._open:
            request = dispatch.request
            assert dispatch in request.dispatches
            assert not request.is_waiting, "it waits, and a worker has it"
            held[dispatch.replica] = held.get(dispatch.replica, 0) + dispatch.request.rows
            if request.is_open and request.dispatches[0] is dispatch:
                awaited += request.calls
        return awaited, held
