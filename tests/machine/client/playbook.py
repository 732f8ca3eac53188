"""A client, the gateways it dials, and the time it lives in."""

from __future__ import annotations

from collections import Counter
from typing import Any

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Status
from zmqinfer.machine.block import listed, numbers_of, reply_part
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.machine.link import LinkState
from zmqinfer.records import MAX_CALLS, PAYLOAD, PLACES, RAN, RAN_NO, RETRY_AFTER_MS, Kind, Record
from zmqinfer.tensor import Payload
from zmqinfer.wire import decode, encode

__all__ = [
    "BEAT_S",
    "NO_SESSION",
    "SESSION",
    "SIGNATURE",
    "SLOT_S",
    "START",
    "Playbook",
    "card",
    "did_not_run",
    "echo",
    "reply",
    "welcome",
]

START = 1_000.0
BEAT_S = 0.5
SLOT_S = 0.011
SESSION = b"c" * 16
SIGNATURE: Record = [[["x", "FP32", [1]]], [["y", "FP32", [1]]]]
NO_SESSION: Record = ["no session", "say HELLO"]


class Playbook:
    """A client, the gateways it dials, and the time it lives in.

    Every word passes through the wire's codec both ways, and after each step the machine's own invariants
    are asserted. Gateways that are `alive` answer HELLO and HEARTBEAT by themselves while time passes.
    """

    def __init__(self, gateways: int = 1, **how: Any) -> None:
        self.now = START
        self.machine = ClientMachine(
            ClientSettings(**how),
            session=SESSION,
            id_prefix=b"prefix--",
            agent="test",
            gateways=[f"tcp://g{number}:5555" for number in range(gateways)],
            now=START,
        )
        self.is_connected = True
        self.alive: set[int] = set()
        self._models = [card()]
        self._lives: Counter[int] = Counter()
        self._heard: dict[int, list[tuple[Kind, list[Record]]]] = {number: [] for number in range(gateways)}

    def serving(self, *models: Record) -> Playbook:
        """Says which models the gateways list in WELCOME; by default that is "m" alone."""
        self._models = list(models)
        return self

    def up(self, *numbers: int) -> Playbook:
        """Lets gateways welcome the client, by default the first."""
        for number in numbers or (0,):
            self.alive.add(number)
            self.flushed()
            self.welcomes(number)
            self.hears(number)
        return self

    # The client -----------------------------------------------------------------------------------

    def calls(
        self,
        owner: object = "call",
        deadline_s: float = 30.0,
        *,
        model: str = "m",
        layout: bytes = b"layout",
        body: Payload = b"body",
        rows: int | None = None,
        **how: Any,
    ) -> int:
        """Submits a call, and returns its number; one with `rows` is a block of its own."""
        options = CallOptions(deadline_s, **how)
        number = self.machine.submit(owner, model, (layout, body), rows, options, self.now)
        self.machine.check()
        return number

    def cancels(self, number: int) -> bool:
        """Takes a call back."""
        is_taken = self.machine.cancel(number)
        self.machine.check()
        return is_taken

    def ended(self) -> dict[object, Record]:
        """Removes the calls that ended, and returns by owner the reply to each of them alone."""
        ended: dict[object, Record] = {}
        for owners, record, _ in self.machine.completed:
            for owner, place in zip(owners, listed(record[PLACES]), strict=True):
                assert owner not in ended, "a second end"
                if owner is not None:
                    ended[owner] = reply_part(record, 1 << place)
        self.machine.completed.clear()
        return ended

    def answered(self) -> dict[object, Record]:
        """Removes and returns the answers to questions by owner; each at most once."""
        answered = dict(self.machine.answered)
        assert len(answered) == len(self.machine.answered)
        self.machine.answered.clear()
        return answered

    # The gateways ---------------------------------------------------------------------------------

    def says(self, number: int, kind: Kind, *records: Record) -> Playbook:
        """A gateway speaks."""
        for _, (head, *parts) in encode(kind, list(records), 2**40):
            got, some = decode(bytes(head), parts)
            self.machine.on_message(number, got, some, self.now)
            self.machine.check()
        return self

    def welcomes(self, number: int) -> Playbook:
        """A gateway welcomes the client."""
        session = b"%016d" % self._lives[number]
        return self.says(number, Kind.WELCOME, welcome(*self._models, session=session))

    def restarts(self, number: int) -> Playbook:
        """A gateway begins another life, in which it welcomes those who greet it."""
        self._lives[number] += 1
        self.alive.add(number)
        return self

    def flushed(self) -> Playbook:
        """The shell seals the blocks and empties the outboxes, as at the end of each turn."""
        self.machine.seal()
        self.machine.check()
        if not self.is_connected:
            return self
        batch = self.machine.dirty.copy()
        self.machine.dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            for head, *parts in outbox.messages(self.now):
                self._heard[outbox.address].append(decode(bytes(head), parts))
        return self

    def heard(self, number: int) -> list[tuple[Kind, list[Record]]]:
        """Removes and returns what came to a gateway in earlier turns."""
        words, self._heard[number] = self._heard[number], []
        return words

    def hears(self, number: int = 0) -> list[tuple[Kind, list[Record]]]:
        """Ends the turn; removes and returns what came to a gateway."""
        return self.flushed().heard(number)

    def kinds(self, number: int = 0) -> list[Kind]:
        """Removes what came to a gateway, and returns its kinds."""
        return [kind for kind, _ in self.hears(number)]

    def asked(self, number: int = 0) -> list[Record]:
        """Removes what came to a gateway, and returns the requests."""
        return [record for kind, records in self.hears(number) if kind is Kind.REQUEST for record in records]

    def requests(self, number: int = 0) -> list[int]:
        """Removes what came to a gateway, and returns the numbers of the calls that were asked of it."""
        return [call for record in self.asked(number) for call in numbers_of(record)]

    # Time -----------------------------------------------------------------------------------------

    def waits(self, seconds: float) -> Playbook:
        """Time passes, with a call of `on_timer` at every instant that the machine names."""
        until = self.now + seconds
        stuck = 0
        self.flushed()
        while (due := self.machine.wake_at()) is not None and due <= until:
            stuck = stuck + 1 if due <= self.now else 0
            assert stuck < 3, f"the machine wants to be woken at {due} again and again"
            self.now = max(self.now, due)
            self.machine.on_timer(self.now)
            self.machine.check()
            self._answer()
        self.now = until
        return self

    def _answer(self) -> None:
        self.flushed()
        for number in sorted(self.alive):
            for kind, _ in list(self._heard[number]):
                if kind is Kind.HELLO and self.machine.links[number].state in (LinkState.GREETING, LinkState.LEFT):
                    self.welcomes(number)
                elif kind is Kind.HEARTBEAT:
                    self.says(number, Kind.HEARTBEAT)


