"""Messages: any bytes in, records or one error out; records in, messages within the bounds out."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.test_checks import FAILED, VALID, reply, request
from zmqinfer.errors import ProtocolError, Status
from zmqinfer.records import ALL_PLACES, MAX_RECORDS, MAX_TAG, PAYLOAD_AT, TAG, Kind, Record
from zmqinfer.tensor import Buffer, payload_bytes
from zmqinfer.wire import MAX_BUNDLE_BYTES, MAX_HEAD_BYTES, MAX_PARTS, VERSION, decode, encode


def carrying(payload: object, kind: Kind = Kind.REQUEST, tag: int = 1) -> Record:
    record = list(VALID[kind])
    record[TAG] = tag
    record[PAYLOAD_AT[kind]] = payload
    return record


def size_of(records: list[Record], kind: Kind = Kind.REQUEST) -> int:
    at = PAYLOAD_AT.get(kind)
    return 0 if at is None else sum(payload_bytes(record[at] or b"") for record in records)


def messages(kind: Kind, records: list[Record], size: int | None = None) -> list[tuple[int, list[Buffer]]]:
    return list(encode(kind, records, size_of(records, kind) if size is None else size))


def heads(kind: int, records: object, version: int = VERSION, *more: object) -> bytes:
    packed = msgpack.packb([version, kind, records, *more])
    assert isinstance(packed, bytes)
    return packed


def received(kind: Kind, sent: list[tuple[int, list[Buffer]]]) -> list[Record]:
    """What the other end makes of the messages."""
    records: list[Record] = []
    for count, (head, *parts) in sent:
        got, some = decode(bytes(head), parts)
        assert (got, len(some)) == (kind, count)
        records += some
    return records


# Round trips -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("count", [1, 2, MAX_RECORDS, MAX_RECORDS + 1, 1_000])
def test_what_was_encoded_is_decoded(kind: Kind, count: int) -> None:
    """For every kind and any number of records, in order, with what follows the known fields."""
    records = [[*VALID[kind], number, "unknown"] for number in range(count)]

    assert received(kind, messages(kind, records)) == records


@pytest.mark.parametrize("size", [0, 2**40])
def test_a_bare_heartbeat_is_a_message(size: int) -> None:
    """The only kind that may have no records, whatever else waits in the outbox."""
    ((count, (head,)),) = messages(Kind.HEARTBEAT, [], size)

    assert count == 0
    assert decode(bytes(head), []) == (Kind.HEARTBEAT, [])


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.HEARTBEAT])
def test_other_kinds_say_nothing_without_records(kind: Kind) -> None:
    """A machine may so count on a first record."""
    with pytest.raises(ProtocolError, match="no records"):
        decode(heads(kind, []), [])


buffers = st.integers(0, 40).map(bytes) | st.integers(0, 40).map(lambda size: memoryview(bytearray(size)))
payloads = st.binary(max_size=40) | st.lists(buffers, min_size=1, max_size=5)


@settings(max_examples=60)
@given(kind=st.sampled_from([Kind.REQUEST, Kind.REPLY]), bodies=st.lists(payloads, min_size=1, max_size=80))
def test_payloads_out_of_band_come_back_as_those_very_buffers(kind: Kind, bodies: list[Any]) -> None:
    """Indices are renumbered for each message, and the caller's records are left alone."""
    records = [carrying(body, kind, tag) for tag, body in enumerate(bodies)]
    before = [list(record) for record in records]

    sent = messages(kind, records)
    back = received(kind, sent)

    assert records == before
    assert [record[TAG] for record in back] == list(range(len(bodies)))
    for record, body in zip(back, bodies, strict=True):
        payload = record[PAYLOAD_AT[kind]]
        if type(body) is list:
            assert len(payload) == len(body)
            assert all(one is other for one, other in zip(payload, body, strict=True))
        else:
            assert payload == body


def test_replies_without_a_result_travel_beside_others() -> None:
    """Their output is a step's name or nil, not a payload."""
    where: Record = [3, 1, int(Status.DEADLINE_EXCEEDED), "a sentence", "queue", "", 0, 0, 0, None, 0, 0, 0]
    whole = carrying([b"big" * 100], Kind.REPLY)

    assert received(Kind.REPLY, messages(Kind.REPLY, [FAILED, whole, where], 300)) == [FAILED, whole, where]


more_fields = st.lists(st.integers(0, 2**64 - 1) | st.binary(max_size=4), max_size=2)


