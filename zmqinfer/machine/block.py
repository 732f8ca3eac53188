"""Blocks: calls that are alike, of one row each, and travel as one record.

What a client's callers ask of one model in one moment leaves as one record for up to `MAX_CALLS`
calls, and every node then handles the record and not the call. A call is a place in its block; a record names
its block by a tag and its calls by a bit set of their places. So a block may be divided in any way, over several
workers by the calls' keys, between two batches, around a call that is cancelled or at fault, and what a record says
of a part is said as that of a whole block is.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from itertools import compress
from typing import Generic, Protocol, TypeVar

from zmqinfer.records import KEY, MAX_CALLS, OUTPUT, PAYLOAD, PLACES, ROWS, STATUS, TAG, Record

__all__ = ["Parts", "first_of", "listed", "numbers_of", "part_of", "reply_part"]

# From the digits of a bit set to what `compress` takes.
_BITS = bytes(digit & 1 for digit in range(256))


def listed(places: int) -> list[int]:
    """Returns the places in a bit set, in their order."""
    return list(compress(range(MAX_CALLS), _bits(places)))


def _bits(places: int) -> bytes:
    return f"{places:032b}".encode().translate(_BITS)[::-1]


def first_of(places: int, count: int) -> int:
    """Returns the first `count` places of a bit set."""
    rest = places
    for _ in range(count):
        rest &= rest - 1
    return places ^ rest


def numbers_of(record: Record) -> Sequence[int]:
    """Returns the numbers of the calls that a record is about: a client has one for each of its calls."""
    first, places = record[TAG] * MAX_CALLS, record[PLACES]
    if not places & (places + 1):  # those from place 0 on
        return range(first, first + places.bit_length())
    return [first + place for place in listed(places)]


def part_of(record: Record, places: int) -> Record:
    """Returns the part of a REQUEST that is for some of its calls; the whole may wait in an outbox and stays."""
    part = record.copy()
    chosen = bytes(compress(_bits(places), _bits(record[PLACES])))
    part[PLACES] = places
    part[ROWS] = places.bit_count()
    part[PAYLOAD] = _payload_of(record[PAYLOAD], chosen)
    if record[KEY] is not None:
        part[KEY] = list(compress(record[KEY], chosen))
    return part


def reply_part(record: Record, places: int) -> Record:
    """Returns the part of a REPLY that is for some of its calls."""
    part = record.copy()
    part[PLACES] = places
    if not record[STATUS]:
        part[OUTPUT] = _payload_of(record[OUTPUT], bytes(compress(_bits(places), _bits(record[PLACES]))))
    return part


def _payload_of(payload: bytes, chosen: bytes) -> bytes:
    """Returns the payloads of those calls for which `chosen` has a 1, out of that of all; each has as many bytes."""
    size, first, end = len(payload) // len(chosen), chosen.find(1), chosen.rfind(1) + 1
    if end - first == chosen.count(1):  # one behind the other
        return payload[first * size : end * size]
    return b"".join([payload[at * size : (at + 1) * size] for at in compress(range(len(chosen)), chosen)])


class Part(Protocol):
    """Some calls of a block."""

    @property
    def places(self) -> int:
        """Which of them, as a bit set."""


P = TypeVar("P", bound=Part)


class Parts(Generic[P]):
    """Parts of blocks, by their blocks; no two are about one call."""

    __slots__ = ("_by_block",)

    def __init__(self) -> None:
        # Most blocks have one.
        self._by_block: dict[Hashable, tuple[P, ...]] = {}

    def add(self, block: Hashable, part: P) -> None:
        """Keeps a part."""
        parts = self._by_block.get(block)
        self._by_block[block] = (part,) if parts is None else (*parts, part)

    def remove(self, block: Hashable, part: P) -> bool:
        """Keeps a part no longer; False if it was not kept."""
        parts = self._by_block.get(block, ())
        if part not in parts:
            return False
        if len(parts) == 1:
            del self._by_block[block]
        else:
            self._by_block[block] = tuple([other for other in parts if other is not part])
        return True

    def holds(self, block: Hashable, part: P) -> bool:
        """Whether a part is kept."""
        return part in self._by_block.get(block, ())

    def about(self, block: Hashable, places: int) -> list[P]:
        """Returns the parts that are about any of these calls."""
        return [part for part in self._by_block.get(block, ()) if part.places & places]

    def clear(self) -> None:
        """Keeps nothing."""
        self._by_block.clear()

    def __len__(self) -> int:
        return sum(map(len, self._by_block.values()))

    def __iter__(self) -> Iterator[P]:
        for parts in self._by_block.values():
            yield from parts
