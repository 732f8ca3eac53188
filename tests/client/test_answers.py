"""What a reply tells beside its output, and bodies that are passed on as they are."""

from __future__ import annotations

import concurrent.futures
import time
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.client.served import X, held, sleepy
from tests.processes import free_addresses
from zmqinfer import CallInfo, Client, LocalCluster
from zmqinfer.errors import DeadlineExceeded, InvalidArgument, ModelError, Unavailable
from zmqinfer.tensor import parse_layout, unpack

LAYOUT = msgpack.packb([["", "FP32", [4]]])


def tells(info: CallInfo, batch_rows: int = 1) -> bool:
    """Whether it tells of a call of the test's model."""
    assert info.worker in {"worker_1", "worker_2"}
    assert 0 <= info.queue_us + info.compute_us <= info.round_trip_us
    return (info.version, info.attempts, info.batch_rows) == (1, 1, batch_rows)


def test_call_tells_how_it_was_served(client: Client) -> None:
    """Who asks for it gets it beside the same output."""
    client.infer("model", X)
    began = time.monotonic()

    y, info = client.infer("model", sleepy(30), with_info=True)

    assert np.array_equal(y, sleepy(30) * 2)
    assert tells(info)
    assert 30_000 <= info.compute_us <= info.round_trip_us <= (time.monotonic() - began) * 1e6 + 1
    assert info.queue_us >= 10_000  # the batch waited 20 ms for company


def test_calls_of_one_block_each_tell_of_themselves(client: Client) -> None:
    """They share a reply, and a batch; those that ask and those that do not."""
    client.infer("model", X)

    futures = [client.submit("model", X + n) for n in range(8)]
    infos = [future.info(5) for future in futures]

    assert all(np.array_equal(future.result(), (X + n) * 2) for n, future in enumerate(futures))
    assert all(1 <= info.batch_rows <= 8 and tells(info, info.batch_rows) for info in infos)
    assert max(info.batch_rows for info in infos) > 1


def test_failed_call_tells_too(client: Client) -> None:
    """Of a worker if one ran it; one that never got so far has only its error."""
    failed = client.submit("model", np.full(4, -1, np.float32))
    assert tells(failed.info(5), failed.info().batch_rows)
    with pytest.raises(ModelError):
        failed.result()
    with held() as x:
        late = client.submit("model", x, deadline_s=0.05)
        cancelled = client.submit("model", x)
        cancelled.cancel()
        assert late.info(5).round_trip_us >= 50_000
    with pytest.raises(DeadlineExceeded):
        late.result()
    with pytest.raises(concurrent.futures.CancelledError):
        cancelled.info()


@pytest.mark.slow
def test_call_that_nobody_answered_has_no_worker() -> None:
    """What is told of it is the client's own."""
    with Client(free_addresses(1), connect_timeout_s=0.1) as client:
        future = client.submit("model", X)
        assert isinstance(future.exception(5), Unavailable)
        info = future.info()
        assert (info.worker, info.version, info.batch_rows) == ("", 0, 0)
        assert info.round_trip_us >= 100_000


@pytest.mark.parametrize("rows", [None, 1, 5])
def test_body_is_answered_with_a_body(client: Client, rows: int | None) -> None:
    """Bytes in, bytes out, and what the reply tells."""
    x = X if rows is None else np.stack([X + n for n in range(rows)])

    answer = client.infer_body("model", LAYOUT, x.tobytes(), rows=rows)

    assert msgpack.unpackb(answer.layout)[0][1:] == ["FP32", [4]]
    assert answer.payload == (x * 2).tobytes()
    assert tells(answer.info, rows or 1)


@pytest.mark.parametrize("memory_mb", [0, 256])
def test_large_body_travels_as_large_arrays_do(cluster: LocalCluster, memory_mb: int) -> None:
    """In frames or in shared memory, given as bytes or as buffers, and comes as buffers."""
    x = np.arange(300_000, dtype=np.float32) % 1_000
    layout = msgpack.packb([["", "FP32", [300_000]]])
    with cluster.client(shared_memory_mb=memory_mb) as client:
        client.infer("model", X)
        for payload in (x.tobytes(), [x.data.cast("B")], [x], x.reshape(300, 1_000)):
            answer = client.infer_body("model", layout, payload)  # type: ignore[arg-type]
            (y,) = unpack(parse_layout(answer.layout), None, answer.payload)
            assert np.array_equal(y, x * 2)


def test_bodies_share_blocks_with_arrays(client: Client) -> None:
    """Each gets its own result, in its own form."""
    client.infer("model", X)
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        bodies = [pool.submit(client.infer_body, "model", LAYOUT, (X + n).tobytes()) for n in range(8)]
        arrays = [client.submit("model", X + n) for n in range(8)]

    assert [body.result().payload for body in bodies] == [((X + n) * 2).tobytes() for n in range(8)]
    assert all(np.array_equal(array.result(5), (X + n) * 2) for n, array in enumerate(arrays))


@pytest.mark.parametrize(
    ("layout", "payload", "words", "sentence"),
    [
        (LAYOUT, b"short", {}, "a payload of 5 bytes, expected 16: 1 rows"),
        (LAYOUT, bytes(16), {"rows": 2}, "a payload of 16 bytes, expected 32: 2 rows"),
        (LAYOUT, [bytes(8), bytes(8)], {}, r"parts of \[8, 8\] bytes, expected \[16\]"),
        (LAYOUT, "text", {}, "a str as payload, expected bytes"),
        (LAYOUT, X[::-1], {}, "a ndarray as payload, expected bytes, or a contiguous buffer"),
        (LAYOUT, bytes(16), {"rows": 0}, "rows is 0, expected None or"),
        (b"\xc1", bytes(16), {}, "a layout that is no msgpack"),
        (5, bytes(16), {}, "the layout for model 'model' is a int, expected bytes"),
        (msgpack.packb([["", "FP23", [4]]]), bytes(16), {}, "dtype 'FP23'"),
    ],
)
def test_what_is_no_body_is_refused(client: Client, layout: Any, payload: Any, words: Any, sentence: str) -> None:
    """Here, so that it hurts nobody in the same message."""
    with pytest.raises(InvalidArgument, match=sentence):
        client.infer_body("model", layout, payload, **words)
