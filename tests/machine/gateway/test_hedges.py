"""With hedging a second worker is asked for what the first is slow to answer, and the loser is cancelled."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook, card, reply, request
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.block import listed, reply_part
from zmqinfer.records import OUTPUT, PAYLOAD, PLACES, RAN, REQUEST_ID, STATUS, TAG, Kind, Record

P95_S = 0.01


def hedging(*, idempotent: bool = True, wish: bool = True, credits_rows: int = 64) -> Playbook:
    """Three workers of a model that is hedged, which have answered a hundred calls within 10 ms."""
    play = Playbook()
    for name in ("w1", "w2", "w3"):
        play.joins(name, [*card(idempotent=idempotent, credits_rows=credits_rows), wish])
        play.said(name, Kind.WELCOME)
    play.with_clients("c", "d")
    for tag in range(1, 101):
        play.hears("c", Kind.REQUEST, request(tag))
        play.now += P95_S
        for name in ("w1", "w2", "w3"):
            play.answers(name)
    play.said("c", Kind.REPLY)
    return play


def slow_call(play: Playbook, wish: Record | None = None, **how: object) -> tuple[str, Record, str, Record]:
    """A call that its worker does not answer in time; returns who has it first and second, and what each was sent.

    Of a block that was divided that of its first part.
    """
    play.hears("c", Kind.REQUEST, wish or request(1_000, **how))  # type: ignore[arg-type]
    first, asked = _with_first_call(play)
    play.waits(P95_S + 0.001)
    second, again = _with_first_call(play)
    return first, asked, second, again


def _with_first_call(play: Playbook) -> tuple[str, Record]:
    sent = [(name, record) for name in ("w1", "w2", "w3") for record in play.said(name, Kind.REQUEST)]
    return min(sent, key=lambda one: (one[1][REQUEST_ID], one[1][PLACES] & -one[1][PLACES]))


def test_the_second_worker_is_the_next_on_the_ring() -> None:
    """Under the same id and another tag; its cache may be warm too."""
    play = hedging()
    first, asked, second, again = slow_call(play, key=b"key")

    assert (first, second) == play.successors(b"key")[:2]
    assert again[REQUEST_ID] == asked[REQUEST_ID]
    assert again[TAG] != asked[TAG]
    assert play.requests()["hedged"] == 1


def test_the_first_answer_counts_and_the_loser_is_cancelled() -> None:
    """Whoever it comes from; credits come back with the loser's own word."""
    for winner in (0, 1):
        play = hedging()
        first, asked, second, again = slow_call(play)
        racers = [(first, asked), (second, again)]
        fast, slow = racers[winner], racers[1 - winner]

        play.hears(fast[0], Kind.REPLY, reply(fast[1], fast[0]))
        assert play.says("c", Kind.REPLY)[TAG] == 1_000
        assert play.says(slow[0], Kind.CANCEL) == [slow[1][TAG], 1]
        assert play.held(slow[0]) == 1
        play.hears(slow[0], Kind.REPLY, reply(slow[1], slow[0], status=Status.CANCELLED, ran=0))

        play.says_nothing("c")
        assert play.held(slow[0]) == play.held(fast[0]) == 0
        assert play.requests()["hedges_won"] == winner


def test_both_answers_are_one() -> None:
    """The loser may have been running: its result is late, and counted so."""
    play = hedging()
    first, asked, second, again = slow_call(play)

    play.hears(second, Kind.REPLY, reply(again, second)).hears(first, Kind.REPLY, reply(asked, first))

    assert len(play.said("c", Kind.REPLY)) == 1
    assert play.status()["late_replies"] == 1


def test_a_second_copy_that_fails_leaves_the_first_alone() -> None:
    """Only a result ends the race."""
    play = hedging()
    first, asked, second, again = slow_call(play)

    play.hears(second, Kind.REPLY, reply(again, second, status=Status.MODEL_ERROR))
    play.says_nothing("c")
    play.hears(first, Kind.REPLY, reply(asked, first))

    assert play.says("c", Kind.REPLY)[STATUS] == Status.OK
    assert play.said(second, Kind.CANCEL) == []


@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_worker_takes_only_its_copy_along(lost: int) -> None:
    """If it was the first one, what it had is moved, and the second copy may still win."""
    play = hedging()
    first, _, second, again = slow_call(play)
    play.loses((first, second)[lost])

    play.hears(second, Kind.REPLY, reply(again, second)) if not lost else play.answers(first)
    for name in ("w1", "w2", "w3"):
        if name != (first, second)[lost]:
            play.answers(name)

    if lost:
        play.waits(0.0)
    statuses = [record[STATUS] for record in play.said("c", Kind.REPLY)]
    assert statuses == ([] if lost else [Status.OK])


def test_a_call_that_ends_otherwise_has_both_copies_recalled() -> None:
    """Cancelled, or out of time."""
    play = hedging()
    first, asked, second, again = slow_call(play)
    play.hears("c", Kind.CANCEL, [1_000, 1])
    assert play.says(first, Kind.CANCEL) == [asked[TAG], 1]
    assert play.says(second, Kind.CANCEL) == [again[TAG], 1]

    play = hedging()
    _, _, second, again = slow_call(play, budget_s=0.5)
    play.waits(1.0)
    assert play.says("c", Kind.REPLY)[STATUS] == Status.DEADLINE_EXCEEDED
    assert play.says(second, Kind.CANCEL) == [again[TAG], 1]


