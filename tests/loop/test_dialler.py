"""The dialling side's sockets, as ports that do what a test tells them."""

from __future__ import annotations

from collections import deque

import pytest

from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.ports import FULL, SENT
from zmqinfer.machine.link import Leave, Link
from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import Buffer
from zmqinfer.wire import encode


class Port:
    """A DEALER."""

    def __init__(self, messages: int = 0) -> None:
        self.inbox: deque[tuple[bytes, list[Buffer]]] = deque()
        self.sent = 0
        self.outcome = SENT
        self.is_closed = False
        for tag in range(messages):
            for _, (head, *parts) in encode(Kind.CANCEL, [[tag, 1]], 2**20):
                self.inbox.append((bytes(head), parts))

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        return self.inbox.popleft() if self.inbox else None

    def is_readable(self) -> bool:
        return bool(self.inbox)

    def send(self, frames: list[Buffer]) -> int:
        self.sent += self.outcome == SENT
        return self.outcome

    def close(self) -> None:
        self.is_closed = True


class Machine:
    """What a dialler needs of one."""

    def __init__(self, links: int) -> None:
        self.dirty: list[Outbox] = []
        self.left: list[int] = []
        self.links: dict[int, Link] = {}
        self.number = 0
        self.removed: list[int] = []
        for number in range(links):
            self.add_link(f"tcp://gateway:{number}", 0.0)

    def add_link(self, address: str, now: float) -> int:
        assert now >= 0
        number, self.number = self.number, self.number + 1
        self.links[number] = Link(number, address, Kind.HELLO, [], 0.5, self.dirty)
        return number

    def remove_link(self, number: int, now: float) -> None:
        assert now >= 0
        self.removed.append(number)
        self.links[number].leave = Leave.WANTED


def dialler(*ports: Port) -> Dialler[Port]:
    fresh = iter(ports)
    return Dialler(Machine(len(ports)), lambda _: next(fresh))


def test_each_gateway_is_read_a_bounded_number_of_times() -> None:
    """A flood of one does not keep the others waiting."""
    one = dialler(Port(100), Port(2))
    got: list[tuple[int, int]] = []

    def on_message(number: int, _kind: Kind, records: list[Record], _now: float) -> None:
        got.append((number, records[0][0]))

    assert one.drain(on_message, 1.0)
    assert got == [(0, tag) for tag in range(64)] + [(1, 0), (1, 1)]
    assert one.records == 66
    assert one.is_readable()
    assert not one.drain(on_message, 1.0)
    assert not one.is_readable()


def test_what_cannot_be_read_is_told_and_passed_over() -> None:
    """It names the gateway; without anybody to tell, it is as if it had been lost."""
    port = Port()
    port.inbox += [(b"broken", []), *Port(1).inbox]
    told: list[int] = []
    got: list[int] = []

    dialler(port).drain(lambda number, *_: got.append(number), 1.0, lambda number, *_: told.append(number))

    assert (told, got) == ([0], [0])


def test_what_a_socket_does_not_take_stays_in_its_outbox() -> None:
    """The others' leaves; that for a gateway that was left is dropped."""
    full, free = Port(), Port()
    full.outcome = FULL
    machine, fresh = Machine(2), iter((full, free))
    one = Dialler(machine, lambda _: next(fresh))
    for number in range(3):
        Outbox(number, machine.dirty).put(Kind.CANCEL, [1, 1])

    assert one.flush(1.0)
    assert [outbox.address for outbox in machine.dirty] == [0]
    full.outcome = SENT
    assert not one.flush(1.0)
    assert (full.sent, free.sent) == (1, 1)


def test_port_of_a_gateway_that_comes_is_watched_and_that_of_one_that_goes_closed() -> None:
    """Behind the last that the machine had to say to it; an address is known once, until it is to be left."""
    first, second, third = Port(), Port(), Port()
    machine = Machine(1)
    one = Dialler(machine, lambda _: first)
    watched: list[Port] = []
    unwatched: list[Port] = []
    one.add("tcp://another", second, 1.0)
    one.add("tcp://another", third, 1.0)

    one.settle(watched.append, unwatched.append)
    assert (watched, unwatched) == ([second, first], [])
    assert list(one.ports.values()) == [first, second]
    assert third.is_closed

    one.remove("tcp://gateway:0", 2.0)
    one.remove("tcp://gateway:0", 2.0)
    assert machine.removed == [0]
    Outbox(0, machine.dirty).put(Kind.DISCONNECT, ["closing", ""])
    machine.left.append(0)
    one.flush(3.0)
    assert (first.sent, first.is_closed) == (1, False)
    one.settle(watched.append, unwatched.append)

    assert (first.is_closed, unwatched, machine.left) == (True, [first], [])
    assert list(one.ports.values()) == [second]


def test_gateway_that_comes_back_before_it_was_left_waits_for_that() -> None:
    """It would else take the node for one that has lost its connection."""
    machine = Machine(1)
    first, second, third = Port(), Port(), Port()
    one = Dialler(machine, lambda _: first)
    address = "tcp://gateway:0"
    for port in (second, third):
        one.remove(address, 1.0)
        one.add(address, port, 1.0)
    assert (list(machine.links), second.is_closed) == ([0], True)

    del machine.links[0]
    machine.left.append(0)
    one.flush(2.0)
    one.settle(lambda _: None, lambda _: None)

    assert one.ports == {1: third}
    assert machine.links[1].address == address
    assert (first.is_closed, third.is_closed) == (True, False)


def test_port_that_comes_too_late_is_closed() -> None:
    """As all others are; and those that were dialled before one that cannot be."""
    first, second = Port(), Port()
    machine = Machine(1)
    one = Dialler(machine, lambda _: first)
    one.close()
    one.add("tcp://another", second, 1.0)
    one.remove("tcp://gateway:0", 1.0)
    assert first.is_closed
    assert second.is_closed
    assert (len(machine.links), machine.removed) == (1, [])

    fresh = iter((third := Port(),))
    with pytest.raises(StopIteration):
        Dialler(Machine(2), lambda _: next(fresh))
    assert third.is_closed