def card(
    model: str = "m", version: int = 1, *, max_rows: int = 32, idempotent: bool = True, is_local: bool = False
) -> Record:
    """One model as WELCOME lists it."""
    return [model, version, SIGNATURE, max_rows, idempotent, is_local]


def welcome(*models: Record, max_body_bytes: int = 2**20, session: bytes = bytes(16)) -> Record:
    return [session, "gateway", 500, max_body_bytes, list(models)]


def reply(*numbers: int, status: Status = Status.OK, output: bytes = b"") -> Record:
    """A gateway's REPLY to the calls with these numbers, all of one block; by default each has the output b"body"."""
    tag, places = numbers[0] // MAX_CALLS, sum(1 << number % MAX_CALLS for number in numbers)
    result: list[Any] = ["sentence", None] if status else [b"layout", output or b"body" * len(numbers)]
    return [tag, places, int(status), *result, "w1", 1, 1, 1, None, len(numbers), 10, 20]


def did_not_run(*numbers: int, status: Status = Status.UNAVAILABLE, retry_after_ms: int | None = None) -> Record:
    """A gateway's REPLY to calls that reached no worker."""
    record = reply(*numbers, status=status)
    record[RAN], record[RETRY_AFTER_MS] = RAN_NO, retry_after_ms
    return record


def echo(asked: Record, places: int = 0, status: Status = Status.OK) -> Record:
    """A REPLY to calls of a REQUEST, by default to all of them, whose output is their input."""
    whole = reply(*numbers_of(asked), status=status, output=asked[PAYLOAD])
    return reply_part(whole, places or asked[PLACES])
