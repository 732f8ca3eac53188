"""What the pure parts cost: a record at the gateway, the ring, the batcher, the timing wheel, the client's codec."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from zmqinfer.machine.client.codec import Codec
from zmqinfer.policy.batching import Batcher, BatchLimits
from zmqinfer.policy.placement import Holder, Placement
from zmqinfer.policy.ring import key_hash, ring_of
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import REQUEST_ID, TAG, Kind, Record
from zmqinfer.tensor import layout_of
from zmqinfer.wire import decode, encode_whole

BODY = bytes(256)
LAYOUT = layout_of({"": np.zeros(64, np.float32)}, None).raw
RECORDS = 32


def packed(kind: Kind, records: list[Record]) -> bytes:
    """Returns the one message of some records."""
    head = encode_whole(kind, records, len(records) * 10_000)
    assert head is not None
    return head


def requests(calls: int) -> list[Record]:
    """Makes REQUEST records for so many calls each."""
    return [
        [
            tag * 32,
            calls,
            (tag * 32).to_bytes(16, "big"),
            "echo",
            1,
            None,
            30_000_000,
            4,
            1,
            None,
            calls,
            LAYOUT,
            BODY * calls,
        ]
        for tag in range(RECORDS)
    ]


def replies(calls: int) -> list[Record]:
    """Makes REPLY records for so many calls each."""
    return [[tag * 32, calls, 0, LAYOUT, BODY * calls, "w1", 1, 1, 1, None, 32, 100, 100] for tag in range(RECORDS)]


@pytest.mark.parametrize("calls", [1, 32])
def test_requests_through_a_gateway_without_sockets(benchmark: Any, calls: int) -> None:
    """Decode, route and encode 32 records of so many calls each."""
    homes = ring_of({"w1": 1.0, "w2": 1.0}).homes
    message = packed(Kind.REQUEST, requests(calls))

    def pass_on() -> None:
        _, records = decode(message, [])
        outboxes: dict[str, list[Record]] = {}
        for tag, record in enumerate(records):
            record[TAG] = tag * 32
            outboxes.setdefault(homes[key_hash(record[REQUEST_ID]) >> 48], []).append(record)
        for outbox in outboxes.values():
            packed(Kind.REQUEST, outbox)

    benchmark(pass_on)


@pytest.mark.parametrize("calls", [1, 32])
def test_replies_are_decoded(benchmark: Any, calls: int) -> None:
    """32 records of so many calls each, checked field by field."""
    message = packed(Kind.REPLY, replies(calls))

    benchmark(decode, message, [])


def test_ring_is_asked(benchmark: Any) -> None:
    """A key's hash, and its home among 16 workers, 1,000 times."""
    homes = ring_of({f"w{n}": 1.0 for n in range(16)}).homes
    keys = [b"user-%d" % n for n in range(1_000)]

    benchmark(lambda: [homes[key_hash(key) >> 48] for key in keys])


def test_ring_is_made(benchmark: Any) -> None:
    """For 16 workers that nobody has asked for before."""
    numbers = iter(range(10**9))

    benchmark(lambda: ring_of({f"w{next(numbers)}": 1.0 for _ in range(16)}))


@pytest.mark.parametrize("calls", [1, 32])
def test_holder_is_chosen(benchmark: Any, calls: int) -> None:
    """Who takes a request, taken and given back, 1,000 times."""
    placement = Placement([Holder(f"w{n}", 1.0, 1_024) for n in range(4)])
    hashes = [key_hash(b"user-%d" % n) for n in range(1_000)]

    def place() -> None:
        for hashed in hashes:
            for holder, rows in placement.spread(hashed, calls, calls):
                placement.take(holder, rows)
                placement.give_back(holder, rows)

    benchmark(place)


class Job:
    """A request as the batcher sees it."""

    __slots__ = ("arrived_at", "calls", "deadline", "is_waiting", "rows", "size")

    def __init__(self, at: float) -> None:
        self.arrived_at = at
        self.deadline = at + 30
        self.calls = self.rows = 1
        self.size = 256
        self.is_waiting = False

    def cut(self, calls: int) -> Job:
        """Is of one call."""
        raise AssertionError(calls)


def test_batcher_fills_batches(benchmark: Any) -> None:
    """320 requests offered, and taken in ten batches."""

    def run() -> None:
        batcher: Batcher[Job] = Batcher(BatchLimits())
        for n in range(320):
            batcher.offer(Job(float(n)), "x")
            batcher.rate.count(1, float(n))
        while batcher.take(400.0) is not None:
            batcher.curve.learn(32, 0.001)

    benchmark(run)


def test_wheel_turns(benchmark: Any) -> None:
    """1,000 deadlines put in and taken out again, with a look at the next one after each."""
    entries = [object() for _ in range(1_000)]

    def run() -> None:
        wheel: TimingWheel[object] = TimingWheel()
        slots = [wheel.add(entry, n * 0.003) for n, entry in enumerate(entries)]
        for entry, slot in zip(entries, slots, strict=True):
            wheel.wake_at()
            wheel.remove(entry, slot)

    benchmark(run)


@pytest.mark.parametrize("calls", [1, 32])
def test_client_reads_a_reply(benchmark: Any, calls: int) -> None:
    """Arrays for so many calls."""
    codec = Codec()
    reply = replies(calls)[0]

    benchmark(codec.decode, reply, None)


def test_client_packs_an_array(benchmark: Any) -> None:
    """The same kind of input again: 64 float32."""
    codec = Codec()
    x = np.zeros(64, np.float32)

    benchmark(codec.encode, "echo", None, x, None)
