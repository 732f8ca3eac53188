"""Which worker is a key's home, and who comes next.

The answer depends on nothing but the key and the members with their weights, so gateways agree
without talking to each other, and a join or a leave moves no key between those who stay. What
follows is part of the protocol:

1. The hash of a key is the XXH3-64 of its bytes with seed 0.
2. A member of weight w has max(1, round(150 x w)) points: the product of two IEEE doubles, halves
   rounded to even. Point i, counted from 0, is the XXH3-64 with seed 0 of the member's name in
   UTF-8, a "#", and i in decimal without leading zeros; the third point of w1 is the hash of `w1#2`.
3. Points are ordered as unsigned numbers, equal ones by their members' names, byte by byte.
4. A key's slot is the highest 16 bits of its hash. The owner of a slot, and so the home of its
   keys, is the owner of the first point that is at or after slot x 2^48, or of the first point of
   all if there is none. A key's place within its slot does not matter.
5. The others come next in the order in which a walk from that point onward, round the ring, meets
   their first points.
6. The version of a ring is, in 16 hexadecimal digits, the XXH3-64 with seed 0 of its members in
   the order of their names: each the name in UTF-8, a zero byte, and the weight as a little-endian
   IEEE double.
"""

from __future__ import annotations

import functools
import operator
import struct
from array import array
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

import numpy as np
from xxhash import xxh3_64_intdigest

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SLOTS", "VIRTUAL_NODES", "Ring", "key_hash", "ring_of", "version_of"]

# Points per unit of weight. Of 8 workers the busiest owned 1.10 times its fair share of 100,000 keys; 500
# points gave 1.05 for three times the memory. The load bound hides the rest.
VIRTUAL_NODES = 150
# One look-up in a table cost a third of a bisection, hash included: 73 ns against 203. Among 64 members of
# weight 1 there are seven slots to a point.
SLOTS = 65_536
# Orders that are remembered: 8 MiB of them.
_NAMES_KEPT = 2**20
# A hash of 64 bits, shifted by this, is its slot.
_SHIFT = 48


def key_hash(key: bytes) -> int:
    """Returns the 64-bit hash that places a routing key.

    XXH3, not `hash()`: Python salts that one per process, and two gateways must agree on homes.
    """
    return xxh3_64_intdigest(key)


def version_of(weights: Mapping[str, float]) -> str:
    """Returns what two gateways must agree on to send every key to the same worker; builds no table."""
    return f"{xxh3_64_intdigest(b''.join(map(_member_bytes, sorted(weights.items())))):016x}"


