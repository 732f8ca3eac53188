"""Virtual time."""

from __future__ import annotations

from zmqinfer.sim.timeline import Timeline


def test_events_happen_in_the_order_of_their_times_and_of_the_asking() -> None:
    """Two of one instant keep their order."""
    timeline = Timeline()
    seen: list[tuple[float, str]] = []
    for when, name in ((2.0, "late"), (1.0, "first"), (1.0, "second")):
        timeline.at(when, lambda name=name: seen.append((timeline.now, name)))  # type: ignore[misc]

    while timeline.step(10.0):
        pass

    assert seen == [(1.0, "first"), (1.0, "second"), (2.0, "late")]
    assert (timeline.now, timeline.events) == (10.0, 3)


def test_nothing_happens_before_its_time_or_in_the_past() -> None:
    """What is asked for in the past happens next."""
    timeline = Timeline(5.0)
    seen: list[float] = []
    timeline.at(1.0, lambda: seen.append(timeline.now))
    timeline.after(2.0, lambda: seen.append(timeline.now))

    assert timeline.step(6.0)
    assert not timeline.step(6.0)
    assert seen == [5.0]
    assert timeline.step(7.0)
    assert seen == [5.0, 7.0]
