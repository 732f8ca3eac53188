"""The results of one `infer_many`, in the order of its inputs.

Its calls share this one owner, so what a reply brings for a whole block is put down at once, where a
waiter for each call would cost 0.6 us a call. One thread or task sends and puts results down, another
takes them: each step that both may see is a single one of Python's own containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MANY_BYTES", "Stream"]

# Large inputs of one `infer_many` that are under way at most: a quarter of what a gateway takes of one client.
MANY_BYTES = 64 << 20


class Stream:
    """What is under way, and what has come and was not taken yet.

    Attributes:
        tags: of the calls whose results are still to be taken, in their order.
        results: what has come, by tag.
        held: bytes of the large inputs that were asked for and whose results are not taken; whoever takes counts them.
        on_ready: called once, when the next result is there; set by who waits for it, and then finds `is_ready` false.
    """

    __slots__ = ("_refused", "_sizes", "held", "on_ready", "results", "tags")

    def __init__(self) -> None:
        self.tags: deque[int] = deque()
        self.results: dict[int, Any] = {}
        self.on_ready: Callable[[], None] | None = None
        self.held = 0
        self._sizes: dict[int, int] = {}
        self._refused = 0

    # For who sends -----------------------------------------------------------------------------------

    def add_large(self, tag: int, size: int) -> None:
        """Notes a call that was sent, and how many of `held` are its bytes."""
        self._sizes[tag] = size
        self.tags.append(tag)

    def refuse(self, error: Exception) -> None:
        """Puts down the error of a call that never left, in its place."""
        # A tag that no call has.
        self._refused -= 1
        self.take((self._refused,), (error,))
        self.tags.append(self._refused)

    def take(self, numbers: Sequence[int], results: Sequence[Any]) -> None:
        """Puts down the results of the calls with these numbers."""
        self.results.update(zip(numbers, results, strict=True))
        if self.on_ready is not None and self.is_ready():
            on_ready, self.on_ready = self.on_ready, None
            on_ready()

    # For who takes -----------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the next result is there."""
        tags = self.tags
        return bool(tags) and tags[0] in self.results

    def give_back(self, tag: int) -> None:
        """Counts a call's input no longer."""
        self.held -= self._sizes.pop(tag, 0)