@st.composite
def blocks(draw: st.DrawFn, kind: Kind) -> Record:
    """A record for one call or several, with whatever may follow its fields."""
    calls = draw(st.integers(1, ALL_PLACES))
    size = calls.bit_count() * draw(st.integers(0, 40))
    body = draw(st.binary(min_size=size, max_size=size))
    if kind is Kind.REQUEST:
        return [*request(calls, last=224, PAYLOAD=body), *draw(more_fields)]
    if kind is Kind.REPLY:
        return [*reply(calls, output=body), *draw(more_fields)]
    return [draw(st.integers(0, MAX_TAG)), calls, *draw(more_fields)]


@settings(max_examples=60)
@given(content=st.data(), kind=st.sampled_from([Kind.REQUEST, Kind.REPLY, Kind.CANCEL]), is_large=st.booleans())
def test_blocks_come_back_as_they_were(content: st.DataObject, kind: Kind, is_large: bool) -> None:
    """Beside single calls, in parts or not, whichever way the message is filled."""
    single = [carrying([b"part", b""], kind, tag=1)] if kind in PAYLOAD_AT else [VALID[kind]]
    records = content.draw(st.lists(st.sampled_from(single) | blocks(kind), min_size=1, max_size=20))

    assert received(kind, messages(kind, records, is_large * 2**40)) == records


# Bounds ------------------------------------------------------------------------------------------


def assert_bounds(kind: Kind, sent: list[tuple[int, list[Buffer]]]) -> None:
    for count, (head, *parts) in sent:
        assert count <= MAX_RECORDS
        assert len(head) <= MAX_HEAD_BYTES
        assert len(parts) <= MAX_PARTS
        carriers = sum(type(record[PAYLOAD_AT[kind]]) is list for record in decode(bytes(head), parts)[1])
        assert carriers <= 1 or sum(map(len, parts)) <= MAX_BUNDLE_BYTES


