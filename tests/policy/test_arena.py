"""Which part of a piece of memory holds what."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.policy.arena import PAGE_BYTES, Arena


def test_first_gap_that_is_large_enough_is_taken() -> None:
    """So what was used lately is used again."""
    arena = Arena(10 * PAGE_BYTES)
    first, second, third = arena.take(1), arena.take(PAGE_BYTES + 1), arena.take(PAGE_BYTES)
    assert (first, second, third) == (0, PAGE_BYTES, 3 * PAGE_BYTES)

    arena.give_back(PAGE_BYTES)

    assert arena.take(3 * PAGE_BYTES) == 4 * PAGE_BYTES
    assert arena.take(2 * PAGE_BYTES) == PAGE_BYTES
    arena.check()


def test_without_room_nothing_is_taken() -> None:
    """A gap of the whole size is needed; the rest is no use."""
    arena = Arena(4 * PAGE_BYTES + 1)
    assert arena.size == 4 * PAGE_BYTES
    assert arena.take(4 * PAGE_BYTES + 1) is None

    assert arena.take(4 * PAGE_BYTES) == 0
    assert arena.take(1) is None
    assert Arena(100).take(1) is None


def test_neighbours_become_one_gap_again() -> None:
    """In whatever order they are given back."""
    for order in ((0, 1, 2), (2, 1, 0), (1, 0, 2), (0, 2, 1)):
        arena = Arena(3 * PAGE_BYTES)
        for _ in range(3):
            arena.take(PAGE_BYTES)
        for place in order:
            arena.give_back(place * PAGE_BYTES)
        arena.check()
        assert arena.take(3 * PAGE_BYTES) == 0


def test_what_is_not_taken_cannot_be_given_back() -> None:
    """It would be free twice."""
    arena = Arena(2 * PAGE_BYTES)
    arena.take(1)
    arena.give_back(0)

    with pytest.raises(KeyError):
        arena.give_back(0)


@settings(max_examples=60)
@given(st.lists(st.one_of(st.integers(1, 6 * PAGE_BYTES), st.integers(-20, -1)), max_size=60))
def test_parts_never_overlap_and_nothing_is_lost(orders: list[int]) -> None:
    """Positive: take so many bytes; negative: give back one of those that are held."""
    arena = Arena(16 * PAGE_BYTES)
    held: dict[int, int] = {}
    for order in orders:
        if order > 0:
            at = arena.take(order)
            if at is None:
                continue
            assert all(at + order <= other or other + size <= at for other, size in held.items())
            held[at] = order
        elif held:
            at = sorted(held)[order % len(held)]
            arena.give_back(at)
            del held[at]
        arena.check()
    for at in held:
        arena.give_back(at)
    arena.check()
    assert arena.used == 0
