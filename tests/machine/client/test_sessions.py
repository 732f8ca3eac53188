"""Gateways that come, go, are silent or several, and the client's own time."""

from __future__ import annotations

import pytest

from tests.machine.client.playbook import (
    BEAT_S,
    NO_SESSION,
    SESSION,
    SLOT_S,
    Playbook,
    echo,
    reply,
)
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.machine import GRACE_S
from zmqinfer.machine.link import LinkState
from zmqinfer.records import (
    AGAIN,
    BUDGET_US,
    HEDGE,
    KEY,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    PLACES,
    RAN,
    REQUEST_ID,
    RESULT,
    STATUS,
    TAG,
    Kind,
)

# Sessions -------------------------------------------------------------------------------------


def test_no_session_is_answered_by_one_greeting_and_all_that_is_pending() -> None:
    """The same session, the same tags and ids, once, however many complaints come; budgets are those of now."""
    play = Playbook().up()
    tags = [play.calls(number, deadline_s=10.0, rows=1) for number in range(3)]
    first = play.asked()
    play.says(0, Kind.REPLY, reply(tags[1]))
    play.now += 1.0

    play.says(0, Kind.DISCONNECT, NO_SESSION, NO_SESSION).says(0, Kind.DISCONNECT, NO_SESSION)

    (hello, (kind, again)) = play.hears()
    assert hello == (Kind.HELLO, [[SESSION, "test", None, None]])
    assert kind is Kind.REQUEST
    assert [record[: REQUEST_ID + 1] for record in again] == [first[n][: REQUEST_ID + 1] for n in (0, 2)]
    assert [number for record in again for number in numbers_of(record)] == [tags[0], tags[2]]
    assert {record[BUDGET_US] for record in again} == {9_000_000}
    assert play.kinds() == []


def test_pending_calls_of_a_block_are_sent_again_as_one_record() -> None:
    """Each with the place, the key and the payload that it had; those that ended are left out."""
    play = Playbook().up()
    numbers = [play.calls(number, body=b"row%d" % number, key=b"k%d" % number) for number in range(8)]
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 0b10), echo(asked, 0b1000_0000, Status.MODEL_ERROR))
    play.cancels(numbers[4])
    play.cancels(numbers[5])
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    (again,) = play.asked()
    assert again[: MODEL + 1] == [asked[TAG], 0b0100_1101, *asked[REQUEST_ID : MODEL + 1]]
    assert (again[KEY], again[PAYLOAD]) == ([b"k0", b"k2", b"k3", b"k6"], b"row0row2row3row6")
    play.says(0, Kind.REPLY, echo(again))
    assert {owner: record[OUTPUT] for owner, record in play.ended().items() if not record[STATUS]} == {
        owner: b"row%d" % owner for owner in (0, 1, 2, 3, 6)
    }


