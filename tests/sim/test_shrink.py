"""Fewer faults that still fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from zmqinfer.sim.shrink import shrink


@pytest.mark.parametrize("guilty", [set(), {4}, {0, 9}, {2, 3, 7}, set(range(10))])
def test_what_is_left_is_guilty_and_nothing_else(guilty: set[int]) -> None:
    """Whether one fault is to blame, several together, or none."""
    tried: list[Sequence[int]] = []

    def fails(places: Sequence[int]) -> bool:
        tried.append(places)
        return guilty <= {*places}

    assert shrink(range(10), fails) == sorted(guilty)
    assert all(list(places) == sorted(places) for places in tried)


def test_it_gives_up_after_so_many_runs() -> None:
    """What it has by then still fails."""
    runs = 0

    def fails(places: Sequence[int]) -> bool:
        nonlocal runs
        runs += 1
        return len(places) == 10

    assert shrink(range(10), fails, most_runs=5) == list(range(10))
    assert runs == 5
