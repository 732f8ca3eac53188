"""A gateway among random peers: whatever they do, each accepted call ends exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.machine.playbook import Playbook, card, reply, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.block import cut_reply, singles
from zmqinfer.policy.ring import ring_of
from zmqinfer.records import CALLS, OUTPUT, PAYLOAD, ROWS, STATUS, TAG, Kind, Record

SILENCE_S = 2.0  # by then a silent worker is lost: three heartbeats of 0.5 s and a look

WORKERS = ("w1", "w2", "w3", "w4")
# Compiled once: a ring is dropped when nobody uses it.
RINGS = [ring_of({name: 1.0 for i, name in enumerate(WORKERS) if which >> i & 1}) for which in range(16)]
workers_named = st.sampled_from(WORKERS)
clients_named = st.sampled_from(("alice", "bob"))


def body_of(client: str, tag: int) -> bytes:
    """The input of a call, by which its answer is known."""
    return b"%s%08d" % (client.encode()[:1], tag)


def tags_of(record: Record) -> range:
    """The tags of the calls that a record is about."""
    return range(record[TAG], record[TAG] + record[CALLS])


def echo(asked: Record, worker: str = "w1", status: Status = Status.OK) -> Record:
    """A worker's REPLY whose output is the request's input."""
    answer = reply(asked, worker, status=status)
    if status is Status.OK:
        answer[OUTPUT] = asked[PAYLOAD]
    return answer


class GatewayStory(RuleBasedStateMachine):
    """Workers come and go, clients ask, cancel and vanish; every accepted request ends exactly once."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Playbook(GatewaySettings(max_queued=40, max_client_requests=60, affinity_wait_ms=50))
        self.tag = 0
        self.lives = 0
        # By client and tag: the outcomes that it was given, or gave itself.
        self.ends: dict[tuple[str, int], list[str]] = {}
        self.connection: dict[str, str | None] = {}
        # By connection of a worker: its name, its credits, and what it was sent and has not answered.
        self.names: dict[str, str] = {}
        self.credits: dict[str, int] = {}
        self.unanswered: dict[str, list[Record]] = {}

    @initialize(credits_rows=st.integers(1, 6))
    def begin(self, credits_rows: int) -> None:
        self.connection = {"alice": None, "bob": None}
        self.comes_back("alice")
        self.comes_back("bob")
        self.joins("w1", credits_rows, False)

    # Workers

    def _alive(self, name: str) -> str | None:
        return next((peer for peer, known in reversed(self.names.items()) if known == name), None)

    @rule(name=workers_named, credits_rows=st.integers(1, 6), is_another=st.booleans())
    def joins(self, name: str, credits_rows: int, is_another: bool) -> None:
        self.lives += 1
        peer = f"{name}-{self.lives}"
        earlier = self._alive(name)
        self.names[peer], self.credits[peer], self.unanswered[peer] = name, credits_rows, []
        session = session_of(peer if is_another else name)
        self.play.joins(name, card(credits_rows=credits_rows), peer=peer, session=session)
        if earlier is not None:
            del self.names[earlier]
        self.collect()

    @rule(name=workers_named, how=st.sampled_from(("unreachable", "closing", "silent", "strays", "mangled")))
    def is_lost(self, name: str, how: str) -> None:
        peer = self._alive(name)
        if peer is None:
            return
        if how == "unreachable":
            self.play.loses(peer)
        elif how == "closing":
            self.play.hears(peer, Kind.DISCONNECT, ["closing", ""])
        elif how == "mangled":
            self.play.mangles(peer).mangles(peer).mangles(peer)
        elif how == "silent":
            self.play.silent.add(peer)
            self.play.waits(SILENCE_S)
        else:
            others = [record for other in self.names if other != peer for record in self.unanswered[other]]
            open_tags = [record for record in others if record[TAG] in self.play.machine.dispatches._open]
            if not open_tags:
                return
            self.play.hears(peer, Kind.REPLY, *[reply(open_tags[0])] * 3)
        del self.names[peer]
        self.collect()

    @rule(name=workers_named)
    def drains(self, name: str) -> None:
        peer = self._alive(name)
        if peer is not None:
            self.play.hears(peer, Kind.DISCONNECT, ["draining", ""])
            self.collect()

    @rule(
        which=st.integers(0, 50),
        count=st.integers(1, 4),
        status=st.sampled_from((0, 0, 0, 12)),
        part=st.sampled_from((1, 2, 32)),
    )
    def replies(self, which: int, count: int, status: int, part: int) -> None:
        busy = [peer for peer in self.names if self.unanswered[peer]]
        if busy:
            peer = busy[which % len(busy)]
            start = which % len(self.unanswered[peer])
            self._reply(peer, self.unanswered[peer][start : start + count], Status(status), part)

    @rule()
    def all_reply(self) -> None:
        for peer in list(self.names):
            self._reply(peer, list(self.unanswered[peer]), Status.OK)

    def _reply(self, peer: str, done: list[Record], status: Status, part: int = 32) -> None:
        """Answers each with its own input, of a block so many calls at a time, the first of them last."""
        answers: list[Record] = []
        for record in done:
            self.unanswered[peer].remove(record)
            answer = echo(record, self.names[peer], status)
            while answer[CALLS] > part:
                head, answer = cut_reply(answer, part)
                answers.insert(0, head)
            answers.insert(0, answer)
        self.play.hears(peer, Kind.REPLY, *answers)
        self.collect()

    @rule(which=st.integers(0, 50))
    def replies_after_its_death(self, which: int) -> None:
        dead = [peer for peer in self.unanswered if peer not in self.names and self.unanswered[peer]]
        if dead:
            peer = dead[which % len(dead)]
            self.play.hears(peer, Kind.REPLY, echo(self.unanswered[peer].pop()))
            self.collect()

    @rule(name=workers_named, credits_rows=st.integers(1, 8))
    def beats(self, name: str, credits_rows: int) -> None:
        peer = self._alive(name)
        if peer is not None:
            self.credits[peer] = credits_rows
            self.play.hears(peer, Kind.HEARTBEAT, [0, credits_rows, 0, None, []])
            self.collect()

    # Clients

    @rule(
        client=clients_named,
        sizes=st.lists(st.sampled_from((1, 1, 1, 2, 5, 32)), min_size=1, max_size=4),
        key=st.none() | st.sampled_from((b"k1", b"k2", b"k3")),
        rows=st.sampled_from((1, 1, 1, 2, 7)),
        budget_s=st.sampled_from((0.0, 0.01, 0.3, 5.0)),
        version=st.sampled_from((None, None, 1, 2)),
        idempotent=st.sampled_from((None, True, False)),
        priority=st.integers(1, 8),
        again=st.booleans(),
        withdrawn=st.sampled_from((0, 0, 0, 1, 3)),
    )
    def asks(self, client: str, sizes: list[int], again: bool, withdrawn: int, rows: int, **fields: Any) -> None:
        peer = self.connection[client]
        if peer is None:
            return
        records = []
        for calls in sizes:
            self.tag += 32
            # Anywhere within its block of tags.
            tag = self.tag + self.tag // 32 % (33 - calls)
            body = b"".join(body_of(client, tag + n) for n in range(calls))
            record = request(tag, request_id=b"id" + tag.to_bytes(8, "big"), rows=rows, calls=calls, **fields)
            record[PAYLOAD] = body
            records.append(record)
            self.ends.update({(client, tag + n): [] for n in range(calls)})
        if withdrawn:
            # In the same turn: the request is still in the worker's outbox.
            tag = records[0][TAG] + records[0][CALLS] // 2
            self.play.hears_at_once(peer, (Kind.REQUEST, records), (Kind.CANCEL, [[tag, withdrawn]]))
            for answered in self.play.said(peer, Kind.REPLY):
                self._note(client, answered)
            for n in range(withdrawn):
                if (client, tag + n) in self.ends and not self.ends[client, tag + n]:
                    self.ends[client, tag + n].append("cancelled")
        else:
            self.play.hears(peer, Kind.REQUEST, *records)
        if again:
            pending = self._pending_at_the_gateway(client)
            calls_again = [call for record in records for call in singles(record.copy())]
            self.play.hears(peer, Kind.REQUEST, *[call for call in calls_again if call[TAG] in pending])
            whole = [record for record in records if set(tags_of(record)) <= pending]
            self.play.hears(peer, Kind.REQUEST, *whole)
        self.collect()

    def _pending_at_the_gateway(self, client: str) -> set[int]:
        flights = self._session(client).flights
        return {flight.client_tag + n for flight in flights.values() for n in range(flight.calls)}

    def _session(self, client: str) -> Any:
        return self.play.machine.clients._by_session[session_of(client)]

    @rule(client=clients_named, which=st.integers(0, 50), calls=st.sampled_from((1, 1, 3, 32)))
    def cancels(self, client: str, which: int, calls: int) -> None:
        pending = self._pending(client)
        peer = self.connection[client]
        if pending and peer is not None:
            tag = pending[which % len(pending)]
            for n in range(calls):
                if (client, tag + n) in self.ends and not self.ends[client, tag + n]:
                    self.ends[client, tag + n].append("cancelled")
            self.play.hears(peer, Kind.CANCEL, [tag, calls])
            self.collect()

    def _pending(self, client: str) -> list[int]:
        return [tag for (who, tag), ends in self.ends.items() if who == client and not ends]

    @rule(client=clients_named)
    def vanishes(self, client: str) -> None:
        peer = self.connection[client]
        if peer is not None:
            self.connection[client] = None
            self.play.loses(peer)
            self.collect()

    @rule(client=clients_named)
    def comes_back(self, client: str) -> None:
        self.lives += 1
        peer = self.connection[client] = f"{client}-{self.lives}"
        self.play.greets(peer, session_of(client))
        self.collect()

    @rule(client=clients_named)
    def leaves_for_good(self, client: str) -> None:
        peer = self.connection[client]
        if peer is None:
            return
        for tag in self._pending(client):
            self.ends[client, tag].append("cancelled")
        self.play.hears(peer, Kind.DISCONNECT, ["closing", ""])
        self.connection[client] = None
        self.collect()

    @rule(seconds=st.sampled_from((0.0, 0.004, 0.02, 0.2, 1.1, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.play.waits(seconds)
        self.collect()

    # What must hold

    def _note(self, client: str, record: Record) -> None:
        for tag in tags_of(record):
            assert self.ends[client, tag] == [], "a second outcome"
            self.ends[client, tag].append(Status(record[STATUS]).name)
        if record[STATUS] == Status.OK:
            wanted = b"".join(body_of(client, tag) for tag in tags_of(record))
            assert record[OUTPUT] == wanted, "another call's answer"

    def collect(self) -> None:
        for client, peer in self.connection.items():
            for record in self.play.said(peer, Kind.REPLY) if peer else ():
                self._note(client, record)
            if session_of(client) not in self.play.machine.clients._by_session:
                for tag in self._pending(client):
                    self.ends[client, tag].append("cancelled")
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
            for engine in route.engines.values():
                assert engine.held or route.waiting.best(engine.name) is None, engine.name

    @invariant()
    def each_has_an_end_or_is_pending(self) -> None:
        for client, peer in self.connection.items():
            session = self.play.machine.clients._by_session.get(session_of(client))
            if session is not None and peer is not None:
                assert sorted(self._pending_at_the_gateway(client)) == sorted(self._pending(client))

    def teardown(self) -> None:
        for client in [client for client, peer in self.connection.items() if peer is None]:
            self.comes_back(client)
        self.play.waits(6.0)
        self.collect()
        assert all(len(ends) == 1 for ends in self.ends.values()), self.ends
        machine = self.play.machine
        assert machine.ledger.pending == self.play.status()["queued"]["requests"] == 0
        assert machine.ledger.wake_at() is None
        assert not machine.routes._absent
        for peer in list(self.names):
            self.play.hears(peer, Kind.REPLY, *[echo(record) for record in self.unanswered[peer]])
        assert machine.dispatches._open == {}


TestGatewayStory = pytest.mark.slow(GatewayStory.TestCase)
TestGatewayStory.settings = settings(max_examples=120, stateful_step_count=50)