def test_what_was_not_sent_is_not_sent_twice() -> None:
    """A request still in the outbox when the session proves over, or not even there, goes out once."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]

    play.says(0, Kind.DISCONNECT, NO_SESSION)
    tags.append(play.calls("later"))

    asked = play.asked()
    assert [record[PLACES] for record in asked] == [0b111, 1]
    assert [number for record in asked for number in numbers_of(record)] == tags


def test_a_silent_gateway_is_greeted_again() -> None:
    """After three heartbeats, with everything that is pending there; and each heartbeat from then on."""
    play = Playbook().up()
    tag = play.calls()
    play.hears()
    play.alive.clear()

    assert play.waits(3 * BEAT_S).kinds() == [Kind.HEARTBEAT] * 3
    assert play.waits(BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST]
    assert play.waits(2 * BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST] * 2

    play.welcomes(0).says(0, Kind.REPLY, reply(tag))
    assert list(play.ended()) == ["call"]
    assert play.machine.wake_at() is None


def test_an_outage_is_ridden_out_until_the_deadline() -> None:
    """Once connected: the gateway may come back and know the call, or not."""
    play = Playbook(connect_timeout_s=1.0).up()
    play.calls("short", deadline_s=4.0)
    long = play.calls("long", deadline_s=60.0)
    play.alive.clear()

    play.waits(30.0)

    (record,) = (ended := play.ended()).values()
    assert list(ended) == ["short"]
    assert record[STATUS] == Status.DEADLINE_EXCEEDED
    assert "connection to gateway tcp://g0:5555 was lost" in record[RESULT]
    play.welcomes(0).says(0, Kind.REPLY, reply(long))
    assert list(play.ended()) == ["long"]


@pytest.mark.parametrize("reason", ["wrong door", "too many clients", "protocol error"])
def test_a_gateway_that_refuses_us_ends_the_calls_there(reason: str) -> None:
    """Repeating them would be answered the same; nothing ran."""
    play = Playbook()
    play.calls()

    play.says(0, Kind.DISCONNECT, [reason, "the detail"])

    (record,) = play.ended().values()
    assert record[STATUS] == (Status.OVERLOADED if reason == "too many clients" else Status.PROTOCOL)
    assert record[RESULT] == "gateway tcp://g0:5555 refused this client: the detail"
    assert EXECUTED[record[RAN]] is Executed.NO
    assert Kind.REQUEST not in play.kinds()


# Time -----------------------------------------------------------------------------------------


def test_without_any_gateway_a_call_ends_after_the_connect_timeout() -> None:
    """The sentence names the addresses and what to do; nothing ran, and nothing leaves later."""
    play = Playbook(2, connect_timeout_s=2.0)
    play.is_connected = False
    play.calls()

    play.waits(1.99)
    assert play.ended() == {}
    play.waits(0.01 + SLOT_S)

    (record,) = play.ended().values()
    assert record[STATUS] == Status.UNAVAILABLE
    assert "no gateway answered at tcp://g0:5555, tcp://g1:5555" in record[RESULT]
    assert "zmqinfer up" in record[RESULT]
    assert EXECUTED[record[RAN]] is Executed.NO
    play.is_connected = True
    assert play.kinds(0) == play.kinds(1) == [Kind.HELLO]


def test_what_has_left_for_a_gateway_that_never_answers_may_have_run() -> None:
    """It may be stopped, with the request in its socket."""
    play = Playbook(connect_timeout_s=2.0)
    play.calls("left")
    play.waits(1.0)
    play.is_connected = False
    play.waits(0.8)
    play.calls("stayed")
    play.waits(3.0)

    ended = play.ended()
    assert {ended["left"][STATUS], ended["stayed"][STATUS]} == {Status.UNAVAILABLE}
    assert EXECUTED[ended["left"][RAN]] is Executed.MAYBE
    assert EXECUTED[ended["stayed"][RAN]] is Executed.NO


def test_a_deadline_before_the_connect_timeout_is_kept() -> None:
    """And the sentence does not speak of a time that was not waited."""
    play = Playbook(connect_timeout_s=5.0)
    play.calls(deadline_s=0.2)

    play.waits(0.2 + GRACE_S + SLOT_S)

    (record,) = play.ended().values()
    assert record[STATUS] == Status.UNAVAILABLE
    assert "tcp://g0:5555" in record[RESULT]
    assert "within 5 s" not in record[RESULT]


def test_a_welcome_ends_the_wait_for_a_gateway() -> None:
    """From then on only the deadline counts, also for calls that were made before."""
    play = Playbook(connect_timeout_s=1.0)
    play.calls(deadline_s=10.0)
    play.waits(0.9).up()

    play.waits(9.1)
    assert play.ended() == {}
    play.waits(GRACE_S + SLOT_S)

    assert [record[STATUS] for record in play.ended().values()] == [Status.DEADLINE_EXCEEDED]


def test_the_client_keeps_its_own_deadlines() -> None:
    """A little later than the gateway, which knows better where the time went."""
    play = Playbook().up()
    tag = play.calls(deadline_s=1.0)

    play.waits(1.0 + GRACE_S - 0.001)
    assert play.ended() == {}
    play.waits(0.001 + SLOT_S)

    (record,) = play.ended().values()
    assert (record[STATUS], record[RAN]) == (Status.DEADLINE_EXCEEDED, EXECUTED.index(Executed.MAYBE))
    assert "tcp://g0:5555" in record[RESULT]
    play.says(0, Kind.REPLY, reply(tag))
    assert (play.ended(), play.machine.unmatched) == ({}, 1)
    assert play.machine.wake_at() is None


def test_all_that_is_left_of_a_block_expires_at_once() -> None:
    """None of its calls before its own deadline, and those that ended not again."""
    play = Playbook().up()
    play.calls("answered", deadline_s=1.0)
    play.calls("left", deadline_s=1.0)
    cancelled = play.calls("cancelled", deadline_s=1.0)
    play.now += 0.005
    play.calls("last", deadline_s=1.0)
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 1)).ended()
    play.cancels(cancelled)

    play.waits(1.0)
    assert play.machine.completed == []
    play.waits(GRACE_S + SLOT_S)

    ((owners, record, rows),) = play.machine.completed
    assert (owners, rows) == ([None, "left", None, "last"], None)
    assert (record[TAG], record[PLACES], record[STATUS]) == (asked[TAG], 0b1111, Status.DEADLINE_EXCEEDED)
    assert (play.machine.pending, play.machine.wake_at()) == (0, None)


def test_the_gateways_word_is_taken_within_the_grace() -> None:
    """It says where the time went."""
    play = Playbook().up()
    tag = play.calls(deadline_s=1.0)
    play.waits(1.02)

    late = [tag // MAX_CALLS, 1, int(Status.DEADLINE_EXCEEDED), "it ran", "worker", "w", 1, 1, 2, None, 0, 0, 0]
    play.says(0, Kind.REPLY, late)
    play.waits(1.0)

    assert [record[RESULT] for record in play.ended().values()] == ["it ran"]


# Several gateways -----------------------------------------------------------------------------


def test_gateways_take_turns() -> None:
    """Those that are up; a block goes to one of them."""
    play = Playbook(3).up(0, 1, 2)
    for number in range(9):
        play.calls(number, rows=1)
    assert [len(play.requests(number)) for number in range(3)] == [3, 3, 3]

    for number in range(9, 14):
        play.calls(number)
    assert sorted(len(play.requests(number)) for number in range(3)) == [0, 0, 5]


def test_only_gateways_that_are_up_get_calls() -> None:
    """Once one is."""
    play = Playbook(3).up(0, 2)
    for number in range(8):
        play.calls(number, rows=1)
    assert [len(play.requests(number)) for number in range(3)] == [4, 0, 4]


def test_calls_at_a_gateway_that_never_answers_move_to_one_that_did() -> None:
    """They were made before any was up; its greeting had a heartbeat's time."""
    play = Playbook(2)
    tags = {play.calls(number) for number in range(4)}
    play.flushed()
    own = set(play.requests(1))
    assert len(own) == 2
    play.up(1)

    play.waits(BEAT_S + 0.01)

    assert set(play.requests(1)) == tags - own
    assert play.machine.links[0].state is LinkState.GREETING
    play.says(1, Kind.REPLY, *[reply(tag) for tag in sorted(tags)])
    assert sorted(play.ended()) == [0, 1, 2, 3]


