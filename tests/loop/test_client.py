"""A client's turn, with sockets that do what a test tells them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np

from tests.loop.test_worker import Gateway
from tests.machine.client.playbook import reply, welcome
from zmqinfer.config import ClientSettings
from zmqinfer.errors import DeadlineExceeded, ModelError, ProtocolError, Status, ZmqInferError
from zmqinfer.loop.client import ClientLoop, Taker
from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.ports import FULL
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.records import MAX_CALLS, PLACES, RESULT, Kind, Record
from zmqinfer.tensor import SharedPayload

LAYOUT = msgpack.packb([["y", "FP32", [1]]])


class Waits:
    """Who waits for one call."""

    def __init__(self) -> None:
        self.outcome: Any = None

    def done(self) -> bool:
        return self.outcome is not None

    def set_result(self, result: Any, /) -> None:
        self.outcome = result

    def set_exception(self, error: BaseException, /) -> None:
        self.outcome = error


class Takes(Taker):
    """Who waits for several."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, list[Any]]] = []

    def take(self, reply: Record, place: int, outcomes: Sequence[Any]) -> None:
        self.taken.append((numbers_of(reply)[place], list(outcomes)))


class Turns:
    """A client with one gateway, which is up, and its loop."""

    def __init__(self) -> None:
        self.now = 1_000.0
        self.machine = ClientMachine(
            ClientSettings(),
            session=b"0123456789abcdef",
            id_prefix=b"prefix--",
            agent="test",
            gateways=["tcp://gateway"],
            now=self.now,
        )
        self.gateway = Gateway()
        self.freed: list[SharedPayload] = []
        dialler = Dialler(self.machine, lambda _: self.gateway)
        self.loop = ClientLoop(self.machine, dialler, self.freed.append)
        signature: Record = [[["x", "FP32", [1]]], [["y", "FP32", [1]]]]
        self.gateway.says(Kind.WELCOME, welcome(["m", 1, signature, MAX_CALLS, True, False]))
        self.turn()
        self.gateway.heard.clear()

    def asks(self, *owners: object, deadline_s: float = 30.0) -> int:
        options = CallOptions(deadline_s)
        tags = [self.machine.submit(one, "m", (LAYOUT, b"abcd"), None, options, self.now) for one in owners]
        return tags[0]

    def answers(self, first: int, *values: float, status: Status = Status.OK) -> None:
        calls = range(first, first + len(values))
        record = reply(*calls, status=status, output=np.array(values, np.float32).tobytes())
        if not status:
            record[RESULT] = LAYOUT
        self.gateway.says(Kind.REPLY, record)

    def turn(self, after_s: float = 0.0) -> float | None:
        self.now += after_s
        due = self.loop.turn(self.now)
        self.machine.check()
        return due


def test_calls_of_a_turn_leave_together_and_each_owner_gets_its_output() -> None:
    """Those that wait no more get nothing."""
    turns = Turns()
    waits = [Waits() for _ in range(4)]
    first = turns.asks(*waits)
    turns.turn()
    (asked,) = turns.gateway.was_told(Kind.REQUEST)
    assert asked[PLACES] == 0b1111
    assert turns.machine.cancel(first + 1)
    waits[2].outcome = "gone"

    turns.answers(first, 1, 2, 3, 4)
    turns.turn()

    assert [waits[0].outcome, waits[3].outcome] == [1, 4]
    assert [waits[1].outcome, waits[2].outcome] == [None, "gone"]


def test_error_ends_each_call_with_one_of_its_own() -> None:
    """The gateway's, and what is wrong with an output; a bad one of a neighbour harms nobody."""
    turns = Turns()
    failed, neighbour, broken = Waits(), Waits(), Waits()
    first = turns.asks(failed, neighbour, broken)
    turns.turn()
    turns.answers(first, 0, 0, status=Status.MODEL_ERROR)
    record = reply(first + 2)
    record[RESULT] = b"no layout"
    turns.gateway.says(Kind.REPLY, record)

    turns.turn()

    assert isinstance(failed.outcome, ModelError)
    assert isinstance(neighbour.outcome, ModelError)
    assert failed.outcome is not neighbour.outcome
    assert isinstance(broken.outcome, ProtocolError)


