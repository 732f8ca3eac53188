"""Refused calls that are asked for again: through the client's machine, as its gateways see it."""

from __future__ import annotations

from tests.machine.client.playbook import NO_SESSION, Playbook, did_not_run, reply
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of
from zmqinfer.policy.retry import MAX_ATTEMPTS
from zmqinfer.records import AGAIN, ATTEMPT, RAN, RAN_MAYBE, RAN_NO, REQUEST_ID, STATUS, Kind, Record


def overloaded(*numbers: int, retry_after_ms: int | None = None) -> Record:
    """A gateway's REPLY to calls that it did not let in."""
    return did_not_run(*numbers, status=Status.OVERLOADED, retry_after_ms=retry_after_ms)


def test_an_overloaded_gateway_is_asked_again_after_a_pause() -> None:
    """Under the same id; the caller notices nothing."""
    play = Playbook().up()
    tag = play.calls("call")
    (first,) = play.asked()
    play.says(0, Kind.REPLY, overloaded(tag))
    assert (play.ended(), play.asked()) == ({}, [])

    (again,) = play.waits(0.06).asked()
    assert again[REQUEST_ID] == first[REQUEST_ID]
    assert (first[ATTEMPT], again[ATTEMPT]) == (1, 2)
    play.says(0, Kind.REPLY, reply(tag))
    assert play.ended()["call"][STATUS] == Status.OK
    assert play.waits(5.0).asked() == []


def test_it_is_asked_three_times_at_most() -> None:
    """The last refusal is the outcome."""
    play = Playbook().up()
    tag = play.calls("call")
    asked = 0
    while not (ended := play.ended()):
        asked += len(play.asked())
        play.says(0, Kind.REPLY, overloaded(tag))
        play.waits(1.5)
    assert asked == MAX_ATTEMPTS
    assert ended["call"][STATUS] == Status.OVERLOADED


def test_the_pause_that_was_asked_for_is_kept() -> None:
    """Up to half as much longer."""
    play = Playbook().up()
    tag = play.calls("call")
    play.hears()
    play.says(0, Kind.REPLY, overloaded(tag, retry_after_ms=400))
    assert play.waits(0.399).asked() == []
    assert len(play.waits(0.21).asked()) == 1


def test_what_would_come_too_late_is_not_repeated() -> None:
    """The refusal is told at once."""
    play = Playbook().up()
    tag = play.calls("call", deadline_s=0.5)
    play.hears()
    play.says(0, Kind.REPLY, overloaded(tag, retry_after_ms=600))
    assert play.ended()["call"][STATUS] == Status.OVERLOADED


def test_another_gateway_is_asked_if_there_is_one() -> None:
    """One that had no worker is asked again by nobody."""
    alone = Playbook().up()
    tag = alone.calls("call")
    alone.hears()
    alone.says(0, Kind.REPLY, did_not_run(tag))
    assert alone.ended()["call"][STATUS] == Status.UNAVAILABLE

    play = Playbook(2).up(0, 1)
    tag = play.calls("call")
    asked = [play.asked(0), play.asked(1)]
    number = int(bool(asked[1]))
    play.says(number, Kind.REPLY, did_not_run(tag))
    play.waits(0.06)
    assert play.asked(number) == []
    assert play.requests(1 - number) == [tag]


def test_a_gateway_that_is_down_is_no_other_gateway() -> None:
    """Though it is one to choose from, while the only one that was up drains."""
    play = Playbook(2).up(0)
    tag = play.calls("call")
    assert play.requests(0) == [tag]
    play.says(0, Kind.DISCONNECT, ["draining", "this gateway ends"])

    play.says(0, Kind.REPLY, did_not_run(tag))

    ended = play.ended()["call"]
    assert (ended[STATUS], ended[RAN]) == (Status.UNAVAILABLE, 0)


