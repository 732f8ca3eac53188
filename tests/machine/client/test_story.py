"""A client among random gateways: whatever they do, each call ends exactly once, with its own answer."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machine.client.playbook import NO_SESSION, SLOT_S, Playbook, card, did_not_run, reply
from zmqinfer.errors import Status
from zmqinfer.machine.block import listed, numbers_of
from zmqinfer.machine.client.machine import GRACE_S
from zmqinfer.machine.link import LinkState
from zmqinfer.records import (
    ALL_PLACES,
    IDEMPOTENT,
    KEY,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    PLACES,
    REQUEST_ID,
    ROWS,
    STATUS,
    Kind,
    Record,
)

MAX_ROWS = {"m": 32, "n": 3}
# Calls by model, rows and whether their payload travels in parts: those of a kind are alike, some share nothing.
KINDS = (
    ("m", None, False),
    ("m", None, False),
    ("n", None, False),
    ("m", 1, False),
    ("m", 2, False),
    ("m", None, True),
)

# All, one, and any in between.
any_places = st.sampled_from((ALL_PLACES, 0, 0b1, 0b110, 0x55555555, 0x66666666, ALL_PLACES - 1)) | st.integers(
    0, ALL_PLACES
)

Words: TypeAlias = list[tuple[Kind, Record]]


@dataclass(frozen=True)
class Call:
    """What a caller asked, and the input by which its answer is known."""

    owner: int
    model: str
    rows: int | None
    body: bytes
    key: bytes | None
    idempotent: bool | None
    deadline: float


def part_of(numbers: Iterable[int], one: int, places: int) -> list[int]:
    """Those of the numbers that are at these places of one call's block, or that call alone."""
    block = sorted(number for number in numbers if number // MAX_CALLS == one // MAX_CALLS)
    return [number for number in block if places >> number % MAX_CALLS & 1] or [one]


class ClientStory(RuleBasedStateMachine):
    """Callers ask and take back; gateways answer and refuse any part of a block, come, go, drain and forget."""

    def __init__(self) -> None:
        super().__init__()
        cards = [card(model, max_rows=most) for model, most in MAX_ROWS.items()]
        self.play = Playbook(2, connect_timeout_s=1.0).serving(*cards)
        self.count = 0
        # Every call there was, by its number.
        self.calls: dict[int, Call] = {}
        # By owner the number of each call that has not ended.
        self.pending: dict[int, int] = {}
        # Made in this turn, and taken back in the turn in which they were made.
        self.fresh: set[int] = set()
        self.never: set[int] = set()
        # By number the gateway that was asked last.
        self.asked_at: dict[int, int] = {}
        # What each gateway was asked in its session and has not answered, and what was refused and is asked again.
        self.has: tuple[set[int], set[int]] = (set(), set())
        self.resting: set[int] = set()
        self.unmatched = 0

    @initialize(numbers=st.sampled_from(((0, 1), (0, 1), (0,), (1,), ())))
    def begin(self, numbers: tuple[int, ...]) -> None:
        if numbers:
            self.play.up(*numbers)

    # Callers

    @rule(
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
        times=st.sampled_from((1, 2, 3, 3, 12)),
        keys=st.sampled_from(((None,), (None,), (b"a", b"b", b""), (None, b"c", None, b"d", b"e"))),
        deadline_s=st.sampled_from((9.0, 9.0, 9.0, 3.0, 0.7, 0.05, 0.0)),
        idempotent=st.sampled_from((None, None, None, False)),
        withdrawn=st.sampled_from((0, 0, 0, 1, 3, 48)),
        is_turn_over=st.booleans(),
    )
    def asks(
        self,
        kinds: list[tuple[str, int | None, bool]],
        times: int,
        keys: tuple[bytes | None, ...],
        withdrawn: int,
        is_turn_over: bool,
        **how: Any,
    ) -> None:
        for model, rows, in_parts in kinds * times:
            self.count += 1
            body, key = b"%08d" % self.count, keys[self.count % len(keys)]
            payload = [body] if in_parts else body
            number = self.play.calls(self.count, model=model, rows=rows, body=payload, key=key, **how)
            assert number not in self.calls, "a number that was in use"
            deadline = self.play.now + how["deadline_s"]
            self.calls[number] = Call(self.count, model, rows, body, key, how["idempotent"], deadline)
            self.pending[self.count] = number
            self.fresh.add(number)
        made = len(kinds) * times
        start = self.count - made + max(0, made - withdrawn) // 2 + 1
        self._cancel([owner for owner in range(start, start + withdrawn) if owner in self.pending])
        if is_turn_over:
            self.turn()

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0), count=st.sampled_from((1, 1, 3, 8)), step=st.integers(1, 3), is_turn_over=st.booleans())
    def cancels(self, which: int, count: int, step: int, is_turn_over: bool) -> None:
        owners = list(self.pending)
        start = which % len(owners)
        numbers = self._cancel(owners[start : start + count * step : step])
        if is_turn_over:
            words = itertools.chain(*self.turn())
            told = {number for kind, record in words if kind is Kind.CANCEL for number in numbers_of(record)}
            assert {number for number in numbers if number in self.asked_at} <= told

    def _cancel(self, owners: list[int]) -> list[int]:
        numbers = [self.pending.pop(owner) for owner in owners]
        for number in numbers:
            assert self.play.cancels(number)
            assert not self.play.cancels(number)
        self.never.update(number for number in numbers if number in self.fresh)
        return numbers

    # Gateways

    @precondition(lambda self: self.asked_at)
    @rule(
        which=st.integers(0),
        places=any_places,
        status=st.sampled_from((Status.OK, Status.OK, Status.MODEL_ERROR)),
        is_late=st.sampled_from((False, False, False, True)),
    )
    def answers(self, which: int, places: int, status: Status, is_late: bool) -> None:
        """Any part of a block, of which some calls may have been answered or taken back already."""
        awaited = set(self.pending.values())
        candidates = [number for number in self.asked_at if is_late or number in awaited] or list(self.asked_at)
        self._answer(part_of(self.asked_at, candidates[which % len(candidates)], places), status)

    @rule()
    def answers_all(self) -> None:
        for number in sorted(self.asked_at):
            if number in self.pending.values():
                self._answer([number], Status.OK)

    def _answer(self, numbers: list[int], status: Status) -> None:
        awaited = set(self.pending.values())
        output = b"".join(self.calls[number].body for number in numbers)
        self.unmatched += sum(number not in awaited for number in numbers)
        gateway = self.asked_at[numbers[0]]

        self.play.says(gateway, Kind.REPLY, reply(*numbers, status=status, output=output))

        self.has[gateway].difference_update(numbers)
        assert self.collect() == dict.fromkeys(awaited & set(numbers), status)

    @precondition(lambda self: any(self.has))
    @rule(
        which=st.integers(0),
        parts=st.lists(any_places, min_size=1, max_size=3),
        status=st.sampled_from((Status.OVERLOADED, Status.OVERLOADED, Status.UNAVAILABLE)),
        retry_after_ms=st.sampled_from((None, 0, 1_000)),
    )
    def refuses(self, which: int, parts: list[int], status: Status, retry_after_ms: int | None) -> None:
        """Any parts of what a gateway has: each part ends, or all of it is asked for again."""
        gateway = int(not self.has[0] or (which % 2 and bool(self.has[1])))
        for places in parts:
            there = sorted(self.has[gateway] & set(self.pending.values()))
            if not there:
                return
            numbers = part_of(there, there[which % len(there)], places)
            refusal = did_not_run(*numbers, status=status, retry_after_ms=retry_after_ms)

            self.play.says(gateway, Kind.REPLY, refusal)

            self.has[gateway].difference_update(numbers)
            if ended := self.collect():
                assert ended == dict.fromkeys(numbers, status)
            else:
                self.resting.update(numbers)

    @rule(
        number=st.integers(0, 1),
        what=st.sampled_from(("lives", "lives", "welcome", "welcome", "dies", "refuse", "drains", "restarts")),
    )
    def changes(self, number: int, what: str) -> None:
        if what == "welcome":
            self.play.welcomes(number)
        elif what == "refuse":
            self.play.says(number, Kind.DISCONNECT, ["too many clients", ""])
        elif what == "drains":
            self.play.says(number, Kind.DISCONNECT, ["draining", ""])
        elif what == "restarts":
            self.play.restarts(number)
        elif what == "dies":
            self.play.alive.discard(number)
        else:
            self.play.alive.add(number)
        self.collect()

    @rule(number=st.integers(0, 1), is_turn_over=st.booleans())
    def forgets(self, number: int, is_turn_over: bool) -> None:
        """A gateway that was welcome has no session: what is pending there comes again, and nothing else."""
        was_up = self.play.machine.links[number].state is LinkState.UP
        self.has[number].clear()
        self.play.says(number, Kind.DISCONNECT, NO_SESSION)
        self.collect()
        if not was_up:
            return
        self.fresh.clear()
        if is_turn_over:
            there = {call for call in self.pending.values() if self.asked_at.get(call) == number} - self.resting
            resting = self.resting.copy()
            words = self.turn()[number]
            again = [call for kind, record in words if kind is Kind.REQUEST for call in numbers_of(record)]
            assert words[0][0] is Kind.HELLO
            assert there <= set(again) <= set(self.pending.values()) - resting

    @rule(seconds=st.sampled_from((0.0, 0.004, 0.01, 0.4, 2.0)))
    def time_passes(self, seconds: float) -> None:
        self.play.waits(seconds)
        self.collect()
        self.turn()

    @rule(seconds=st.sampled_from((0.001, 0.02)))
    def turn_takes_long(self, seconds: float) -> None:
        self.play.now += seconds

    @rule()
    def turn_ends(self) -> None:
        self.turn()

    def turn(self) -> list[Words]:
        """Ends the turn, and returns for each gateway what came to it."""
        self.play.flushed()
        self.fresh.clear()
        return [self.look(number) for number in range(2)]

    # What must hold

    def look(self, number: int) -> Words:
        """Reads what came to a gateway: each call as it was made, once in a session, and none that never left."""
        words = [(kind, record) for kind, records in self.play.heard(number) for record in records]
        for kind, record in words:
            if kind in {Kind.HELLO, Kind.DISCONNECT}:
                self.has[number].clear()
            elif kind is Kind.CANCEL:
                cancelled = set(numbers_of(record))
                assert not cancelled & (self.never | set(self.pending.values()))
                self.has[number].difference_update(cancelled)
            elif kind is Kind.REQUEST:
                asked = set(numbers_of(record))
                assert not asked & (self.has[number] | self.never)
                self._is_as_made(record)
                self.has[number].update(asked)
                self.resting -= asked
                self.asked_at.update(dict.fromkeys(asked, number))
        return words

    def _is_as_made(self, record: Record) -> None:
        numbers, payload, places = numbers_of(record), record[PAYLOAD], record[PLACES]
        calls = [self.calls[number] for number in numbers]
        assert len(calls) <= MAX_ROWS[record[MODEL]]
        assert len(calls) == 1 or all(call.rows is None for call in calls)
        assert record[ROWS] == sum(call.rows or 1 for call in calls)
        assert {(call.model, call.idempotent) for call in calls} == {(record[MODEL], record[IDEMPOTENT])}
        assert [call.key for call in calls] == (record[KEY] or [None] * len(calls))
        assert (payload if type(payload) is bytes else b"".join(payload)) == b"".join(call.body for call in calls)
        # A call's id is the block's with its place added, so each keeps its own however the block is divided.
        block = int.from_bytes(record[REQUEST_ID], "big")
        ids = [int.from_bytes(self.play.machine.request_id(number), "big") for number in numbers]
        assert ids == [block + place for place in listed(places)]

    def collect(self) -> dict[int, Status]:
        """Takes the calls that ended: each for the first time, at its time, with the answer to its own input."""
        statuses = {}
        for owner, record in self.play.ended().items():
            assert isinstance(owner, int)
            (number,) = numbers_of(record)
            assert self.pending.pop(owner) == number
            call = self.calls[number]
            assert record[STATUS] != Status.DEADLINE_EXCEEDED or call.deadline <= self.play.now
            assert record[STATUS] != Status.OK or record[OUTPUT] == call.body
            statuses[number] = Status(record[STATUS])
        return statuses

    @invariant()
    def agrees(self) -> None:
        self.play.machine.check()
        assert self.play.machine.completed == []
        assert self.play.machine.pending == len(self.pending)
        assert self.play.machine.unmatched == self.unmatched

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        earliest = min((self.calls[number].deadline for number in self.pending.values()), default=self.play.now)
        due = self.play.machine.wake_at()
        assert earliest + GRACE_S + SLOT_S >= self.play.now or (due is not None and due <= self.play.now)

    def teardown(self) -> None:
        self.play.waits(10.0)
        self.collect()
        self.turn()
        assert self.pending == {}
        assert self.play.machine.pending == 0


TestClientStory = pytest.mark.slow(ClientStory.TestCase)
TestClientStory.settings = settings(max_examples=200, stateful_step_count=50)
