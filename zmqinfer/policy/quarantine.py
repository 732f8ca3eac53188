"""Inputs that ended a worker's process while they ran alone, and are not run again for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from xxhash import xxh3_128

__all__ = ["KEPT_S", "Quarantine", "digest_of"]

KEPT_S = 600.0
MAX_DIGESTS = 10_000


def digest_of(model: str, layout: bytes, parts: Iterable[bytes | bytearray | memoryview]) -> int:
    """Returns what tells an input to a model from all others."""
    digest = xxh3_128(f"{len(layout)} {model} ".encode())
    digest.update(layout)
    for part in parts:
        digest.update(part)
    return digest.intdigest()


class Quarantine:
    """Digests of inputs, each for ten minutes, and of more than 10,000 the latest."""

    __slots__ = ("_digests", "_order")

    def __init__(self) -> None:
        # Until when, and the same in the order of coming.
        self._digests: dict[int, float] = {}
        self._order: deque[tuple[float, int]] = deque()

    def __len__(self) -> int:
        return len(self._digests)

    def add(self, digest: int, now: float) -> None:
        """Begins to refuse an input, or goes on to."""
        until = now + KEPT_S
        self._digests[digest] = until
        self._order.append((until, digest))
        self._trim(now)

    def holds(self, digest: int, now: float) -> bool:
        """Whether an input is refused."""
        self._trim(now)
        return digest in self._digests

    def _trim(self, now: float) -> None:
        order, digests = self._order, self._digests
        while order and (order[0][0] <= now or len(digests) > MAX_DIGESTS):
            until, digest = order.popleft()
            # Not if it was added again since.
            if digests.get(digest) == until:
                del digests[digest]
