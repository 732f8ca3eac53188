"""The loop of a process in virtual time."""

from __future__ import annotations

from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline


class Loop(Process):
    """Notes its turns; each takes 1 ms, and the next is due half a second later."""

    def __init__(self, timeline: Timeline, every_s: float | None = 0.5) -> None:
        super().__init__("loop", timeline)
        self.every_s = every_s
        self.turns: list[tuple[float, float, bool]] = []
        self._due = every_s
        if every_s is not None:
            timeline.at(every_s, lambda: self._on_due(every_s))

    def turn(self, now: float, gap: float) -> float | None:
        self.turns.append((round(now, 6), round(gap, 6), self._due is not None and self._due <= now))
        return None if self.every_s is None else now + self.every_s

    def busy_s(self) -> float:
        return 0.001


def go(timeline: Timeline, until: float) -> None:
    while timeline.step(until):
        pass


def test_it_turns_when_due_and_when_roused() -> None:
    """A turn that was asked for before the timer moves the timer."""
    timeline = Timeline()
    loop = Loop(timeline)
    go(timeline, 0.6)
    loop.rouse()
    loop.rouse()
    go(timeline, 1.2)
    assert loop.turns == [(0.5, 0.0, True), (0.6, 0.0, False), (1.1, 0.0, True)]


def test_roused_during_a_turn_it_turns_once_more_after_it() -> None:
    """Nothing happens while it is busy."""
    timeline = Timeline()
    loop = Loop(timeline, None)
    loop.rouse()
    go(timeline, 0.0005)
    loop.rouse()
    go(timeline, 1.0)
    assert [now for now, _, _ in loop.turns] == [0.0, 0.001]


def test_frozen_it_does_nothing_and_finds_the_gap_afterwards() -> None:
    """Counted from when it would have woken by itself."""
    timeline = Timeline()
    loop = Loop(timeline)
    timeline.at(0.1, loop.freeze)
    timeline.at(0.2, loop.rouse)
    timeline.at(3.0, loop.thaw)
    go(timeline, 3.0)
    assert loop.turns == [(3.0, 2.5, True)]


def test_one_without_a_timer_polls_for_a_second_at_most() -> None:
    """So its gap is that much less than its pause."""
    timeline = Timeline()
    loop = Loop(timeline, None)
    timeline.at(1.0, loop.freeze)
    timeline.at(5.0, loop.thaw)
    go(timeline, 6.0)
    assert loop.turns == [(5.0, 3.0, False)]


def test_dead_it_does_nothing_more() -> None:
    """Roused or due."""
    timeline = Timeline()
    loop = Loop(timeline)
    loop.rouse()
    loop.die()
    go(timeline, 2.0)
    assert loop.turns == []
