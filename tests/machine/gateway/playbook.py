"""Dialogues with a gateway: who says what to it, what it says then, and how time passes.

Peers are spelled as words; a word stands for one connection. Everything passes through the wire's
codec both ways, so a playbook cannot say, and the gateway cannot answer, what no socket would carry.
After every step the machine's own invariants are asserted.
"""

from __future__ import annotations

import json
from typing import Any

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.ring import key_hash
from zmqinfer.records import PLACES, REQUEST_ID, STATUS, TAG, Kind, Record
from zmqinfer.wire import decode, encode

__all__ = ["START", "Playbook", "card", "identities", "numbers", "outcome", "reply", "request", "session_of"]

# Later than any interval in use: nothing may depend on a clock that began with the test.
START = 1_000.0
SIGNATURE: Record = [[["x", "FP32", [1]]], [["y", "FP32", [1]]]]


def session_of(word: str) -> bytes:
    """The session id that belongs to a word."""
    return word.encode()[-16:].ljust(16, b".")


def card(
    model: str = "m", version: int = 1, *, max_rows: int = 32, credits_rows: int = 64, idempotent: bool = True
) -> Record:
    """One model as MODELS describes it."""
    return [model, version, SIGNATURE, max_rows, credits_rows, idempotent]


def request(
    tag: int,
    model: str = "m",
    version: int | None = None,
    *,
    key: bytes | list[bytes] | None = None,
    request_id: bytes | None = None,
    budget_s: float = 30.0,
    priority: int = 4,
    idempotent: bool | None = None,
    rows: int = 1,
    payload: Any = b"body",
    calls: int = 1,
) -> Record:
    """A REQUEST as a client sends it; of several calls with a key for each, or one for all."""
    identity = request_id or b"id%d" % tag
    if calls > 1:
        identity = request_id or b"id" + (32 * tag).to_bytes(8, "big")
        rows, payload = calls, payload * calls
    keys = [key] * calls if isinstance(key, bytes) else key
    budget_us = int(budget_s * 1e6)
    said = [model, version, keys, budget_us, priority, 1, idempotent]
    return [tag, 2**calls - 1, identity, *said, rows, b"layout", payload]


def reply(
    asked: Record, worker: str = "w1", *, status: Status = Status.OK, output: bytes = b"answer", ran: int = 1
) -> Record:
    """A worker's REPLY to a REQUEST that it was sent."""
    result: list[object] = [b"layout", output] if status is Status.OK else ["a sentence", None]
    if status is Status.OK:
        result[1] = output * asked[PLACES].bit_count()
    return [asked[TAG], asked[PLACES], status, *result, worker, 1, 1, ran, None, 1, 10, 20]


