"""Calls that are alike leave as one record, and are answered in any parts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine.client.playbook import (
    NO_SESSION,
    Playbook,
    card,
    echo,
    place_and_calls,
    reply,
    tags_of,
)
from zmqinfer.errors import Status
from zmqinfer.machine.block import advanced
from zmqinfer.records import (
    BUDGET_US,
    CALLS,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    REQUEST_ID,
    RESULT,
    ROWS,
    STATUS,
    TAG,
    Kind,
)
from zmqinfer.tensor import INLINE_BYTES

# Blocks ---------------------------------------------------------------------------------------


def test_alike_calls_of_a_turn_leave_as_one_record() -> None:
    """Their tags and ids follow each other, and their payloads lie one behind the other."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(5)]

    (record,) = play.asked()

    first = tags[0]
    assert first % MAX_CALLS == 0
    assert tags == list(range(first, first + 5))
    assert (record[TAG], record[CALLS], record[ROWS]) == (first, 5, 5)
    assert record[PAYLOAD] == b"row0row1row2row3row4"
    assert [play.machine.request_id(tag) for tag in tags] == [advanced(record[REQUEST_ID], n) for n in range(5)]


def test_a_block_ends_with_its_turn() -> None:
    """Nothing is put into a record that has left."""
    play = Playbook().up()
    first = play.calls("first")
    play.hears()

    second = play.calls("second")

    assert second == first + MAX_CALLS
    assert play.requests() == [second]


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        ({}, [4]),
        ({"model": "n"}, [2, 2]),
        ({"layout": b"another"}, [2, 2]),
        ({"key": b"k"}, [2, 2]),
        ({"priority": 1}, [2, 2]),
        ({"version": 1}, [2, 2]),
        ({"idempotent": True}, [2, 2]),
        ({"deadline_s": 30.001}, [2, 2]),
        ({"rows": 1}, [2, 1, 1]),
        ({"body": [b"body"]}, [2, 1, 1]),
    ],
    ids=["nothing", "model", "layout", "key", "priority", "version", "idempotent", "deadline", "rows", "parts"],
)
def test_a_call_that_is_not_alike_begins_another_block(how: dict[str, Any], calls: list[int]) -> None:
    """It shares with its like, unless it has a batch axis or its payload travels in parts: then with nobody."""
    play = Playbook().serving(card("m"), card("n")).up()
    one, two, three, four = play.calls(1), play.calls(2, **how), play.calls(3), play.calls(4, **how)

    asked = play.asked()

    assert [record[CALLS] for record in asked] == calls
    assert sorted(tag for record in asked for tag in tags_of(record)) == sorted([one, two, three, four])
    assert {one, three} <= set(tags_of(asked[0]))
    assert not how or not {two, four} & set(tags_of(asked[0]))


@pytest.mark.parametrize(("later_s", "calls"), [(0.0, [2]), (0.005, [2]), (0.015, [1, 1])])
def test_deadlines_of_a_block_are_in_one_slot(later_s: float, calls: list[int]) -> None:
    """Of the 10 ms in which deadlines are kept: one look at the clock ends them all."""
    play = Playbook().up()
    play.calls("first")
    play.now += later_s
    play.calls("second")

    asked = play.asked()

    assert [record[CALLS] for record in asked] == calls
    assert asked[-1][BUDGET_US] == pytest.approx(30_000_000, abs=1)


