"""The thread-safe client against a real gateway and workers, over real sockets."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import os
import random
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.processes import free_addresses, wait_until
from zmqinfer import Client, LocalCluster
from zmqinfer.config import GatewaySettings, ModelSettings
from zmqinfer.errors import (
    Cancelled,
    ConfigError,
    DeadlineExceeded,
    Executed,
    InvalidArgument,
    ModelError,
    NotFound,
    TooLarge,
    Unavailable,
    UsageError,
    ZmqInferError,
)
from zmqinfer.machine.call import SharedBody, body_bytes
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.models import find_models, load_model
from zmqinfer.node.worker import WorkerNode

X = np.arange(4, dtype=np.float32)
# Above this a first value makes the model sleep, so long as it says.
SLEEPY = 1_000.0


def model(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Doubles; a negative value raises; a value over 1,000 sleeps so many milliseconds more; 500 loses a row."""
    if x.dtype.kind == "f" and x.size:
        first = x.reshape(len(x), -1)[:, 0]
        if (first < 0).any():
            raise ValueError(f"no square root of {first.min():g}")
        if (first > SLEEPY).any():
            time.sleep(float(first.max() - SLEEPY) / 1_000)
        if (first == 500).any():
            return x[1:]
    return x * 2 if x.dtype.kind != "b" else x


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    # A window of 20 ms for all that comes, so that neighbours do share a batch.
    settings = ModelSettings(policy="timed", max_wait_ms=20, max_batch_size=8)
    with LocalCluster(model, settings=settings) as one:
        yield one


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as one:
        yield one


def sleepy(milliseconds: float) -> np.ndarray[Any, Any]:
    return np.array([SLEEPY + milliseconds], np.float32)


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


@pytest.mark.parametrize(
    "x",
    [
        *(None, 1.5, [1.0, 2.0], "text", b"bytes", np.float32(1.5), {"x": [1.0]}, {}),
        *(np.array([None]), np.array(["a"]), np.array([1], "M8[s]"), np.array([1 + 2j]), np.array([(1, 2)], "i4,i4")),
    ],
)
@pytest.mark.parametrize("method", ["infer", "submit", "infer_batch", "infer_many"])
def test_what_is_no_array_is_refused(client: Client, method: str, x: Any) -> None:
    """Objects, text, dates, lists: InvalidArgument, which is a ValueError too, and nothing is sent."""
    calls = {"infer_many": lambda: list(client.infer_many("model", [x]))}

    with pytest.raises(InvalidArgument) as caught:
        calls.get(method, lambda: getattr(client, method)("model", x))()

    assert isinstance(caught.value, ValueError)
    assert np.array_equal(client.infer("model", X), X * 2)


@pytest.mark.parametrize(
    "words",
    [
        {"model": ""},
        {"model": 5},
        {"model": "x" * 129},
        {"model": "\ud800"},
        {"version": 0},
        {"version": "1"},
        {"version": np.int64(1)},
        {"priority": 0},
        {"priority": 9},
        {"priority": 4.0},
        {"priority": True},
        {"deadline_s": 0},
        {"deadline_s": -1.0},
        {"deadline_s": 301},
        {"deadline_s": float("nan")},
        {"deadline_s": "5"},
        {"deadline_s": True},
        {"key": 5},
        {"key": "k" * 129},
        {"key": "\ud800"},
        {"idempotent": 1},
    ],
)
@pytest.mark.parametrize("method", ["infer", "submit", "infer_batch", "infer_many"])
def test_argument_out_of_range_hurts_nobody_else(client: Client, method: str, words: dict[str, Any]) -> None:
    """It is refused before it is sent: the gateway would refuse the whole message, with others' calls inside."""
    neighbour = client.submit("model", X)
    words = {"model": "model", **words}
    name = words.pop("model")

    with pytest.raises(InvalidArgument):
        list(client.infer_many(name, [X], **words)) if method == "infer_many" else getattr(client, method)(
            name, X, **words
        )

    assert np.array_equal(neighbour.result(5), X * 2)


def test_unknown_model_and_version_are_named(cluster: LocalCluster, client: Client) -> None:
    """Whether a young gateway calls it unavailable or an old one not found, the words are the caller's own."""
    for name, version in (("missing", None), ("model", 7)):
        with pytest.raises((NotFound, Unavailable)) as caught:
            client.infer(name, X, version=version)
        assert name in str(caught.value)
        assert caught.value.executed is Executed.NO