def test_of_a_block_only_what_was_refused_is_repeated() -> None:
    """Each part when its pause is over; a greeting sends what does not rest, and what was taken back is not sent."""
    play = Playbook().up()
    numbers = [play.calls(number) for number in range(6)]
    play.hears()
    play.says(0, Kind.REPLY, overloaded(numbers[1], numbers[3], numbers[4]))
    play.says(0, Kind.REPLY, overloaded(numbers[0], retry_after_ms=1_000))
    assert play.cancels(numbers[3])
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)
    assert play.requests() == [numbers[2], numbers[5]]
    assert play.waits(0.06).requests() == [numbers[1], numbers[4]]
    play.up().says(0, Kind.DISCONNECT, NO_SESSION)
    assert play.requests() == [numbers[place] for place in (1, 2, 4, 5)]
    play.up().waits(1.5)
    assert play.requests() == [numbers[0]]
    play.says(0, Kind.REPLY, reply(*(numbers[place] for place in (0, 1, 2, 4, 5))))
    assert {record[STATUS] for record in play.ended().values()} == {Status.OK}
    assert play.machine.pending == 0


def test_a_call_that_was_refused_has_not_run_whatever_became_of_its_block() -> None:
    """The others were sent twice; it was not, and its gateway would else end it if its model may not run twice."""
    play = Playbook().up()
    refused, lost = play.calls("refused"), play.calls("lost")
    play.hears()
    play.says(0, Kind.REPLY, overloaded(refused))

    play.says(0, Kind.DISCONNECT, NO_SESSION)
    (again,) = play.asked()
    (first,) = play.up().waits(0.06).asked()

    assert (list(numbers_of(again)), again[AGAIN:]) == ([lost], [True])
    assert (list(numbers_of(first)), first[AGAIN:]) == ([refused], [])
    for call in (refused, lost):
        play.says(0, Kind.REPLY, did_not_run(call))
    assert {owner: record[RAN] for owner, record in play.ended().items()} == {"refused": RAN_NO, "lost": RAN_MAYBE}

    play = Playbook().up()
    refused = play.calls("refused")
    play.hears()
    play.says(0, Kind.REPLY, overloaded(refused))
    assert len(play.waits(0.06).asked()) == 1
    play.says(0, Kind.DISCONNECT, NO_SESSION)
    (again,) = play.asked()
    assert again[AGAIN:] == [True]


def test_a_thousand_refusals_are_not_repeated_a_thousand_times() -> None:
    """A tenth of them, and some."""
    play = Playbook().up()
    tags = [play.calls(number, rows=1) for number in range(200)]
    play.hears()
    for tag in tags:
        play.says(0, Kind.REPLY, overloaded(tag))
    assert len(play.ended()) == 150
    assert len(play.waits(0.06).asked()) == 50


def test_what_may_not_run_twice_is_repeated_only_if_it_was_sent_once() -> None:
    """Else another of the times may have run."""
    play = Playbook().up()
    tag = play.calls("once", idempotent=False)
    play.hears()
    play.says(0, Kind.REPLY, overloaded(tag))
    assert len(play.waits(0.06).asked()) == 1


def test_calls_of_one_block_are_counted_one_by_one() -> None:
    """However they were refused: what was asked for twice says 2."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    play.hears()
    for _ in range(MAX_ATTEMPTS - 1):
        for tag in tags:
            play.says(0, Kind.REPLY, overloaded(tag))
        asked = play.waits(0.2).asked()
        assert sorted(number for record in asked for number in numbers_of(record)) == tags
    assert {record[ATTEMPT] for record in asked} == {MAX_ATTEMPTS}
    play.says(0, Kind.REPLY, *[reply(tag) for tag in tags])
    assert len(play.ended()) == 3


def test_a_greeting_sends_nothing_that_rests() -> None:
    """It goes out once, when its pause is over; what may not run twice is not lost with a session that had it not."""
    play = Playbook().up()
    resting, pending = play.calls("resting", idempotent=False), play.calls("pending", rows=1)
    play.hears()
    play.says(0, Kind.REPLY, overloaded(resting))

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [pending]
    play.up()
    assert play.waits(0.2).requests() == [resting]
    assert play.ended() == {}


def test_a_session_that_is_lost_ends_only_what_its_gateway_had() -> None:
    """A call that was refused did not run, whatever became of others of its block."""
    play = Playbook().up()
    had = play.calls("had", idempotent=False)
    refused = play.calls("refused", idempotent=False)
    play.hears()
    play.says(0, Kind.REPLY, overloaded(refused, retry_after_ms=300))

    play.says(0, Kind.DISCONNECT, NO_SESSION).hears()
    ended = play.ended()
    assert {owner: Status(record[STATUS]) for owner, record in ended.items()} == {"had": Status.WORKER_LOST}
    assert had != refused

    play.welcomes(0)
    assert play.waits(0.5).requests() == [refused]
