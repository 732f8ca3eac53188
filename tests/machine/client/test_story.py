"""A client among random gateways: whatever they do, each call ends exactly once, with its own answer."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, TypeAlias

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.machine.client.playbook import NO_SESSION, SLOT_S, Playbook, card, reply, tags_of
from zmqinfer.errors import Status
from zmqinfer.machine.block import singles
from zmqinfer.machine.client.machine import GRACE_S
from zmqinfer.machine.link import LinkState
from zmqinfer.records import (
    CALLS,
    IDEMPOTENT,
    KEY,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    REQUEST_ID,
    ROWS,
    STATUS,
    TAG,
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

Words: TypeAlias = list[tuple[Kind, Record]]


@dataclass(frozen=True)
class Call:
    """What a caller asked, and the input by which its answer is known."""

    owner: int
    model: str
    rows: int | None
    body: bytes
    how: dict[str, Any]
    deadline: float


class ClientStory(RuleBasedStateMachine):
    """Callers ask and take back, gateways answer in any parts, come, go and forget."""

    def __init__(self) -> None:
        super().__init__()
        cards = [card(model, max_rows=most) for model, most in MAX_ROWS.items()]
        self.play = Playbook(2, connect_timeout_s=1.0).serving(*cards)
        self.count = 0
        # Every call there was, by tag.
        self.calls: dict[int, Call] = {}
        # By owner the tag of each call that has not ended.
        self.pending: dict[int, int] = {}
        # Made in this turn, and taken back in the turn in which they were made.
        self.fresh: set[int] = set()
        self.never: set[int] = set()
        # By tag the gateway that was asked last.
        self.asked_at: dict[int, int] = {}
        self.unmatched = 0

    @initialize(numbers=st.sampled_from(((0, 1), (0, 1), (0,), (1,), ())))
    def begin(self, numbers: tuple[int, ...]) -> None:
        if numbers:
            self.play.up(*numbers)

    # Callers

    @rule(
        kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
        times=st.sampled_from((1, 1, 2, 3, 12)),
        key=st.sampled_from((None, None, b"k")),
        deadline_s=st.sampled_from((9.0, 9.0, 9.0, 3.0, 0.7, 0.05, 0.0)),
        idempotent=st.sampled_from((None, None, None, False)),
        withdrawn=st.sampled_from((0, 0, 0, 1, 3, 48)),
    )
    def asks(self, kinds: list[tuple[str, int | None, bool]], times: int, withdrawn: int, **how: Any) -> None:
        for model, rows, in_parts in kinds * times:
            self.count += 1
            body = b"%08d" % self.count
            payload = [body] if in_parts else body
            tag = self.play.calls(self.count, model=model, rows=rows, body=payload, **how)
            assert tag not in self.calls, "a tag that was in use"
            self.calls[tag] = Call(self.count, model, rows, body, how, self.play.now + how["deadline_s"])
            self.pending[self.count] = tag
            self.fresh.add(tag)
        made = len(kinds) * times
        start = self.count - made + max(0, made - withdrawn) // 2 + 1
        self._cancel([owner for owner in range(start, start + withdrawn) if owner in self.pending])

    @precondition(lambda self: self.pending)
    @rule(which=st.integers(0), count=st.sampled_from((1, 1, 3, 8)), is_turn_over=st.booleans())
    def cancels(self, which: int, count: int, is_turn_over: bool) -> None:
        owners = list(self.pending)
        start = which % len(owners)
        tags = self._cancel(owners[start : start + count])
        if is_turn_over:
            words = itertools.chain(*self.turn())
            told = [record for kind, record in words if kind is Kind.CANCEL]
            assert all([tag, 1] in told for tag in tags if tag in self.asked_at and tag not in self.never)

    def _cancel(self, owners: list[int]) -> list[int]:
        tags = [self.pending.pop(owner) for owner in owners]
        for tag in tags:
            assert self.play.cancels(tag)
            assert not self.play.cancels(tag)
        self.never.update(tag for tag in tags if tag in self.fresh)
        return tags

    # Gateways

    @precondition(lambda self: self.asked_at)
    @rule(
        which=st.integers(0),
        most=st.sampled_from((MAX_CALLS, MAX_CALLS, 3, 2, 1)),
        status=st.sampled_from((Status.OK, Status.OK, Status.MODEL_ERROR)),
        is_late=st.sampled_from((False, False, False, True)),
    )
    def answers(self, which: int, most: int, status: Status, is_late: bool) -> None:
        """A stretch of a block, which may reach into what was answered or taken back already."""
        awaited = set(self.pending.values())
        candidates = [tag for tag in self.asked_at if is_late or tag in awaited] or list(self.asked_at)
        tags = [candidates[which % len(candidates)]]
        while len(tags) < most and (following := tags[-1] + 1) % MAX_CALLS and following in self.asked_at:
            tags.append(following)
        self._answer(tags, status)

    @rule()
    def answers_all(self) -> None:
        for tag in sorted(self.asked_at):
            if tag in self.pending.values():
                self._answer([tag], Status.OK)

    def _answer(self, tags: list[int], status: Status) -> None:
        awaited = set(self.pending.values())
        output = b"".join(self.calls[tag].body for tag in tags)
        self.unmatched += sum(tag not in awaited for tag in tags)

        self.play.says(self.asked_at[tags[0]], Kind.REPLY, reply(tags[0], status, len(tags), output))

        ended = self.collect()
        assert {record[TAG]: record[STATUS] for record in ended} == dict.fromkeys(awaited & set(tags), status)

    @rule(number=st.integers(0, 1), what=st.sampled_from(("lives", "welcome", "dies", "lives", "welcome", "refuse")))
    def changes(self, number: int, what: str) -> None:
        if what == "welcome":
            self.play.welcomes(number)
        elif what == "refuse":
            self.play.says(number, Kind.DISCONNECT, ["too many clients", ""])
        elif what == "dies":
            self.play.alive.discard(number)
        else:
            self.play.alive.add(number)
        self.collect()

    @rule(number=st.integers(0, 1), is_turn_over=st.booleans())
    def forgets(self, number: int, is_turn_over: bool) -> None:
        """A gateway that was welcome has no session: what is pending there comes again, and nothing else."""
        was_up = self.play.machine.links[number].state is LinkState.UP
        self.play.says(number, Kind.DISCONNECT, NO_SESSION)
        self.collect()
        if not was_up:
            return
        self.fresh.clear()
        if is_turn_over:
            there = {tag for tag in self.pending.values() if self.asked_at.get(tag) == number}
            words = self.turn()[number]
            again = [tag for kind, record in words if kind is Kind.REQUEST for tag in tags_of(record)]
            assert words[0][0] is Kind.HELLO
            assert len(set(again)) == len(again)
            assert there <= set(again) <= set(self.pending.values())

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
        """Reads what came to a gateway: each call as it was made, and none that was taken back in its turn."""
        words = [(kind, record) for kind, records in self.play.heard(number) for record in records]
        for kind, record in words:
            if kind is Kind.CANCEL:
                assert record[CALLS] == 1
                assert not {record[TAG]} & (self.never | set(self.pending.values()))
            if kind is Kind.REQUEST:
                assert record[CALLS] <= MAX_ROWS[record[MODEL]]
                assert record[CALLS] == 1 or all(self.calls[tag].rows is None for tag in tags_of(record))
                for single in singles(record):
                    self._is_as_made(single)
                    self.asked_at[single[TAG]] = number
        return words

    def _is_as_made(self, record: Record) -> None:
        tag, payload = record[TAG], record[PAYLOAD]
        call = self.calls[tag]
        assert tag not in self.never
        assert record[REQUEST_ID] == self.play.machine.request_id(tag)
        assert (record[MODEL], record[ROWS]) == (call.model, call.rows or 1)
        assert (record[KEY], record[IDEMPOTENT]) == (call.how["key"], call.how["idempotent"])
        assert (payload if type(payload) is bytes else b"".join(payload)) == call.body

    def collect(self) -> list[Record]:
        """Takes the calls that ended: each for the first time, at its time, with the answer to its own input."""
        ended = self.play.ended()
        for owner, record in ended.items():
            assert isinstance(owner, int)
            assert self.pending.pop(owner) == record[TAG]
            call = self.calls[record[TAG]]
            assert record[STATUS] != Status.DEADLINE_EXCEEDED or call.deadline <= self.play.now
            assert record[STATUS] != Status.OK or record[OUTPUT] == call.body
        return list(ended.values())

    @invariant()
    def agrees(self) -> None:
        self.play.machine.check()
        assert self.play.machine.completed == []
        assert self.play.machine.pending == len(self.pending)
        assert self.play.machine.unmatched == self.unmatched

    @invariant()
    def nobody_waits_for_ever(self) -> None:
        earliest = min((self.calls[tag].deadline for tag in self.pending.values()), default=self.play.now)
        due = self.play.machine.wake_at()
        assert earliest + GRACE_S + SLOT_S >= self.play.now or (due is not None and due <= self.play.now)

    def teardown(self) -> None:
        self.play.waits(10.0)
        self.collect()
        assert self.pending == {}
        assert self.play.machine.pending == 0


TestClientStory = pytest.mark.slow(ClientStory.TestCase)
TestClientStory.settings = settings(max_examples=100, stateful_step_count=50)