def test_each_gateways_calls_are_resent_to_it_alone() -> None:
    """The session of the other one is not over."""
    play = Playbook(2).up(0, 1)
    tags = [play.calls(number, rows=1) for number in range(4)]
    play.flushed()
    there = play.requests(1)
    play.requests(0)

    play.says(1, Kind.DISCONNECT, NO_SESSION)

    assert play.requests(1) == there
    assert play.requests(0) == []
    assert set(there) < set(tags)


def test_who_calls_one_after_the_other_leaves_a_gateway_that_says_nothing() -> None:
    """No call is long enough for a silence; the first that ends without a word is enough, until a word comes."""
    play = Playbook(gateways=2).up(0, 1)
    asked: list[int] = []
    for number in range(10):
        play.calls(number, deadline_s=0.2)
        play.flushed()
        found = play.requests(1)
        play.says(1, Kind.REPLY, *[reply(tag) for tag in found])
        asked.append(len(found))
        play.alive = {1}
        play.waits(0.2 + GRACE_S + SLOT_S)
        play.heard(0)
    assert sum(asked) == 9

    play.says(0, Kind.HEARTBEAT)

    for number in range(2):
        play.calls(number + 100, rows=1)
    assert len(play.flushed().requests(0)) == 1


def test_what_ended_before_its_turn_is_not_sent_or_held() -> None:
    """Though it is large, and the gateway has still to say how much it takes."""
    play = Playbook()
    assert play.cancels(play.calls(body=[b"l" * 2**21]))
    play.up()
    assert (play.machine.pending, play.requests()) == (0, [])


def test_what_may_have_left_before_says_so() -> None:
    """A client that has heard of no worker yet cannot know that the model may not run twice; its gateway can."""
    play = Playbook(2).serving().up(0, 1)
    play.calls("a", 9.0)
    (first,) = play.asked(0) + play.asked(1)
    assert len(first) == PAYLOAD + 1
    play.alive.clear()

    play.waits(4 * BEAT_S)

    again = play.asked(0) + play.asked(1)
    assert again
    assert all(record[AGAIN] is True and record[HEDGE] is None for record in again)
