"""What a client keeps of its calls: which of a block are left, and which are alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zmqinfer.machine.client.call import Block, CallOptions
from zmqinfer.records import MAX_CALLS

PLAIN = CallOptions(1.0, 2, b"key", 4, None)


def block_of(*are_left: bool) -> Block:
    """A block of which those calls have not ended."""
    block = Block(MAX_CALLS, 0, ("m", b"layout", PLAIN, 100_000), None, 1_000.0)
    block.owners = [f"caller {place}" if is_left else None for place, is_left in enumerate(are_left)]
    block.bodies = [b"body"] * len(are_left)
    block.left = sum(are_left)
    return block


@example([True] * MAX_CALLS)
@example([False] * MAX_CALLS)
@example([False, True, True, False, False, True])
@given(st.lists(st.booleans(), min_size=1, max_size=MAX_CALLS))
def test_runs_are_the_longest_stretches_of_calls_that_are_left(are_left: list[bool]) -> None:
    """In order; together they are all that is left, and between two of them a call has ended."""
    runs = list(block_of(*are_left).runs())

    covered = [place for first, calls in runs for place in range(first, first + calls)]
    assert covered == [place for place, is_left in enumerate(are_left) if is_left]
    assert all(calls > 0 for _, calls in runs)
    ends = [first + calls for first, calls in runs]
    assert all(end < first for end, (first, _) in zip(ends, runs[1:], strict=False))


def test_calls_with_the_same_words_are_alike() -> None:
    """Whoever said them: equal options find each other in a dict."""
    again = CallOptions(1.0, 2, b"key", 4, None)

    assert again == PLAIN
    assert hash(again) == hash(PLAIN)


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("deadline_s", 1.001),
        ("version", None),
        ("key", b"another"),
        ("key", None),
        ("priority", 5),
        ("idempotent", False),
    ],
)
def test_calls_that_differ_in_a_word_are_not_alike(field: str, other: Any) -> None:
    """None is a word too: it is not the same as False."""
    assert PLAIN._replace(**{field: other}) != PLAIN


def test_nothing_said_is_the_usual_call() -> None:
    """Of any version, without a key, of priority 4, and idempotent as the model declares."""
    assert CallOptions(1.0) == (1.0, None, None, 4, None, None)
