"""What a client waits for, until it has ended."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.client.call import Block, CallOptions, Question
from zmqinfer.machine.client.pending import Pending
from zmqinfer.records import RAN_NO, Kind

OPTIONS = CallOptions(1.0)


def block_in(pending: Pending, tag: int, *owners: object, link: int = 0) -> Block:
    block = Block(tag, link, ("m", b"layout", OPTIONS.but_key(), 1_000), OPTIONS, None, 10.0)
    block.most = 32
    pending.add(block, 10.0)
    for owner in owners:
        block.owners.append(owner)
        block.bodies.append(b"body")
        block.left += 1
        pending.count += 1
    pending.check()
    return block


def test_calls_of_a_block_end_in_any_parts() -> None:
    """Each once; with the last one the block is gone, and takes no more calls."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 7, "a", "b", "c", "d")

    assert pending.take(block, 0b0010) == ["b"]
    assert pending.take(block, 0b1010) == [None, "d"]
    assert pending.block(7) is block
    assert block.pending() == 0b0101
    pending.check()
    assert pending.take(block, 0b1111) == ["a", None, "c", None]

    assert pending.block(7) is None
    assert (pending.count, len(pending.wheel), block.closes_at) == (0, 0, float("-inf"))
    pending.check()


def test_failure_is_one_for_all_that_is_left() -> None:
    """The owners of those that had ended are None."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 7, "a", "b")
    question = Question("q", Kind.STATS, [8, "status", None, 0, 1], 1, 10.0)
    pending.add(question, 10.0)
    pending.take(block, 1)

    assert pending.at(1) == [question]
    for entry in pending.everything():
        pending.fail(entry, Status.UNAVAILABLE, "a sentence", RAN_NO)

    assert [(owners, record[:3]) for owners, record, _ in pending.completed] == [
        ([None, "b"], [7, 0b11, Status.UNAVAILABLE]),
        (["q"], [8, 1, Status.UNAVAILABLE]),
    ]
    assert pending.count == 0


def test_what_is_looked_at_is_put_off_or_ended() -> None:
    """Its time comes again."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 7, "a")

    assert pending.wheel.expire(10.1) == [block]
    block.slot = pending.wheel.add(block, 11.0)
    assert pending.wheel.expire(10.5) == []
    assert pending.wheel.expire(11.1) == [block]
    block.slot = pending.wheel.add(block, 12.0)
    pending.check()


def test_held_blocks_are_those_that_wait_for_a_welcome() -> None:
    """As long as any of their calls has not ended."""
    pending = Pending(b"prefix--")
    block, other = block_in(pending, 7, "a"), block_in(pending, 8, "b")
    block.is_held = other.is_held = True

    pending.take(other, 1)

    assert list(pending.held()) == [block]
    assert pending.request_id(33) == b"prefix--" + (33).to_bytes(8, "big")
