"""Calls that are alike leave as one record, and are answered in any parts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine.client.playbook import NO_SESSION, Playbook, card, echo, reply
from zmqinfer.errors import Status
from zmqinfer.machine.block import numbers_of
from zmqinfer.records import (
    BUDGET_US,
    KEY,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    PLACES,
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
    """Each at its place: its payload, its key and its id; what comes in the next turn begins another block."""
    play = Playbook().up()
    keys = [b"k%d" % (number % 3) for number in range(5)]
    numbers = [play.calls(number, body=b"row%d" % number, key=key) for number, key in enumerate(keys)]

    (record,) = play.asked()

    assert numbers == list(range(record[TAG] * MAX_CALLS, record[TAG] * MAX_CALLS + 5)) == list(numbers_of(record))
    assert (record[PLACES], record[ROWS], record[KEY]) == (0b11111, 5, keys)
    assert record[PAYLOAD] == b"row0row1row2row3row4"
    block_id = int.from_bytes(record[REQUEST_ID], "big")
    assert [int.from_bytes(play.machine.request_id(number), "big") - block_id for number in numbers] == [0, 1, 2, 3, 4]
    later = play.calls("later")
    assert later == numbers[0] + MAX_CALLS
    assert play.requests() == [later]


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        ({}, [4]),
        ({"model": "n"}, [2, 2]),
        ({"layout": b"another"}, [2, 2]),
        ({"key": b"k"}, [2, 2]),
        ({"key": b""}, [2, 2]),
        ({"priority": 1}, [2, 2]),
        ({"version": 1}, [2, 2]),
        ({"idempotent": True}, [2, 2]),
        ({"deadline_s": 30.001}, [2, 2]),
        ({"rows": 1}, [2, 1, 1]),
        ({"body": [b"body"]}, [2, 1, 1]),
    ],
    ids=[
        "nothing",
        "model",
        "layout",
        "key",
        "empty key",
        "priority",
        "version",
        "idempotent",
        "deadline",
        "rows",
        "parts",
    ],
)
def test_a_call_that_is_not_alike_begins_another_block(how: dict[str, Any], calls: list[int]) -> None:
    """It shares with its like, unless it has a batch axis or its payload travels in parts: then with nobody."""
    play = Playbook().serving(card("m"), card("n")).up()
    one, two, three, four = play.calls(1), play.calls(2, **how), play.calls(3), play.calls(4, **how)

    asked = play.asked()

    assert [record[PLACES].bit_count() for record in asked] == calls
    assert sorted(number for record in asked for number in numbers_of(record)) == sorted([one, two, three, four])
    assert {one, three} <= set(numbers_of(asked[0]))
    assert not how or not {two, four} & set(numbers_of(asked[0]))


@pytest.mark.parametrize(("later_s", "calls"), [(0.0, [2]), (0.005, [2]), (0.015, [1, 1])])
def test_deadlines_of_a_block_are_in_one_slot(later_s: float, calls: list[int]) -> None:
    """Of the 10 ms in which deadlines are kept: one look at the clock ends them all."""
    play = Playbook().up()
    play.calls("first")
    play.now += later_s
    play.calls("second")

    asked = play.asked()

    assert [record[PLACES].bit_count() for record in asked] == calls
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
    numbers = [play.calls(number, body=bytes(size)) for number in range(2 * most + 1)]

    assert play.machine.full_blocks == (2 if most > 1 else 0)
    asked = play.asked()

    assert play.machine.full_blocks == 0
    assert [record[PLACES] for record in asked] == [2**most - 1, 2**most - 1, 1]
    assert [number for record in asked for number in numbers_of(record)] == numbers


def test_calls_of_a_model_that_is_not_known_share_nothing() -> None:
    """Its largest batch is not known before the first WELCOME, nor if that does not list it."""
    play = Playbook()
    for number in range(2):
        play.calls(number)
    assert [record[PLACES] for record in play.asked()] == [1, 1]

    play.up()
    for number in range(2, 5):
        play.calls(number)
        play.calls(-number, model="unknown")

    assert [(record[MODEL], record[PLACES]) for record in play.asked()] == [("m", 0b111), *[("unknown", 1)] * 3]


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


def test_replies_to_calls_that_are_not_pending_are_counted_call_by_call() -> None:
    """Those that ended, those behind the last call of a block, all of a block that there is not; others end."""
    play = Playbook().up()
    for number in range(4):
        play.calls(number, body=b"row%d" % number)
    (asked,) = play.asked()
    first = asked[TAG] * MAX_CALLS
    play.says(0, Kind.REPLY, echo(asked, 0b1001, Status.MODEL_ERROR), echo(asked, 0b0011))
    assert {owner: (record[STATUS], record[OUTPUT]) for owner, record in play.ended().items()} == {
        0: (Status.MODEL_ERROR, None),
        3: (Status.MODEL_ERROR, None),
        1: (Status.OK, b"row1"),
    }
    assert play.machine.unmatched == 1

    play.says(0, Kind.REPLY, reply(first + 4), reply(first, first + 4), reply(320, 321, 322))
    assert (play.ended(), play.machine.pending, play.machine.unmatched) == ({}, 1, 7)
    play.says(0, Kind.REPLY, echo(asked), echo(asked))
    assert (list(play.ended()), play.machine.unmatched) == ([2], 14)


def test_pending_counts_calls() -> None:
    """Of blocks too, sealed or not, and questions beside them."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(5)]
    assert play.machine.pending == 5
    play.machine.ask("q", Kind.STATS, ["status", None, 0, 1], 0, play.now + 1, play.now)
    play.hears()
    assert play.machine.pending == 6

    play.says(0, Kind.REPLY, reply(tags[0], tags[3]))
    assert play.machine.pending == 4
    play.cancels(tags[4])
    assert play.machine.pending == 3

    play.waits(31)
    assert play.machine.pending == 0


