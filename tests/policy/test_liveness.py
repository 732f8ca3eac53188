"""Silence: three heartbeats of it, and never our own."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.policy.liveness import MISSES, Liveness

BEAT_S = 0.5
START = 1_000.0


def watching(*peers: str) -> Liveness[str]:
    liveness: Liveness[str] = Liveness(BEAT_S)
    for peer in peers:
        liveness.watch(peer, START)
    return liveness


def lost_until(liveness: Liveness[str], start: float, end: float) -> dict[str, float]:
    """Asks whenever the object wants to be asked; returns who was lost, and when."""
    lost: dict[str, float] = {}
    now = start
    while (due := liveness.wake_at()) < float("inf") and due <= end:
        assert due > now or now == start, "it wants to be asked again and again"
        now = max(now, due)
        liveness.is_beat_due(now)
        for peer in liveness.lost(now):
            lost[peer] = now
            liveness.forget(peer)
    return lost


def test_nobody_watched_needs_no_timer() -> None:
    """Neither before the first nor after the last peer."""
    liveness = watching()
    assert (liveness.wake_at(), liveness.lost(START), liveness.is_beat_due(START)) == (float("inf"), [], False)

    liveness.watch("w1", START)
    liveness.forget("w1")
    liveness.forget("never seen")

    assert (liveness.wake_at(), liveness.lost(START + 99), liveness.is_beat_due(START + 99)) == (
        float("inf"),
        [],
        False,
    )


def test_a_peer_is_lost_after_three_silent_heartbeats() -> None:
    """Not before, and at most one look later."""
    lost = lost_until(watching("w1", "w2"), START, START + 10)

    assert lost.keys() == {"w1", "w2"}
    assert MISSES * BEAT_S < lost["w1"] - START <= MISSES * BEAT_S + BEAT_S / 5 + 1e-9


def test_those_lost_are_named_in_the_order_they_came() -> None:
    """Failover goes on in one order everywhere."""
    liveness = watching("w3", "w1", "w2")
    for look in range(1, 16):
        assert liveness.lost(START + look / 10) == []
    assert liveness.lost(START + 1.61) == ["w3", "w1", "w2"]


def test_any_traffic_counts() -> None:
    """Whoever spoke lately needs no heartbeat."""
    liveness = watching("w1", "w2")
    lost: list[str] = []
    for step in range(1, 40):
        now = START + step * 0.1
        liveness.heard("w1", now)
        for peer in liveness.lost(now):
            liveness.forget(peer)
            lost.append(peer)

    assert lost == ["w2"]
    assert liveness.silent_for("w1", now + 0.25) == pytest.approx(0.25)


def test_a_stranger_is_not_heard() -> None:
    """Nobody gets watched by speaking."""
    liveness = watching()
    liveness.heard("stranger", START)

    assert liveness.wake_at() == float("inf")
    with pytest.raises(KeyError):
        liveness.silent_for("stranger", START)


def test_one_who_comes_back_begins_anew() -> None:
    """Watching again is a sign of life."""
    liveness = watching("w1", "w2")
    assert lost_until(liveness, START, START + 1.4) == {}

    liveness.watch("w1", START + 1.4)

    assert lost_until(liveness, START + 1.4, START + 2.5).keys() == {"w2"}


def test_a_beat_is_due_once_each_interval() -> None:
    """Everybody is spoken to at once, counted from the first peer."""
    liveness = watching("w1")
    due = [step for step in range(1, 31) if liveness.is_beat_due(START + step * 0.1 + 1e-6)]

    assert due == [5, 10, 15, 20, 25, 30]


@pytest.mark.parametrize("pause_s", [2 * BEAT_S + 0.11, 3.0, 60.0, 3_600.0])
def test_our_own_pause_is_nobodys_silence(pause_s: float) -> None:
    """After more than two heartbeats in which nobody looked, everyone gets a fresh period."""
    liveness = watching("w1", "w2")
    back = START + pause_s

    assert liveness.lost(back) == []

    liveness.heard("w1", back + 0.4)
    lost = lost_until(liveness, back, back + MISSES * BEAT_S + 0.11)
    assert lost.keys() == {"w2"}, "forgiven once, not for ever"
    assert lost["w2"] > back + MISSES * BEAT_S


def test_a_short_pause_is_not_forgiven() -> None:
    """A loop that is a little late must still find the dead."""
    liveness = watching("w1")
    for late in (0.9, 1.6):
        lost = liveness.lost(START + late)

    assert lost == ["w1"]


@settings(max_examples=60)
@given(
    gaps=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=40),
    deaf=st.sets(st.integers(0, 3), max_size=4),
)
def test_who_is_heard_once_a_heartbeat_is_never_lost(gaps: list[float], deaf: set[int]) -> None:
    """Whatever the others do."""
    liveness: Liveness[int] = Liveness(BEAT_S)
    heard = dict.fromkeys(range(4), START)
    for peer in heard:
        liveness.watch(peer, START)
    now = START
    for gap in gaps:
        now += gap
        for peer in heard.keys() - deaf:
            liveness.heard(peer, now)
            heard[peer] = now

        lost = liveness.lost(now)

        assert set(lost) <= deaf & heard.keys()
        assert all(now - heard[peer] > MISSES * BEAT_S for peer in lost)
        for peer in lost:
            liveness.forget(peer)
            del heard[peer]
    assert (liveness.wake_at() == float("inf")) == (not heard)


def test_it_says_beforehand_that_it_is_about_to_judge() -> None:
    """So that what waits to be read is read before."""
    liveness: Liveness[str] = Liveness(0.5)
    liveness.watch("a", 100.0)
    for now in (100.5, 101.0, 101.5):
        assert not liveness.is_judging(now)
        assert liveness.lost(now) == []
    assert liveness.is_judging(101.6)

    liveness.heard("a", 101.6)

    assert not liveness.is_judging(101.6)
    assert liveness.lost(101.6) == []
