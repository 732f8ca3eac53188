"""A gateway among random peers: whatever they do, each accepted call ends exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.machine.gateway.playbook import reply
from tests.machine.gateway.story import Story, clients_named, echo, workers_named
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of, part_of
from zmqinfer.records import ALL_PLACES, PLACES, TAG, Kind

some_places = st.integers(1, ALL_PLACES) | st.sampled_from((1, 0b11, ALL_PLACES))
SILENCE_S = 2.0  # by then a silent worker is lost: three heartbeats of 0.5 s and a look


class GatewayStory(Story):
    """Workers come and go, clients ask, cancel and vanish; every accepted request ends exactly once."""

    @initialize(credits_rows=st.integers(1, 6))
    def begin(self, credits_rows: int) -> None:
        self.connection = {"alice": None, "bob": None}
        self.greet("alice")
        self.greet("bob")
        self.join("w1", credits_rows)

    # Workers

    @rule(name=workers_named, credits_rows=st.integers(1, 6), is_another=st.booleans())
    def joins(self, name: str, credits_rows: int, is_another: bool) -> None:
        self.join(name, credits_rows, is_another=is_another)

    @rule(name=workers_named, how=st.sampled_from(("unreachable", "closing", "silent", "strays", "mangled")))
    def is_lost(self, name: str, how: str) -> None:
        peer = self.alive(name)
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
            table = self.play.machine.scheduler.dispatches._open
            still_open = [record for record in others if table.about(record[TAG], record[PLACES])]
            if not still_open:
                return
            self.play.hears(peer, Kind.REPLY, *[reply(still_open[0])] * 3)
        del self.names[peer]
        self.collect()

    @rule(name=workers_named)
    def drains(self, name: str) -> None:
        peer = self.alive(name)
        if peer is not None:
            self.play.hears(peer, Kind.DISCONNECT, ["draining", ""])
            self.collect()

    @rule(
        which=st.integers(0, 50),
        count=st.integers(1, 4),
        status=st.sampled_from((0, 0, 0, 12)),
        parts=st.lists(some_places, max_size=3),
    )
    def replies(self, which: int, count: int, status: int, parts: list[int]) -> None:
        busy = [peer for peer in self.names if self.unanswered[peer]]
        if busy:
            peer = busy[which % len(busy)]
            start = which % len(self.unanswered[peer])
            self.reply(peer, self.unanswered[peer][start : start + count], Status(status), *parts)

    @rule()
    def all_reply(self) -> None:
        for peer in list(self.names):
            self.reply(peer, list(self.unanswered[peer]), Status.OK)

    @rule(which=st.integers(0, 50))
    def replies_after_its_death(self, which: int) -> None:
        dead = [peer for peer in self.unanswered if peer not in self.names and self.unanswered[peer]]
        if dead:
            peer = dead[which % len(dead)]
            self.play.hears(peer, Kind.REPLY, echo(self.unanswered[peer].pop()))
            self.collect()

    @rule(name=workers_named, credits_rows=st.integers(1, 8))
    def beats(self, name: str, credits_rows: int) -> None:
        peer = self.alive(name)
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
        withdrawn=st.sampled_from((0, 0, 0)) | some_places,
    )
    def asks(self, client: str, sizes: list[int], again: bool, withdrawn: int, rows: int, **fields: Any) -> None:
        records = self.blocks(client, sizes, rows=rows, **fields)
        peer = self.connection[client]
        if peer is None:
            return
        if withdrawn:
            # In the same turn: the request is still in the worker's outbox.
            cancel = [records[0][TAG], withdrawn]
            self.play.hears_at_once(peer, (Kind.REQUEST, records), (Kind.CANCEL, [cancel]))
            for answered in self.play.said(peer, Kind.REPLY):
                self.note(client, answered)
            for number in numbers_of(cancel):
                if self.ends.get((client, number)) == []:
                    self.ends[client, number].append("cancelled")
        else:
            self.play.hears(peer, Kind.REQUEST, *records)
        if again:
            pending = self.pending_at_the_gateway(client)
            for record in records:
                still = sum(1 << number % 32 for number in numbers_of(record) if number in pending)
                one = still & -still
                for places in (still, one, record[PLACES]) if still else ():
                    # Those that ended would be taken for new ones.
                    if places & ~still == 0:
                        self.play.hears(peer, Kind.REQUEST, part_of(record, places))
        self.collect()

    @rule(client=clients_named, which=st.integers(0, 50), places=some_places)
    def cancels(self, client: str, which: int, places: int) -> None:
        pending = self.pending(client)
        peer = self.connection[client]
        if pending and peer is not None:
            self.cancel(client, pending[which % len(pending)] // 32, places)

    @rule(client=clients_named)
    def vanishes(self, client: str) -> None:
        peer = self.connection[client]
        if peer is not None:
            self.connection[client] = None
            self.play.loses(peer)
            self.collect()

    @rule(client=clients_named)
    def comes_back(self, client: str) -> None:
        self.greet(client)

    @rule(client=clients_named)
    def leaves_for_good(self, client: str) -> None:
        peer = self.connection[client]
        if peer is None:
            return
        for number in self.pending(client):
            self.ends[client, number].append("cancelled")
        self.play.hears(peer, Kind.DISCONNECT, ["closing", ""])
        self.connection[client] = None
        self.collect()

    @rule(seconds=st.sampled_from((0.0, 0.004, 0.02, 0.2, 1.1, 6.0)))
    def time_passes(self, seconds: float) -> None:
        self.play.waits(seconds)
        self.collect()


TestGatewayStory = pytest.mark.slow(GatewayStory.TestCase)
TestGatewayStory.settings = settings(max_examples=120, stateful_step_count=50)
