"""A gateway among peers in which each accepted call has to end exactly once, with the answer to its own input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.machine.gateway.playbook import Playbook, card, reply, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of, reply_part
from zmqinfer.policy.ring import ring_of
from zmqinfer.records import KEY, OUTPUT, PAYLOAD, PLACES, ROWS, STATUS, Kind, Record

WORKERS = ("w1", "w2", "w3", "w4")
# Compiled once: a ring is dropped when nobody uses it.
RINGS = [ring_of({name: 1.0 for i, name in enumerate(WORKERS) if which >> i & 1}) for which in range(16)]
workers_named = st.sampled_from(WORKERS)
clients_named = st.sampled_from(("alice", "bob"))


def body_of(client: str, number: int) -> bytes:
    """The input of a call, by which its answer is known."""
    return b"%s%08d" % (client.encode()[:1], number)


def echo(asked: Record, worker: str = "w1", status: Status = Status.OK) -> Record:
    """A worker's REPLY whose output is the request's input."""
    answer = reply(asked, worker, status=status)
    if status is Status.OK:
        answer[OUTPUT] = asked[PAYLOAD]
    return answer


__all__ = ["Story", "body_of", "clients_named", "echo", "workers_named"]


class Story(RuleBasedStateMachine):
    """A gateway, its peers, and what they have said; what happens to them is a story's own."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Playbook(GatewaySettings(max_queued=40, max_client_requests=60, affinity_wait_ms=50))
        self.tag = 0
        self.lives = 0
        # By client and call: the outcomes that it was given, or gave itself.
        self.ends: dict[tuple[str, int], list[str]] = {}
        self.connection: dict[str, str | None] = {}
        # By connection of a worker: its name, its credits, and what it was sent and has not answered.
        self.names: dict[str, str] = {}
        self.credits: dict[str, int] = {}
        self.unanswered: dict[str, list[Record]] = {}

    # What may happen

    def join(self, name: str, credits_rows: int, *, is_another: bool = False) -> None:
        """A worker joins, in a new life, which ends its earlier one."""
        self.lives += 1
        peer = f"{name}-{self.lives}"
        earlier = self.alive(name)
        self.names[peer], self.credits[peer], self.unanswered[peer] = name, credits_rows, []
        session = session_of(peer if is_another else name)
        self.play.joins(name, card(credits_rows=credits_rows), peer=peer, session=session)
        if earlier is not None:
            del self.names[earlier]
        self.collect()

    def greet(self, client: str) -> None:
        """A client greets on a new connection."""
        self.lives += 1
        peer = self.connection[client] = f"{client}-{self.lives}"
        self.play.greets(peer, session_of(client))
        self.collect()

    def blocks(self, client: str, sizes: Sequence[int], **fields: Any) -> list[Record]:
        """Requests of so many calls each, whose ends are noted from now on."""
        records = []
        for calls in sizes if self.connection[client] else ():
            self.tag += 1
            record = request(self.tag, calls=calls, **fields)
            own = numbers_of(record)
            record[PAYLOAD] = b"".join(body_of(client, number) for number in own)
            if record[KEY] is not None:
                # Some of them have the key of others.
                record[KEY] = [b"%s-%d" % (key, number % 3) for key, number in zip(record[KEY], own, strict=True)]
            records.append(record)
            self.ends.update({(client, number): [] for number in own})
        return records

    def cancel(self, client: str, tag: int, places: int) -> None:
        """A client takes calls back, some of which may have ended or never been asked."""
        for number in numbers_of([tag, places]):
            if self.ends.get((client, number)) == []:
                self.ends[client, number].append("cancelled")
        self.play.hears(self.connection[client] or "", Kind.CANCEL, [tag, places])
        self.collect()

    def alive(self, name: str) -> str | None:
        return next((peer for peer, known in reversed(self.names.items()) if known == name), None)

    def reply(self, peer: str, done: list[Record], status: Status, *parts: int) -> None:
        """Answers each with its own input, of a block first those at these places, and then the others."""
        answers: list[Record] = []
        for record in done:
            self.unanswered[peer].remove(record)
            answer = echo(record, self.names[peer], status)
            left = answer[PLACES]
            for places in (*parts, left):
                if left & places:
                    answers.append(reply_part(answer, left & places))
                    left &= ~places
        self.play.hears(peer, Kind.REPLY, *answers)
        self.collect()

    def pending_at_the_gateway(self, client: str) -> set[int]:
        return {number for one in self._session(client).requests for number in numbers_of([one.tag, one.places])}

    def _session(self, client: str) -> Any:
        return self.play.machine.clients._by_session[session_of(client)]

    def pending(self, client: str) -> list[int]:
        return [number for (who, number), ends in self.ends.items() if who == client and not ends]

    def note(self, client: str, record: Record) -> None:
        for number in numbers_of(record):
            assert self.ends[client, number] == [], "a second outcome"
            self.ends[client, number].append(Status(record[STATUS]).name)
        if record[STATUS] == Status.OK:
            wanted = b"".join(body_of(client, number) for number in numbers_of(record))
            assert record[OUTPUT] == wanted, "another call's answer"

    def collect(self) -> None:
        for client, peer in self.connection.items():
            for record in self.play.said(peer, Kind.REPLY) if peer else ():
                self.note(client, record)
            if session_of(client) not in self.play.machine.clients._by_session:
                for number in self.pending(client):
                    self.ends[client, number].append("cancelled")
        for peer, unanswered in self.unanswered.items():
            for record in self.play.said(peer, Kind.REQUEST):
                held = sum(earlier[ROWS] for earlier in unanswered)
                assert held == 0 or held + record[ROWS] <= self.credits[peer], (held, record[ROWS])
                unanswered.append(record)

    @invariant()
    def accounts_agree(self) -> None:
        counters = self.play.requests()
        assert counters["received"] == counters["refused"] + counters["accepted"] == len(self.ends)
        assert counters["accepted"] == counters["answered"] + counters["pending"]
        assert counters["answered"] + counters["refused"] == sum(counters["outcomes"].values())

    @invariant()
    def nobody_idle_while_someone_waits_for_anyone(self) -> None:
        for route in self.play.machine.routes:
            for engine in route.replicas.values():
                assert engine.held or route.waiting.best(engine.name) is None, engine.name

    @invariant()
    def each_has_an_end_or_is_pending(self) -> None:
        for client, peer in self.connection.items():
            session = self.play.machine.clients._by_session.get(session_of(client))
            if session is not None and peer is not None:
                assert sorted(self.pending_at_the_gateway(client)) == sorted(self.pending(client))

    def teardown(self) -> None:
        for client in [client for client, peer in self.connection.items() if peer is None]:
            self.greet(client)
        self.play.waits(6.0)
        self.collect()
        assert all(len(ends) == 1 for ends in self.ends.values()), self.ends
        machine = self.play.machine
        assert machine.ledger.pending == self.play.status()["queued"]["requests"] == 0
        assert machine.ledger.wake_at() == float("inf")
        assert all(route.is_known for route in machine.routes)
        for peer in list(self.names):
            self.play.hears(peer, Kind.REPLY, *[echo(record) for record in self.unanswered[peer]])
        assert not list(machine.scheduler.dispatches._open)
