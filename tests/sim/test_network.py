"""The virtual network against what FIFO connections promise."""

from __future__ import annotations

from random import Random

import pytest

from zmqinfer.loop.ports import GONE, SENT
from zmqinfer.sim.network import PIPE_MESSAGES, SILENCE_S, Dealer, Network, Router
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline


class Node(Process):
    """A process that takes nothing by itself."""

    def turn(self, now: float, gap: float) -> float | None:
        return None

    def busy_s(self) -> float:
        return 0.0


class Pair:
    """A client and a gateway with one connection between them."""

    def __init__(self, seed: int = 1) -> None:
        self.timeline = Timeline()
        self.network = Network(self.timeline, Random(seed), lambda _: None, (0.08, 0.15))
        self.client, self.gateway = Node("client", self.timeline), Node("gateway", self.timeline)
        self.router: Router = self.network.listen(self.gateway, "here")
        self.dealer: Dealer = self.network.dial(self.client, "here")
        self.go(0.1)

    def go(self, seconds: float) -> None:
        until = self.timeline.now + seconds
        while self.timeline.step(until):
            pass

    def send(self, *numbers: int) -> list[bool]:
        return [self.dealer.send([b"%d" % number]) == SENT for number in numbers]

    def arrived(self) -> list[int]:
        found = []
        while (message := self.router.receive()) is not None:
            found.append(int(message[1]))
        return found


def test_messages_arrive_in_order_and_can_be_answered() -> None:
    """Whatever the jitter."""
    pair = Pair()
    assert all(pair.send(*range(100)))
    pair.go(0.1)
    peer, _ = pair.router.inbox[0][0], None
    assert pair.arrived() == list(range(100))
    assert pair.router.send(peer, [b"back"]) == SENT
    pair.go(0.1)
    assert pair.dealer.receive() == (b"back", [])
    assert pair.dealer.receive() is None


def test_a_full_connection_takes_no_more_until_somebody_reads() -> None:
    """Unread ones count."""
    pair = Pair()
    assert pair.send(*range(PIPE_MESSAGES + 1)) == [True] * PIPE_MESSAGES + [False]
    pair.go(0.1)
    assert pair.send(1) == [False]
    assert len(pair.arrived()) == PIPE_MESSAGES
    assert pair.send(1) == [True]


@pytest.mark.parametrize("lasts_s", [0.1, SILENCE_S - 0.1])
def test_a_short_block_only_delays(lasts_s: float) -> None:
    """What was sent before it, and what was sent meanwhile, arrives in order behind it."""
    pair = Pair()
    pair.send(0)
    pair.network.block(pair.client, pair.gateway)
    pair.send(1, 2)
    pair.go(lasts_s)
    assert pair.arrived() == []
    pair.network.unblock(pair.client, pair.gateway)
    pair.send(3)
    pair.go(0.1)
    assert pair.arrived() == [0, 1, 2, 3]


def test_a_long_block_ends_the_connection_at_both_ends() -> None:
    """The receiver gives it up, the sender hears of it, what was under way is lost, and it dials anew."""
    pair = Pair()
    (peer,) = pair.router.wires
    pair.network.block(pair.client, pair.gateway)
    pair.send(1)
    pair.go(2.2)
    assert pair.router.send(peer, [b""]) == GONE
    assert pair.router.closed() == [peer]
    assert pair.send(2) == [False]
    pair.network.unblock(pair.client, pair.gateway)
    pair.go(1.6)
    assert pair.send(3) == [True]
    pair.go(0.1)
    assert pair.arrived() == [3]


def test_a_frozen_process_is_silent() -> None:
    """Its peer gives the connection up; it finds out when it goes on."""
    pair = Pair()
    (peer,) = pair.router.wires
    pair.client.freeze()
    pair.network.review(pair.client)
    pair.go(2.2)
    assert pair.router.send(peer, [b""]) == GONE
    pair.client.thaw()
    pair.network.review(pair.client)
    pair.go(1.0)
    assert len(pair.router.wires) == 1
    assert pair.send(1) == [True]


def test_what_left_before_a_death_arrives_before_the_close() -> None:
    """The kernel sends it."""
    pair = Pair()
    (peer,) = pair.router.wires
    pair.send(1)
    pair.client.die()
    pair.network.forget(pair.client)
    pair.go(0.1)
    assert pair.arrived() == [1]
    assert pair.router.send(peer, [b""]) == GONE


def test_a_cut_loses_what_is_under_way() -> None:
    """And both dial and accept anew."""
    pair = Pair()
    pair.send(1)
    pair.network.cut(next(iter(pair.network.wires())))
    assert pair.send(2) == [False]
    pair.go(1.0)
    pair.send(3)
    pair.go(0.1)
    assert pair.arrived() == [3]


def test_a_dealer_waits_for_a_listener() -> None:
    """And connects within about a second of its coming."""
    pair = Pair()
    pair.gateway.die()
    pair.network.forget(pair.gateway)
    pair.go(5.0)
    assert pair.send(1) == [False]
    router = pair.network.listen(Node("gateway/2", pair.timeline), "here")
    pair.go(1.6)
    assert len(router.wires) == 1
