"""A client whose gateway drains: nothing new goes there, what is there is awaited, and then it says goodbye."""

from __future__ import annotations

import pytest

from tests.machine.client.playbook import BEAT_S, NO_SESSION, Playbook, card, did_not_run, echo, welcome
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.link import LinkState
from zmqinfer.records import RAN, STATUS, Kind, Record

DRAINING: Record = ["draining", "this gateway ends"]


def state(play: Playbook, number: int = 0) -> LinkState:
    return play.machine.links[number].state


def test_new_calls_go_to_the_other_gateway_and_pending_ones_stay() -> None:
    """They are answered, and then the gateway is let go and greeted after a heartbeat."""
    play = Playbook(2).up(0, 1)
    for number in range(40):
        play.calls(number, rows=1)
    asked = play.asked(0)
    assert asked
    play.asked(1)

    play.says(0, Kind.DISCONNECT, DRAINING)
    for number in range(40, 80):
        play.calls(number, rows=1)

    assert play.requests(0) == []
    assert len(play.requests(1)) == 40
    play.says(0, Kind.REPLY, *map(echo, asked))
    play.alive.discard(0)
    play.waits(BEAT_S + 0.1)
    assert Kind.DISCONNECT in play.kinds(0)
    assert state(play) is LinkState.LEFT
    play.waits(BEAT_S + 0.1)
    assert Kind.HELLO in play.kinds(0)


def test_without_another_gateway_new_calls_wait_for_the_next_one() -> None:
    """They leave after its WELCOME, for the first time: they may run, whatever they are."""
    play = Playbook().up()
    play.calls("first")
    asked = play.asked()
    play.says(0, Kind.DISCONNECT, DRAINING)

    play.calls("second", idempotent=False)
    assert play.requests() == []
    play.alive.clear()
    play.says(0, Kind.REPLY, *map(echo, asked))
    play.waits(BEAT_S + 0.1)
    assert play.kinds() == [Kind.DISCONNECT]
    play.waits(BEAT_S + 0.1)
    assert play.kinds() == [Kind.HELLO]
    play.says(0, Kind.WELCOME, [b"another life....", *welcome(card())[1:]])
    play.says(0, Kind.REPLY, *map(echo, play.asked()))
    assert {record[STATUS] for record in play.ended().values()} == {Status.OK}


def test_a_client_at_rest_says_goodbye_at_once() -> None:
    """And the gateway needs not wait for it."""
    play = Playbook().up()

    play.says(0, Kind.DISCONNECT, DRAINING)

    assert play.kinds() == [Kind.DISCONNECT]
    assert play.machine.wake_at() is not None


def test_news_of_a_draining_gateway_do_not_make_it_a_new_one() -> None:
    """WELCOME also says which models there are."""
    play = Playbook().up()
    play.calls()
    play.asked()
    play.says(0, Kind.DISCONNECT, DRAINING).welcomes(0)

    play.calls("late")

    assert play.requests() == []


def test_a_draining_gateway_that_dies_gives_its_calls_to_the_other() -> None:
    """As any other that falls silent."""
    play = Playbook(2).up(0, 1)
    for number in range(40):
        play.calls(number, rows=1)
    lost = len(play.asked(0))
    play.asked(1)
    play.says(0, Kind.DISCONNECT, DRAINING)
    play.alive.discard(0)

    play.waits(3.0)

    assert lost
    assert len(play.requests(1)) == lost


def test_a_draining_gateway_that_has_become_another_one_is_greeted() -> None:
    """It was killed before it had answered all, and started again: it knows nobody."""
    play = Playbook().up()
    play.calls()
    play.asked()
    play.says(0, Kind.DISCONNECT, DRAINING)

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.kinds() == [Kind.HELLO, Kind.REQUEST]


def test_a_word_that_was_left_over_from_before_moves_what_waits_for_a_connection() -> None:
    """The gateway is gone, and the client reads only now that it drained; its call has not left."""
    play = Playbook(2).up(0, 1)
    play.now += 60.0
    play.calls("a", idempotent=False)
    play.calls("b", idempotent=False, rows=1)
    play.machine.seal()

    play.says(0, Kind.DISCONNECT, DRAINING)

    assert len(play.requests(1)) == 2


def test_calls_taken_back_do_not_keep_it() -> None:
    """The goodbye comes with the next heartbeat."""
    play = Playbook().up()
    tag = play.calls()
    play.asked()
    play.says(0, Kind.DISCONNECT, DRAINING)
    play.cancels(tag)
    play.alive.clear()

    play.waits(BEAT_S + 0.1)

    assert play.kinds() == [Kind.CANCEL, Kind.DISCONNECT]


def test_calls_that_wait_end_at_their_deadlines() -> None:
    """As not run: they were never sent."""
    play = Playbook().up()
    play.says(0, Kind.DISCONNECT, DRAINING)
    play.alive.clear()
    play.calls(deadline_s=0.2)

    play.waits(0.5)

    assert play.ended()["call"][STATUS] == Status.DEADLINE_EXCEEDED


def test_what_waits_for_the_next_gateway_may_have_run_at_the_last_one() -> None:
    """Though no greeting of the one it waits for has left: what is held is behind none of them."""
    play = Playbook(2).up(0, 1)
    play.says(0, Kind.DISCONNECT, DRAINING)
    play.calls("a", deadline_s=4.0)
    play.calls("b", deadline_s=4.0, rows=1)
    assert len(play.requests(1)) == 2
    play.alive.clear()
    play.waits(BEAT_S)
    assert state(play) is LinkState.LEFT

    play.is_connected = False
    play.waits(4.0)

    ended = play.ended()
    assert {record[STATUS] for record in ended.values()} == {Status.DEADLINE_EXCEEDED}
    assert [record[RAN] for record in ended.values()] == [EXECUTED.index(Executed.MAYBE)] * 2


@pytest.mark.parametrize("idempotent", [None, False])
def test_what_was_refused_and_rests_waits_for_the_next_gateway(idempotent: bool | None) -> None:
    """However long it is greeted in vain; a draining gateway has no more of it, and it did not run."""
    play = Playbook().up()
    first, second = (play.calls(owner, idempotent=idempotent) for owner in "ab")
    play.asked()
    play.says(0, Kind.REPLY, did_not_run(first, status=Status.OVERLOADED))
    play.says(0, Kind.REPLY, did_not_run(second, status=Status.OVERLOADED, retry_after_ms=800))
    play.says(0, Kind.DISCONNECT, DRAINING)
    play.alive.clear()

    play.waits(3.0)
    assert Kind.REQUEST not in play.kinds()
    assert play.ended() == {}
    play.restarts(0).welcomes(0)

    assert play.requests() == [first, second]