class Ring:
    """The homes of all keys among a fixed set of members. Immutable.

    It depends on names and weights alone, not on their order or on the process. Rings are equal when
    their members and weights are. A table of 65,536 names is 512 KiB: see `ring_of`.

    Attributes:
        homes: the owner of each slot; empty if there are no members. The gateway's hot path indexes
            it by `key_hash >> 48`, which is all that `home` does.
        members: the names, sorted.
        version: a short digest of names and weights, to compare gateways by.
    """

    __slots__ = ("__weakref__", "_first", "_orders", "_positions", "_starts", "_weights", "homes", "members", "version")

    def __init__(self, weights: Mapping[str, float]) -> None:
        self._weights = tuple(sorted(weights.items()))
        self.members = tuple(name for name, _ in self._weights)
        self.version = version_of(weights)
        self._orders: dict[int, tuple[str, ...]] = {}
        # A tuple, not a list: the garbage collector stops looking through one that holds only strings.
        self.homes: tuple[str, ...] = ()
        self._first = array("I")
        self._positions = np.empty(0, np.int64)
        self._starts = np.empty(0, np.int64)
        if weights:
            self._compile([_points(name, weight) for name, weight in self._weights])

    def _compile(self, points: list[NDArray[np.uint64]]) -> None:
        """Sorts the points, given by member, and finds the first one of each slot.

        From here on a point is known by its position among all. `_first` has it for each slot; `_positions` has
        those of the first member in order, then those of the second, each raised by the number of all points, and
        so on, so that one search finds the next point of every member. `_starts` is where each member's begin.
        """
        counts = [len(own) for own in points]
        self._starts = np.cumsum([0, *counts])
        values = np.concatenate(points)
        # Stable, and the members come sorted: of two equal points the smaller name's is the first.
        by_value = np.argsort(values, kind="stable")
        positions = np.empty_like(by_value)
        positions[by_value] = np.arange(len(values))
        # A point owns the slots that begin after the point before it and not after itself; the first also those
        # behind the last.
        ends = (values[by_value] >> np.uint64(_SHIFT)).astype(np.int64)
        sizes = ends - np.append(-1, ends[:-1])
        first = np.append(np.repeat(np.arange(len(values)), sizes), np.zeros(SLOTS - sizes.sum(), np.int64))
        owners = np.repeat(np.array(self.members, dtype=object), counts)[by_value]
        self.homes = tuple(owners[first].tolist())
        self._first = _packed(first)
        self._positions = np.sort(positions + np.repeat(np.arange(len(points)), counts) * len(values))

    def __eq__(self, other: object) -> bool:
        return self._weights == other._weights if isinstance(other, Ring) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.members)

    def __repr__(self) -> str:
        return f"<Ring {self.version} of {len(self.members)}>"

    def home(self, key_hash: int) -> str:
        """Returns the owner of a key by its 64-bit hash: one shift and one look-up, whatever the members.

        Raises:
            LookupError: the ring is empty.
        """
        try:
            return self.homes[key_hash >> _SHIFT]
        except IndexError:
            raise LookupError("the ring has no members, expected one or more; add a member") from None

    def order(self, key_hash: int) -> tuple[str, ...]:
        """Returns all members, each once, in the order in which they come into question: home first.

        Two look-ups, and for the first key after a point a search for each member's next one. What is kept is at
        most one tuple for each point that is the first of a slot, and a million names in all: beyond that it begins
        anew.
        """
        if not self.members:
            return ()
        first = self._first[key_hash >> _SHIFT]
        order = self._orders.get(first)
        if order is None:
            if (len(self._orders) + 1) * len(self.members) > _NAMES_KEPT:
                self._orders.clear()
            order = self._orders[first] = self._walk(first)
        return order

    def _walk(self, first: int) -> tuple[str, ...]:
        # One search per member, not a walk from point to point: next to heavy members a light one may be a hundred
        # thousand points away. All at once, for a thousand members take 1.3 ms one by one.
        total = len(self._positions)
        starts, ends = self._starts[:-1], self._starts[1:]
        raised = np.arange(len(self.members)) * total
        following = np.searchsorted(self._positions, raised + first)
        is_behind = following == ends  # all of its points are before: its first one is next, a round later
        following[is_behind] = starts[is_behind]
        distances = self._positions[following] - raised + is_behind * total
        return tuple([self.members[i] for i in np.argsort(distances).tolist()])

    def share(self) -> dict[str, float]:
        """Returns the part of the slots that each member owns, by name in order."""
        owned = Counter(self.homes)
        return {name: owned[name] / SLOTS for name in self.members}

    def moved(self, other: Ring) -> float:
        """Returns the part of the slots whose home is another one in `other`."""
        if len(self.homes) != len(other.homes):
            return 1.0
        changed: int = sum(map(operator.ne, self.homes, other.homes))
        return changed / SLOTS


# By the weights themselves, not by the version: workers choose their names, and XXH3 withstands no malice.
_rings: WeakValueDictionary[tuple[tuple[str, float], ...], Ring] = WeakValueDictionary()


def ring_of(weights: Mapping[str, float]) -> Ring:
    """Returns the ring of these members: the one that is in use for them already, or a new one.

    The models of one set of workers so share one table, which is built once when a worker joins.
    """
    key = tuple(sorted(weights.items()))
    ring = _rings.get(key)
    if ring is None:
        ring = _rings[key] = Ring(weights)
    return ring


# Those of members who stay are the same in the next ring: one of 1,000 members is built in 31 ms so, else in 71.
@functools.lru_cache(maxsize=2_048)
def _points(name: str, weight: float) -> NDArray[np.uint64]:
    assert weight > 0, (name, weight)
    prefix = name.encode() + b"#"
    count = max(1, round(VIRTUAL_NODES * weight))
    return np.fromiter((xxh3_64_intdigest(b"%b%d" % (prefix, i)) for i in range(count)), np.uint64, count)


def _member_bytes(member: tuple[str, float]) -> bytes:
    name, weight = member
    return name.encode() + b"\0" + struct.pack("<d", weight)


def _packed(numbers: NDArray[np.int64]) -> array[int]:
    # Single look-ups in an array are faster than in numpy's, and take an eighth of a list's memory.
    return array("I", numbers.astype(np.uintc).tobytes())
