"""Blocks are divided in any way, and the calls inside stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.checks import CHECKS
from zmqinfer.errors import Status
from zmqinfer.machine.block import Parts, first_of, listed, numbers_of, part_of, reply_part
from zmqinfer.records import (
    ALL_PLACES,
    KEY,
    MAX_CALLS,
    MAX_TAG,
    OUTPUT,
    PAYLOAD,
    PLACES,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    ROWS,
    STATUS,
    Kind,
    Record,
)

Cut = Callable[[Record, int], Record]

# Such as msgpack carries.
integers = st.integers(-(2**63), 2**64 - 1)
more_fields = st.lists(st.none() | integers | st.binary(max_size=4) | st.lists(integers, max_size=2), max_size=3)
tags = st.integers(0, MAX_TAG)
some_places = st.integers(1, ALL_PLACES) | st.integers(1, MAX_CALLS).map(lambda calls: 2**calls - 1)


@dataclass(frozen=True)
class Call:
    """One call as a block says it."""

    number: int
    key: bytes | None
    payload: Any
    others: Record


@st.composite
def requests(draw: st.DrawFn) -> Record:
    places = draw(some_places)
    calls = places.bit_count()
    size = calls * draw(st.integers(0, 4))
    payload = draw(st.binary(min_size=size, max_size=size))
    keys = draw(st.none() | st.lists(st.binary(max_size=3), min_size=calls, max_size=calls))
    said = ["m", 1, keys, 1_000, 4, 1, None, calls, b"layout", payload]
    return [draw(tags), places, draw(st.binary(max_size=16)) + b"\x40", *said, *draw(more_fields)]


@st.composite
def replies(draw: st.DrawFn) -> Record:
    places = draw(some_places)
    size = places.bit_count() * draw(st.integers(0, 4))
    said = [0, b"layout", draw(st.binary(min_size=size, max_size=size))]
    failed = st.sampled_from(
        [[int(Status.MODEL_ERROR), "a sentence", "model"], [int(Status.OVERLOADED), "a sentence", None]]
    )
    return [draw(tags), places, *draw(failed | st.just(said)), "w1", 1, 1, 1, None, 9, 10, 20, *draw(more_fields)]


def calls_of(record: Record, kind: Kind) -> list[Call]:
    """What a record says of each of its calls, read off the rules of docs/PROTOCOL.md."""
    CHECKS[kind]([record])
    places = [place for place in range(MAX_CALLS) if record[PLACES] & 2**place]
    own = {PLACES, KEY, ROWS, PAYLOAD} if kind is Kind.REQUEST else {PLACES}
    bodies = record[PAYLOAD] if kind is Kind.REQUEST else None
    if kind is Kind.REPLY and not record[STATUS]:
        own.add(OUTPUT)
        bodies = record[OUTPUT]
    others = [value for at, value in enumerate(record) if at not in own]
    keys = record[KEY] if kind is Kind.REQUEST and record[KEY] is not None else [None] * len(places)
    size = len(bodies) // len(places) if bodies else 0
    return [
        Call(32 * record[0] + place, key, bodies and bodies[at * size : (at + 1) * size], others)
        for at, (place, key) in enumerate(zip(places, keys, strict=True))
    ]


def divided(content: st.DataObject, record: Record, cut: Cut) -> list[Record]:
    """Divides a record into any two, and some of what came of it again."""
    chosen = record[PLACES] & content.draw(some_places)
    if chosen in (0, record[PLACES]):
        return [record]
    return [
        *divided(content, cut(record, chosen), cut),
        *divided(content, cut(record, record[PLACES] & ~chosen), cut),
    ]


@given(record=requests(), content=st.data())
def test_a_request_divided_in_any_way_asks_for_the_same_calls(record: Record, content: st.DataObject) -> None:
    """Keys, payloads and unknown fields; each part is a record that the wire takes."""
    before = calls_of(record, Kind.REQUEST)

    pieces = divided(content, record, part_of)

    assert {call.number: call for piece in pieces for call in calls_of(piece, Kind.REQUEST)} == {
        call.number: call for call in before
    }
    assert sum(piece[PLACES] for piece in pieces) == record[PLACES]
    assert all(piece[ROWS] == piece[PLACES].bit_count() for piece in pieces)
    assert calls_of(record, Kind.REQUEST) == before, "one that waits in an outbox must not change"


@given(record=replies(), content=st.data())
def test_a_reply_divided_in_any_way_answers_the_same_calls(record: Record, content: st.DataObject) -> None:
    """Each call keeps its own output, or the sentence that all have, and the figures of the batch."""
    before = {call.number: call for call in calls_of(record, Kind.REPLY)}

    pieces = divided(content, record, reply_part)

    assert {call.number: call for piece in pieces for call in calls_of(piece, Kind.REPLY)} == before
    assert sum(piece[PLACES] for piece in pieces) == record[PLACES]


def test_unknown_fields_go_with_every_part() -> None:
    """They say something of all calls of the block, as the known fields do."""
    asked: Record = [4, 0b111, b"\x40", "m", 1, None, 1_000, 4, 1, None, 3, b"layout", b"abc", "trace", [1]]
    told: Record = [4, 0b111, 0, b"layout", b"abc", "w1", 1, 1, 1, None, 3, 10, 20, "trace", [1]]

    assert part_of(asked, 0b101)[REQUEST_FIELDS:] == reply_part(told, 0b10)[REPLY_FIELDS:] == ["trace", [1]]
    assert (part_of(asked, 0b101)[PAYLOAD], reply_part(told, 0b10)[OUTPUT]) == (b"ac", b"b")


@given(tag=tags, places=some_places, content=st.data())
def test_places_are_the_bits_of_a_set(tag: int, places: int, content: st.DataObject) -> None:
    """In their order, and a call's number has its place in its last five bits."""
    found = listed(places)
    count = content.draw(st.integers(0, len(found)))

    assert found == sorted(found)
    assert sum(1 << place for place in found) == places
    assert listed(first_of(places, count)) == found[:count]
    assert list(numbers_of([tag, places])) == [MAX_CALLS * tag + place for place in found]


# Tables ------------------------------------------------------------------------------------------


@dataclass(eq=False)
class Entry:
    block: int
    places: int


@settings(max_examples=60)
@given(content=st.data())
def test_a_table_finds_the_parts_that_are_about_a_call(content: st.DataObject) -> None:
    """All of them and no other, while parts are added and removed."""
    table: Parts[Entry] = Parts()
    kept: list[Entry] = []
    for _ in range(content.draw(st.integers(0, 20))):
        block = content.draw(st.integers(0, 2))
        free = ALL_PLACES & ~sum(one.places for one in kept if one.block == block)
        if (places := free & content.draw(some_places)) and content.draw(st.booleans()):
            kept.append(Entry(block, places))
            table.add(block, kept[-1])
        elif kept:
            gone = kept.pop(content.draw(st.integers(0, len(kept) - 1)))
            assert table.holds(gone.block, gone)
            assert table.remove(gone.block, gone)
            assert not table.remove(gone.block, gone)
            assert not table.holds(gone.block, gone)

    wanted = content.draw(some_places)
    for block in range(3):
        assert table.about(block, wanted) == [one for one in kept if one.block == block and one.places & wanted]
    assert sorted(map(id, table)) == sorted(map(id, kept))
    assert len(table) == len(kept)
