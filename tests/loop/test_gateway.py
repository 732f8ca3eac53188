"""A gateway's turn, with sockets that do what a test tells them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from tests.machine.gateway.playbook import card, reply, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.loop.gateway import GatewayLoop
from zmqinfer.loop.ports import FULL, GONE, SENT, Reporter
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.records import STATUS, TAG, Kind, Record
from zmqinfer.tensor import Buffer
from zmqinfer.wire import decode, encode


@dataclass
class Port:
    """A socket: what comes, what left, and what becomes of what is sent."""

    inbox: deque[tuple[bytes, bytes, list[Buffer]]] = field(default_factory=deque)
    sent: list[tuple[bytes, Kind, Record]] = field(default_factory=list)
    outcome: int = SENT
    gone: list[bytes] = field(default_factory=list)
    cuts: list[bytes] = field(default_factory=list)

    @property
    def is_signalled(self) -> bool:
        return bool(self.inbox)

    def receive(self) -> tuple[bytes, bytes, list[Buffer]] | None:
        return self.inbox.popleft() if self.inbox else None

    def look(self) -> int:
        return len(self.inbox)

    def send(self, peer: bytes, frames: list[Buffer]) -> int:
        if self.outcome == SENT:
            kind, records = decode(bytes(frames[0]), frames[1:])
            self.sent += [(peer, kind, record) for record in records]
        return self.outcome

    def closed(self) -> list[bytes]:
        gone, self.gone = self.gone, []
        return gone

    def cut(self, peer: bytes) -> None:
        self.cuts.append(peer)

    def comes(self, peer: bytes, kind: Kind, *records: Record) -> None:
        for _, (head, *parts) in encode(kind, list(records), 2**30):
            self.inbox.append((peer, bytes(head), parts))

    def said(self, kind: Kind) -> list[Record]:
        found = [record for _, which, record in self.sent if which is kind]
        self.sent.clear()
        return found


class Turns:
    """A gateway with one worker and one client, and its loop."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.machine = GatewayMachine(
            GatewaySettings(),
            session=session_of("gateway"),
            version="1.2.3",
            pid=1,
            addresses=("front", "back"),
            first_tag=0,
            now=self.now,
        )
        self.clients, self.workers = Port(), Port()
        self.loop = GatewayLoop(self.machine, self.clients, self.workers, Reporter())
        self.joins("w1")
        self.clients.comes(b"c", Kind.HELLO, [session_of("c"), "agent", None, None])
        self.turn()
        self.clients.sent.clear()
        self.workers.sent.clear()

    def turn(self, after_s: float = 0.0, away_s: float = 0.0) -> float | None:
        self.now += after_s
        due = self.loop.turn(self.now, away_s)
        self.machine.check()
        return due

    def joins(self, name: str) -> None:
        self.workers.comes(name.encode(), Kind.READY, [session_of(name), name, "agent", 1_000, None])
        self.workers.comes(name.encode(), Kind.MODELS, [0, card()])

    def ask(self, tags: Sequence[int], budget_s: float = 30.0) -> None:
        self.clients.comes(b"c", Kind.REQUEST, *[request(tag, budget_s=budget_s) for tag in tags])


def test_what_comes_in_goes_out_in_the_same_turn() -> None:
    """A request to the worker, its reply to the client; records of one turn are one message."""
    turns = Turns()
    turns.ask([1, 2])

    turns.turn()
    asked = turns.workers.said(Kind.REQUEST)
    turns.workers.comes(b"w1", Kind.REPLY, *[reply(record) for record in asked])
    turns.turn()

    assert turns.loop.records == 2
    assert [record[TAG] for record in turns.clients.said(Kind.REPLY)] == [1, 2]


def test_a_turn_takes_a_bounded_number_of_messages() -> None:
    """What it makes of them leaves before it looks for more."""
    turns = Turns()
    for tag in range(1, 100):
        turns.ask([tag])

    turns.turn()

    assert len(turns.workers.said(Kind.REQUEST)) == 64
    assert len(turns.clients.inbox) == 35


def test_a_full_socket_is_tried_again() -> None:
    """Soon, for it does not say when it takes something; nothing is lost and nothing overtakes."""
    turns = Turns()
    turns.workers.outcome = FULL
    turns.ask([1])
    due = turns.turn()
    assert due is not None
    assert due - turns.now <= 0.005
    turns.ask([2])
    turns.turn()

    turns.workers.outcome = SENT
    turns.turn()

    assert len(turns.workers.said(Kind.REQUEST)) == 2


def test_who_cannot_be_reached_is_lost_in_the_same_turn() -> None:
    """What it was given waits for another worker, and goes to the one that joins."""
    turns = Turns()
    turns.workers.outcome = GONE
    turns.ask([1])
    turns.turn()
    assert turns.machine.roster.ready_names() == []

    turns.workers.outcome = SENT
    turns.joins("w2")
    turns.turn()

    assert len(turns.workers.said(Kind.REQUEST)) == 1


def test_close_of_any_workers_connection_has_all_of_them_spoken_to() -> None:
    """The attempt tells who is lost."""
    turns = Turns()
    turns.workers.gone, turns.workers.outcome = [b"w1"], GONE

    turns.turn()

    assert turns.machine.roster.ready_names() == []


@pytest.mark.parametrize("offences", [2, 3])
def test_the_third_broken_message_cuts_off(offences: int) -> None:
    """After that nothing of the peer is read."""
    turns = Turns()
    for _ in range(offences):
        turns.clients.inbox.append((b"c", b"broken", []))
    turns.ask([1])

    turns.turn()

    assert turns.clients.cuts == [b"c"] * (offences == 3)
    assert len(turns.workers.said(Kind.REQUEST)) == (offences < 3)


def test_a_pause_of_its_own_is_charged_to_what_is_found_until_all_is_read() -> None:
    """Budgets may have been running for so long."""
    turns = Turns()
    for tag in range(1, 66):
        turns.ask([tag], budget_s=1.0)

    turns.turn(after_s=2.0, away_s=2.0)
    turns.turn()
    late = turns.clients.said(Kind.REPLY)
    turns.ask([100], budget_s=1.0)
    turns.turn()

    assert len(late) == 65
    assert all(record[STATUS] for record in late)
    assert len(turns.workers.said(Kind.REQUEST)) == 1


def test_nobody_is_given_up_for_a_pause_of_the_gateway() -> None:
    """Everything that has come is read before the silent are judged."""
    turns = Turns()
    turns.joins("w2")
    turns.turn()
    for peer, messages in ((b"w1", 100), (b"w2", 1)):
        for _ in range(messages):
            turns.workers.comes(peer, Kind.HEARTBEAT, [0, 64, 0, None, []])

    turns.turn(after_s=10.0, away_s=10.0)

    assert turns.machine.roster.ready_names() == ["w1", "w2"]


def test_drain_is_begun_by_the_next_turn_and_the_end_tells_the_workers() -> None:
    """Any thread may ask for it."""
    turns = Turns()
    turns.loop.drain()
    turns.turn()
    assert turns.clients.said(Kind.DISCONNECT)[0][0] == "draining"

    turns.loop.part(turns.now)

    assert turns.workers.said(Kind.DISCONNECT)[0][0] == "no session"
