"""How fast a queue empties, and so how long who joins it will wait.

Measured only while there is a queue: then the engines do all they can, in batches as large as they get. What they
did before, at leisure, says nothing of that. Measured from answer to answer: rows come back by the batch, and
between two of them nobody can tell how far the next one is.
"""

from __future__ import annotations

__all__ = ["DrainRate"]

# A rate is of at least so long; of more than about twice as long as this it is not, unless batches are longer.
_LEAST_S, _WINDOW_S = 0.25, 1.0
# After so many times the longest time between two answers it is a pause that ends: of the engines, or of this node.
_PAUSE = 4.0


class DrainRate:
    """The rate of one queue.

    It is given a count that only grows, of all rows that were run.
    """

    __slots__ = ("_last", "_longest_s", "_marks", "_turnover")

    def __init__(self) -> None:
        # When the measuring began, and the count then: the mark that counts, and one that takes its place later.
        self._marks: list[tuple[float, int]] = []
        self._last = 0.0, 0
        self._turnover = 0
        self._longest_s = 0.0

    def begin(self) -> None:
        """Forgets what it measured: a queue begins, or those who work at it are not the same any more."""
        self._marks.clear()
        self._longest_s = 0.0

    def note(self, now: float, ran: int, held: int) -> None:
        """Notes that rows came back, while others wait.

        Args:
            now: in seconds.
            ran: the count.
            held: rows that the engines had before. A rate is known once they have run as many: the first ones
                were begun at leisure, and an engine with long batches may have just begun one.
        """
        marks = self._marks
        took_s = now - self._last[0]
        self._last = now, ran
        if marks and took_s > max(_LEAST_S, _PAUSE * self._longest_s) and self._longest_s:
            self.begin()
        if not marks:
            marks.append(self._last)
            self._turnover = held
            return
        self._longest_s = max(self._longest_s, took_s)
        at, count = marks[-1]
        if now - at >= _WINDOW_S and ran - count >= self._turnover:
            del marks[:-1]
            marks.append(self._last)
            self._turnover = held

    def rows_per_s(self) -> float | None:
        """Returns the rate at which rows are run, or None if the queue is too young to tell."""
        if not self._marks:
            return None
        (began_at, before), (now, ran) = self._marks[0], self._last
        took_s, rows = now - began_at, ran - before
        return rows / took_s if took_s >= _LEAST_S and rows >= self._turnover else None