@pytest.mark.parametrize(
    ("how", "is_hedged"),
    [
        ({"idempotent": True, "wish": True}, True),
        ({"idempotent": False, "wish": True}, False),
        ({"idempotent": True, "wish": False}, False),
    ],
)
def test_only_what_may_run_twice_and_wants_it_is_hedged(how: dict[str, bool], is_hedged: bool) -> None:
    """By its model."""
    play = hedging(**how)
    play.hears("c", Kind.REQUEST, request(1_000)).waits(0.5)

    assert play.requests()["hedged"] == is_hedged


@pytest.mark.parametrize("wish", [True, False])
def test_a_call_may_say_so_itself(wish: bool) -> None:
    """Whatever its model says."""
    play = hedging()
    play.hears("c", Kind.REQUEST, [*request(1_000), None, wish]).waits(0.5)

    assert play.requests()["hedged"] == wish


def test_of_a_block_that_is_answered_in_parts_each_part_ends_its_own_race() -> None:
    """The second copy of what is answered is recalled, that of the rest goes on and may win."""
    play = hedging()
    asked = request(1_024, calls=4, key=play.key_of("w1"))
    asked[PAYLOAD] = b"00010203"
    first, record, second, again = slow_call(play, asked)

    part = reply(record, first)
    part[OUTPUT] = record[PAYLOAD]
    one = record[PLACES] & -record[PLACES]
    play.hears(first, Kind.REPLY, reply_part(part, one))
    assert play.says(second, Kind.CANCEL) == [again[TAG], one]
    whole = reply(again, second)
    whole[OUTPUT] = again[PAYLOAD]
    play.hears(second, Kind.REPLY, whole)

    assert play.said(first, Kind.CANCEL) == [[record[TAG], record[PLACES] - one]]
    answers = {answer[PLACES]: answer[OUTPUT] for answer in play.said("c", Kind.REPLY)}
    assert b"".join(answers[places] for places in sorted(answers)) == record[PAYLOAD]
    assert play.status()["late_replies"] == 1
    assert play.requests()["hedges_won"] == record[PLACES].bit_count() - 1


def test_a_copy_that_failed_may_have_run() -> None:
    """What the other worker says of itself is not all that is known."""
    play = hedging()
    first, asked, second, again = slow_call(play)
    play.hears(second, Kind.REPLY, reply(again, second, status=Status.MODEL_ERROR))

    play.hears(first, Kind.REPLY, reply(asked, first, status=Status.DEADLINE_EXCEEDED, ran=0))

    answer = play.says("c", Kind.REPLY)
    assert (answer[STATUS], answer[RAN]) == (Status.DEADLINE_EXCEEDED, EXECUTED.index(Executed.MAYBE))


def test_a_hedged_block_that_is_divided_while_it_waits_gives_each_call_its_own_answer() -> None:
    """It waits because its first worker is lost; the second copy still runs, for calls that are no longer together."""
    play = hedging(credits_rows=8)
    names = ("w1", "w2", "w3")
    inputs = [b"%02d" % n for n in range(8)]
    asked = request(1_024, calls=8, key=play.key_of("w1"))
    asked[PAYLOAD] = b"".join(inputs)
    play.hears("c", Kind.REQUEST, asked)
    first = {name: play.said(name, Kind.REQUEST) for name in names}
    play.waits(P95_S + 0.001)
    again = {name: play.said(name, Kind.REQUEST) for name in names}
    lost = next(name for name, records in first.items() if records and records[0][PAYLOAD].startswith(b"00"))
    second = next(name for name, records in again.items() if records and records[0][PAYLOAD].startswith(b"00"))
    free = next(name for name in names if name not in (lost, second))
    # Others take all room, so that what the lost worker had must wait.
    given: list[Record] = []
    for tag in range(4_096, 4_096 + 32 * 20, 32):
        play.hears("d", Kind.REQUEST, request(tag, idempotent=False))
        given += play.said(free, Kind.REQUEST)
    play.falls_silent(lost)
    given += play.said(free, Kind.REQUEST)

    # One row of room at a time divides the block; then the second copy is answered as it was sent.
    for record in given:
        if record[PLACES].bit_count() == 1:
            play.hears(free, Kind.REPLY, reply(record, free))
    answer = reply(again[second][0], second)
    answer[OUTPUT] = again[second][0][PAYLOAD]
    play.hears(second, Kind.REPLY, answer)

    for record in play.said("c", Kind.REPLY):
        assert record[STATUS] == Status.OK
        assert record[OUTPUT] == b"".join(inputs[place] for place in listed(record[PLACES]))


def test_of_a_block_that_is_answered_call_by_call_each_answer_tells_how_long_it_took() -> None:
    """From when the whole was sent: else the time after which a second worker is asked would never grow."""
    play = hedging()
    play.hears("c", Kind.REQUEST, request(1_000, calls=32), request(1_001, calls=32))
    play.now += 3 * P95_S

    for name in ("w1", "w2", "w3"):
        for record in play.said(name, Kind.REQUEST):
            whole = reply(record, name)
            play.hears(name, Kind.REPLY, *[reply_part(whole, 1 << place) for place in listed(record[PLACES])])

    assert len(play.said("c", Kind.REPLY)) == 64
    assert play.machine.routes.find("m", 1).hedging.delay_s() == pytest.approx(3 * P95_S)
