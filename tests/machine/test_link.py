"""The dialling side of a session: greeting, being welcome, falling silent."""

from __future__ import annotations

import pytest

from zmqinfer.machine.link import NO_SESSION, Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.liveness import MISSES
from zmqinfer.records import Kind, Record
from zmqinfer.wire import decode

START = 1_000.0
BEAT_S = 0.5
GREETING: Record = [b"s" * 16, "agent", None, None]
NEVER = float("inf")


def welcome(heartbeat_ms: int = 500) -> Record:
    return [b"g" * 16, "gateway", heartbeat_ms, 2**20, []]


def link_of(state: LinkState = LinkState.GREETING, heartbeat_ms: int = 500) -> Link:
    dirty: list[Outbox] = []
    link = Link(0, "tcp://g:1", Kind.HELLO, GREETING, BEAT_S, dirty)
    link.greet(START)
    if state is LinkState.UP:
        link.welcome(welcome(heartbeat_ms), START)
        said(link)
    return link


def said(link: Link, now: float = START) -> list[tuple[Kind, list[Record]]]:
    return [decode(bytes(head), parts) for head, *parts in link.outbox.messages(now)]


def test_a_link_greets_with_its_session() -> None:
    """What was to be said before belongs behind the greeting, and is put there by the caller."""
    link = link_of()
    link.outbox.put(Kind.CANCEL, [1])

    link.greet(START)

    assert link.state is LinkState.GREETING
    assert said(link) == [(Kind.HELLO, [GREETING])]


def test_a_welcome_begins_a_session() -> None:
    """It is counted, and says which gateway answered."""
    link = link_of()
    assert (link.welcomes, link.session) == (0, b"")

    link.welcome(welcome(), START)

    assert (link.state, link.welcomes, link.session) == (LinkState.UP, 1, b"g" * 16)


def test_an_unanswered_greeting_is_repeated_after_a_heartbeat() -> None:
    """It may have gone into a connection that was just breaking."""
    link = link_of()

    assert link.wake_at() == START + BEAT_S
    assert not link.is_overdue(START + BEAT_S - 0.01)
    assert link.is_overdue(link.wake_at())

    link.greet(START + BEAT_S)
    assert not link.is_overdue(START + BEAT_S)
    assert link.wake_at() == START + 2 * BEAT_S


def test_one_greeting_answers_every_no_session() -> None:
    """Each message of before earns its own; other reasons ask for none."""
    link = link_of(LinkState.UP)
    assert link.is_unwelcome(NO_SESSION)
    assert not link.is_unwelcome("closing")

    link.greet(START)
    assert not link.is_unwelcome(NO_SESSION)

    link.state = LinkState.CLOSED
    assert not link.is_unwelcome(NO_SESSION)


def test_a_beat_is_due_once_each_heartbeat() -> None:
    """While the link is up."""
    link = link_of(LinkState.UP)
    due = [step for step in range(1, 21) if link.is_beat_due(START + step / 10 + 1e-6)]

    assert due == [5, 10, 15, 20]
    assert not link_of().is_beat_due(START + 99)


def test_three_silent_heartbeats_are_too_many() -> None:
    """The link spoke all the time, and heard nothing."""
    link = link_of(LinkState.UP)
    overdue = []
    for step in range(1, 10):
        now = START + step * BEAT_S
        if link.is_overdue(now):
            overdue.append(step)
        link.is_beat_due(now)

    assert overdue[0] == MISSES + 1


def test_any_sign_of_life_counts() -> None:
    """Heartbeats or replies."""
    link = link_of(LinkState.UP)
    for step in range(1, 20):
        now = START + step * BEAT_S
        link.is_beat_due(now)
        link.heard(now - 0.1)
        assert not link.is_overdue(now)


def test_our_own_pause_is_not_the_gateways_silence() -> None:
    """It gets the time to answer what we say now, once."""
    link = link_of(LinkState.UP)
    back = START + 60

    assert not link.is_overdue(back)
    assert link.is_beat_due(back)

    for step in range(1, MISSES + 1):
        assert not link.is_overdue(back + step * BEAT_S)
        link.is_beat_due(back + step * BEAT_S)
    assert link.is_overdue(back + (MISSES + 1) * BEAT_S)


def test_nothing_is_owed_for_a_time_of_rest() -> None:
    """Who had nothing pending neither spoke nor listened."""
    link = link_of(LinkState.UP)

    link.rouse(START + 100)

    assert not link.is_overdue(START + 100)
    assert not link.is_beat_due(START + 100)
    assert link.wake_at() == START + 100 + BEAT_S


@pytest.mark.parametrize(("theirs_ms", "speaks_s", "judges_s"), [(100, 0.1, 0.5), (2_000, 0.5, 2.0)])
def test_different_heartbeats_agree_on_the_careful_side(theirs_ms: int, speaks_s: float, judges_s: float) -> None:
    """Speak at the shorter one, judge by the longer one."""
    link = link_of(LinkState.UP, theirs_ms)
    assert link.wake_at() == pytest.approx(START + speaks_s)

    now = START
    while not link.is_overdue(now):
        link.is_beat_due(now)
        now += 0.05

    assert now - START == pytest.approx(MISSES * judges_s, abs=0.11)


def test_a_closed_link_is_left_alone() -> None:
    """It says and takes nothing more."""
    link = link_of(LinkState.UP)
    link.state = LinkState.CLOSED

    assert (link.wake_at(), link.is_overdue(START + 99), link.is_beat_due(START + 99)) == (NEVER, False, False)
