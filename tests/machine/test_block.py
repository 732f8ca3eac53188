"""Blocks are divided anywhere, and the calls inside stay what they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.checks import CHECKS
from zmqinfer.errors import Status
from zmqinfer.machine.block import advanced, block_of, covering, cut_reply, cut_request, singles
from zmqinfer.records import (
    CALLS,
    MAX_CALLS,
    MAX_TAG,
    OUTPUT,
    PAYLOAD,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    REQUEST_ID,
    ROWS,
    STATUS,
    TAG,
    Kind,
    Record,
)

Cut = Callable[[Record, int], Record]

# Such as msgpack carries.
integers = st.integers(-(2**63), 2**64 - 1)
more_fields = st.lists(st.none() | integers | st.binary(max_size=4) | st.lists(integers, max_size=2), max_size=3)


@dataclass(frozen=True)
class Call:
    """One call as a block says it."""

    tag: int
    request_id: bytes
    payload: Any
    others: Record


@st.composite
def stretches(draw: st.DrawFn) -> tuple[int, int, int]:
    """A tag, how many calls follow from there, and where the last byte of their ids begins."""
    calls = draw(st.integers(1, MAX_CALLS))
    tag, last = (draw(st.integers(0, MAX_CALLS - calls)) for _ in range(2))
    tag += MAX_CALLS * draw(st.integers(0, MAX_TAG // MAX_CALLS))
    return tag, calls, last + MAX_CALLS * draw(st.integers(0, 7))


@st.composite
def requests(draw: st.DrawFn) -> Record:
    tag, calls, last = draw(stretches())
    request_id = draw(st.binary(max_size=16)) + bytes([last])
    size = calls * draw(st.integers(0, 4))
    payload = draw(st.binary(min_size=size, max_size=size))
    said = ["m", 1, b"key", 1_000, 4, 1, None, calls, b"layout", payload]
    return [tag, calls, request_id, *said, *draw(more_fields)]


@st.composite
def replies(draw: st.DrawFn) -> Record:
    tag, calls, _ = draw(stretches())
    size = calls * draw(st.integers(0, 4))
    said = [0, b"layout", draw(st.binary(min_size=size, max_size=size))]
    failed = st.sampled_from(
        [[int(Status.MODEL_ERROR), "a sentence", "model"], [int(Status.OVERLOADED), "a sentence", None]]
    )
    return [tag, calls, *draw(failed | st.just(said)), "w1", 1, 1, 1, None, 9, 10, 20, *draw(more_fields)]


def calls_of(record: Record, kind: Kind) -> list[Call]:
    """What a record says of each of its calls, read off the rules of docs/PROTOCOL.md."""
    tag, calls = record[TAG], record[CALLS]
    CHECKS[kind]([record])
    own = {TAG, CALLS, REQUEST_ID, ROWS, PAYLOAD} if kind is Kind.REQUEST else {TAG, CALLS}
    others = [value for at, value in enumerate(record) if at not in own]
    if kind is Kind.REPLY and not record[STATUS]:
        others.remove(record[OUTPUT])
    bodies = record[PAYLOAD] if kind is Kind.REQUEST else record[OUTPUT]
    size = len(bodies) // calls if type(bodies) is bytes else 0
    found: list[Call] = []
    for place in range(calls):
        body = bodies[place * size : (place + 1) * size] if type(bodies) is bytes else bodies
        identity = b""
        if kind is Kind.REQUEST:
            number = int.from_bytes(record[REQUEST_ID], "big") + place
            identity = number.to_bytes(len(record[REQUEST_ID]), "big")
        found.append(Call(tag + place, identity, body, others))
    return found


def divided(content: st.DataObject, record: Record, cut: Cut) -> list[Record]:
    """Cuts a record anywhere, from its front, and then cuts some of what came off again."""
    pieces: list[Record] = []
    while record[CALLS] > 1 and content.draw(st.booleans()):
        head, record = cut(record, content.draw(st.integers(1, record[CALLS] - 1)))
        pieces += divided(content, head, cut)
    return [*pieces, record]


@given(record=requests(), content=st.data())
def test_a_request_divided_anywhere_asks_for_the_same_calls(record: Record, content: st.DataObject) -> None:
    """Ids, tags, payloads and unknown fields, in order; each part is a record that the wire takes."""
    before = calls_of(record, Kind.REQUEST)

    pieces = divided(content, record, cut_request)

    assert [call for piece in pieces for call in calls_of(piece, Kind.REQUEST)] == before
    assert all(piece[ROWS] == piece[CALLS] for piece in pieces)
    assert calls_of(record, Kind.REQUEST) == before, "one that waits in an outbox must not change"


@given(record=replies(), content=st.data())
def test_a_reply_divided_anywhere_answers_the_same_calls(record: Record, content: st.DataObject) -> None:
    """Each call keeps its own output, or the sentence that all have, and the figures of the batch."""
    before = calls_of(record, Kind.REPLY)

    pieces = divided(content, record, cut_reply)

    assert [call for piece in pieces for call in calls_of(piece, Kind.REPLY)] == before


@given(record=requests())
def test_singles_are_the_calls_one_by_one(record: Record) -> None:
    """Each a request of its own."""
    before = calls_of(record, Kind.REQUEST)

    pieces = list(singles(record))

    assert [piece[CALLS] for piece in pieces] == [1] * len(before)
    assert [call for piece in pieces for call in calls_of(piece, Kind.REQUEST)] == before


def test_one_call_is_left_as_it_is() -> None:
    """It may have many rows, in parts, and an id that ends at a border."""
    record: Record = [31, 1, b"\xff", "m", 1, None, 1_000, 4, 1, None, 500, b"layout", [b"part"], "more"]
    before = record.copy()

    assert list(singles(record)) == [before]


def test_unknown_fields_go_with_every_part() -> None:
    """They say something of all calls of the block, as the known fields do."""
    asked: Record = [4, 3, b"\x04", "m", 1, None, 1_000, 4, 1, None, 3, b"layout", b"abc", "trace", [1]]
    told: Record = [4, 3, 0, b"layout", b"abc", "w1", 1, 1, 1, None, 3, 10, 20, "trace", [1]]

    asks, answers = cut_request(asked, 1), cut_reply(told, 2)

    assert all(part[REQUEST_FIELDS:] == ["trace", [1]] for part in asks)
    assert all(part[REPLY_FIELDS:] == ["trace", [1]] for part in answers)
    assert [part[PAYLOAD] for part in asks] + [part[OUTPUT] for part in answers] == [b"a", b"bc", b"ab", b"c"]


# Tables by tag -----------------------------------------------------------------------------------


@dataclass
class Entry:
    calls: int


@st.composite
def tables(draw: st.DrawFn) -> dict[int, Entry]:
    """Entries of two blocks' worth of tags, with gaps between some of them, made in any order."""
    table: dict[int, Entry] = {}
    tag, end = 0, 2 * MAX_CALLS
    while tag < end:
        calls = draw(st.integers(1, MAX_CALLS - tag % MAX_CALLS))
        if draw(st.booleans()):
            table[tag] = Entry(calls)
        tag += calls
    return dict(draw(st.permutations(list(table.items()))))


