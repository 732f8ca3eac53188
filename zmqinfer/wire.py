"""Bytes to records and back: the only module that knows how a message looks on a socket.

docs/PROTOCOL.md is the specification. One message carries many records of one kind:

    [head: msgpack array (version, kind, records)] [part]*

Everything read here is hostile until checked: any bytes give records or one `ProtocolError`.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterator

import msgpack

from zmqinfer.checks import CHECKS
from zmqinfer.errors import ProtocolError
from zmqinfer.records import MAX_RECORDS, MAX_TEXT, PAYLOAD_AT, Kind, Record
from zmqinfer.tensor import Buffer, payload_bytes

__all__ = ["MAX_HEAD_BYTES", "MAX_PARTS", "VERSION", "decode", "encode", "encode_whole", "most_frame_bytes"]

VERSION = 1

MAX_HEAD_BYTES = 2**20
MAX_PARTS = 64
# Of out-of-band bytes in a message of several records. A multipart message is delivered only when it is
# whole: one of 30 MB would delay its first record, and every heartbeat behind it.
MAX_BUNDLE_BYTES = 2**20
# Of a head: what is not its records.
_FRAMING_BYTES = 8
# 30 ns, where calling the enum took 300.
_KINDS = {int(kind): kind for kind in Kind}


def most_frame_bytes(max_body_bytes: int) -> int:
    """Returns how large a frame a gateway takes that takes request bodies of so many bytes.

    Requests above their limit are so refused with a sentence, up to twice as much; a larger frame costs the connection.
    """
    return max(2 * max_body_bytes, MAX_HEAD_BYTES)


def encode_whole(kind: Kind, records: list[Record], size: int) -> bytes | None:
    """Returns the head of the one message that carries all `records`, or None if it takes parts or several messages."""
    if len(records) > MAX_RECORDS or size > MAX_BUNDLE_BYTES // 2:
        return None
    at = PAYLOAD_AT.get(kind)
    if at is not None:
        for record in records:
            if type(record[at]) is list:
                return None
    # 0.5 us, where `packb` takes 1.1 to do the same.
    head: bytes = msgpack.Packer().pack((VERSION, kind, records))
    return head if len(head) <= MAX_HEAD_BYTES else None


def encode(kind: Kind, records: list[Record], size: int) -> Iterator[tuple[int, list[Buffer]]]:
    """Yields messages that carry `records` within the protocol's bounds: a count of records, and frames.

    Args:
        kind: of all the records.
        records: not empty unless the kind is HEARTBEAT; they are not changed.
        size: what the payloads come to in bytes; exact enough when it errs upwards.
    """
    at = PAYLOAD_AT.get(kind, -1)
    # The head is measured after packing, being hardly ever too big.
    if at >= 0 and (size > MAX_BUNDLE_BYTES // 2 or any(type(record[at]) is list for record in records)):
        yield from _split(kind, records, at)
        return
    for first in range(0, max(1, len(records)), MAX_RECORDS):
        group = records if len(records) <= MAX_RECORDS else records[first : first + MAX_RECORDS]
        head = msgpack.packb((VERSION, kind, group))
        if len(head) <= MAX_HEAD_BYTES:
            yield len(group), [head]
        else:
            yield from _split(kind, group, at)


def _split(kind: Kind, records: list[Record], at: int) -> Iterator[tuple[int, list[Buffer]]]:
    """Fills one message after another, greedily and in order."""
    group: list[Record] = []
    parts: list[Buffer] = []
    inline = out_of_band = 0
    for record in records:
        payload = record[at] if at >= 0 else b""
        mine = payload if type(payload) is list else []
        mine_bytes = payload_bytes(mine)
        # What the head grows by. Measured: sentences, answers and fields that are only passed on have no bound of
        # their own that would serve as an estimate.
        indexed = [*record[:at], list(range(len(mine))), *record[at + 1 :]] if mine else record
        head_bytes = len(msgpack.packb(indexed))
        if group and (
            len(group) == MAX_RECORDS
            or _FRAMING_BYTES + inline + head_bytes > MAX_HEAD_BYTES
            or len(parts) + len(mine) > MAX_PARTS
            or (mine and out_of_band + mine_bytes > MAX_BUNDLE_BYTES)
        ):
            yield len(group), [msgpack.packb((VERSION, kind, group)), *parts]
            group, parts, inline, out_of_band = [], [], 0, 0
        if mine:
            record = [*record[:at], list(range(len(parts), len(parts) + len(mine))), *record[at + 1 :]]  # noqa: PLW2901
            parts.extend(mine)
        group.append(record)
        inline += head_bytes
        out_of_band += mine_bytes
    if group:
        yield len(group), [msgpack.packb((VERSION, kind, group)), *parts]


def decode(head: bytes, parts: list[Buffer]) -> tuple[Kind, list[Record]]:
    """Reads one message; payloads that travelled as parts come back as lists of those very buffers.

    Raises:
        ProtocolError: a head over the limits or that is no msgpack; another version; an unknown kind;
            a record whose fields have other types or ranges; parts that no record or two records claim.
    """
    if len(head) > MAX_HEAD_BYTES:
        raise ProtocolError(f"a head of {len(head):,} bytes, expected at most {MAX_HEAD_BYTES:,}")
    try:
        message = msgpack.unpackb(
            head, max_array_len=MAX_RECORDS * 4, max_map_len=0, max_ext_len=0, max_str_len=MAX_TEXT * 4
        )
    except Exception as cause:  # msgpack raises half a dozen unrelated classes for bad bytes
        raise ProtocolError("a head that is no msgpack within the limits") from cause
    if type(message) is not list or len(message) < 3 or type(message[0]) is not int:
        raise ProtocolError("a head that is not [version, kind, records]")
    version, kind, records = message[:3]
    if version != VERSION:
        raise ProtocolError(
            f"protocol version {version} came, this side speaks {VERSION}; run the same release at both ends"
        )
    check = CHECKS.get(kind) if type(kind) is int else None
    if check is None:
        raise ProtocolError(f"kind {reprlib.repr(kind)[:16]} is not known in version {VERSION}")
    if type(records) is not list or len(records) > MAX_RECORDS:
        raise ProtocolError(f"records that are no list of at most {MAX_RECORDS}")
    if not records and kind != Kind.HEARTBEAT:
        raise ProtocolError(f"a {Kind(kind).name} with no records, expected 1 to {MAX_RECORDS}")
    if check(records) or parts:
        _attach(records, parts, PAYLOAD_AT.get(_KINDS[kind], -1))
    return _KINDS[kind], records


def _attach(records: list[Record], parts: list[Buffer], at: int) -> None:
    """Puts the parts in the place of their indices; each must be claimed once, in order."""
    claimed = 0
    for record in records:
        indices = record[at] if at >= 0 else None
        if type(indices) is list:
            if not indices or indices != list(range(claimed, claimed + len(indices))):
                raise ProtocolError("part indices that are not the next ones in order")
            claimed += len(indices)
            if claimed > len(parts):
                break
            record[at] = parts[claimed - len(indices) : claimed]
    if claimed != len(parts) or claimed > MAX_PARTS:
        raise ProtocolError(
            f"records claim {claimed} parts, {len(parts)} came, expected the same and at most {MAX_PARTS}"
        )
