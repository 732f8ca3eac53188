"""Which part of a piece of memory holds what: first fit, in pages.

The first gap from the front that is large enough is taken, so what was used lately is used again, and
memory that was never needed is never touched.
"""

from __future__ import annotations

from bisect import bisect_left

__all__ = ["PAGE_BYTES", "Arena"]

# Parts begin and end at whole pages: two of them never share one, so neither slows the other down.
PAGE_BYTES = 4_096


class Arena:
    """The free and taken parts of `size` bytes.

    Attributes:
        used: bytes in parts that are taken.
    """

    __slots__ = ("_free_at", "_free_bytes", "_taken", "size", "used")

    def __init__(self, size: int) -> None:
        """Makes one gap of `size` bytes, rounded down to whole pages."""
        self.size = size // PAGE_BYTES * PAGE_BYTES
        self.used = 0
        # The gaps by where they begin, in order, none beside another; and how long each is.
        self._free_at = [0] if self.size else []
        self._free_bytes = [self.size] if self.size else []
        self._taken: dict[int, int] = {}

    def take(self, size: int) -> int | None:
        """Returns where `size` bytes, at least 1, may lie until `give_back`, or None if no gap is large enough."""
        whole = -(-size // PAGE_BYTES) * PAGE_BYTES
        for place, gap in enumerate(self._free_bytes):
            if gap >= whole:
                at = self._free_at[place]
                if gap == whole:
                    del self._free_at[place], self._free_bytes[place]
                else:
                    self._free_at[place] += whole
                    self._free_bytes[place] -= whole
                self._taken[at] = whole
                self.used += whole
                return at
        return None

    def give_back(self, at: int) -> None:
        """Frees the part that begins at `at`; raises KeyError if none does."""
        size = self._taken.pop(at)
        self.used -= size
        place = bisect_left(self._free_at, at)
        if place < len(self._free_at) and at + size == self._free_at[place]:
            size += self._free_bytes.pop(place)
            del self._free_at[place]
        if place and self._free_at[place - 1] + self._free_bytes[place - 1] == at:
            self._free_bytes[place - 1] += size
        else:
            self._free_at.insert(place, at)
            self._free_bytes.insert(place, size)

    def check(self) -> None:
        """Asserts that gaps and taken parts cover everything once."""
        parts = sorted([*zip(self._free_at, self._free_bytes, strict=True), *self._taken.items()])
        end = 0
        for at, size in parts:
            assert at == end, parts
            assert size > 0, parts
            end += size
        assert end == self.size, parts
        assert self.used == sum(self._taken.values())
        ends = {at + size for at, size in zip(self._free_at, self._free_bytes, strict=True)}
        assert not ends & set(self._free_at), "two gaps beside each other"