@settings(max_examples=60)
@given(table=tables())
def test_each_tag_finds_exactly_the_entry_that_covers_it(table: dict[int, Entry]) -> None:
    """The first call's tag, another's, or nobody's."""
    for tag in range(3 * MAX_CALLS):
        owners = [entry for first, entry in table.items() if first <= tag < first + entry.calls]

        assert covering(table, tag) is (owners[0] if owners else None)


@given(record=requests(), content=st.data())
def test_tags_of_a_divided_block_find_their_parts(record: Record, content: st.DataObject) -> None:
    """Every part is entered under its own first tag."""
    first, calls = record[TAG], record[CALLS]
    table = {piece[TAG]: Entry(piece[CALLS]) for piece in divided(content, record, cut_request)}

    found = [covering(table, tag) for tag in range(first, first + calls)]

    assert found == [entry for entry in table.values() for _ in range(entry.calls)]
    assert covering(table, first + calls) is None
    assert first == 0 or covering(table, first - 1) is None


# Request ids -------------------------------------------------------------------------------------

ids = st.binary(min_size=1, max_size=16)


@given(record=requests())
def test_all_calls_of_a_block_have_the_same_block(record: Record) -> None:
    """So they have one home, and so has a repeat of any of them."""
    first, calls = record[REQUEST_ID], record[CALLS]
    everyone = [advanced(first, place) for place in range(calls)]

    assert [call.request_id for call in calls_of(record, Kind.REQUEST)] == everyone
    assert {block_of(each) for each in everyone} == {block_of(first)}


@given(one=ids, other=ids)
def test_a_block_is_an_id_without_its_last_five_bits(one: bytes, other: bytes) -> None:
    """The length is kept, and two ids that differ in another bit are in two blocks."""
    assert block_of(one) == one[:-1] + bytes([one[-1] & 0b1110_0000])
    assert block_of(block_of(one)) == block_of(one)
    are_alike = len(one) == len(other) and one[:-1] == other[:-1] and one[-1] >> 5 == other[-1] >> 5
    assert (block_of(one) == block_of(other)) is are_alike


@pytest.mark.parametrize(
    ("request_id", "calls", "then", "block"),
    [
        (b"\x00", 0, b"\x00", b"\x00"),
        (b"\x00", 31, b"\x1f", b"\x00"),
        (b"id\xe0", 31, b"id\xff", b"id\xe0"),
        (b"\xff\x21", 2, b"\xff\x23", b"\xff\x20"),
    ],
)
def test_ids_count_in_their_last_byte(request_id: bytes, calls: int, then: bytes, block: bytes) -> None:
    """From one border of a block to the other."""
    assert advanced(request_id, calls) == then
    assert block_of(request_id) == block_of(then) == block
