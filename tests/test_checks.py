"""What each field of each kind may be: one table of borders for all of them, and what makes a block."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer import records
from zmqinfer.checks import CHECKS
from zmqinfer.errors import EXECUTED, ProtocolError, Status
from zmqinfer.records import (
    ALL_PLACES,
    MAX_BUDGET_US,
    MAX_COUNT,
    MAX_ID_BYTES,
    MAX_MODEL_NUMBER,
    MAX_RECORDS,
    MAX_ROWS,
    MAX_TAG,
    MAX_TAGS,
    MAX_TEXT,
    OUTPUT,
    PAYLOAD,
    PLACES,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    REQUEST_ID,
    RESULT,
    ROWS,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import MAX_LAYOUT_BYTES
from zmqinfer.wire import VERSION, decode

SIGNATURE: Record = [[["x", "FP32", [4]]], [["y", "FP32", [4]]]]
VALID: dict[Kind, Record] = {
    Kind.HELLO: [b"s" * 16, "agent", None, None],
    Kind.WELCOME: [b"s" * 16, "agent", 500, 2**20, [["m", 1, SIGNATURE, 32, True, False]]],
    Kind.REQUEST: [1, 1, b"id", "m", None, None, 1_000_000, 4, 1, None, 1, b"layout", b"body"],
    Kind.REPLY: [1, 1, 0, b"layout", b"body", "w1", 1, 1, 1, None, 1, 10, 20],
    Kind.CANCEL: [1, 1],
    Kind.READY: [b"s" * 16, "w1", "agent", 1_000, None],
    Kind.MODELS: [0, ["m", 1, SIGNATURE, 32, 64, True]],
    Kind.HEARTBEAT: [0, 64, 0, None, []],
    Kind.DISCONNECT: ["closing", ""],
    Kind.STATS: [1, "status", None, 0, 1],
    Kind.ADMIN: [1, "drain", "w1", None, ""],
}
FAILED: Record = [1, 1, int(Status.NOT_FOUND), "a sentence", None, "", 0, 0, 0, 5, 0, 0, 0]


def integer(low: int, high: int, what: str) -> tuple[str, list[Any], list[Any]]:
    return what, [low, high], [low - 1, high + 1, "1", 1.0, True, b"1", None, [1]]


def octets(low: int, high: int, what: str) -> tuple[str, list[Any], list[Any]]:
    too_short = [bytes(low - 1)] if low else []
    return what, [bytes(low), bytes(high)], [*too_short, bytes(high + 1), "x" * max(low, 1), 1, None]


def text(low: int, high: int, what: str) -> tuple[str, list[Any], list[Any]]:
    too_short = ["x" * (low - 1)] if low else []
    return what, ["x" * low, "x" * high], [*too_short, "x" * (high + 1), b"x", 1, None]


def optional(rule: tuple[str, list[Any], list[Any]]) -> tuple[str, list[Any], list[Any]]:
    what, good, bad = rule
    return what, [*good, None], [value for value in bad if value is not None]


def truth(what: str) -> tuple[str, list[Any], list[Any]]:
    return what, [True, False], [0, 1, "true", b"", []]


NAME_BORDERS = (["m", "x" * 128, "A-z0._:9"], ["", "x" * 129, "a b", "ä", "a\n", b"m", 1, None])
SESSION = octets(16, 16, "session")
AGENT = text(0, MAX_ID_BYTES, "agent")
OLD_TAG = integer(0, MAX_TAG, "tag")
SOME_CALLS = integer(1, ALL_PLACES, "places")
# The other fields of a valid record are those of one call; more follow under Blocks.
ONE_CALL = ("places", [1], SOME_CALLS[2])

# kind, position: the name that an error gives the field, values at the limits, values beyond them.
BORDERS: dict[tuple[Kind, int], tuple[str, list[Any], list[Any]]] = {
    (Kind.REQUEST, TAG): OLD_TAG,
    (Kind.REQUEST, PLACES): ONE_CALL,
    (Kind.REQUEST, REQUEST_ID): octets(1, MAX_ID_BYTES, "request_id"),
    (Kind.REQUEST, records.MODEL): text(1, MAX_ID_BYTES, "model"),
    (Kind.REQUEST, records.MODEL_VERSION): optional(integer(1, MAX_COUNT, "version")),
    (Kind.REQUEST, records.KEY): (
        "key",
        [None, [b""], [b"k" * MAX_ID_BYTES]],
        [b"k", "k", ["k"], [None], [b"k" * (MAX_ID_BYTES + 1)], 1],
    ),
    (Kind.REQUEST, records.BUDGET_US): integer(0, MAX_BUDGET_US, "budget"),
    (Kind.REQUEST, records.PRIORITY): integer(1, 8, "priority"),
    (Kind.REQUEST, records.ATTEMPT): integer(1, 255, "attempt"),
    (Kind.REQUEST, records.IDEMPOTENT): optional(truth("idempotent")),
    (Kind.REQUEST, ROWS): integer(1, MAX_ROWS, "rows"),
    (Kind.REQUEST, records.LAYOUT): octets(0, MAX_LAYOUT_BYTES, "layout"),
    (Kind.REQUEST, PAYLOAD): ("payload", [b"", b"x" * 100_000, [0]], ["x", 1, None, 1.0, True]),
    (Kind.REPLY, TAG): OLD_TAG,
    (Kind.REPLY, PLACES): ONE_CALL,
    (Kind.REPLY, STATUS): ("status", [0], [-1, len(Status), "0", 0.0, False, None]),
    (Kind.REPLY, RESULT): ("result", [b"", bytes(MAX_LAYOUT_BYTES)], [1, None, [b""]]),
    (Kind.REPLY, OUTPUT): ("do not go together", [b"", [0]], ["x", 1, None]),
    (Kind.REPLY, records.WORKER): text(0, MAX_ID_BYTES, "worker"),
    (Kind.REPLY, records.SERVED_VERSION): integer(0, MAX_COUNT, "version"),
    (Kind.REPLY, records.ATTEMPTS): integer(0, 255, "attempts"),
    (Kind.REPLY, records.RAN): integer(0, len(EXECUTED) - 1, "executed"),
    (Kind.REPLY, records.RETRY_AFTER_MS): optional(integer(0, MAX_COUNT, "retry_after")),
    (Kind.REPLY, records.BATCH_ROWS): integer(0, MAX_COUNT, "batch_rows"),
    (Kind.REPLY, records.QUEUE_US): integer(0, MAX_COUNT, "queue time"),
    (Kind.REPLY, records.COMPUTE_US): integer(0, MAX_COUNT, "compute time"),
    (Kind.HELLO, 0): SESSION,
    (Kind.HELLO, 1): AGENT,
    (Kind.HELLO, 2): optional(octets(0, 1_024, "credentials")),
    (Kind.HELLO, 3): optional(octets(0, MAX_ID_BYTES, "host")),
    (Kind.WELCOME, 0): SESSION,
    (Kind.WELCOME, 1): AGENT,
    (Kind.WELCOME, 2): integer(1, 60_000, "heartbeat"),
    (Kind.WELCOME, 3): integer(0, MAX_COUNT, "largest body"),
    (Kind.WELCOME, 4): (
        "models",
        [[], [["m", 1, SIGNATURE, 32, True, True]] * MAX_RECORDS, [["m", 1, SIGNATURE, 32, True, False, "more"]]],
        [
            None,
            "m",
            [1],
            [["m"]],
            [["m", 1, SIGNATURE, 32, True, True]] * (MAX_RECORDS + 1),
            [["", 1, SIGNATURE, 32, True, True]],
            [["m", 0, SIGNATURE, 32, True, True]],
            [["m", 1, None, 32, True, True]],
            [["m", 1, SIGNATURE, 0, True, True]],
            [["m", 1, SIGNATURE, 32, None, True]],
            [["m", 1, SIGNATURE, 32, True]],
            [["m", 1, SIGNATURE, 32, True, None]],
        ],
    ),
    (Kind.READY, 0): SESSION,
    (Kind.READY, 1): ("name", *NAME_BORDERS),
    (Kind.READY, 2): AGENT,
    (Kind.READY, 3): integer(1, 1_000_000, "weight"),
    (Kind.READY, 4): optional(octets(0, MAX_ID_BYTES, "host")),
    (Kind.MODELS, 0): integer(0, MAX_MODEL_NUMBER, "model"),
    (Kind.MODELS, 1): (
        "card",
        [None, ["m", 1, SIGNATURE, MAX_ROWS, MAX_ROWS * 16, False], ["m", 1, SIGNATURE, 1, 0, True, True]],
        [
            [],
            ["m", 1, SIGNATURE, 32, 64],
            ["a b", 1, SIGNATURE, 32, 64, True],
            ["m", "1", SIGNATURE, 32, 64, True],
            ["m", 1, "x", 32, 64, True],
            ["m", 1, SIGNATURE, MAX_ROWS + 1, 64, True],
            ["m", 1, SIGNATURE, 32, -1, True],
            ["m", 1, SIGNATURE, 32, MAX_ROWS * 16 + 1, True],
            ["m", 1, SIGNATURE, 32, 64, 1],
        ],
    ),
    (Kind.CANCEL, TAG): OLD_TAG,
    (Kind.CANCEL, PLACES): SOME_CALLS,
    (Kind.HEARTBEAT, 0): integer(0, MAX_MODEL_NUMBER, "model"),
    (Kind.HEARTBEAT, 1): integer(0, MAX_ROWS * 16, "credits"),
    (Kind.HEARTBEAT, 2): integer(0, MAX_COUNT, "load"),
    (Kind.HEARTBEAT, 3): optional(integer(0, MAX_COUNT, "running time")),
    (Kind.HEARTBEAT, 4): (
        "tags",
        [[], [0, MAX_TAG], [1] * MAX_TAGS],
        [None, 1, [None], [-1], [MAX_TAG + 1], [True], [1] * (MAX_TAGS + 1)],
    ),
    (Kind.DISCONNECT, 0): text(1, 64, "reason"),
    (Kind.DISCONNECT, 1): text(0, MAX_TEXT, "detail"),
    (Kind.STATS, 0): OLD_TAG,
    (Kind.STATS, 1): text(1, 64, "subject"),
    (Kind.STATS, 2): ("answer", [None, b"", bytes(100_000)], ["x", 1, [], True]),
    (Kind.STATS, 3): integer(0, MAX_COUNT, "page"),
    (Kind.STATS, 4): integer(1, MAX_COUNT, "pages"),
    (Kind.ADMIN, 0): OLD_TAG,
    (Kind.ADMIN, 1): text(1, 64, "command"),
    (Kind.ADMIN, 2): text(0, MAX_TEXT, "argument"),
    (Kind.ADMIN, 3): optional(integer(0, len(Status) - 1, "status")),
    (Kind.ADMIN, 4): text(0, MAX_TEXT, "detail"),
}


def changed(record: Record, fields: dict[int, Any]) -> Record:
    return [fields.get(at, value) for at, value in enumerate(record)]


def with_field(kind: Kind, at: int, value: Any) -> Record:
    return changed(VALID[kind], {at: value})


def cases(which: int) -> list[Any]:
    return [
        pytest.param(kind, at, border[0], value, id=f"{kind.name}-{at}-{number}")
        for (kind, at), border in BORDERS.items()
        for number, value in enumerate(border[which])
    ]


def test_every_field_of_every_kind_has_a_row_in_the_table() -> None:
    """A field that is added without its limits fails here."""
    assert set(CHECKS) == set(Kind) == set(VALID)
    assert set(BORDERS) == {(kind, at) for kind, record in VALID.items() for at in range(len(record))}
    assert (len(VALID[Kind.REQUEST]), len(VALID[Kind.REPLY])) == (REQUEST_FIELDS, REPLY_FIELDS)


@pytest.mark.parametrize("kind", Kind)
def test_valid_records_pass(kind: Kind) -> None:
    """None, one or many."""
    CHECKS[kind]([])
    CHECKS[kind]([VALID[kind]])
    CHECKS[kind]([VALID[kind]] * 3)


@pytest.mark.parametrize(("kind", "at", "what", "value"), cases(1))
def test_a_value_at_its_limit_passes(kind: Kind, at: int, what: str, value: object) -> None:
    """The limits are themselves allowed."""
    CHECKS[kind]([with_field(kind, at, value)])


@pytest.mark.parametrize(("kind", "at", "what", "value"), cases(2))
def test_a_value_beyond_its_limit_is_refused_by_the_name_of_its_field(
    kind: Kind, at: int, what: str, value: object
) -> None:
    """The sentence says which kind and which field, whichever record of the message it is in."""
    for sent in ([with_field(kind, at, value)], [VALID[kind], with_field(kind, at, value)]):
        with pytest.raises(ProtocolError) as caught:
            CHECKS[kind](sent)
        sentence = str(caught.value)
        assert kind.name in sentence
        assert what in sentence
        assert len(sentence) < 300, "what a peer sent is quoted in part only"


@pytest.mark.parametrize("kind", Kind)
@pytest.mark.parametrize("what", [None, 1, "x", b"", {}, "short"])
def test_a_record_that_is_no_list_of_enough_fields_is_refused(kind: Kind, what: object) -> None:
    """The sentence says how many were expected."""
    record = VALID[kind][:-1] if what == "short" else what

    with pytest.raises(ProtocolError, match=rf"{kind.name} that is no list of {len(VALID[kind])} fields"):
        CHECKS[kind]([record])


@pytest.mark.parametrize("kind", Kind)
def test_fields_behind_the_known_ones_are_let_through(kind: Kind) -> None:
    """A newer release may say more."""
    record = [*VALID[kind], "trace", {"a": 1}, [1, 2]]

    CHECKS[kind]([record])

    assert record[len(VALID[kind]) :] == ["trace", {"a": 1}, [1, 2]]


def test_a_reply_without_a_result_has_a_sentence_and_perhaps_a_place() -> None:
    """The types of result and output go with the status, both ways."""
    CHECKS[Kind.REPLY]([FAILED, changed(FAILED, {OUTPUT: "queue"})])

    for at, value in ((RESULT, b"layout"), (OUTPUT, b"body"), (OUTPUT, [0]), (STATUS, 0)):
        with pytest.raises(ProtocolError, match="fields do not go together"):
            CHECKS[Kind.REPLY]([changed(FAILED, {at: value})])
    for result in ("text", bytes(MAX_LAYOUT_BYTES + 1)):
        with pytest.raises(ProtocolError, match="fields do not go together"):
            CHECKS[Kind.REPLY]([with_field(Kind.REPLY, RESULT, result)])


# Blocks ------------------------------------------------------------------------------------------


def request(calls: int, *, last: int = 0, **fields: Any) -> Record:
    """A REQUEST for calls, a bit set, the id of which ends in `last`."""
    rows = max(0, calls).bit_count()
    own = {PLACES: calls, REQUEST_ID: b"id" + bytes([last]), ROWS: rows, PAYLOAD: b"body" * rows}
    return changed(VALID[Kind.REQUEST], own | {getattr(records, name): value for name, value in fields.items()})


def reply(calls: int, *, output: Any = None) -> Record:
    """A REPLY to calls, a bit set."""
    own = {PLACES: calls, OUTPUT: b"body" * max(0, calls).bit_count() if output is None else output}
    return changed(VALID[Kind.REPLY], own)


# kind, a record at a limit, records beyond it.
BLOCKS: dict[str, tuple[Kind, Record, list[Record]]] = {
    "places": (Kind.REQUEST, request(ALL_PLACES), [request(ALL_PLACES + 1), request(0), request(-1)]),
    "ids": (Kind.REQUEST, request(0b101, last=224), [request(0b101, last=225), request(0b10, last=1)]),
    "rows": (Kind.REQUEST, request(0b111), [request(0b111, ROWS=2), request(0b111, ROWS=4), request(0b11, ROWS=1)]),
    "sizes": (Kind.REQUEST, request(0b1101, PAYLOAD=b"123"), [request(0b1101, PAYLOAD=b"12")]),
    "nothing": (Kind.REQUEST, request(0b111, PAYLOAD=b""), []),
    "parts": (Kind.REQUEST, request(0b100, PAYLOAD=[0]), [request(0b11, PAYLOAD=[0]), request(0b11, PAYLOAD=[0, 1])]),
    "one call": (Kind.REQUEST, request(1, last=255, ROWS=7, PAYLOAD=b"12345"), []),
    "keys": (
        Kind.REQUEST,
        request(0b101, KEY=[b"", b"k" * MAX_ID_BYTES]),
        [request(0b101, KEY=keys) for keys in ([b"k"], [b"k"] * 3, [b"k", None], [b"k", "k"], [], [b"k", b"k" * 129])],
    ),
    "answered calls": (Kind.REPLY, reply(ALL_PLACES), [reply(ALL_PLACES + 1), reply(0)]),
    "outputs": (Kind.REPLY, reply(0b111, output=b"123"), [reply(0b111, output=b"12"), reply(0b111, output=b"1234")]),
    "no outputs": (Kind.REPLY, reply(0b111, output=b""), []),
    "output parts": (Kind.REPLY, reply(0b10, output=[0]), [reply(0b11, output=[0]), reply(0b11, output=[0, 1])]),
    "one answer": (Kind.REPLY, reply(1, output=b"12345"), []),
    "one sentence": (Kind.REPLY, changed(FAILED, {PLACES: ALL_PLACES}), [changed(FAILED, {PLACES: ALL_PLACES + 1})]),
    "cancelled": (Kind.CANCEL, [0, ALL_PLACES], [[0, ALL_PLACES + 1], [0, 0]]),
}


@pytest.mark.parametrize("rule", BLOCKS)
def test_a_block_at_its_limit_passes_and_beyond_it_is_refused(rule: str) -> None:
    """Whatever is wrong, the sentence says of which kind the record was, and fields behind change nothing."""
    kind, good, bad = BLOCKS[rule]
    CHECKS[kind]([good, [*good, "trace"]])

    for record in bad:
        for sent in (record, [*record, "trace"]):
            with pytest.raises(ProtocolError, match=rf"a {kind.name} (with a bad (places|key)|whose fields)"):
                CHECKS[kind]([good, sent])


# Depth -------------------------------------------------------------------------------------------


def nested(depth: int) -> Record:
    value: Record = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("kind", Kind)
def test_a_deeply_nested_field_is_refused_like_any_other(kind: Kind) -> None:
    """Quoting what came must not exhaust the stack: msgpack unpacks a thousand levels."""
    with pytest.raises(ProtocolError):
        CHECKS[kind]([with_field(kind, 0, nested(5_000))])


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.REPLY])
def test_a_deeply_nested_field_is_not_forwarded(kind: Kind) -> None:
    """What is forwarded must be packed again, and msgpack packs fewer levels than it unpacks."""
    CHECKS[kind]([[*VALID[kind], nested(5)]])

    with pytest.raises(ProtocolError, match="nested"):
        CHECKS[kind]([[*VALID[kind], 1, nested(5_000)]])


# Anything that msgpack can bring, and more.
anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.binary(max_size=20)
    | st.text(max_size=20)
    | st.builds(msgpack.ExtType, st.integers(0, 127), st.just(b"")),
    lambda inner: st.lists(inner, max_size=8),
    max_leaves=20,
)


@settings(max_examples=150)
@given(kind=st.sampled_from(Kind), fields=st.dictionaries(st.integers(0, 12), anything, max_size=3), more=anything)
@pytest.mark.slow
def test_any_fields_give_a_record_or_a_protocol_error(kind: Kind, fields: dict[int, object], more: object) -> None:
    """Nothing else comes out of a check, and whatever passes keeps the table's types."""
    record = [*VALID[kind], more]
    for at, value in fields.items():
        if at < len(VALID[kind]):
            record[at] = value

    try:
        CHECKS[kind]([record])
    except ProtocolError:
        return

    for (which, at), (_, good, _) in BORDERS.items():
        if which is kind and not (kind is Kind.REPLY and record[STATUS]):
            assert type(record[at]) in {type(value) for value in good}, (at, record[at])


@pytest.mark.parametrize("kind", [Kind.REQUEST, Kind.REPLY])
@pytest.mark.parametrize(
    ("added", "fits"),
    [
        ([b"x" * 4_000], True),
        ([b"x" * 5_000], False),
        ([[1.5] * 440], True),
        ([[1.5] * 500], False),  # four bytes each as they came, nine as they leave
    ],
)
def test_added_fields_are_bounded_as_they_will_leave(kind: Kind, added: list[object], fits: bool) -> None:
    """What fits one head must fit the next: a worker that drops a request keeps its credit."""
    packed = msgpack.packb([VERSION, kind, [[*VALID[kind], *added]]], use_single_float=True)
    if fits:
        assert decode(packed, [])[1][0][len(VALID[kind]) :] == added
    else:
        with pytest.raises(ProtocolError, match="bytes behind its 13 fields"):
            decode(packed, [])
