"""Gateways that are added and left while a client calls."""

from __future__ import annotations

from tests.machine.client.playbook import BEAT_S, Playbook, card, echo
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.link import LinkState
from zmqinfer.records import AGAIN, MODEL, STATUS, Kind


def added(play: Playbook) -> int:
    number = play.machine.add_link("tcp://another:5555", play.now)
    play._heard[number] = []
    return number


def test_a_gateway_that_is_added_is_greeted_and_gets_its_turn() -> None:
    """As soon as it has welcomed the client; before that nothing goes there while another one is up."""
    play = Playbook().up(0)
    number = added(play)
    play.calls("first")
    assert len(play.asked(0)) == 1
    assert Kind.HELLO in play.kinds(number)

    play.up(number)
    for call in range(10):
        play.calls(call, rows=1)

    assert number == 1
    assert len(play.asked(0)) == len(play.asked(number)) == 5


def test_a_gateway_is_left_when_it_has_answered_what_it_has() -> None:
    """Nothing new goes there; then it hears a goodbye, its number is told once, and is not used again."""
    play = Playbook(2).up(0, 1)
    for call in range(4):
        play.calls(call, rows=1)
    asked = play.asked(0)
    play.asked(1)

    play.machine.remove_link(0, play.now)
    play.calls("later")
    assert play.asked(0) == []
    assert play.machine.left == []
    play.says(0, Kind.REPLY, *map(echo, asked))
    play.waits(BEAT_S + 0.1)

    assert Kind.DISCONNECT in play.kinds(0)
    assert play.machine.left == [0]
    assert list(play.machine.links) == [1]
    assert added(play) == 2
    assert {record[STATUS] for record in play.ended().values()} == {Status.OK}


def test_what_waits_for_a_gateway_that_was_never_there_goes_to_another() -> None:
    """It is left at once."""
    play = Playbook(2)
    for call in range(6):
        play.calls(call, rows=1)
    waiting = play.asked(0)
    play.asked(1)

    play.machine.remove_link(0, play.now)
    moved = play.asked(1)
    play.up(1)

    assert play.machine.left == [0]
    assert len(waiting) == 3
    assert list(map(numbers_of, moved)) == list(map(numbers_of, waiting))
    assert play.machine.links[1].state is LinkState.UP


def test_last_gateway_is_left_when_another_one_is_there() -> None:
    """Until that is up it is used as before; one that is not up itself is left at once."""
    play = Playbook().up(0)
    play.machine.remove_link(0, play.now)
    play.calls("first")
    number = added(play)
    play.calls("second")
    asked = play.asked(0)
    assert [number for record in asked for number in numbers_of(record)] == [32, 33]

    play.up(number)
    play.calls("third")

    assert (play.asked(0), len(play.asked(number))) == ([], 1)
    play.says(0, Kind.REPLY, *map(echo, asked))
    play.waits(BEAT_S + 0.1)
    assert play.machine.left == [0]

    other = added(play)
    play.machine.remove_link(other, play.now)
    assert play.machine.left == [0, other]


def test_what_may_run_once_waits_for_the_word_of_a_gateway_that_is_added() -> None:
    """It may be one that drains and answers nobody new: sent again, to the next one there, it would be refused."""
    play = Playbook().serving(card("m"), card("once", idempotent=False)).up(0)
    number = added(play)
    play.says(0, Kind.DISCONNECT, ["draining", ""])

    for call in range(8):
        play.calls(call, model="m" if call < 4 else "once", rows=1)
    assert {record[MODEL] for record in play.asked(number)} == {"m"}
    play.waits(3 * BEAT_S)
    assert {record[MODEL] for record in play.asked(number)} == {"m"}
    play.welcomes(number)

    asked = [record for record in play.asked(number) if record[MODEL] == "once"]
    assert [record[AGAIN:] for record in asked] == [[]] * 4


def test_word_of_a_gateway_that_was_left_is_nothing() -> None:
    """It may have been under way."""
    play = Playbook(2).up(0, 1)
    play.machine.remove_link(1, play.now)
    assert play.machine.left == [1]

    play.machine.on_message(1, Kind.DISCONNECT, [["no session", ""]], play.now)

    play.machine.check()
    assert list(play.machine.links) == [0]