def test_many_come_in_order(client: Client) -> None:
    """More than are let in at a time, from a generator."""
    wanted = 3_000

    got = [float(y[0]) for y in client.infer_many("model", (np.full(1, n % 100, np.float32) for n in range(wanted)))]

    assert got == [n % 100 * 2 for n in range(wanted)]


@pytest.mark.parametrize("in_flight", [1, 2, 3, 7])
def test_many_reads_its_inputs_lazily(client: Client, in_flight: int) -> None:
    """At most `in_flight` inputs are ahead of the results."""
    taken = 0

    def inputs() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield X

    results = client.infer_many("model", inputs(), in_flight=in_flight)
    before = taken
    ahead = [taken - number for number, _ in zip(range(10), results, strict=False)]

    assert before == 0
    assert max(ahead) <= in_flight
    results.close()  # type: ignore[attr-defined]


BAD = np.full(4, -1, np.float32)


def test_first_error_of_many_is_raised_at_its_place(client: Client) -> None:
    """The results before it come first, be it refused here or by the model."""
    for bad, error in ((BAD, ModelError), ([1.0], InvalidArgument)):
        got = []

        with pytest.raises(error):
            got.extend(client.infer_many("model", [X, X, bad, X]))  # type: ignore[list-item]

        # `extend` keeps what came before the error.
        assert len(got) == 2


def test_errors_of_many_may_take_their_places(client: Client) -> None:
    """With return_errors all others come too."""
    got = list(client.infer_many("model", [X, BAD, X, "nothing", X], return_errors=True))  # type: ignore[list-item]

    assert [type(one) for one in got] == [np.ndarray, ModelError, np.ndarray, InvalidArgument, np.ndarray]


@pytest.mark.slow
def test_closing_many_early_takes_back_what_is_pending(cluster: LocalCluster, client: Client) -> None:
    """What nobody will read is not run: the gateway counts them as cancelled and has nothing left."""
    before = client.status()[0]["requests"]["outcomes"].get("CANCELLED", 0)
    results = client.infer_many("model", [np.zeros(1, np.float32), *[sleepy(100)] * 100], in_flight=64)
    next(results)

    results.close()  # type: ignore[attr-defined]

    wait_until(lambda: client.status()[0]["requests"]["pending"] == 0, 2)
    assert client.status()[0]["requests"]["outcomes"]["CANCELLED"] > before + 32


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 33])
def test_batch_is_split_and_joined(client: Client, rows: int) -> None:
    """The model takes 8 rows; n rows come back as n rows in their order."""
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)

    y = client.infer_batch("model", x)

    assert np.array_equal(y, x * 2)


@pytest.mark.slow
def test_batch_of_many_pieces_is_not_too_much(cluster: LocalCluster) -> None:
    """Only so many are sent at a time, for a gateway takes 10,000 requests of one client."""
    x = np.arange(90_000, dtype=np.float32) % 100
    with cluster.client() as client:
        assert np.array_equal(client.infer_batch("model", x, deadline_s=60), x * 2)


def test_error_of_a_piece_speaks_of_the_whole_batch() -> None:
    """Of which other pieces may have run: after NO a repeat has to be safe."""
    rows = np.ones((9, 100), np.float32)
    with LocalCluster(model, gateway=GatewaySettings(max_body_bytes=1_024)) as small, small.client() as client:
        with pytest.raises(TooLarge) as second:  # one row goes ahead, and runs
            client.infer_batch("model", rows)
        with pytest.raises(TooLarge) as first:
            client.infer_batch("model", rows)

    assert second.value.executed is Executed.MAYBE
    assert first.value.executed is Executed.NO


@pytest.mark.parametrize("x", [np.ones((0, 3), np.float32), np.float32(1), np.array(1.0)])
def test_batch_without_rows_is_refused(client: Client, x: Any) -> None:
    """There is nothing to run."""
    with pytest.raises(InvalidArgument):
        client.infer_batch("model", x)


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
    """Within 250 ms of the deadline, while the model still runs; it is a TimeoutError too and says where."""
    began = time.monotonic()

    with pytest.raises(DeadlineExceeded) as caught:
        client.infer("model", sleepy(300), deadline_s=0.1)

    assert 0.1 <= time.monotonic() - began < 0.35
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


