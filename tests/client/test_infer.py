"""One call at a time: what travels, what comes back, and what it ends with."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

from tests.client.served import Running, X, gateway_here, held, sleepy
from tests.processes import wait_until
from zmqinfer import Client, LocalCluster
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import (
    DeadlineExceeded,
    Executed,
    InvalidArgument,
    ModelError,
    NotFound,
    TooLarge,
    Unavailable,
)
from zmqinfer.node.models import find_models, load_model
from zmqinfer.node.worker import WorkerNode


def test_infer_returns_what_the_model_gave(client: Client) -> None:
    """One input, one result, which is read-only: it is the bytes of the message itself."""
    y = client.infer("model", X)

    assert isinstance(y, np.ndarray)
    assert y.dtype == X.dtype
    assert np.array_equal(y, X * 2)
    with pytest.raises(ValueError, match="read-only"):
        y[0] = 1


@pytest.mark.parametrize("dtype", ["?", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", ">f4"])
@pytest.mark.parametrize("shape", [(), (1,), (0,), (2, 3), (2, 0, 3)])
def test_every_dtype_and_shape_travels(client: Client, dtype: str, shape: tuple[int, ...]) -> None:
    """Both ways, scalars and empty arrays too, and one with its bytes the other way round."""
    x = np.ones(shape, dtype)

    y = client.infer("model", x)

    assert isinstance(y, np.ndarray)
    assert y.dtype == np.dtype(dtype).newbyteorder("<")
    assert y.shape == shape
    assert np.array_equal(y, x if dtype == "?" else x * 2)


def test_input_may_be_any_view(client: Client) -> None:
    """Strided, transposed, and of Fortran's order: what travels is what it shows."""
    wide = np.arange(24, dtype=np.float32).reshape(4, 6)

    for view in (wide[::2, 1::2], wide.T, np.asfortranarray(wide), wide[:, ::-1], np.broadcast_to(wide[0], (3, 6))):
        assert np.array_equal(client.infer("model", view), view * 2)


def test_unknown_model_and_version_are_named(cluster: LocalCluster, client: Client) -> None:
    """Whether a young gateway calls it unavailable or an old one not found, the words are the caller's own."""
    for name, version in (("missing", None), ("model", 7)):
        with pytest.raises((NotFound, Unavailable)) as caught:
            client.infer(name, X, version=version)
        assert name in str(caught.value)
        assert caught.value.executed is Executed.NO


def test_guilty_request_alone_fails(client: Client) -> None:
    """Its neighbours in the batch get their answers: the batch is bisected."""
    xs = [np.full(4, -7 if n == 5 else n, np.float32) for n in range(8)]

    futures = [client.submit("model", x) for x in xs]

    for n, future in enumerate(futures):
        if n != 5:
            assert np.array_equal(future.result(5), xs[n] * 2)
    error = futures[5].exception(5)
    assert isinstance(error, ModelError)
    assert "ValueError: no square root of -7" in str(error)
    assert error.executed is Executed.YES
    assert len(error.request_id) == 16


def test_wrong_number_of_rows_is_never_guessed_at(client: Client) -> None:
    """A shifted answer would be someone else's: every request of that batch gets ModelError."""
    futures = [client.submit("model", np.full(4, n, np.float32)) for n in (500, 500)]

    for future in futures:
        assert isinstance(future.exception(5), ModelError)
        assert "rows" in str(future.exception()) or "axis" in str(future.exception())


@pytest.mark.slow
def test_deadline_ends_the_call_in_time(client: Client) -> None:
    """Not before it, and while the model still runs; it is a TimeoutError too and says where."""
    began = time.monotonic()

    with held() as x, pytest.raises(DeadlineExceeded) as caught:
        client.infer("model", x, deadline_s=0.1)

    assert time.monotonic() - began >= 0.1
    assert isinstance(caught.value, TimeoutError)
    assert caught.value.where in {"worker", "batch", "model", "network"}
    assert caught.value.executed is Executed.MAYBE


def test_big_arrays_travel(client: Client) -> None:
    """2 MB each way, as one input, as rows, and several at a time."""
    x = np.arange(500_000, dtype=np.float32) % 100

    futures = [client.submit("model", x + n) for n in range(4)]
    rows = client.infer_batch("model", x.reshape(10, -1))

    assert all(np.array_equal(future.result(10), (x + n) * 2) for n, future in enumerate(futures))
    assert np.array_equal(rows, x.reshape(10, -1) * 2)


@pytest.mark.slow
def test_threads_share_a_client(client: Client) -> None:
    """Eight threads, each its own answers, by all three kinds of call."""

    def work(thread: int) -> bool:
        right = []
        for n in range(20):
            x = np.array([thread, n], np.float32)
            right.append(np.array_equal(client.infer("model", x), x * 2))
            future = client.submit("model", x + 1)
            right.append(np.array_equal(future.result(5), (x + 1) * 2))
        xs = [np.array([thread, n], np.float32) for n in range(200)]
        right += [
            np.array_equal(y, x * 2)  # type: ignore[arg-type]
            for x, y in zip(xs, client.infer_many("model", xs, in_flight=32), strict=True)
        ]
        return all(right)

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(8)))


