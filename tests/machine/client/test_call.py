"""What a client keeps of its calls: which of a block a record is for, and which are alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.machine.block import part_of
from zmqinfer.machine.client.call import Block, CallOptions
from zmqinfer.records import ALL_PLACES, MAX_CALLS

PLAIN = CallOptions(1.0, 2, 4, None, key=b"key")


def block_of(calls: int, options: CallOptions = PLAIN) -> Block:
    """A block of so many calls, each with a payload and a key of its own."""
    block = Block(7, 0, ("m", b"layout", options.but_key(), 100_000), options, None, 1_000.0)
    block.owners = list(range(1, calls + 1))
    block.bodies = [b"body%02d" % place for place in range(calls)]
    block.keys = None if options.key is None else [b"%d" % place for place in range(calls)]
    block.left = calls
    return block


@given(st.integers(1, MAX_CALLS), st.integers(1, ALL_PLACES), st.sampled_from((PLAIN, PLAIN._replace(key=None))))
def test_a_request_for_some_calls_is_that_part_of_the_one_for_all(
    calls: int, places: int, options: CallOptions
) -> None:
    """Whoever divides a block, its client or a gateway, says the same of each call."""
    block = block_of(calls, options)
    everything = (1 << calls) - 1
    whole, _ = block.request(everything, b"id")
    places = places & everything or 1

    record, size = block.request(places, b"id")

    assert record == part_of(whole, places)
    assert size == 6 * places.bit_count()


@given(st.integers(1, MAX_CALLS), st.integers(0, ALL_PLACES), st.integers(0, ALL_PLACES))
def test_pending_is_what_has_not_ended_and_does_not_rest(calls: int, ended: int, resting: int) -> None:
    """All of it but those; a block is at rest when the others have ended."""
    block = block_of(calls)
    everything = (1 << calls) - 1
    block.owners = [None if ended >> place & 1 else place for place in range(calls)]
    block.left = calls - block.owners.count(None)
    block.resting = resting & everything

    assert block.pending() == everything & ~ended & ~resting
    assert block.is_at_rest() is bool(block.resting and not block.pending())


def test_attempts_are_counted_for_each_place() -> None:
    """A record tells the most of any of its calls."""
    block = block_of(4)
    block.resting = 0b1110

    block.asks_again(0b0110)
    block.asks_again(0b0100)

    assert [block.attempt_of(places) for places in (0b0001, 0b0010, 0b0100, 0b1011, 0b1111)] == [1, 2, 3, 2, 3]
    assert block.resting == 0b1000


@pytest.mark.parametrize(
    ("field", "other"),
    [
        ("deadline_s", 1.001),
        ("version", None),
        ("key", None),
        ("priority", 5),
        ("idempotent", False),
        ("hedge", True),
    ],
)
def test_calls_that_differ_in_a_word_are_not_alike(field: str, other: Any) -> None:
    """None is a word too: it is not the same as False; but one key is as good as another."""
    assert PLAIN._replace(**{field: other}).but_key() != PLAIN.but_key()
    assert PLAIN._replace(key=b"another").but_key() == PLAIN.but_key()


def test_nothing_said_is_the_usual_call() -> None:
    """Of any version, of priority 4, idempotent and hedged as the model declares, and without a key."""
    assert CallOptions(1.0) == (1.0, None, 4, None, None, None)