sizes = st.sampled_from([0, 1, 20_000, 32_768, 300_000, MAX_BUNDLE_BYTES // 2, MAX_BUNDLE_BYTES, MAX_BUNDLE_BYTES + 1])
shared = {size: bytes(size) for size in (0, 1, 20_000, 32_768, 300_000, 2**19, 2**20, 2**20 + 1)}


@settings(max_examples=40)
@given(
    bodies=st.lists(
        st.lists(sizes, min_size=1, max_size=16) | st.sampled_from([0, 1, 20_000, 32_768]), min_size=1, max_size=60
    ),
    more=st.sampled_from([b"", bytes(4_000)]),
)
def test_no_message_is_over_the_bounds(bodies: list[Any], more: bytes) -> None:
    """256 records, 1 MiB of head, 64 parts, and 1 MiB out of band unless a record has them alone."""
    records = [
        [*carrying([shared[size] for size in body] if type(body) is list else shared[body], tag=tag), more]
        for tag, body in enumerate(bodies)
    ]

    sent = messages(Kind.REQUEST, records)

    assert_bounds(Kind.REQUEST, sent)
    assert [record[TAG] for record in received(Kind.REQUEST, sent)] == list(range(len(records)))


@pytest.mark.parametrize(
    ("record", "count", "expected"),
    [
        (VALID[Kind.REQUEST], MAX_RECORDS * 2 + 1, [MAX_RECORDS, MAX_RECORDS, 1]),
        (carrying([b"x"]), MAX_PARTS + 1, [MAX_PARTS, 1]),
        (carrying([b"x"] * 3), 22, [21, 1]),
        (carrying([bytes(MAX_BUNDLE_BYTES // 2)]), 5, [2, 2, 1]),
        (carrying([bytes(MAX_BUNDLE_BYTES)]), 2, [1, 1]),
        (carrying([bytes(MAX_BUNDLE_BYTES * 3)]), 2, [1, 1]),
    ],
)
def test_a_message_is_filled_up_to_each_bound(record: Record, count: int, expected: list[int]) -> None:
    """Exactly at the bound, and the next record begins another message."""
    sent = messages(Kind.REQUEST, [list(record) for _ in range(count)])

    assert [count for count, _ in sent] == expected


def test_a_full_head_begins_another_message() -> None:
    """Inline bodies fill the head."""
    sent = messages(Kind.REQUEST, [carrying(bytes(32_768), tag=tag) for tag in range(100)])

    assert_bounds(Kind.REQUEST, sent)
    assert len(sent) == 4


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (Kind.STATS, [1, "status", bytes(300_000), 0, 1]),
        (Kind.REQUEST, [*VALID[Kind.REQUEST], bytes(4_000)]),
        (Kind.REQUEST, request(ALL_PLACES, PAYLOAD=bytes(32 * 1_024))),
        (Kind.REPLY, [1, 1, 12, "x" * 16_000, None, "", 0, 0, 0, None, 0, 0, 0]),
    ],
)
def test_the_head_stays_in_bounds_whatever_fills_it(kind: Kind, record: Record) -> None:
    """Not only payloads are long: answers to STATS, sentences, and fields that are only passed on."""
    records = [list(record) for _ in range(100)]

    sent = messages(kind, records, 0)

    assert max(len(head) for _, (head,) in sent) <= MAX_HEAD_BYTES
    assert received(kind, sent) == records


def test_messages_are_made_one_at_a_time() -> None:
    """A caller whose socket is full stops asking, and nothing was made in vain."""
    first = next(iter(encode(Kind.REQUEST, [carrying([bytes(2**20)], tag=tag) for tag in range(3)], 3 * 2**20)))

    assert first[0] == 1


# Hostile bytes -----------------------------------------------------------------------------------


def outcome(head: bytes, parts: list[Buffer]) -> None:
    """Decodes; what comes out are records, which can be sent on if they are of a kind that is, or one ProtocolError."""
    try:
        kind, records = decode(head, parts)
    except ProtocolError:
        return
    assert kind in Kind
    assert all(type(record) is list for record in records)
    assert records or kind is Kind.HEARTBEAT
    if kind in {Kind.REQUEST, Kind.REPLY}:
        list(encode(kind, records, sum(map(len, parts))))


@settings(max_examples=200)
@given(head=st.binary(max_size=200), parts=st.lists(st.binary(max_size=5), max_size=3))
def test_any_bytes_give_records_or_a_protocol_error(head: bytes, parts: list[Buffer]) -> None:
    """Random bytes are hardly ever msgpack, but then they are anything."""
    outcome(head, parts)


@settings(max_examples=300)
@given(
    kind=st.sampled_from(Kind),
    edits=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255), st.sampled_from("sid")), max_size=4),
    parts=st.lists(st.binary(max_size=5), max_size=2),
)
@pytest.mark.slow
def test_a_spoiled_message_gives_records_or_a_protocol_error(
    kind: Kind, edits: list[tuple[int, int, str]], parts: list[Buffer]
) -> None:
    """Valid messages with some bytes changed, inserted or cut out reach deeper."""
    record = carrying([b"x"], kind) if kind in PAYLOAD_AT and parts else VALID[kind]
    head = bytearray(messages(kind, [record, record])[0][1][0])
    for at, value, what in edits:
        at %= len(head)
        head[at : at + (what != "i")] = b"" if what == "d" else bytes([value])

    outcome(bytes(head), parts)


scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(max_size=10)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=3))
)
structures = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=2), inner), max_leaves=30
)


@settings(max_examples=200)
@given(message=structures | st.tuples(st.just(VERSION), st.integers(0, 12) | scalars, structures))
@pytest.mark.slow
def test_any_structure_gives_records_or_a_protocol_error(message: object) -> None:
    """What is msgpack, but not ours."""
    packed = msgpack.packb(message)
    assert isinstance(packed, bytes)

    outcome(packed, [])


@pytest.mark.parametrize("depth", [400, 520, 900, 1_000, 1_015, 1_030, 100_000])
@pytest.mark.parametrize("kind", Kind)
def test_deep_nesting_is_refused(kind: Kind, depth: int) -> None:
    """Wherever it hides: in a field, behind the fields, in place of the records."""
    deep = b"\x91" * depth + b"\xc0"
    fields = [msgpack.packb(field) for field in VALID[kind]]
    array = b"\xdc" + len(fields).to_bytes(2, "big")
    longer = b"\xdc" + (len(fields) + 1).to_bytes(2, "big")
    prefix = b"\x93" + bytes([VERSION, kind])

    with pytest.raises(ProtocolError):
        decode(prefix + b"\x91" + array + deep + b"".join(fields[1:]), [])
    with pytest.raises(ProtocolError):
        decode(prefix + deep, [])
    with pytest.raises(ProtocolError):
        decode(b"\x93\x01" + deep + b"\x90", [])
    outcome(prefix + b"\x91" + longer + b"".join(fields) + deep, [])


