"""REPLY records of a node's own."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.replies import failure
from zmqinfer.records import RAN_MAYBE, RAN_NO, Kind
from zmqinfer.wire import decode, encode


def test_failure_is_a_reply_that_the_wire_takes() -> None:
    """With and without all that may be said."""
    short = failure(7, 1, Status.NOT_FOUND, "a sentence")
    long = failure(
        7, 3, Status.OVERLOADED, "a sentence", "queue", worker="w1", version=2, attempt=3, ran=RAN_MAYBE,
        retry_after_ms=50,
    )  # fmt: skip

    for _, (head, *parts) in encode(Kind.REPLY, [short, long], 2**20):
        assert decode(bytes(head), parts) == (Kind.REPLY, [short, long])
    assert short[2:] == [Status.NOT_FOUND, "a sentence", None, "", 0, 1, RAN_NO, None, 0, 0, 0]
    assert long[4:10] == ["queue", "w1", 2, 3, RAN_MAYBE, 50]
