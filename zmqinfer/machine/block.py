"""Blocks: calls that are alike, of one row each, and travel as one record.

What a client's callers ask of one model in one moment leaves as one record for up to `MAX_CALLS`
calls, and every node then handles the record and not the call. A block may be divided anywhere:
over several workers, between two batches, around a call that is cancelled or at fault. So a reply
names the calls that it answers, and those of one block may be answered by several.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol, TypeVar

from zmqinfer.records import CALLS, MAX_CALLS, OUTPUT, PAYLOAD, REQUEST_ID, ROWS, STATUS, TAG, Record

__all__ = ["advanced", "block_of", "covering", "cut_reply", "cut_request", "singles"]


class Entry(Protocol):
    """What is kept in a table under the tag of its first call."""

    calls: int


E = TypeVar("E", bound=Entry)


def covering(table: Mapping[int, E], tag: int) -> E | None:
    """Returns the entry that a call's tag belongs to, the first call's or another's, or None."""
    for first in range(tag, tag - tag % MAX_CALLS - 1, -1):
        entry = table.get(first)
        if entry is not None:
            return entry if first + entry.calls > tag else None
    return None


def advanced(request_id: bytes, calls: int) -> bytes:
    """Returns the id of the call that is `calls` after the one with this id, in the same block."""
    return request_id[:-1] + bytes((request_id[-1] + calls,))


def block_of(request_id: bytes) -> bytes:
    """Returns what the ids of one block have in common: the last byte without the count within the block."""
    place = request_id[-1] % MAX_CALLS
    return request_id[:-1] + bytes((request_id[-1] - place,)) if place else request_id


def cut_request(record: Record, calls: int) -> tuple[Record, Record]:
    """Divides a REQUEST behind its first `calls` calls; it may wait in an outbox and is not changed."""
    size = len(record[PAYLOAD]) // record[CALLS] * calls
    head, rest = record.copy(), record.copy()
    head[CALLS] = head[ROWS] = calls
    head[PAYLOAD] = record[PAYLOAD][:size]
    rest[TAG] += calls
    rest[CALLS] -= calls
    rest[ROWS] -= calls
    rest[REQUEST_ID] = advanced(record[REQUEST_ID], calls)
    rest[PAYLOAD] = record[PAYLOAD][size:]
    return head, rest


def cut_reply(record: Record, calls: int) -> tuple[Record, Record]:
    """Divides a REPLY behind its first `calls` calls."""
    head, rest = record.copy(), record.copy()
    if not record[STATUS]:
        size = len(record[OUTPUT]) // record[CALLS] * calls
        head[OUTPUT] = record[OUTPUT][:size]
        rest[OUTPUT] = record[OUTPUT][size:]
    head[CALLS] = calls
    rest[TAG] += calls
    rest[CALLS] -= calls
    return head, rest


def singles(record: Record) -> Iterator[Record]:
    """Divides a REQUEST into one for each of its calls."""
    while record[CALLS] > 1:
        first, record = cut_request(record, 1)
        yield first
    yield record
