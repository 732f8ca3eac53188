"""The gateway's books: which calls were let in, and how each of them ended.

`received == refused + accepted` and `accepted == answered + pending` hold between any two steps, in
calls; what is pending is in exactly one client's `requests`, in the timing wheel and in admission's sums.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.gateway.requests import OUT, ClientSession, Request
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.replies import failure
from zmqinfer.policy.admission import Admission
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import ATTEMPT, OUTPUT, PLACES, RAN, RAN_MAYBE, RAN_NO, STATUS, TAG, Kind, Record
from zmqinfer.tensor import payload_bytes

__all__ = ["Ledger"]


class Ledger:
    """Counters, limits and deadlines of all requests in a gateway's hands.

    Attributes:
        outcomes: how many calls ended with each status, refusals included.
        duplicates: calls that came again while they were pending, and were not counted as received.
    """

    __slots__ = ("_admission", "_wheel", "accepted", "answered", "duplicates", "outcomes", "received", "refused")

    def __init__(self, limits: GatewaySettings) -> None:
        self._admission = Admission(limits)
        self._wheel: TimingWheel[Request] = TimingWheel()
        self.received = self.refused = self.accepted = self.answered = self.duplicates = 0
        self.outcomes = [0] * len(Status)

    @property
    def pending(self) -> int:
        """How many calls were let in and have not ended."""
        return self._admission.requests

    def enter(
        self, client: ClientSession, record: Record, size: int, deadline: float, route: Route[Request]
    ) -> Request | None:
        """Lets a request in, or refuses it because a limit is reached, and returns None."""
        calls = record[PLACES].bit_count()
        usage = client.owner
        if not self._admission.admit(usage, calls, size):
            self.refuse(client, record, *self._admission.refusal(usage, calls, size))
            return None
        self.accepted += calls
        request = Request(record, client, deadline, size, route)
        client.requests.add(request.tag, request)
        request.slot = self._wheel.add(request, deadline)
        return request

    def refuse(
        self, client: ClientSession, record: Record, status: Status, detail: str, retry_after_ms: int | None = None
    ) -> None:
        """Answers a request that is not let in."""
        calls = record[PLACES].bit_count()
        self.refused += calls
        self.outcomes[status] += calls
        reply = failure(
            record[TAG], record[PLACES], status, detail, attempt=record[ATTEMPT], retry_after_ms=retry_after_ms
        )
        client.outbox.put(Kind.REPLY, reply, len(detail))

    def divide(self, head: Request) -> None:
        """Notes a part that was cut off from a pending request."""
        head.client.requests.add(head.tag, head)
        head.slot = self._wheel.add(head, head.due_at)

    def look_at(self, request: Request, at: float) -> None:
        """Makes the wheel look at a request then, or at its deadline if that is sooner."""
        if request.slot != OUT:
            self._wheel.remove(request, request.slot)
        request.due_at = min(at, request.deadline)
        request.slot = self._wheel.add(request, request.due_at)

    def answer(self, request: Request, record: Record) -> None:
        """Ends a request with its worker's REPLY, which is for exactly its calls."""
        assert record[PLACES] == request.places, (record[PLACES], request.places)
        if request.may_have_run and record[RAN] == RAN_NO:
            # This worker speaks for itself alone: another one may have run it.
            record[RAN] = RAN_MAYBE
        record[TAG] = request.tag
        output = record[OUTPUT]
        size = payload_bytes(output) if type(output) is list else len(output or b"")
        self._close(request, record[STATUS]).put(Kind.REPLY, record, size)

    def end(self, request: Request, status: Status, detail: str, where: str | None, ran: int) -> None:
        """Ends a request with an outcome that the gateway decides."""
        ran = RAN_MAYBE if request.may_have_run and ran == RAN_NO else ran
        attempt = request.record[ATTEMPT]
        reply = failure(request.tag, request.places, status, detail, where, attempt=attempt, ran=ran)
        self._close(request, status).put(Kind.REPLY, reply, len(detail))

    def cancel(self, request: Request) -> None:
        """Ends a request that nobody waits for; nothing is said."""
        self._close(request, Status.CANCELLED)

    def _close(self, request: Request, status: int) -> Outbox:
        assert request.is_open, request.tag
        client = request.client
        if request.slot != OUT:
            self._wheel.remove(request, request.slot)
        client.requests.remove(request.tag, request)
        self._admission.release(client.owner, request.calls, request.size)
        self.answered += request.calls
        self.outcomes[status] += request.calls
        request.is_open = False
        return client.outbox

    def expire(self, now: float) -> list[Request]:
        """Takes those out of the wheel that are to be looked at, and returns them."""
        expired = self._wheel.expire(now)
        for request in expired:
            request.slot = OUT
        return expired

    def wake_at(self) -> float:
        """Returns when `expire` is worth calling, or infinity."""
        return self._wheel.wake_at()

    def check(self, clients: Iterable[ClientSession]) -> None:
        """Asserts that the books agree with what the clients have in hand."""
        requests = [request for client in clients for request in client.requests]
        pending = sum(request.calls for request in requests)
        assert all(request.is_open for request in requests)
        assert self.received == self.refused + self.accepted
        assert self.accepted == self.answered + pending, (self.accepted, self.answered, pending)
        assert self.answered + self.refused == sum(self.outcomes)
        assert self.pending == pending
        assert self._admission.bytes == sum(request.size for request in requests)
        assert len(self._wheel) == len(requests)
        self._wheel.check()
