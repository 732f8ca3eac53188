"""The results of one `infer_many`, by tag.

Its calls share this one owner, so what a reply brings for a whole block is put down at once, where a
waiter for each call would cost 0.6 us a call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["MANY_BYTES", "Stream"]

# Large inputs of one `infer_many` that are under way at most: a quarter of what a gateway takes of one client.
MANY_BYTES = 64 << 20


class Stream:
    """What has come and was not given out yet.

    Attributes:
        results: outputs and errors by the tags of their calls.
        held: bytes of the large inputs that were taken from the source and are not answered.
        on_result: called once, when there is a result for the call that `expect` named.
    """

    __slots__ = ("_refused", "_sizes", "_wanted", "held", "on_result", "results")

    def __init__(self) -> None:
        self.results: dict[int, Any] = {}
        self.on_result: Callable[[], None] | None = None
        self.held = 0
        self._sizes: dict[int, int] = {}
        self._wanted = 0
        self._refused = 0

    def expect(self, tag: int, on_result: Callable[[], None]) -> None:
        """Asks to be told when this call has ended."""
        self._wanted = tag
        self.on_result = on_result

    def hold(self, tag: int, size: int) -> None:
        """Notes whose the bytes are that `held` counts already."""
        self._sizes[tag] = size

    def give_back(self, tag: int) -> None:
        """Counts a call's input no longer."""
        self.held -= self._sizes.pop(tag, 0)

    def refuse(self, error: Exception) -> int:
        """Puts down the error of a call that never left, and returns a tag that no call has."""
        self._refused -= 1
        self.results[self._refused] = error
        return self._refused

    def take(self, first: int, results: Sequence[Any]) -> None:
        """Puts down the results of calls with consecutive tags."""
        self.results.update(zip(range(first, first + len(results)), results, strict=True))
        if self.on_result is not None and self._wanted in self.results:
            on_result, self.on_result = self.on_result, None
            on_result()
