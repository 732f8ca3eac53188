"""A gateway's inner work alone: decode, route and encode, both ways, without sockets.

    .venv/bin/python -m bench.bare_loop

Bundles of 32 requests for `echo`, a record each as a plain protocol would have it, and their replies go
through the product's own wire and ring, and nothing else: no admission, no deadlines, no credits, no books.
What it takes for a request is what a gateway's whole CPU time for a request is compared with.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from zmqinfer.policy.ring import key_hash, ring_of
from zmqinfer.records import KEY, REQUEST_ID, TAG, Kind, Record
from zmqinfer.tensor import layout_of
from zmqinfer.wire import decode, encode_whole

__all__ = ["run"]

PLACES = 32
BODY = bytes(256)
LAYOUT = layout_of({"": np.zeros(64, np.float32)}, None).raw


def run(seconds: float = 1.0, repeats: int = 5) -> float:
    """Returns the CPU microseconds for a request: the best of `repeats`, each a share of `seconds`."""
    homes = ring_of({"worker_1": 1.0, "worker_2": 1.0}).homes
    request = _packed(Kind.REQUEST, [
        [tag, 1, b"session:" + tag.to_bytes(8, "big"), "echo", 1, None, 30_000_000, 4, 1, None, 1, LAYOUT, BODY]
        for tag in range(PLACES)
    ])  # fmt: skip
    # Half of the calls are the one worker's, half the other's; what the workers do is not a gateway's work.
    replies = [
        _packed(Kind.REPLY, [[tag, 1, 0, LAYOUT, BODY, "worker_1", 1, 1, 1, None, 32, 100, 100] for tag in tags])
        for tags in (range(PLACES // 2), range(PLACES // 2, PLACES))
    ]
    best_us = float("inf")
    for _ in range(repeats):
        turns = 0
        began_s = time.process_time()
        while (used_s := time.process_time() - began_s) < seconds / repeats:
            pending = _route(request, homes)
            for reply in replies:
                _answer(reply, pending)
            turns += 1
        best_us = min(best_us, used_s / turns / PLACES * 1e6)
    return best_us


def _route(message: bytes, homes: Sequence[str]) -> dict[int, int]:
    pending: dict[int, int] = {}
    outboxes: dict[str, list[Record]] = {}
    _, records = decode(message, [])
    for tag, record in enumerate(records):
        key = record[KEY]
        home = homes[key_hash(record[REQUEST_ID] if key is None else key[0]) >> 48]
        pending[tag] = record[TAG]
        record[TAG] = tag
        outboxes.setdefault(home, []).append(record)
    for outbox in outboxes.values():
        _packed(Kind.REQUEST, outbox)
    return pending


def _answer(message: bytes, pending: dict[int, int]) -> None:
    _, records = decode(message, [])
    for record in records:
        record[TAG] = pending.pop(record[TAG])
    _packed(Kind.REPLY, records)


def _packed(kind: Kind, records: list[Record]) -> bytes:
    head = encode_whole(kind, records, len(records) * 400)
    assert head is not None
    return head


if __name__ == "__main__":
    print(f"decode, route, encode, both ways: {run():.2f} us of CPU a request")