def test_closing_fails_what_is_pending(cluster: LocalCluster) -> None:
    """With Cancelled and within a second, waiting callers included; closing twice is closing once."""
    client = cluster.client()
    client.infer("model", X)
    ends: list[object] = []

    def wait() -> None:
        try:
            client.infer("model", sleepy(400))
        except ZmqInferError as error:
            ends.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    future = client.submit("model", sleepy(400))
    wait_until(lambda: client._machine.pending == 2)
    began = time.monotonic()

    client.close()
    client.close()

    waiting.join(1)
    assert time.monotonic() - began < 1
    assert isinstance(future.exception(0), Cancelled)
    assert [type(end) for end in ends] == [Cancelled]


@pytest.mark.parametrize(
    "words",
    [
        {"deadline_s": np.float32(5)},
        {"deadline_s": Fraction(9, 2)},
        {"priority": np.int64(3)},
        {"priority": np.uint8(8)},
    ],
)
def test_numbers_of_other_kinds_are_numbers(client: Client, words: dict[str, Any]) -> None:
    """NumPy's above all."""
    assert np.array_equal(client.infer("model", X, **words), X * 2)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "words", "sentence"),
    [
        (b"thr", {}, "model is b'thr', which is bytes, expected text"),
        ("model", {"priority": 4.0}, "priority is 4.0, a float, expected a whole number"),
        ("model", {"deadline_s": "5"}, "deadline_s is '5', a str, expected a number of seconds"),
        ("model", {"deadline_s": True}, "deadline_s is True, a bool, expected a number of seconds"),
    ],
)
def test_argument_of_another_type_is_named_with_it(
    client: Client, model: Any, words: dict[str, Any], sentence: str
) -> None:
    """A range would mislead."""
    with pytest.raises(InvalidArgument, match=re.escape(sentence)):
        client.infer(model, X, **words)


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("return_errors", [False, True])
def test_closing_ends_many_as_it_ends_other_calls(cluster: LocalCluster, size: int, return_errors: bool) -> None:
    """What has come is given out, what is pending is Cancelled, and so is the next that would have been sent."""
    client = cluster.client()
    endless = (np.full(size, 3, np.float32) for _ in itertools.count())
    results = client.infer_many("model", endless, in_flight=8, return_errors=return_errors)
    got = [next(results) for _ in range(20)]

    threading.Thread(target=client.close).start()
    with contextlib.nullcontext() if return_errors else pytest.raises(Cancelled):
        got.extend(itertools.islice(results, 100_000))

    assert len(got) < 100_000
    assert {type(one) for one in got} <= {np.ndarray, Cancelled}
    assert isinstance(got[-1], Cancelled if return_errors else np.ndarray)
    with pytest.raises(UsageError, match="closed"):
        next(client.infer_many("model", [X]))


@pytest.mark.parametrize("call", ["infer", "submit", "infer_batch", "infer_many", "status", "models", "drain"])
def test_closed_client_is_of_no_use(cluster: LocalCluster, call: str) -> None:
    """UsageError, at once."""
    client = cluster.client()
    client.close()
    arguments: dict[str, tuple[Any, ...]] = {"status": (), "models": (), "drain": ("w",), "infer_many": ("model", [X])}

    with pytest.raises(UsageError, match="closed"):
        getattr(client, call)(*arguments.get(call, ("model", X)))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_client_survives_interrupts_at_any_instant(cluster: LocalCluster) -> None:
    """A signal handler may raise in the middle of a turn, as Ctrl-C does; the next call works, in time."""
    dice = random.Random(1)
    before = signal.signal(signal.SIGALRM, _interrupt)
    calls: list[Callable[[Client], object]] = [
        lambda client: client.infer("model", X),
        lambda client: list(client.infer_many("model", itertools.repeat(X, 2_000))),
        lambda client: client.submit("model", X).result(),
        lambda client: client.infer_batch("model", np.ones((40, 4), np.float32)),
    ]
    try:
        with cluster.client() as client:
            for call in calls * 15:
                client.infer("model", X)
                # And again later: the interpreter swallows what is raised while it ends a generator.
                signal.setitimer(signal.ITIMER_REAL, dice.uniform(0.000_5, 0.01), 1.0)
                with pytest.raises(KeyboardInterrupt):
                    _again_and_again(call, client)
                signal.setitimer(signal.ITIMER_REAL, 0)
                began = time.monotonic()

                y = client.infer("model", X, deadline_s=1)

                assert np.array_equal(y, X * 2)
                assert time.monotonic() - began < 1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _again_and_again(call: Callable[[Client], object], client: Client) -> None:
    while True:
        call(client)


