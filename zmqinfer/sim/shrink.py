"""Makes a failing run small: the fewest of its faults that still make it fail."""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ["shrink"]


def shrink(places: Sequence[int], fails: Callable[[Sequence[int]], bool], most_runs: int = 200) -> list[int]:
    """Returns a part of `places` that still fails and none of whose own is superfluous, if there are runs enough.

    Ever smaller pieces are left out as long as what is left fails (delta debugging, Zeller and Hildebrandt 2002).

    Args:
        places: of the faults of a run that fails.
        fails: runs it again with some of them, in their order.
    """
    left = list(places)
    size = max(1, len(left) // 2)
    runs = 0
    while left:
        is_smaller = False
        at = 0
        while at < len(left) and runs < most_runs:
            rest = left[:at] + left[at + size :]
            runs += 1
            if fails(rest):
                left = rest
                is_smaller = True
            else:
                at += size
        if runs >= most_runs or (size == 1 and not is_smaller):
            break
        size = max(1, size // 2)
    return left