class Playbook:
    """A gateway and the time it lives in.

    Attributes:
        now: the time; every step happens at it, `waits` moves it.
        silent: workers that do not beat while time passes.
    """

    def __init__(self, settings: GatewaySettings | None = None, *, age_s: float = 0.0, first_tag: int = 10**6) -> None:
        self.now = START
        self.machine = GatewayMachine(
            settings or GatewaySettings(),
            session=session_of("gateway"),
            version="1.2.3",
            pid=4711,
            addresses=("tcp://front:5555", "tcp://back:5556"),
            first_tag=first_tag,
            now=START - age_s,
        )
        self.silent: set[str] = set()
        self._at_the_back: set[str] = set()
        self._said: dict[str, list[tuple[Kind, Record]]] = {}

    # Who is there --------------------------------------------------------------------------------

    def with_workers(self, *names: str, credits_rows: int = 64) -> Playbook:
        """Lets workers of the model "m" join, each on a connection of its own name."""
        for name in names:
            self.joins(name, card(credits_rows=credits_rows))
            self.said(name, Kind.WELCOME)
        for peer in self._said:
            self.said(peer, Kind.WELCOME)
        return self

    def joins(
        self,
        name: str,
        *cards: Record,
        peer: str = "",
        session: bytes | None = None,
        weight: int = 1_000,
        host: bytes | None = None,
    ) -> Playbook:
        """Says READY for a worker, by default with the model "m", on the connection `peer`."""
        peer = peer or name
        self._at_the_back.add(peer)
        models = [[number, one] for number, one in enumerate(cards or [card()])]
        ready = [session or session_of(name), name, "agent", weight, host]
        return self.hears_at_once(peer, (Kind.READY, [ready]), (Kind.MODELS, models))

    def with_clients(self, *names: str) -> Playbook:
        """Lets clients say HELLO, each on a connection of its own name."""
        for name in names:
            self.greets(name)
            self.said(name, Kind.WELCOME)
        return self

    def greets(self, peer: str, session: bytes | None = None, host: bytes | None = None) -> Playbook:
        """Says HELLO on a connection, by default with a session of the same name."""
        return self.hears(peer, Kind.HELLO, [session or session_of(peer), "agent", None, host])

    def at_the_back(self, peer: str) -> Playbook:
        """Notes that a stranger's connection is to the workers' door."""
        self._at_the_back.add(peer)
        return self

    # What happens --------------------------------------------------------------------------------

    def hears(self, peer: str, kind: Kind, *records: Record, gap: float = 0.0) -> Playbook:
        """The gateway takes records from a connection, in as many messages as the wire asks for."""
        for _, (head, *parts) in encode(kind, list(records), 2**40):
            self._feed(peer, *decode(bytes(head), parts), gap)
        return self._stepped()

    def hears_at_once(self, peer: str, *words: tuple[Kind, list[Record]]) -> Playbook:
        """The gateway takes several messages in one turn, before anything is sent."""
        for kind, records in words:
            for _, (head, *parts) in encode(kind, records, 2**40):
                self._feed(peer, *decode(bytes(head), parts), 0.0)
        return self._stepped()

    def _feed(self, peer: str, kind: Kind, records: list[Record], gap: float) -> None:
        if peer in self._at_the_back:
            self.machine.workers.on_message(peer.encode(), kind, records, self.now)
        else:
            self.machine.clients.on_message(peer.encode(), kind, records, self.now, gap)

    def mangles(self, peer: str) -> Playbook:
        """A message came that the wire refused."""
        if peer in self._at_the_back:
            self.machine.workers.on_offence(peer.encode(), "broken", self.now)
        else:
            self.machine.clients.on_offence(peer.encode(), "broken", self.now)
        return self._stepped()

    def loses(self, peer: str) -> Playbook:
        """Sending to a connection failed: it is gone."""
        side = self.machine.workers if peer in self._at_the_back else self.machine.clients
        side.on_unreachable(peer.encode(), self.now)
        return self._stepped()

    def falls_silent(self, worker: str) -> Playbook:
        """A worker says nothing until it is lost, as one that is stopped."""
        self.silent.add(worker)
        return self.waits(2.0)

    def answers(self, worker: str, **how: Any) -> Playbook:
        """A worker replies to all that it was sent and has not been looked at."""
        asked = self.said(worker, Kind.REQUEST)
        return self.hears(worker, Kind.REPLY, *[reply(record, worker, **how) for record in asked])

    def drains(self) -> Playbook:
        """The gateway is told to end."""
        self.machine.drain(self.now)
        return self._stepped()

    def waits(self, seconds: float) -> Playbook:
        """Time passes, with a call of `on_timer` at every instant that the machine names, until it has drained."""
        until = self.now + seconds
        stuck = 0
        while not self.machine.is_drained(self.now) and (due := self.machine.wake_at()) is not None and due <= until:
            stuck = stuck + 1 if due <= self.now else 0
            assert stuck < 10, f"the machine wants to be woken at {due} again and again"
            self.now = max(self.now, due)
            self._beats()
            self.machine.on_timer(self.now)
            self._stepped()
        self.now = until
        return self

    def _beats(self) -> None:
        for worker in list(self.machine.roster.by_name.values()):
            assert isinstance(worker.outbox.address, bytes)
            peer = worker.outbox.address.decode()
            if peer not in self.silent:
                self._feed(peer, Kind.HEARTBEAT, [], 0.0)

    def sleeps(self, seconds: float) -> Playbook:
        """The gateway itself is stopped for a while; then its timer is called, before any message."""
        self.now += seconds
        self.machine.on_timer(self.now)
        return self._stepped()

    def _stepped(self) -> Playbook:
        self.machine.check()
        self._collect()
        self.machine.check()
        return self

    def _collect(self) -> None:
        for door in (self.machine.clients.door, self.machine.workers.door):
            batch = door.dirty.copy()
            door.dirty.clear()
            for outbox in batch:
                self._empty(outbox)

    def _empty(self, outbox: Outbox) -> None:
        for head, *parts in outbox.messages(self.now):
            assert isinstance(outbox.address, bytes)
            kind, records = decode(bytes(head), parts)
            self._said.setdefault(outbox.address.decode(), []).extend((kind, record) for record in records)

    # What was said -------------------------------------------------------------------------------

    def said(self, peer: str, kind: Kind) -> list[Record]:
        """Removes and returns all records of a kind that went to a connection."""
        words = self._said.get(peer, [])
        self._said[peer] = [word for word in words if word[0] is not kind]
        return [record for which, record in words if which is kind]

    def says(self, peer: str, kind: Kind) -> Record:
        """Removes and returns the one record of a kind that went to a connection."""
        records = self.said(peer, kind)
        assert len(records) == 1, (peer, kind, records, self._said)
        return records[0]

    def says_nothing(self, *peers: str) -> Playbook:
        """Asserts that nothing more was said to these, or to nobody."""
        said = {peer: words for peer, words in self._said.items() if words and (not peers or peer in peers)}
        assert not said, said
        return self

    def status(self) -> dict[str, Any]:
        """What `status --json` shows."""
        value = json.loads(json.dumps(self.machine.snapshot.status(self.now)))
        assert isinstance(value, dict)
        return value

    def requests(self) -> dict[str, Any]:
        """The counters of requests, as `status --json` shows them."""
        counters = self.status()["requests"]
        assert isinstance(counters, dict)
        return counters

    # Where things are ----------------------------------------------------------------------------

    def held(self, name: str) -> int:
        """How many rows a connected worker holds."""
        return sum(replica.held for replica in self._worker(name).replicas.values())

    def _worker(self, name: str) -> Any:
        return next(worker for worker in self.machine.roster.by_name.values() if worker.name == name)

    def home(self, key: bytes, model: str = "m") -> str:
        """The worker on which a key is at home."""
        return self.machine.routes.find(model, None).placement.preferred(key_hash(key)).name

    def successors(self, key: bytes, model: str = "m") -> tuple[str, ...]:
        """The workers in the order in which a key asks them."""
        return self.machine.routes.find(model, None).placement.ring.order(key_hash(key))

    def key_of(self, name: str) -> bytes:
        """A key that is at home on this worker."""
        return next(key for n in range(10_000) if self.home(key := b"key%d" % n) == name)


def identities(records: list[Record]) -> list[bytes]:
    """The request ids of records, in order."""
    return [record[REQUEST_ID] for record in records]


def numbers(records: list[Record]) -> list[int]:
    """The numbers of the calls that records are about, in order."""
    return [number for record in records for number in numbers_of(record)]


def outcome(record: Record) -> tuple[int, Status]:
    """Returns whose REPLY it is, and what it says."""
    return record[TAG], Status(record[STATUS])
