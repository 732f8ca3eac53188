"""The dialling side's sockets, as ports that do what a test tells them."""

from __future__ import annotations

from collections import deque

from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.ports import FULL, SENT
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


def dialler(*ports: Port) -> Dialler[Port]:
    one: Dialler[Port] = Dialler()
    one.ports = dict(enumerate(ports))
    return one


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
    """The others' leaves; that for a gateway that was given up is dropped."""
    full, free = Port(), Port()
    full.outcome = FULL
    one = dialler(full, free)
    dirty: list[Outbox] = []
    for number in range(3):
        Outbox(number, dirty).put(Kind.CANCEL, [1, 1])

    assert one.flush(dirty, 1.0)
    assert [outbox.address for outbox in dirty] == [0]
    full.outcome = SENT
    assert not one.flush(dirty, 1.0)
    assert (full.sent, free.sent) == (1, 1)
