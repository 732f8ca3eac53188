"""Calls to make later."""

from __future__ import annotations

from zmqinfer.policy.timers import Timers


def test_calls_are_made_in_their_order_once_each() -> None:
    """The earliest first; of one instant in the order of asking; those asked for meanwhile too, if they are due."""
    timers = Timers()
    made: list[tuple[str, float]] = []

    def again(what: str, now: float) -> None:
        made.append((what, now))
        timers.at(2.5, lambda more, at: made.append((more, at)), "soon")
        timers.at(9.0, again, "later")

    for when, what in ((3.0, "third"), (2.0, "first"), (2.0, "second")):
        timers.at(when, lambda what, now: made.append((what, now)), what)
    timers.at(1.0, again, "again")

    timers.run(0.5)
    assert (made, timers.wake_at()) == ([], 1.0)
    timers.run(3.0)
    assert [what for what, _ in made] == ["again", "first", "second", "soon", "third"]
    assert {now for _, now in made} == {3.0}
    assert timers.wake_at() == 9.0
    timers.run(3.0)
    assert len(made) == 5