@pytest.mark.slow
def test_abandoned_stream_in_a_cycle_is_collected_anywhere(cluster: LocalCluster) -> None:
    """The garbage collector may end it in a thread that has the client's lock."""
    with cluster.client() as client:
        for _ in range(40):
            holder: list[object] = []
            holder.append(holder)
            stream = client.infer_many("model", itertools.repeat(X, 1_000), in_flight=64)
            next(stream)
            holder.append(stream)
            del stream, holder
            for _ in range(20):
                client.submit("model", X)
        assert np.array_equal(client.infer("model", X, deadline_s=5), X * 2)
        assert wait_until(lambda: client.status()[0]["requests"]["pending"] == 0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_may_not_use_its_parents_client(client: Client) -> None:
    """Its sends would vanish: UsageError there, its end leaves the sockets alone, and the parent goes on."""
    stream = client.infer_many("model", itertools.repeat(X, 2_000), in_flight=50)
    assert np.array_equal(next(stream), X * 2)
    done, pending = client.submit("model", X), client.submit("model", sleepy(300))
    done.result()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            uses: list[Callable[[], object]] = [lambda: client.infer("model", X), lambda: list(stream)]
            for use in [*uses, pending.result, pending.exception]:
                with pytest.raises(UsageError, match="fork"):
                    use()
            assert np.array_equal(done.result(), X * 2)
            client.close()
            code = 0
        finally:
            os._exit(code)

    _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert sum(1 for _ in stream) == 1_999
    assert np.array_equal(pending.result(), sleepy(300) * 2)
    assert np.array_equal(client.infer("model", X), X * 2)


@pytest.mark.slow
def test_no_gateway_is_an_error_within_the_connect_timeout() -> None:
    """It names where it looked; making the client does not block."""
    addresses = free_addresses(2)
    began = time.monotonic()
    with Client(addresses, connect_timeout_s=0.3) as client:
        assert time.monotonic() - began < 0.3

        with pytest.raises(Unavailable) as caught:
            client.infer("model", X)

    assert time.monotonic() - began < 1.0
    assert all(address in str(caught.value) for address in addresses)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.executed is Executed.NO


@pytest.mark.slow
def test_gateway_that_comes_late_is_found(client: Client) -> None:
    """A call made before there is a gateway is answered as soon as there is one with a worker."""
    clients, workers = free_addresses(2)
    with Client(clients, connect_timeout_s=10) as early:
        future = early.submit("echo", X)
        gateway = GatewayNode(clients, workers)
        with _running(gateway, _echo_worker(workers)):
            assert np.array_equal(future.result(10), X)


@pytest.mark.parametrize("endpoints", ["", ",", [], "http://localhost:1", "tcp://127.0.0.1", "5555", 5555, None, [5]])
def test_address_that_is_none_is_refused(endpoints: Any) -> None:
    """When the client is made."""
    with pytest.raises(ConfigError):
        Client(endpoints)


@pytest.mark.parametrize(
    "words", [{"connect_timeout_s": "a"}, {"deadline_s": None}, {"heartbeat_ms": 1.5}, {"deadline_s": True}]
)
def test_setting_that_is_none_is_refused(words: dict[str, Any]) -> None:
    """With one sentence that names it."""
    with pytest.raises(ConfigError, match=f"{next(iter(words))} is .*, expected"):
        Client("tcp://127.0.0.1:1", **words)


@pytest.mark.parametrize("memory_mb", [0, 1, 256])
@pytest.mark.parametrize("values", [4, 300_000])
def test_inputs_are_taken_as_they_are_when_they_are_given(cluster: LocalCluster, values: int, memory_mb: int) -> None:
    """One buffer may serve for all, whether they travel inline, as frames or in shared memory."""
    buffer = np.empty(values, np.float32)

    def filled() -> Iterator[np.ndarray[Any, Any]]:
        for number in range(20):
            buffer[:] = number
            yield buffer

    with cluster.client(shared_memory_mb=memory_mb) as one:
        one.infer("model", buffer * 0)
        for number, y in enumerate(one.infer_many("model", filled())):
            assert np.all(y == 2 * number)  # type: ignore[operator]
        futures = [one.submit("model", x) for x in filled()]
        for number, future in enumerate(futures):
            assert np.all(future.result(10) == 2 * number)  # type: ignore[operator]


def test_large_inputs_of_many_calls_stay_within_what_a_gateway_takes(cluster: LocalCluster) -> None:
    """However many may be in flight: 320 MB by messages, of which a gateway takes 268 MB of one client."""
    x = np.zeros(2_000_000, np.float32)
    with cluster.client(shared_memory_mb=0) as one:
        assert sum(1 for _ in one.infer_many("model", (x for _ in range(40)))) == 40
        assert one._connection.machine.pending == 0


def test_what_a_worker_cannot_read_in_memory_is_sent_as_it_was_given(cluster: LocalCluster) -> None:
    """Though its caller has changed the array since."""
    x = np.ones(300_000, np.float32)
    with cluster.client() as one:
        one.infer("model", x)
        connection = one._connection
        body = connection.own("model", None, connection.machine.codec.encode("model", None, x, None))
        x[:] = 0
        assert isinstance(body[1], SharedBody)
        assert body_bytes(body[1]) == 1_200_000
        assert np.all(np.frombuffer(body[1].parts[0], np.float32) == 1)
        connection._memory.free(body[1].place)  # type: ignore[union-attr]


def test_source_that_fails_leaves_no_memory_behind(cluster: LocalCluster) -> None:
    """What it had given before is not sent."""

    def failing() -> Iterator[np.ndarray[Any, Any]]:
        yield np.zeros(300_000, np.float32)
        raise KeyError("the source")

    with cluster.client() as one:
        one.infer("model", X)
        with pytest.raises(KeyError, match="the source"):
            next(one.infer_many("model", failing()))
        one.infer("model", X)
        memory = one._connection._memory
        assert memory is None or memory._arena.used == 0


def test_results_are_read_only(client: Client) -> None:
    """Whatever their dtype, also those that were put together of pieces."""
    results = [
        client.infer("model", X),
        client.infer("model", X > 1),
        client.infer_batch("model", np.zeros((20, 2), np.float32)),
    ]
    assert not any(y.flags.writeable for y in results)  # type: ignore[union-attr]


@pytest.mark.parametrize("xs", [None, 5])
def test_inputs_that_cannot_be_gone_through_are_refused(client: Client, xs: Any) -> None:
    """At the call."""
    with pytest.raises(InvalidArgument, match=r"xs is a .*, expected"):
        client.infer_many("model", xs)


@pytest.mark.parametrize("in_flight", [0, -1, "a", 1.5, None])
def test_number_in_flight_that_cannot_be_is_refused(client: Client, in_flight: Any) -> None:
    """At the call, before any input is taken."""
    with pytest.raises(InvalidArgument, match=r"in_flight is .*, expected"):
        client.infer_many("model", [X], in_flight=in_flight)


@pytest.mark.parametrize("workers", [0, -1, "a"])
def test_cluster_without_workers_is_refused(workers: Any) -> None:
    """Nobody would answer."""
    with pytest.raises(ConfigError, match=r"workers is .*, expected"):
        LocalCluster(lambda x: x, workers=workers)


class _Running:
    """Nodes in threads."""

    def __init__(self, *nodes: GatewayNode | WorkerNode) -> None:
        self._nodes = nodes
        self._threads = [threading.Thread(target=node.run, daemon=True) for node in nodes]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        for node, thread in zip(reversed(self._nodes), reversed(self._threads), strict=True):
            node.drain() if isinstance(node, WorkerNode) else node.stop()
            thread.join(5)
            assert not thread.is_alive()


def _running(*nodes: GatewayNode | WorkerNode) -> _Running:
    return _Running(*nodes)


def _echo_worker(*gateways: str) -> WorkerNode:
    from zmqinfer.zoo import ZOO

    return WorkerNode("w1", [load_model(one) for one in find_models([ZOO]) if one.name == "echo"], gateways)


def test_two_gateways_share_the_calls() -> None:
    """One client, one worker, two gateways: both carry requests, and both tell of themselves."""
    gateways = [GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0") for _ in range(2)]
    worker = _echo_worker(*[one.workers_address for one in gateways])
    with _running(*gateways, worker), Client([one.clients_address for one in gateways]) as client:
        wait_until(lambda: all(one["workers"] for one in client.status()))

        got = list(client.infer_many("echo", [X + n for n in range(100)]))
        answered = [one["requests"]["answered"] for one in client.status()]

    assert all(np.array_equal(y, X + n) for n, y in enumerate(got))
    assert sum(answered) == 100
    assert min(answered) > 20


@pytest.mark.slow
def test_results_of_a_slow_source_do_not_wait_for_a_full_window(client: Client) -> None:
    """What is there is sent; a source of 50 a second has its first result after one input, not after a thousand."""

    def source() -> Iterator[Any]:
        for n in range(20):
            time.sleep(0.02)
            yield X + n

    began = time.monotonic()
    stream = client.infer_many("model", source())

    first = next(stream)

    assert time.monotonic() - began < 0.3
    assert np.array_equal(first, X * 2)
    assert sum(1 for _ in stream) == 19


@pytest.mark.slow
def test_gateway_that_is_not_there_does_not_hide_the_others(cluster: LocalCluster) -> None:
    """Questions are answered by those who can; only if nobody does is that an error."""
    (nowhere,) = free_addresses(1)
    with Client([nowhere, cluster.address]) as client:
        client.infer("model", X)

        (one,) = client.status(timeout_s=0.3)
        (cards,) = client.models(timeout_s=0.3)

    assert one["address"] == cluster.address
    assert [card["name"] for card in cards] == ["model"]
    with Client(nowhere, connect_timeout_s=0.3) as client, pytest.raises(Unavailable, match="no gateway answered"):
        client.status(timeout_s=0.3)


@pytest.mark.slow
def test_lost_gateway_is_ridden_out_by_the_other() -> None:
    """As soon as its silence is noticed, new calls go to the one that is left."""
    gateways = [GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0") for _ in range(2)]
    worker = _echo_worker(*[one.workers_address for one in gateways])
    addresses = [one.clients_address for one in gateways]
    with _running(gateways[0], worker):
        second = threading.Thread(target=gateways[1].run, daemon=True)
        second.start()
        with Client(addresses, heartbeat_ms=50, deadline_s=10) as client:
            wait_until(lambda: all(one["workers"] for one in client.status()))

            gateways[1].stop()
            second.join(5)
            # Its silence is noticed by those who wait for it.
            waiting = [client.submit("echo", X + n) for n in range(20)]
            wait_until(lambda: client._machine.links[1].state.value != "up", 5)
            later = [client.infer("echo", X + n, deadline_s=2) for n in range(20)]

        assert all(np.array_equal(y, X + n) for n, y in enumerate(later))
        assert len(waiting) == 20


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
    gateway = GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", GatewaySettings(max_body_bytes=4_096))
    worker = WorkerNode("w1", [load_model(one) for one in find_models([folder])], [gateway.workers_address])
    with _running(gateway, worker), Client(gateway.clients_address) as client:
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


def test_status_and_models_tell_of_the_cluster(cluster: LocalCluster, client: Client) -> None:
    """And the books balance."""
    (one,) = client.status()
    (cards,) = client.models()

    assert one["address"] == cluster.address
    requests = one["requests"]
    assert requests["accepted"] == requests["answered"] + requests["pending"]
    assert [card["name"] for card in cards] == ["model"]
    with pytest.raises(NotFound, match="ghost"):
        client.drain("ghost")
    with pytest.raises(InvalidArgument, match="udcff"):
        client.drain("\udcff")


def test_idle_client_rests(cluster: LocalCluster) -> None:
    """Between calls its thread does nothing: a client at rest costs no CPU."""
    with cluster.client() as client:
        client.infer("model", X)
        wait_until(lambda: client._turns._leader is None)

        assert client._machine.wake_at() is None


@pytest.mark.parametrize("wrong", [["model"], {}, None])
def test_a_senseless_argument_hurts_its_caller_alone(client: Client, wrong: Any) -> None:
    """Another thread's call goes on."""
    pending = client.submit("model", sleepy(200))
    with pytest.raises(InvalidArgument, match="model"):
        client.infer(wrong, X)
    with pytest.raises(InvalidArgument, match="model"):
        client.submit(wrong, X)

    assert np.array_equal(pending.result(5), sleepy(200) * 2)
