"""The gateway's books: which calls were let in, and how each of them ended.

`received == refused + accepted` and `accepted == answered + pending` hold between any two steps, in
calls; what is pending is in exactly one client's `flights`, in the timing wheel and in admission's sums.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.flight import OUT, Flight
from zmqinfer.machine.members import ClientSession
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.routes import Route
from zmqinfer.policy.admission import Admission
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import ATTEMPT, CALLS, OUTPUT, RAN, RETRY_AFTER_MS, STATUS, TAG, Kind, Record
from zmqinfer.tensor import payload_bytes

__all__ = ["INLINE", "RAN_MAYBE", "RAN_NO", "RAN_YES", "Ledger"]

# Where a request ended whose payload lies in memory that its worker cannot read: it must come in the message.
INLINE = "inline"

RAN_NO, RAN_YES, RAN_MAYBE = map(EXECUTED.index, (Executed.NO, Executed.YES, Executed.MAYBE))


class Ledger:
    """Counters, limits and deadlines of all requests in a gateway's hands.

    Attributes:
        outcomes: how many calls ended with each status, refusals included.
        duplicates: calls that came again while they were pending, and were not counted as received.
    """

    __slots__ = ("_admission", "_wheel", "accepted", "answered", "duplicates", "outcomes", "received", "refused")

    def __init__(self, limits: GatewaySettings) -> None:
        self._admission = Admission(limits)
        self._wheel: TimingWheel[Flight] = TimingWheel()
        self.received = self.refused = self.accepted = self.answered = self.duplicates = 0
        self.outcomes = [0] * len(Status)

    @property
    def pending(self) -> int:
        """How many calls were let in and have not ended."""
        return self._admission.requests

    def enter(
        self, client: ClientSession, record: Record, size: int, deadline: float, key_hash: int, route: Route
    ) -> Flight | None:
        """Lets a request in, or refuses it because a limit is reached, and returns None."""
        calls = record[CALLS]
        if not self._admission.admit(client.usage, calls, size):
            self.refuse(client, record, *self._admission.refusal(client.usage, calls, size))
            return None
        self.accepted += calls
        flight = Flight(record, client, record[TAG], deadline, key_hash, size, route)
        client.flights[record[TAG]] = flight
        flight.slot = self._wheel.add(flight, deadline)
        return flight

    def refuse(
        self, client: ClientSession, record: Record, status: Status, detail: str, retry_after_ms: int | None = None
    ) -> None:
        """Answers a request that is not let in."""
        self.refused += record[CALLS]
        self.outcomes[status] += record[CALLS]
        reply = _reply(record[TAG], record, status, detail, None, RAN_NO)
        reply[RETRY_AFTER_MS] = retry_after_ms
        client.outbox.put(Kind.REPLY, reply, len(detail))

    def divide(self, flight: Flight, head: Flight) -> None:
        """Notes a part that was cut off from a pending request."""
        client = flight.client
        if client is not None:
            client.flights[head.client_tag] = head
            client.flights[flight.client_tag] = flight
            head.slot = self._wheel.add(head, head.due_at)

    def set_patience(self, flight: Flight, until: float | None) -> None:
        """Makes the wheel wake at the end of patience instead of the deadline, or at the deadline again."""
        if flight.slot != OUT:
            self._wheel.remove(flight, flight.slot)
        flight.patience = until
        flight.slot = self._wheel.add(flight, flight.due_at)

    def answer(self, flight: Flight, record: Record) -> None:
        """Ends a request with its worker's REPLY, which is for exactly its calls."""
        assert record[CALLS] == flight.calls, (record[CALLS], flight.calls)
        if flight.losses and record[RAN] == RAN_NO:
            # This worker speaks for itself alone: the one that was lost may have run it.
            record[RAN] = RAN_MAYBE
        outbox = self._close(flight, record[STATUS])
        record[TAG] = flight.client_tag
        output = record[OUTPUT]
        outbox.put(Kind.REPLY, record, payload_bytes(output) if type(output) is list else len(output or b""))

    def end(self, flight: Flight, status: Status, detail: str, where: str | None, ran: int) -> None:
        """Ends a request with an outcome that the gateway decides."""
        ran = RAN_MAYBE if flight.losses and ran == RAN_NO else ran
        reply = _reply(flight.client_tag, flight.record, status, detail, where, ran)
        self._close(flight, status).put(Kind.REPLY, reply, len(detail))

    def cancel(self, flight: Flight) -> None:
        """Ends a request that nobody waits for; nothing is said."""
        self._close(flight, Status.CANCELLED)

    def _close(self, flight: Flight, status: int) -> Outbox:
        client = flight.client
        assert client is not None, flight.client_tag
        if flight.slot != OUT:
            self._wheel.remove(flight, flight.slot)
        del client.flights[flight.client_tag]
        self._admission.release(client.usage, flight.calls, flight.size)
        self.answered += flight.calls
        self.outcomes[status] += flight.calls
        flight.client = None
        return client.outbox

    def expire(self, now: float) -> list[Flight]:
        """Takes those out of the wheel whose deadline or patience is over, and returns them."""
        expired = self._wheel.expire(now)
        for flight in expired:
            flight.slot = OUT
        return expired

    def wake_at(self) -> float | None:
        """Returns when `expire` is worth calling."""
        return self._wheel.wake_at()

    def check(self, clients: Iterable[ClientSession]) -> None:
        """Asserts that the books agree with what the clients have in hand."""
        flights = [flight for client in clients for flight in client.flights.values()]
        pending = sum(flight.calls for flight in flights)
        assert self.received == self.refused + self.accepted
        assert self.accepted == self.answered + pending, (self.accepted, self.answered, pending)
        assert self.answered + self.refused == sum(self.outcomes)
        assert self.pending == pending
        assert self._admission.bytes == sum(flight.size for flight in flights)
        assert len(self._wheel) == len(flights)
        self._wheel.check()


def _reply(tag: int, request: Record, status: Status, detail: str, where: str | None, ran: int) -> Record:
    """A REPLY of the gateway's own to all calls of a request: no worker, no batch, no times."""
    return [tag, request[CALLS], status, detail, where, "", 0, request[ATTEMPT], ran, None, 0, 0, 0]
