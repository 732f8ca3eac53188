"""The client: calls pending at one or more gateways.

Both clients, sync and asyncio, are shells around this machine. A call ends with one REPLY record,
the gateway's or one made here, which the machine puts into `completed` beside the call's owner.
"""

from __future__ import annotations

from zmqinfer.config import ClientSettings
from zmqinfer.errors import EXECUTED, Executed, InvalidArgument, Status, TooLarge
from zmqinfer.machine.codec import Codec
from zmqinfer.machine.link import NO_SESSION, Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import (
    IDEMPOTENT,
    MAX_COUNT,
    MODEL,
    MODEL_VERSION,
    REPLY_FIELDS,
    REQUEST_ID,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import Payload, payload_bytes

__all__ = ["Call", "ClientMachine"]

# The gateway knows better than we do where the time went; so much longer than the deadline its word is waited for.
GRACE_S = 0.05

_RAN_NO, _RAN_MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


class Call:
    """One pending call.

    Attributes:
        owner: whatever the shell wants back beside the reply.
        kind: REQUEST, or STATS or ADMIN for a question to one gateway.
        link: the number of the gateway that has it.
    """

    __slots__ = ("deadline", "kind", "link", "owner", "record", "size", "slot", "tag")

    def __init__(self, owner: object, tag: int, record: Record, deadline: float, size: int, link: int) -> None:
        self.owner = owner
        self.tag = tag
        self.record = record
        self.deadline = deadline
        self.size = size
        self.link = link
        self.kind = Kind.REQUEST

    slot: int


class ClientMachine:
    """All that a client decides. Its shell owns one DEALER for each gateway and a clock.

    Attributes:
        dirty: outboxes with something to send; the shell empties them once a turn.
        completed: owners of calls that ended, with the REPLY (or STATS, ADMIN) record; the shell clears it.
        unmatched: replies to calls that had ended already.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        session: bytes,
        id_prefix: bytes,
        agent: str,
        gateways: list[str],
        now: float,
    ) -> None:
        self.dirty: list[Outbox] = []
        self.completed: list[tuple[object, Record]] = []
        self.codec = Codec()
        self.unmatched = 0
        self._settings = settings
        self._id_prefix = id_prefix
        self._tag = 0
        self._calls: dict[int, Call] = {}
        self._questions: dict[int, Call] = {}
        self._wheel: TimingWheel[Call] = TimingWheel()
        heartbeat_s = settings.heartbeat_ms / 1000
        self.links = [
            Link(number, address, Kind.HELLO, [session, agent, None], heartbeat_s, self.dirty)
            for number, address in enumerate(gateways)
        ]
        self._was_welcome = False
        self._max_body_bytes = MAX_COUNT
        # The gateways to choose from: those that are up, else all of them. Calls take turns.
        self._choice: list[int] = list(range(len(gateways)))
        for link in self.links:
            link.greet(now)

    @property
    def pending(self) -> int:
        """How many calls have not ended."""
        return len(self._calls) + len(self._questions)

    # Calls ---------------------------------------------------------------------------------------

    def submit(
        self,
        owner: object,
        model: str,
        version: int | None,
        body: tuple[bytes, Payload],
        rows: int,
        deadline: float,
        now: float,
        key: bytes | None = None,
        priority: int = 4,
        idempotent: bool | None = None,
    ) -> Call:
        """Sends a request with the next turn.

        Raises:
            InvalidArgument: `idempotent` is neither None nor a bool.
            TooLarge: the body is over the limit that the gateway's WELCOME named.
        """
        if idempotent is not None and type(idempotent) is not bool:
            raise InvalidArgument(f"idempotent is {idempotent!r}, expected None, True or False")
        self._tag += 1
        tag = self._tag
        layout, payload = body
        size = len(payload) if type(payload) is bytes else payload_bytes(payload)
        if size > self._max_body_bytes:
            raise TooLarge(
                f"the request's body has {size:,} bytes, the gateway takes {self._max_body_bytes:,}; send fewer rows"
            )
        number = self._choice[tag % len(self._choice)]
        request_id = self._id_prefix + tag.to_bytes(8, "big")
        record = [tag, request_id, model, version, key, 0, priority, 1, idempotent, rows, layout, payload]
        call = Call(owner, tag, record, deadline, size, number)
        if not self._calls:
            self._rouse(now)
        self._calls[tag] = call
        self._watch(call, now)
        self.links[number].outbox.put_request(record, deadline, size)
        return call

    def ask(self, owner: object, kind: Kind, words: Record, number: int, deadline: float, now: float) -> Call:
        """Sends a STATS or ADMIN question to the gateway with this number with the next turn."""
        self._tag += 1
        record = [self._tag, *words]
        call = Call(owner, self._tag, record, deadline, 0, number)
        call.kind = kind
        if not self.pending:
            self._rouse(now)
        self._questions[self._tag] = call
        self._watch(call, now)
        self.links[number].outbox.put(kind, record)
        return call

    def _rouse(self, now: float) -> None:
        for link in self.links:
            if link.state is LinkState.UP:
                link.rouse(now)

    def _watch(self, call: Call, now: float) -> None:
        limit = call.deadline + GRACE_S
        if not self._was_welcome:
            limit = min(limit, now + self._settings.connect_timeout_s)
        call.slot = self._wheel.add(call, limit)

    def cancel(self, call: Call) -> bool:
        """Takes a call back; False if it had ended already. Its owner hears nothing of it."""
        if self._calls.pop(call.tag, None) is None:
            return False
        self._wheel.remove(call, call.slot)
        self.links[call.link].outbox.put(Kind.CANCEL, [call.tag])
        return True

    def fail_all(self, detail: str) -> None:
        """Ends every call as CANCELLED, as when the client is closed, and says goodbye."""
        for call in [*self._calls.values(), *self._questions.values()]:
            self._wheel.remove(call, call.slot)
            self._complete(call, Status.CANCELLED, detail, None, _RAN_MAYBE)
        self._calls.clear()
        self._questions.clear()
        for link in self.links:
            if link.state is LinkState.UP:
                link.outbox.put(Kind.DISCONNECT, ["closing", ""])
            link.state = LinkState.CLOSED

    def _complete(self, call: Call, status: Status, detail: str, where: str | None, ran: int) -> None:
        reply = [call.tag, status, detail, where, "", 0, 1, ran, None, 0, 0, 0]
        self.completed.append((call.owner, [*reply, call.record[REQUEST_ID] if call.kind is Kind.REQUEST else b""]))

    # Messages ------------------------------------------------------------------------------------

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links[number]
        link.heard(now)
        if kind is Kind.REPLY:
            calls, completed, remove = self._calls, self.completed, self._wheel.remove
            for record in records:
                call = calls.pop(record[TAG], None)
                if call is None:
                    self.unmatched += 1
                    continue
                remove(call, call.slot)
                if record[STATUS]:
                    record[REPLY_FIELDS:] = [call.record[REQUEST_ID]]
                completed.append((call.owner, record))
        elif kind is Kind.WELCOME:
            link.welcome(records[-1], now)
            self.codec.learn(records[-1][4])
            self._max_body_bytes = records[-1][3]
            self._was_welcome = True
            self._review_choice()
        elif kind in {Kind.STATS, Kind.ADMIN}:
            for record in records:
                call = self._questions.pop(record[TAG], None)
                if call is not None:
                    self._wheel.remove(call, call.slot)
                    self.completed.append((call.owner, record))
        elif kind is Kind.DISCONNECT:
            for record in records:
                self._on_disconnect(link, number, record[0], record[1], now)

    def _on_disconnect(self, link: Link, number: int, reason: str, detail: str, now: float) -> None:
        if reason == NO_SESSION:
            if link.is_unwelcome(reason):
                self._greet(number, now)
            return
        # A wrong door, too many clients, a broken protocol: repeating it would be answered the same.
        status = Status.OVERLOADED if reason == "too many clients" else Status.PROTOCOL
        for call in [*self._calls.values(), *self._questions.values()]:
            if call.link == number:
                self._forget(call)
                ran = _RAN_MAYBE if link.welcomes else _RAN_NO
                self._complete(call, status, f"gateway {link.address} refused this client: {detail}", None, ran)

    def _forget(self, call: Call) -> None:
        self._calls.pop(call.tag, None)
        self._questions.pop(call.tag, None)
        self._wheel.remove(call, call.slot)

    def _greet(self, number: int, now: float) -> None:
        """Greets a gateway anew, with everything that is pending there behind the greeting."""
        link = self.links[number]
        link.greet(now)
        self._review_choice()
        for call in [call for call in self._calls.values() if call.link == number]:
            if link.welcomes and not self._may_run_twice(call):
                self._forget(call)
                detail = f"the session with gateway {link.address} was lost, and the request may not be run twice"
                self._complete(call, Status.WORKER_LOST, detail, None, _RAN_MAYBE)
                continue
            if not link.welcomes:
                # Sent there while no gateway had answered: one that has by now takes it over.
                call.link = self._choice[call.tag % len(self._choice)]
            self.links[call.link].outbox.put_request(call.record, call.deadline, call.size)
        for question in self._questions.values():
            if question.link == number:
                link.outbox.put(question.kind, question.record)

    def _may_run_twice(self, call: Call) -> bool:
        declared: bool | None = call.record[IDEMPOTENT]
        card = self.codec.card(call.record[MODEL], call.record[MODEL_VERSION])
        return (card is None or card[2]) if declared is None else declared

    def _review_choice(self) -> None:
        up = [number for number, link in enumerate(self.links) if link.state is LinkState.UP]
        self._choice = up or list(range(len(self.links)))

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Ends calls whose time is up, and keeps the sessions alive while calls are pending."""
        for call in self._wheel.expire(now):
            self._expire(call, now)
        for number, link in enumerate(self.links):
            if not self.pending and link.state is LinkState.UP:
                continue
            if link.is_overdue(now):
                self._greet(number, now)
            elif link.is_beat_due(now):
                link.outbox.beat()

    def _expire(self, call: Call, now: float) -> None:
        if now < call.deadline and self._was_welcome:
            call.slot = self._wheel.add(call, call.deadline + GRACE_S)
            return
        self._calls.pop(call.tag, None)
        self._questions.pop(call.tag, None)
        link = self.links[call.link]
        if not self._was_welcome:
            looked = ", ".join(link.address for link in self.links)
            limit = f"connect_timeout_s is {self._settings.connect_timeout_s:g}"
            detail = f"no gateway answered at {looked} in time ({limit}); start one with: zmqinfer up"
            self._complete(call, Status.UNAVAILABLE, detail, None, _RAN_NO)
        elif link.state is LinkState.UP:
            detail = f"the time was up before gateway {link.address} answered"
            self._complete(call, Status.DEADLINE_EXCEEDED, detail, "network", _RAN_MAYBE)
        else:
            detail = f"the time was up while the connection to gateway {link.address} was lost"
            self._complete(call, Status.DEADLINE_EXCEEDED, detail, "network", _RAN_MAYBE)

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, None for a client at rest."""
        instants = [] if (due := self._wheel.wake_at()) is None else [due]
        instants += [link.wake_at() for link in self.links if self.pending or link.state is LinkState.GREETING]
        return min(instants, default=None)

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        assert len(self._wheel) == self.pending
        self._wheel.check()
        for tag, call in self._calls.items():
            assert call.tag == tag == call.record[TAG]