def test_cancelled_future_takes_its_call_back(client: Client) -> None:
    """Those who wait for it are told; a finished one cannot be cancelled."""
    blocker = [client.submit("model", sleepy(150)) for _ in range(4)]
    future = client.submit("model", X)

    assert future.cancel()
    done, _ = concurrent.futures.wait([future], timeout=1)

    assert done == {future}
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    for one in blocker:
        one.result(5)
        assert not one.cancel()
    assert wait_until(lambda: client.status()[0]["requests"]["pending"] == 0, 2)


def test_what_hangs_on_a_future_may_begin_another_call(client: Client) -> None:
    """It runs without the client's lock."""
    ended: concurrent.futures.Future[Any] = concurrent.futures.Future()

    def go_on(first: concurrent.futures.Future[Any]) -> None:
        client.submit("model", first.result()).add_done_callback(lambda second: ended.set_result(second.result()))

    client.submit("model", X).add_done_callback(go_on)

    assert np.array_equal(ended.result(5), X * 4)


def test_results_are_read_only(client: Client) -> None:
    """Whatever their dtype, also those that were put together of pieces."""
    results = [
        client.infer("model", X),
        client.infer("model", X > 1),
        client.infer_batch("model", np.zeros((20, 2), np.float32)),
    ]
    assert not any(y.flags.writeable for y in results)  # type: ignore[union-attr]


PAIR_TOML = """
target = "model:predict"
[inputs.a]
dtype = "FP32"
shape = [2]
[inputs.b]
dtype = "INT64"
shape = [-1]
[outputs.sum]
dtype = "FP32"
shape = [2]
[outputs.count]
dtype = "INT64"
shape = []
"""


PAIR_PY = """
import numpy as np

def predict(batch):
    count = np.full(len(batch["a"]), batch["b"].shape[1], np.int64)
    return {"sum": batch["a"] + batch["b"].sum(axis=1, keepdims=True).astype(np.float32), "count": count}
"""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("models") / "pair"
    folder.mkdir()
    (folder / "model.toml").write_text(PAIR_TOML)
    (folder / "model.py").write_text(PAIR_PY)
    gateway = gateway_here(GatewaySettings(max_body_bytes=4_096))
    worker = WorkerNode("w1", [load_model(one) for one in find_models([folder])], [gateway.workers_address])
    with Running(gateway, worker), Client(gateway.clients_address) as client:
        wait_until(lambda: client.status()[0]["workers"])
        yield gateway.clients_address


def test_models_of_several_inputs_take_and_give_dicts(pair: str) -> None:
    """In any order of the names, one row or many, of any length where the model says so."""
    a, b = np.array([1, 2], np.float32), np.array([1, 2, 3], np.int64)
    with Client(pair) as client:
        y = client.infer("pair", {"b": b, "a": a})
        rows = client.infer_batch("pair", {"a": np.stack([a] * 40), "b": np.stack([b[:2]] * 40)})

    assert isinstance(y, dict)
    assert isinstance(rows, dict)
    assert np.array_equal(y["sum"], [7, 8])
    assert y["count"] == 3
    assert np.array_equal(rows["sum"], [[4, 5]] * 40)
    assert np.array_equal(rows["count"], [2] * 40)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        ({"a": np.zeros(2, np.float32)}, ["'b'"]),
        ({"a": np.zeros(2, np.float64), "b": np.zeros(1, np.int64)}, ["'a'", "FP64", "FP32"]),
        ({"a": np.zeros(3, np.float32), "b": np.zeros(1, np.int64)}, ["'a'", "[3]", "[2]"]),
        ({"a": np.zeros(2, np.float32), "b": np.zeros(1, np.int64), "c": np.zeros(1)}, ["'c'"]),
        (np.zeros(2, np.float32), ["(a, b)", "bare array"]),
    ],
)
@pytest.mark.parametrize("is_first", [True, False])
def test_input_that_does_not_fit_is_named(pair: str, x: Any, words: list[str], is_first: bool) -> None:
    """Name, what came, what was expected; from the worker if the client does not know the model yet."""
    with Client(pair) as client:
        if not is_first:
            client.models()

        with pytest.raises(InvalidArgument) as caught:
            client.infer("pair", x)

    assert all(word in str(caught.value) for word in words), caught.value


def test_body_over_the_limit_is_too_large(pair: str) -> None:
    """Whether the client knows the limit already or the gateway has to say it; the client goes on."""
    x = {"a": np.zeros(2, np.float32), "b": np.zeros(700, np.int64)}
    small = {**x, "b": np.zeros(3, np.int64)}
    with Client(pair) as client:
        with pytest.raises(TooLarge, match="5,608"):
            client.infer("pair", x)

        assert client.infer("pair", small)
        with pytest.raises(TooLarge, match="5,608"):
            client.infer("pair", x)
