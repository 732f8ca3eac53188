"""A worker's turn, with sockets that do what a test tells them."""

from __future__ import annotations

from tests.loop.test_dialler import Port
from tests.machine.worker.playbook import X, asks
from zmqinfer.config import WorkerSettings
from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.ports import FULL, Reporter
from zmqinfer.loop.worker import WorkerLoop
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import ALONE, PAYLOAD, STATUS, Kind, Record
from zmqinfer.tensor import Buffer, SharedPayload
from zmqinfer.wire import decode, encode


class Gateway(Port):
    """A DEALER to a gateway, which keeps what is sent to it."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[tuple[Kind, Record]] = []

    def send(self, frames: list[Buffer]) -> int:
        outcome = super().send(frames)
        if outcome != FULL:
            kind, records = decode(bytes(frames[0]), frames[1:])
            self.heard += [(kind, record) for record in records]
        return outcome

    def says(self, kind: Kind, *records: Record) -> None:
        for _, (head, *parts) in encode(kind, list(records), 2**30):
            self.inbox.append((bytes(head), parts))

    def was_told(self, kind: Kind) -> list[Record]:
        found = [record for which, record in self.heard if which is kind]
        self.heard.clear()
        return found


class Turns:
    """A worker of one model with one gateway, and its loop."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.machine = WorkerMachine(
            WorkerSettings(),
            name="w1",
            session=b"0123456789abcdef",
            agent="test",
            cards=[ModelCard("m", 1, X, BatchLimits())],
            gateways=["tcp://gateway"],
            now=self.now,
        )
        self.gateway = Gateway()
        dialler = Dialler(self.machine, lambda _: self.gateway)
        self.read: list[SharedPayload] = []
        self.loop = WorkerLoop(self.machine, dialler, Reporter(), self._read)
        self.gateway.says(Kind.WELCOME, [b"g" * 16, "gateway", 500, 2**27, []])
        self.turn()
        self.gateway.heard.clear()

    def _read(self, payload: SharedPayload) -> list[Buffer] | None:
        self.read.append(payload)
        return None

    def turn(self, after_s: float = 0.0, away_s: float = 0.0) -> tuple[list[Batch], float | None]:
        self.now += after_s
        begun = [batch for batches in self.loop.take_in(self.now, away_s).values() for batch in batches]
        due = self.loop.send_out(self.now)
        self.machine.check()
        return begun, due


def test_request_becomes_a_batch_and_its_outcome_a_reply() -> None:
    """What an engine puts down is answered by the next half of a turn."""
    turns = Turns()
    turns.gateway.says(Kind.REQUEST, asks(32, places=0b111))

    (batch,), _ = turns.turn()
    turns.loop.done.append((batch, [(3, b"layout", b"yyyy" * 3)], 0.01))
    turns.turn()

    assert [record[STATUS] for record in turns.gateway.was_told(Kind.REPLY)] == [0]
    assert turns.machine.held == 0


def test_what_a_socket_does_not_take_is_tried_again_soon() -> None:
    """One that is not connected does not say when it will be."""
    turns = Turns()
    turns.gateway.outcome = FULL
    turns.machine.tasks.take(0, [asks(1, model="unknown")], turns.now, 0.0)

    _, due = turns.turn()

    assert due is not None
    assert due - turns.now <= 0.010


def test_payload_in_a_clients_memory_is_read_before_the_machine_sees_it() -> None:
    """It cannot be had here: the client is to send it in the message."""
    turns = Turns()
    place = [[7, 8, b"s" * 16], 0, 4]
    request = asks(1)
    request[PAYLOAD] = tuple(place)
    turns.gateway.says(Kind.REQUEST, request)

    turns.turn()

    assert len(turns.read) == 1
    assert turns.gateway.was_told(Kind.REPLY)[0][4] == "inline"


def test_a_pause_of_its_own_is_charged_to_what_is_found() -> None:
    """Its time is up, and it is not run."""
    turns = Turns()
    turns.gateway.says(Kind.REQUEST, asks(1, budget_s=1.0))

    begun, _ = turns.turn(after_s=2.0, away_s=2.0)

    assert begun == []


def test_what_may_end_the_process_is_told_before_it_begins() -> None:
    """It has left when the first half of the turn is over."""
    turns = Turns()
    request = asks(1)
    request[ALONE : ALONE + 1] = [True]
    turns.gateway.says(Kind.REQUEST, request)

    turns.loop.take_in(turns.now, 0.0)

    assert turns.loop.is_in_danger
    assert turns.gateway.was_told(Kind.HEARTBEAT)[0][4] == [1]
    turns.turn()
    assert not turns.loop.is_in_danger


def test_drain_is_begun_by_the_next_turn_and_ends_the_loop() -> None:
    """Once the gateway has let it go."""
    turns = Turns()
    turns.loop.drain()
    turns.turn()
    assert turns.gateway.was_told(Kind.DISCONNECT)[0][0] == "draining"
    turns.gateway.says(Kind.DISCONNECT, ["draining", ""])
    turns.turn()
    assert not turns.loop.is_over()

    turns.gateway.says(Kind.DISCONNECT, ["closing", ""])
    turns.turn()

    assert turns.loop.is_over()


def test_everything_rare_is_reported_once() -> None:
    """Warnings as such."""
    said: list[tuple[str, str]] = []

    class Voice(Reporter):
        def info(self, event: str, **values: object) -> None:
            said.append(("info", event))

        def warning(self, event: str, **values: object) -> None:
            said.append(("warning", event))

    turns = Turns()
    turns.loop._report = Voice()
    turns.machine.events.append(("gateway joined", {}))
    turns.machine.warnings.append(("cannot reach gateway", {}))

    turns.turn()
    turns.turn()

    assert said == [("info", "gateway joined"), ("warning", "cannot reach gateway")]