@pytest.mark.parametrize(
    ("max_rows", "size", "most"),
    [
        (64, 4, 32),
        (32, 4, 32),
        (31, 4, 31),
        (1, 4, 1),
        (32, 0, 32),
        (32, INLINE_BYTES // 32, 32),
        (32, INLINE_BYTES // 32 + 1, 31),
        (32, INLINE_BYTES // 2, 2),
        (32, INLINE_BYTES // 2 + 1, 1),
        (32, INLINE_BYTES, 1),
        (3, INLINE_BYTES // 4, 3),
    ],
)
def test_a_block_is_full(max_rows: int, size: int, most: int) -> None:
    """At 32 calls, at the model's largest batch, or at what travels inline: whichever comes first."""
    play = Playbook().serving(card(max_rows=max_rows)).up()
    tags = [play.calls(number, body=bytes(size)) for number in range(2 * most + 1)]

    assert play.machine.full_blocks == (2 if most > 1 else 0)
    asked = play.asked()

    assert play.machine.full_blocks == 0
    assert place_and_calls(asked) == [(0, most), (0, most), (0, 1)]
    assert [tag for record in asked for tag in tags_of(record)] == tags


def test_calls_of_a_model_that_is_not_known_share_nothing() -> None:
    """Its largest batch is not known before the first WELCOME, nor if that does not list it."""
    play = Playbook()
    for number in range(2):
        play.calls(number)
    assert [record[CALLS] for record in play.asked()] == [1, 1]

    play.up()
    for number in range(2, 5):
        play.calls(number)
        play.calls(-number, model="unknown")

    assert [(record[MODEL], record[CALLS]) for record in play.asked()] == [("m", 3), *[("unknown", 1)] * 3]


def test_interleaved_calls_share_each_with_its_like() -> None:
    """The order is kept within each block."""
    play = Playbook().serving(card("a"), card("b", max_rows=2), card("c")).up()
    for number in range(3):
        for model in "abc":
            play.calls(f"{model}{number}", model=model, body=b"%s%d" % (model.encode(), number))

    assert [(record[MODEL], record[PAYLOAD]) for record in play.asked()] == [
        ("a", b"a0a1a2"),
        ("b", b"b0b1"),
        ("c", b"c0c1c2"),
        ("b", b"b2"),
    ]


def test_a_block_that_is_answered_whole_ends_at_once() -> None:
    """One reply, and the owners of all its calls beside it in their order."""
    play = Playbook().up()
    for owner in "abc":
        play.calls(owner, body=owner.encode())
    (asked,) = play.asked()

    play.says(0, Kind.REPLY, echo(asked))

    assert play.machine.completed == [(["a", "b", "c"], echo(asked), None)]
    assert (play.machine.pending, play.machine.unmatched, play.machine.wake_at()) == (0, 0, None)


def test_a_block_may_be_answered_in_parts() -> None:
    """In any order and with any outcomes: each call ends once, with the output of its own input."""
    play = Playbook().up()
    for number in range(6):
        play.calls(number, body=b"row%d" % number)
    (asked,) = play.asked()

    play.says(0, Kind.REPLY, echo(asked, 4, 2), echo(asked, 1, 1, Status.MODEL_ERROR))
    assert play.machine.pending == 3
    play.says(0, Kind.REPLY, echo(asked, 2, 2)).says(0, Kind.REPLY, echo(asked, 0, 1, Status.OVERLOADED))

    ended = play.ended()
    assert list(ended) == [4, 5, 1, 2, 3, 0]
    assert {owner: record[OUTPUT] for owner, record in ended.items() if record[STATUS] == Status.OK} == {
        owner: b"row%d" % owner for owner in (2, 3, 4, 5)
    }
    assert (ended[1][STATUS], ended[0][STATUS]) == (Status.MODEL_ERROR, Status.OVERLOADED)
    assert (play.machine.pending, play.machine.unmatched, play.machine.wake_at()) == (0, 0, None)


def test_replies_to_calls_that_ended_are_counted_call_by_call() -> None:
    """Those of the block that have not ended are answered all the same."""
    play = Playbook().up()
    for number in range(4):
        play.calls(number, body=b"row%d" % number)
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 0, 2))
    assert list(play.ended()) == [0, 1]

    play.says(0, Kind.REPLY, echo(asked, 0, 2))
    assert (play.ended(), play.machine.unmatched) == ({}, 2)
    play.says(0, Kind.REPLY, echo(asked, 1, 2))
    assert (list(play.ended()), play.machine.unmatched) == ([2], 3)
    play.says(0, Kind.REPLY, echo(asked))

    assert {owner: record[OUTPUT] for owner, record in play.ended().items()} == {3: b"row3"}
    assert play.machine.unmatched == 6
    play.says(0, Kind.REPLY, echo(asked))
    assert (play.ended(), play.machine.unmatched) == ({}, 10)


def test_replies_to_calls_that_never_were_are_counted() -> None:
    """Behind the last call of a block, or in a block that there is not; what is pending stays so."""
    play = Playbook().up()
    first = play.calls("one")
    play.calls("two")

    play.says(0, Kind.REPLY, reply(first + 2), reply(first, calls=3, output=b"abc"), reply(320, calls=4))

    assert (play.ended(), play.machine.pending, play.machine.unmatched) == ({}, 2, 8)


def test_pending_counts_calls() -> None:
    """Of blocks too, sealed or not, and questions beside them."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(5)]
    assert play.machine.pending == 5
    play.machine.ask("q", Kind.STATS, ["status", None, 0, 1], 0, play.now + 1, play.now)
    play.hears()
    assert play.machine.pending == 6

    play.says(0, Kind.REPLY, reply(tags[0], calls=2))
    assert play.machine.pending == 4
    play.cancels(tags[4])
    assert play.machine.pending == 3

    play.waits(31)
    assert play.machine.pending == 0


# Taking back ----------------------------------------------------------------------------------


def test_a_call_can_be_taken_back_once() -> None:
    """The gateway is told, the owner hears nothing, and a late reply is only counted."""
    play = Playbook().up()
    tag = play.calls()
    play.hears()

    assert play.cancels(tag)
    assert not play.cancels(tag)

    assert play.hears() == [(Kind.CANCEL, [[tag, 1]])]
    play.says(0, Kind.REPLY, reply(tag, Status.CANCELLED))
    assert (play.ended(), play.machine.unmatched, play.machine.wake_at()) == ({}, 1, None)


def test_a_call_that_ended_cannot_be_taken_back() -> None:
    """Nothing is said about it, whether its block is over or not."""
    play = Playbook().up()
    alone, first, _ = play.calls("alone", key=b"k"), play.calls("first"), play.calls("second")
    play.hears()
    play.says(0, Kind.REPLY, reply(alone), reply(first))

    assert not play.cancels(alone)
    assert not play.cancels(first)
    assert play.hears() == []


def test_a_call_that_was_taken_back_is_not_sent_again() -> None:
    """The session that knew it is over."""
    play = Playbook().up()
    gone, stays = play.calls("gone", key=b"k"), play.calls("stays")
    play.hears()
    play.cancels(gone)

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [stays]


@pytest.mark.parametrize(("which", "left"), [(0, [(1, 4)]), (2, [(0, 2), (3, 2)]), (4, [(0, 4)])])
def test_a_call_that_is_taken_back_before_its_turn_ends_never_leaves(which: int, left: list[tuple[int, int]]) -> None:
    """Nor does a CANCEL; its neighbours leave, in two records if it stood between them."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(5)]

    assert play.cancels(tags[which])
    assert not play.cancels(tags[which])

    ((kind, asked),) = play.hears()
    assert (kind, place_and_calls(asked)) == (Kind.REQUEST, left)
    play.says(0, Kind.REPLY, *map(echo, asked))
    assert {owner: record[OUTPUT] for owner, record in play.ended().items()} == {
        number: b"row%d" % number for number in range(5) if number != which
    }


def test_a_block_goes_on_behind_a_call_that_was_taken_back() -> None:
    """Its place is not given to another."""
    play = Playbook().up()
    first, gone = play.calls("first"), play.calls("gone")
    play.cancels(gone)

    last = play.calls("last")

    assert last == gone + 1
    assert play.requests() == [first, last]


def test_a_call_of_a_block_that_has_left_can_be_taken_back() -> None:
    """The gateway is told of it alone; the others go on, and what it says of this one is only counted."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    (asked,) = play.asked()

    assert play.cancels(tags[1])

    assert play.hears() == [(Kind.CANCEL, [[tags[1], 1]])]
    play.says(0, Kind.REPLY, echo(asked))
    assert (list(play.ended()), play.machine.unmatched, play.machine.wake_at()) == ([0, 2], 1, None)


def test_a_block_of_which_nothing_is_left_is_not_sent() -> None:
    """And a like call in the same turn begins another; so does one that comes later."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    for tag in tags:
        assert play.cancels(tag)
    assert (play.machine.pending, play.machine.wake_at()) == (0, None)

    same_turn = play.calls("same turn")
    assert place_and_calls(play.asked()) == [(0, 1)]
    play.cancels(same_turn)
    assert play.kinds() == [Kind.CANCEL]
    play.cancels(play.calls("gone too"))
    assert play.hears() == []
    later = play.calls("later")

    assert play.requests() == [later]
    play.says(0, Kind.REPLY, reply(later))
    assert list(play.ended()) == ["later"]


def test_closing_ends_everything_and_says_goodbye() -> None:
    """Calls, sent or not, and questions, as CANCELLED; whether they ran is not known."""
    play = Playbook(2).up(0)
    play.calls("a")
    play.calls("b")
    play.machine.ask("c", Kind.STATS, ["status", None, 0, 1], 0, play.now + 1, play.now)
    play.hears(0), play.hears(1)
    play.calls("d")

    play.machine.fail_all("the client was closed")
    play.machine.check()

    ended = play.ended()
    assert list(ended) == ["a", "b", "d", "c"]
    assert {(record[STATUS], record[RESULT]) for record in ended.values()} == {
        (Status.CANCELLED, "the client was closed")
    }
    assert play.hears(0) == [(Kind.DISCONNECT, [["closing", ""]])]
    assert play.hears(1) == []
    assert (play.machine.wake_at(), play.machine.pending) == (None, 0)
