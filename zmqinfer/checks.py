"""Whether each field of a record is what docs/PROTOCOL.md allows.

REQUEST and REPLY are the per-call path and are checked by straight-line code: 0.55 us for a record
of each, where the tables of rules below took 2.1 us. The other kinds are rare and are checked by
tables, which also word the errors.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack

from zmqinfer.errors import EXECUTED, ProtocolError, Status
from zmqinfer.records import (
    ALL_PLACES,
    MAX_ADDED_BYTES,
    MAX_BUDGET_US,
    MAX_CALLS,
    MAX_COUNT,
    MAX_ID_BYTES,
    MAX_INLINE_BYTES,
    MAX_MODEL_NUMBER,
    MAX_NESTING,
    MAX_RECORDS,
    MAX_ROWS,
    MAX_TAG,
    MAX_TAGS,
    MAX_TEXT,
    PAYLOAD,
    PRIORITIES,
    REPLY_FIELDS,
    REQUEST_FIELDS,
    SESSION_BYTES,
    Kind,
    Record,
)
from zmqinfer.tensor import MAX_LAYOUT_BYTES, MAX_TENSORS, NAME, SharedPayload

__all__ = ["CHECKS"]

_STATUSES = len(Status)


def _check_requests(records: list[Record]) -> bool:
    claims = False
    for record in records:
        if type(record) is not list or len(record) < REQUEST_FIELDS:
            raise ProtocolError(f"a REQUEST that is no list of {REQUEST_FIELDS} fields")
        fields = record if len(record) == REQUEST_FIELDS else _known(record, REQUEST_FIELDS)
        tag, places, request_id, model, version, keys, budget, priority, attempt, idempotent, rows, layout, payload = (
            fields
        )
        if not (
            type(tag) is int
            and 0 <= tag <= MAX_TAG
            and type(places) is int
            and 0 < places <= ALL_PLACES
            and type(request_id) is bytes
            and 0 < len(request_id) <= MAX_ID_BYTES
            and type(model) is str
            and 0 < len(model) <= MAX_ID_BYTES
            and (version is None or (type(version) is int and 0 < version <= MAX_COUNT))
            and (keys is None or (type(keys) is list and _are_keys(keys, places)))
            and type(budget) is int
            and 0 <= budget <= MAX_BUDGET_US
            and type(priority) is int
            and 0 < priority <= PRIORITIES
            and type(attempt) is int
            and 0 < attempt <= 255
            and (idempotent is None or type(idempotent) is bool)
            and type(rows) is int
            and 0 < rows <= MAX_ROWS
            and type(layout) is bytes
            and len(layout) <= MAX_LAYOUT_BYTES
            and (
                (type(payload) is bytes and len(payload) <= MAX_INLINE_BYTES)
                or (type(payload) is list and places & (places - 1) == 0)
            )
            and (places == 1 or _is_block(places.bit_count(), request_id, rows, payload))
        ):
            raise ProtocolError(_first_bad("REQUEST", record, _REQUEST_RULES))
        if type(payload) is list:
            if payload and type(payload[0]) is list:
                record[PAYLOAD] = _shared(payload)
            else:
                claims = True
    return claims


def _check_replies(records: list[Record]) -> bool:
    claims = False
    for record in records:
        if type(record) is not list or len(record) < REPLY_FIELDS:
            raise ProtocolError(f"a REPLY that is no list of {REPLY_FIELDS} fields")
        fields = record if len(record) == REPLY_FIELDS else _known(record, REPLY_FIELDS)
        tag, places, status, result, output, worker, version, attempts, ran, retry_ms, batch_rows, queue, compute = (
            fields
        )
        if not (
            type(tag) is int
            and 0 <= tag <= MAX_TAG
            and type(places) is int
            and 0 < places <= ALL_PLACES
            and type(status) is int
            and 0 <= status < _STATUSES
            and (
                (
                    type(result) is bytes
                    and len(result) <= MAX_LAYOUT_BYTES
                    and (
                        (type(output) is bytes and len(output) <= MAX_INLINE_BYTES)
                        or (type(output) is list and places & (places - 1) == 0)
                    )
                    and (places == 1 or len(output) % places.bit_count() == 0)
                )
                if status == 0
                else (type(result) is str and (output is None or type(output) is str))
            )
            and type(worker) is str
            and len(worker) <= MAX_ID_BYTES
            and type(version) is int
            and 0 <= version <= MAX_COUNT
            and type(attempts) is int
            and 0 <= attempts <= 255
            and type(ran) is int
            and 0 <= ran < len(EXECUTED)
            and (retry_ms is None or (type(retry_ms) is int and 0 <= retry_ms <= MAX_COUNT))
            and type(batch_rows) is int
            and 0 <= batch_rows <= MAX_COUNT
            and type(queue) is int
            and 0 <= queue <= MAX_COUNT
            and type(compute) is int
            and 0 <= compute <= MAX_COUNT
        ):
            raise ProtocolError(_first_bad("REPLY", record, _REPLY_RULES))
        claims |= type(output) is list
    return claims


def _shared(payload: list[Any]) -> SharedPayload:
    """Returns where a payload lies in shared memory: the owner, then an offset and a length for each tensor."""
    owner, spans = payload[0], payload[1:]
    if not (
        2 <= len(owner) <= 3
        and _PROCESS(owner[0])
        and _DESCRIPTOR(owner[1])
        and (len(owner) == 2 or (type(owner[2]) is bytes and len(owner[2]) == SESSION_BYTES))
        and 0 < len(spans) <= 2 * MAX_TENSORS
        and len(spans) % 2 == 0
        and all(map(_COUNT, spans))
    ):
        raise ProtocolError("a REQUEST with a bad payload, expected [[process, descriptor], offset, bytes, ...]")
    return tuple(payload)


def _is_block(calls: int, request_id: bytes, rows: int, payload: Any) -> bool:
    """Whether a record for places of a block may be: an id to count on, and rows and payloads alike."""
    return not request_id[-1] % MAX_CALLS and (calls == 1 or (rows == calls and len(payload) % calls == 0))


def _are_keys(keys: list[Any], places: int) -> bool:
    """Whether there is a routing key for each call."""
    return len(keys) == places.bit_count() and set(map(type, keys)) == {bytes} and max(map(len, keys)) <= MAX_ID_BYTES


def _known(record: Record, fields: int) -> Record:
    """The known fields. Those behind them are forwarded, so they must be such as can be packed again at any hop.

    Else a worker gets a head over the limit, drops it, and its credit never comes back.
    """
    level = record[fields:]
    for _ in range(MAX_NESTING):
        level = [inner for value in level if type(value) is list for inner in value]
    if level:
        raise ProtocolError(f"a record with more than {MAX_NESTING} nested lists behind its {fields} fields")
    # As they will be packed, not as they came: a float of four bytes leaves with eight.
    size = len(msgpack.packb(record[fields:]))
    if size > MAX_ADDED_BYTES:
        raise ProtocolError(f"a record with {size:,} bytes behind its {fields} fields, expected {MAX_ADDED_BYTES:,}")
    return record[:fields]


Rule: TypeAlias = tuple[str, Callable[[Any], bool]]


def _integer(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and low <= value <= high


_PROCESS, _DESCRIPTOR, _COUNT = _integer(1, 2**31 - 1), _integer(0, 2**31 - 1), _integer(0, MAX_COUNT)


def _octets(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is bytes and low <= len(value) <= high


def _text(low: int, high: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is str and low <= len(value) <= high


def _optional(rule: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or rule(value)


def _is_name(value: Any) -> bool:
    return type(value) is str and NAME.fullmatch(value) is not None


def _is_list(value: Any) -> bool:
    return type(value) is list


def _is_bool(value: Any) -> bool:
    return type(value) is bool


def _tags(value: Any) -> bool:
    return type(value) is list and len(value) <= MAX_TAGS and all(map(_integer(0, MAX_TAG), value))


def _list_of(high: int, rules: tuple[Rule, ...]) -> Callable[[Any], bool]:
    """A list of at most `high` records that each keep `rules`."""
    return lambda value: (
        type(value) is list
        and len(value) <= high
        and all(
            type(entry) is list
            and len(entry) >= len(rules)
            and all(rule(field) for (_, rule), field in zip(rules, entry, strict=False))
            for entry in value
        )
    )


def _is_card(value: Any) -> bool:
    """Whether a list describes a model of a worker."""
    return (
        type(value) is list
        and len(value) >= len(_CARD_RULES)
        and all(rule(field) for rule, field in zip(_CARD_RULES, value, strict=False))
    )


_CARD_RULES = (
    _is_name,
    _integer(1, MAX_COUNT),
    _is_list,
    _integer(1, MAX_ROWS),
    _integer(0, MAX_ROWS * 16),
    _is_bool,
)


# Used by the two checks above only to say which field is wrong.
_tag: Rule = (f"tag, expected an integer from 0 to {MAX_TAG}", _integer(0, MAX_TAG))
_places: Rule = (f"places, expected a bit set, 1 to {ALL_PLACES}", _integer(1, ALL_PLACES))
_REQUEST_RULES: tuple[Rule, ...] = (
    _tag,
    _places,
    (f"request_id, expected 1 to {MAX_ID_BYTES} bytes", _octets(1, MAX_ID_BYTES)),
    (f"model, expected a text of 1 to {MAX_ID_BYTES}", _text(1, MAX_ID_BYTES)),
    ("version, expected nil or a positive integer", _optional(_integer(1, MAX_COUNT))),
    (
        f"key, expected nil or a list of at most {MAX_ID_BYTES} bytes each",
        _optional(lambda value: type(value) is list and all(map(_octets(0, MAX_ID_BYTES), value))),
    ),
    (f"budget, expected 0 to {MAX_BUDGET_US} microseconds", _integer(0, MAX_BUDGET_US)),
    (f"priority, expected 1 to {PRIORITIES}", _integer(1, PRIORITIES)),
    ("attempt, expected 1 to 255", _integer(1, 255)),
    ("idempotent, expected nil, true or false", _optional(_is_bool)),
    (f"rows, expected 1 to {MAX_ROWS}", _integer(1, MAX_ROWS)),
    (f"layout, expected at most {MAX_LAYOUT_BYTES} bytes", _octets(0, MAX_LAYOUT_BYTES)),
    (
        f"payload, expected at most {MAX_INLINE_BYTES} bytes or a list of part indices",
        lambda value: type(value) is list or (type(value) is bytes and len(value) <= MAX_INLINE_BYTES),
    ),
)
_REPLY_RULES: tuple[Rule, ...] = (
    _tag,
    _places,
    (f"status, expected 0 to {_STATUSES - 1}", _integer(0, _STATUSES - 1)),
    (
        "result, expected a layout when the status is OK, else a sentence",
        lambda value: type(value) in (bytes, str),
    ),
    ("output, expected a payload when OK, else a step's name or nil", lambda _: True),
    (f"worker, expected at most {MAX_ID_BYTES} characters", _text(0, MAX_ID_BYTES)),
    ("version, expected an integer", _integer(0, MAX_COUNT)),
    ("attempts, expected 0 to 255", _integer(0, 255)),
    (f"executed, expected 0 to {len(EXECUTED) - 1}", _integer(0, len(EXECUTED) - 1)),
    ("retry_after, expected nil or milliseconds", _optional(_integer(0, MAX_COUNT))),
    ("batch_rows, expected an integer", _integer(0, MAX_COUNT)),
    ("queue time, expected microseconds", _integer(0, MAX_COUNT)),
    ("compute time, expected microseconds", _integer(0, MAX_COUNT)),
)

_session: Rule = (f"session, expected {SESSION_BYTES} bytes", _octets(SESSION_BYTES, SESSION_BYTES))

_CONTROL_RULES: dict[Kind, tuple[Rule, ...]] = {
    Kind.HELLO: (
        _session,
        ("agent, expected a text", _text(0, MAX_ID_BYTES)),
        ("credentials, expected nil or bytes", _optional(_octets(0, 1024))),
        ("host, expected nil or bytes", _optional(_octets(0, MAX_ID_BYTES))),
    ),
    Kind.WELCOME: (
        _session,
        ("agent, expected a text", _text(0, MAX_ID_BYTES)),
        ("heartbeat, expected 1 to 60000 ms", _integer(1, 60_000)),
        ("largest body, expected bytes", _integer(0, MAX_COUNT)),
        (
            f"models, expected at most {MAX_RECORDS} of [name, version, signature, max batch, idempotent, local]",
            _list_of(
                MAX_RECORDS,
                (
                    ("name", _is_name),
                    ("version", _integer(1, MAX_COUNT)),
                    ("signature", _is_list),
                    ("max batch", _integer(1, MAX_ROWS)),
                    ("idempotent", _is_bool),
                    ("local", _is_bool),
                ),
            ),
        ),
    ),
    Kind.READY: (
        _session,
        (f"name, expected to match {NAME.pattern}", _is_name),
        ("agent, expected a text", _text(0, MAX_ID_BYTES)),
        ("weight in thousandths, expected 1 to 1000000", _integer(1, 1_000_000)),
        ("host, expected nil or bytes", _optional(_octets(0, MAX_ID_BYTES))),
    ),
    Kind.MODELS: (
        ("model, expected a number", _integer(0, MAX_MODEL_NUMBER)),
        ("card, expected nil or [name, version, signature, max batch, credits, idempotent]", _optional(_is_card)),
    ),
    Kind.CANCEL: (_tag, _places),
    # Clients and gateways send HEARTBEAT without records, workers one for each of their models.
    Kind.HEARTBEAT: (
        ("model, expected the number of a model", _integer(0, MAX_MODEL_NUMBER)),
        ("credits, expected rows", _integer(0, MAX_ROWS * 16)),
        ("load over all gateways, expected rows", _integer(0, MAX_COUNT)),
        (
            "running time of the present batch, expected nil or microseconds",
            _optional(_integer(0, MAX_COUNT)),
        ),
        (
            "tags in the running batch, expected a list of tags",
            _tags,
        ),
    ),
    Kind.DISCONNECT: (
        ("reason, expected a word", _text(1, 64)),
        ("detail, expected a sentence", _text(0, MAX_TEXT)),
    ),
    Kind.STATS: (
        ("tag, expected an integer", _integer(0, MAX_TAG)),
        ("subject, expected a word", _text(1, 64)),
        ("answer, expected nil or bytes", _optional(lambda value: type(value) is bytes)),
        ("page, expected a count", _COUNT),
        ("pages, expected a count from 1", _integer(1, MAX_COUNT)),
    ),
    Kind.ADMIN: (
        ("tag, expected an integer", _integer(0, MAX_TAG)),
        ("command, expected a word", _text(1, 64)),
        ("argument, expected a text", _text(0, MAX_TEXT)),
        ("status, expected nil in an order, a status in an answer", _optional(_integer(0, _STATUSES - 1))),
        ("detail, expected a sentence", _text(0, MAX_TEXT)),
    ),
}


def _check_control(kind: Kind, rules: tuple[Rule, ...]) -> Callable[[list[Record]], bool]:
    def check(records: list[Record]) -> bool:
        for record in records:
            if type(record) is not list or len(record) < len(rules):
                raise ProtocolError(f"a {kind.name} that is no list of {len(rules)} fields")
            if not all(rule(field) for (_, rule), field in zip(rules, record, strict=False)):
                raise ProtocolError(_first_bad(kind.name, record, rules))
        return False

    return check


def _first_bad(kind: str, record: Record, rules: tuple[Rule, ...]) -> str:
    for (what, rule), field in zip(rules, record, strict=False):
        if not rule(field):
            return f"a {kind} with a bad {what}; {type(field).__name__} {reprlib.repr(field)[:32]} came"
    return f"a {kind} whose fields do not go together: its result and status, or its keys, payload and places"


# By kind: raises `ProtocolError` for a record that breaks a rule, and returns whether any has its payload in parts.
CHECKS: dict[int, Callable[[list[Record]], bool]] = {
    Kind.REQUEST: _check_requests,
    Kind.REPLY: _check_replies,
    **{kind: _check_control(kind, rules) for kind, rules in _CONTROL_RULES.items()},
}
