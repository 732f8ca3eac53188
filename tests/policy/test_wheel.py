"""Deadlines in slots of 10 ms: late by less than a slot, never early."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmqinfer.policy.wheel import SLOTS_PER_S, TimingWheel

SLOT_S = 1 / SLOTS_PER_S


def wheel_of(*instants: float) -> TimingWheel[int]:
    wheel: TimingWheel[int] = TimingWheel()
    for entry, at in enumerate(instants):
        wheel.add(entry, at)
    return wheel


def test_an_empty_wheel_never_wakes() -> None:
    """No timer runs for nobody."""
    wheel = wheel_of()

    assert (len(wheel), wheel.wake_at(), wheel.expire(1e9)) == (0, float("inf"), [])


def test_nothing_expires_before_its_instant() -> None:
    """A request whose time is not up is left alone, and those that are go within a slot."""
    wheel = wheel_of(1.0, 1.0049, 1.02)

    assert wheel.expire(1.0) == []
    assert wheel.expire(1.0049) == []
    assert wheel.expire(1.01) == [0, 1]
    assert wheel.expire(1.029) == []
    assert wheel.expire(1.03) == [2]
    assert wheel.wake_at() == float("inf")


def test_earlier_slots_come_first() -> None:
    """A node that slept ends its requests in the order of their deadlines."""
    assert wheel_of(3.0, 1.0, 2.0, 1.001).expire(10.0) == [1, 3, 2, 0]


def test_completion_takes_an_entry_out() -> None:
    """The size follows the requests in flight."""
    wheel: TimingWheel[str] = TimingWheel()
    slots = {name: wheel.add(name, at) for name, at in (("a", 1.0), ("b", 1.0), ("c", 5.0))}

    wheel.remove("a", slots["a"])
    wheel.remove("b", slots["b"])

    assert len(wheel) == 1
    assert wheel.expire(2.0) == []
    assert wheel.wake_at() == pytest.approx(5.0, abs=0.011)
    wheel.check()


@pytest.mark.parametrize("start", [0.0, 0.28, 0.5649, 1_000.0, 123_456.78, 9e6])
def test_a_loop_that_sleeps_until_it_is_woken_never_wakes_in_vain(start: float) -> None:
    """Slots are hundredths, which floats do not hit: 0.29 * 100 is 28.999... A wake-up must find its slot due."""
    for step in range(300):
        at = start + step * 0.0049
        wheel = wheel_of(at)
        due = wheel.wake_at()
        assert due < float("inf")
        assert at <= due <= at + SLOT_S + 1e-6
        assert wheel.expire(due) == [0], (at, due)


def test_a_wake_up_in_vain_mends_itself() -> None:
    """After removals the wheel may wake once too early, and not again."""
    wheel = wheel_of(1.0, 9.0)
    wheel.remove(0, 101)

    early = wheel.wake_at()
    assert early < float("inf")
    assert wheel.expire(early) == []

    assert wheel.wake_at() == pytest.approx(9.01)


class Wheel(RuleBasedStateMachine):
    """A wheel and a plain dict of the same deadlines."""

    def __init__(self) -> None:
        super().__init__()
        self.wheel: TimingWheel[int] = TimingWheel()
        self.now = 1_000.0
        self.entries = 0
        self.waiting: dict[int, tuple[float, int]] = {}

    @rule(ahead_s=st.floats(-0.05, 0.5) | st.floats(0, 300))
    def add(self, ahead_s: float) -> None:
        self.entries += 1
        at = self.now + ahead_s
        self.waiting[self.entries] = at, self.wheel.add(self.entries, at)

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0))
    def remove(self, which: int) -> None:
        entry = list(self.waiting)[which % len(self.waiting)]
        self.wheel.remove(entry, self.waiting.pop(entry)[1])

    @rule(seconds=st.floats(0, 0.1) | st.floats(0, 100))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        self._expire()

    @precondition(lambda self: self.wheel.wake_at() < float("inf"))
    @rule()
    def sleep_until_woken(self) -> None:
        due = self.wheel.wake_at()
        assert due < float("inf")
        self.now = max(self.now, due)
        self._expire()
        later = self.wheel.wake_at()
        assert later == float("inf") or later > self.now

    def _expire(self) -> None:
        expired = self.wheel.expire(self.now)
        for entry in expired:
            at, _ = self.waiting.pop(entry)
            assert at <= self.now
        assert all(at > self.now - SLOT_S - 1e-9 for at, _ in self.waiting.values())

    @invariant()
    def agrees(self) -> None:
        self.wheel.check()
        assert len(self.wheel) == len(self.waiting)
        due = self.wheel.wake_at()
        assert (due == float("inf")) == (not self.waiting)
        if due < float("inf"):
            assert due <= min(at for at, _ in self.waiting.values()) + SLOT_S + 1e-9


TestWheel = Wheel.TestCase
TestWheel.settings = settings(max_examples=40, stateful_step_count=30)
TestWheel = pytest.mark.slow(TestWheel)