def test_owner_of_a_whole_block_takes_it_at_once_and_in_company_its_own() -> None:
    """With errors as with outputs."""
    turns = Turns()
    stream, wait = Takes(), Waits()
    alone = turns.asks(stream, stream, stream)
    turns.turn()
    turns.answers(alone, 1, 2, 3)
    turns.turn()
    mixed = turns.asks(stream, wait, stream)
    turns.turn()
    turns.answers(mixed, 4, 5)
    turns.answers(mixed + 2, 0, status=Status.MODEL_ERROR)
    turns.turn()

    assert stream.taken[:2] == [(alone, [1, 2, 3]), (mixed, [4])]
    assert wait.outcome == 5
    ((tag, (error,)),) = stream.taken[2:]
    assert tag == mixed + 2
    assert isinstance(error, ZmqInferError)


def test_what_a_socket_does_not_take_is_tried_again_soon() -> None:
    """One that is not connected does not say when it will be."""
    turns = Turns()
    turns.gateway.outcome = FULL
    turns.asks(Waits())

    due = turns.turn()

    assert due is not None
    assert due - turns.now <= 0.010


def test_answers_that_are_unread_after_a_pause_come_before_the_timers() -> None:
    """They are there, and only late; but what never stops keeps no call from its end."""
    turns = Turns()
    wait, hopeless = Waits(), Waits()
    first = turns.asks(wait, hopeless, deadline_s=1.0)
    turns.turn()
    for _ in range(64):
        turns.gateway.says(Kind.HEARTBEAT)
    turns.answers(first, 7)

    assert turns.turn(after_s=3.0) == turns.now
    assert not wait.done()
    turns.turn()
    assert wait.outcome == 7
    for _ in range(200):
        for _ in range(64):
            turns.gateway.says(Kind.HEARTBEAT)
        turns.turn()
    assert isinstance(hopeless.outcome, DeadlineExceeded)


def test_full_blocks_leave_before_the_turn_if_they_are_half_of_what_is_pending() -> None:
    """One does not, nor two of many."""
    turns = Turns()
    for asked in (MAX_CALLS, 2 * MAX_CALLS):
        turns.asks(*[Waits() for _ in range(asked - turns.machine.pending)])
        turns.loop.push(turns.now)
        assert len(turns.gateway.was_told(Kind.REQUEST)) == (0 if asked == MAX_CALLS else 2)
    turns.asks(*[Waits() for _ in range(2 * MAX_CALLS)])
    turns.loop.push(turns.now)
    assert len(turns.gateway.was_told(Kind.REQUEST)) == 2
    turns.asks(*[Waits() for _ in range(2 * MAX_CALLS)])
    turns.loop.push(turns.now)
    assert turns.gateway.was_told(Kind.REQUEST) == []


def test_place_in_shared_memory_is_given_back_when_its_call_has_ended() -> None:
    """Once."""
    turns = Turns()
    place: Any = ((7, 8, b"s" * 16), 0, 4)
    turns.machine.released.append(place)

    turns.turn()
    turns.turn()

    assert turns.freed == [place]


def test_question_is_answered_by_its_record() -> None:
    """As the gateway's answer came."""
    turns = Turns()
    wait = Waits()
    turns.machine.ask(wait, Kind.STATS, ["models", None, 0, 1], 0, turns.now + 5, turns.now)
    turns.turn()
    (asked,) = turns.gateway.was_told(Kind.STATS)

    turns.gateway.says(Kind.STATS, [asked[0], "models", b"[]", 0, 1])
    turns.turn()

    assert wait.outcome[2] == b"[]"