@pytest.mark.parametrize(
    "head",
    [
        *(b"", b"\x90", b"\xc0", b"\x80"),
        *map(msgpack.packb, ([1, 3], {1: 2}, ["1", 3, []], [True, 3, []], [1.0, 3, []])),
        heads(3, []) + b"\x00",
        heads(3, {}),
        *(prefix + b"\xff\xff\xff\xff" for prefix in (b"\xdd", b"\x93\x01\x03\xdd", b"\x93\x01\x03\xc6")),
        b"\x93\x01\x03\xd9\x02\xff\xff",
    ],
)
def test_a_head_that_is_none_is_refused(head: bytes) -> None:
    """Too short, of other types, longer than it says, or promising more than it brings."""
    with pytest.raises(ProtocolError, match=r"head|records"):
        decode(head, [])


@pytest.mark.parametrize("version", [0, 2, 200, -1, 2**64 - 1])
def test_another_version_is_refused_by_naming_both(version: int) -> None:
    """Whatever else its message says."""
    with pytest.raises(ProtocolError, match=rf"version {version} came, this side speaks {VERSION}"):
        decode(heads(200, "whatever", version), [])


@pytest.mark.parametrize("kind", [0, 12, -1, 2**64 - 1, "REQUEST", None, True, 3.0, [3], b"\x03"])
def test_an_unknown_kind_is_refused(kind: Any) -> None:
    """A kind is one of the numbers, and nothing that equals one."""
    with pytest.raises(ProtocolError, match=r"kind .* is not known in version 1"):
        decode(heads(kind, []), [])


def test_too_many_records_are_refused() -> None:
    """The bound holds for those who do not keep it."""
    assert len(decode(heads(Kind.CANCEL, [[1, 1]] * MAX_RECORDS), [])[1]) == MAX_RECORDS

    with pytest.raises(ProtocolError, match="256"):
        decode(heads(Kind.CANCEL, [[1, 1]] * (MAX_RECORDS + 1)), [])


def test_a_head_over_its_limit_is_refused_unread() -> None:
    """The limit itself is allowed."""
    first, size = carrying(bytes(2**19)), 2**19 - 1_000
    overhead = len(heads(Kind.REQUEST, [first, carrying(bytes(size))])) - size
    largest = heads(Kind.REQUEST, [first, carrying(bytes(MAX_HEAD_BYTES - overhead))])
    assert len(largest) == MAX_HEAD_BYTES
    decode(largest, [])

    with pytest.raises(ProtocolError, match="1,048,577 bytes, expected at most 1,048,576"):
        decode(largest + b"\x00", [])


def test_later_items_of_a_head_are_skipped() -> None:
    """They may mean something to a newer release of the same version."""
    assert decode(heads(Kind.CANCEL, [[7, 2]], VERSION, "more", 1), []) == (Kind.CANCEL, [[7, 2]])


@pytest.mark.parametrize(
    ("indices", "parts"),
    [
        ([], 1),  # nobody claims it
        ([b"inline"], 1),
        ([[0]], 0),  # nobody brought it
        *[([[index]], 2) for index in (0, 1)],
        ([[0], [0]], 1),  # claimed twice
        ([[0], [0]], 2),
        ([[0, 0]], 2),
        ([[1], [0]], 2),  # out of order
        ([[1, 0]], 2),
        ([[0, 2], [1]], 3),
        *[([[]], parts) for parts in (0, 1)],  # a list of none
        *[([[index]], 1) for index in (-1, "0", None, 2**64 - 1)],
        ([list(range(MAX_PARTS + 1))], MAX_PARTS + 1),
    ],
)
@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.REPLY])
def test_parts_are_claimed_once_each_and_in_order(kind: Kind, indices: list[Any], parts: int) -> None:
    """Anything else is refused."""
    records = [carrying(payload, kind) for payload in indices] or [carrying(b"", kind)]

    with pytest.raises(ProtocolError, match="part"):
        decode(heads(kind, records), [b"x"] * parts)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind not in PAYLOAD_AT])
def test_other_kinds_bring_no_parts(kind: Kind) -> None:
    """Nobody could claim them."""
    with pytest.raises(ProtocolError, match="claim 0 parts, 1 came"):
        decode(heads(kind, [VALID[kind]]), [b"x"])
