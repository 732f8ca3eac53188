"""What a client waits for, until it has ended."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.client.call import Block, CallOptions, Question
from zmqinfer.machine.client.pending import Pending
from zmqinfer.records import RAN_NO, STATUS, TAG, Kind


def block_in(pending: Pending, tag: int, *owners: object, link: int = 0) -> Block:
    block = Block(tag, link, ("m", b"layout", CallOptions(1.0), 1_000), None, 10.0)
    block.most = 32
    pending.add(block, 10.0)
    for owner in owners:
        block.owners.append(owner)
        block.bodies.append(b"body")
        block.left += 1
        pending.count += 1
    pending.check()
    return block


def test_calls_of_a_block_end_one_by_one() -> None:
    """Each once; with the last one the block is gone, and takes no more calls."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 32, "a", "b", "c")

    assert pending.take(block, 1, 1) == ["b"]
    assert pending.take(block, 0, 2) == ["a", None]
    assert pending.block_of(33) is block
    pending.check()
    assert pending.take(block, 2, 1) == ["c"]

    assert pending.block_of(33) is None
    assert (pending.count, pending.wake_at(), block.closes_at) == (0, None, float("-inf"))
    pending.check()


def test_failure_is_one_for_all_that_is_left() -> None:
    """The owners of those that had ended are None."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 32, "a", "b")
    question = Question("q", Kind.STATS, [64, "status", None, 0, 1], 1, 10.0)
    pending.add(question, 10.0)
    pending.take(block, 0, 1)

    assert pending.at(1) == [question]
    for entry in pending.everything():
        pending.fail(entry, Status.UNAVAILABLE, "a sentence", None, RAN_NO)

    assert [(owners, record[TAG], record[STATUS]) for owners, record, _ in pending.completed] == [
        ([None, "b"], 32, Status.UNAVAILABLE),
        (["q"], 64, Status.UNAVAILABLE),
    ]
    assert pending.count == 0


def test_what_is_looked_at_is_put_off_or_ended() -> None:
    """Its time comes again."""
    pending = Pending(b"prefix--")
    block = block_in(pending, 32, "a")

    assert pending.expire(10.1) == [block]
    pending.put_off(block, 11.0)
    assert pending.expire(10.5) == []
    assert pending.expire(11.1) == [block]
    pending.put_off(block, 12.0)
    pending.check()


def test_held_blocks_are_those_that_wait_for_a_welcome() -> None:
    """As long as any of their calls has not ended."""
    pending = Pending(b"prefix--")
    block, other = block_in(pending, 32, "a"), block_in(pending, 64, "b")
    block.is_held = other.is_held = True

    pending.take(other, 0, 1)

    assert list(pending.held()) == [block]
    assert pending.request_id(33) == b"prefix--" + (33).to_bytes(8, "big")