# Taking back ----------------------------------------------------------------------------------


def test_a_call_can_be_taken_back_once() -> None:
    """The gateway is told of it alone, the owner hears nothing, a late reply is only counted, and it is not resent."""
    play = Playbook().up()
    numbers = [play.calls(number) for number in range(3)]
    (asked,) = play.asked()

    assert play.cancels(numbers[1])
    assert not play.cancels(numbers[1])

    assert play.hears() == [(Kind.CANCEL, [[asked[TAG], 0b010]])]
    play.says(0, Kind.DISCONNECT, NO_SESSION)
    assert play.requests() == [numbers[0], numbers[2]]
    play.up().says(0, Kind.REPLY, echo(asked))
    assert (list(play.ended()), play.machine.unmatched, play.machine.wake_at()) == ([0, 2], 1, None)


def test_a_call_that_ended_cannot_be_taken_back() -> None:
    """Nothing is said about it, whether its block is over or not."""
    play = Playbook().up()
    alone, first, _ = play.calls("alone", rows=1), play.calls("first"), play.calls("second")
    play.hears()
    play.says(0, Kind.REPLY, reply(alone), reply(first))

    assert not play.cancels(alone)
    assert not play.cancels(first)
    assert play.hears() == []


@pytest.mark.parametrize("which", [0, 2, 4])
def test_a_call_that_is_taken_back_before_its_turn_ends_never_leaves(which: int) -> None:
    """Nor does a CANCEL; its neighbours leave, in one record."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(5)]

    assert play.cancels(tags[which])
    assert not play.cancels(tags[which])

    ((kind, (asked,)),) = play.hears()
    assert (kind, asked[PLACES]) == (Kind.REQUEST, 0b11111 & ~(1 << which))
    play.says(0, Kind.REPLY, echo(asked))
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


def test_a_block_of_which_nothing_is_left_is_not_sent() -> None:
    """And a like call in the same turn begins another; so does one that comes later."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    for tag in tags:
        assert play.cancels(tag)
    assert (play.machine.pending, play.machine.wake_at()) == (0, None)

    same_turn = play.calls("same turn")
    assert play.requests() == [same_turn]
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
    assert list(ended) == ["a", "b", "c", "d"]
    assert {(record[STATUS], record[RESULT]) for record in ended.values()} == {
        (Status.CANCELLED, "the client was closed")
    }
    assert play.hears(0) == [(Kind.DISCONNECT, [["closing", ""]])]
    assert play.hears(1) == []
    assert (play.machine.wake_at(), play.machine.pending) == (None, 0)
