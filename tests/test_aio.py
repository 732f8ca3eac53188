"""The asyncio client against a real gateway and workers, over real sockets."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import numpy as np
import pytest

from tests.processes import free_addresses
from zmqinfer import AsyncClient, LocalCluster
from zmqinfer.config import ModelSettings
from zmqinfer.errors import (
    Cancelled,
    DeadlineExceeded,
    InvalidArgument,
    ModelError,
    NotFound,
    Unavailable,
    UsageError,
    ZmqInferError,
)

X = np.arange(4, dtype=np.float32)
BAD = np.full(4, -1, np.float32)
SLEEPY = 1_000.0


def model(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Doubles; a negative value raises; a value over 1,000 sleeps so many milliseconds more."""
    if (x < 0).any():
        raise ValueError("negative")
    if x.max(initial=0) > SLEEPY:
        time.sleep(float(x.max() - SLEEPY) / 1_000)
    return x * 2


def sleepy(milliseconds: float) -> np.ndarray[Any, Any]:
    return np.full(4, SLEEPY + milliseconds, np.float32)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(model, settings=ModelSettings(max_batch_size=8)) as one:
        yield one


def run(cluster: LocalCluster, story: Callable[[AsyncClient], Awaitable[None]], **settings: Any) -> None:
    """Tells a story with a client in an event loop of its own, in which no callback may fail unseen."""

    async def tell() -> None:
        unseen: list[object] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unseen.append(context))
        async with AsyncClient(cluster.address, **settings) as client:
            await story(client)
        # Whatever was scheduled before the end has its turn.
        for _ in range(3):
            await asyncio.sleep(0)
        assert unseen == []

    asyncio.run(tell())


def test_tasks_share_a_client(cluster: LocalCluster) -> None:
    """200 tasks, each its own answers, by all three kinds of call."""

    async def story(client: AsyncClient) -> None:
        async def work(task: int) -> None:
            for n in range(5):
                x = np.array([task, n], np.float32)
                assert np.array_equal(await client.infer("model", x), x * 2)
            rows = np.full((20, 2), task, np.float32)
            assert np.array_equal(await client.infer_batch("model", rows), rows * 2)
            got = [y async for y in client.infer_many("model", [np.full(2, task + n, np.float32) for n in range(5)])]
            assert [float(y[0]) for y in got] == [(task + n) * 2 for n in range(5)]  # type: ignore[index]

        await asyncio.gather(*(work(task) for task in range(200)))

    run(cluster, story)


def test_many_come_in_order_from_any_iterable(cluster: LocalCluster) -> None:
    """A list, a generator, an asynchronous one; more than are let in at a time."""
    xs = [np.full(1, n % 50, np.float32) for n in range(500)]

    async def asynchronous() -> AsyncIterator[np.ndarray[Any, Any]]:
        for x in xs:
            await asyncio.sleep(0)
            yield x

    async def story(client: AsyncClient) -> None:
        for source in (xs, (x for x in xs), asynchronous()):
            got = [float(y[0]) async for y in client.infer_many("model", source, in_flight=64)]  # type: ignore[index]
            assert got == [n % 50 * 2 for n in range(500)]

    run(cluster, story)


def test_many_reads_its_inputs_lazily(cluster: LocalCluster) -> None:
    """At most `in_flight` inputs are ahead of the results."""

    async def story(client: AsyncClient) -> None:
        taken = 0

        def inputs() -> Iterator[np.ndarray[Any, Any]]:
            nonlocal taken
            while True:
                taken += 1
                yield X

        given = 0
        results = client.infer_many("model", inputs(), in_flight=5)
        async for _ in results:
            assert taken - given <= 5
            given += 1
            if given == 30:
                break
        await results.aclose()  # type: ignore[attr-defined]

    run(cluster, story)


@pytest.mark.parametrize("values", [4, 300_000])
def test_inputs_of_many_are_taken_as_they_are_when_they_are_given(cluster: LocalCluster, values: int) -> None:
    """One buffer may serve for all."""
    buffer = np.empty(values, np.float32)

    def filled() -> Iterator[np.ndarray[Any, Any]]:
        for number in range(20):
            buffer[:] = number
            yield buffer

    async def story(client: AsyncClient) -> None:
        got = [float(y[-1]) async for y in client.infer_many("model", filled())]  # type: ignore[index]
        assert got == [2 * number for number in range(20)]

    for memory_mb in (0, 256):
        run(cluster, story, shared_memory_mb=memory_mb)


def test_many_waits_for_an_answer_and_the_next_input_together(cluster: LocalCluster) -> None:
    """A source may need the one for the other; one that fails, or is left early, leaves nothing behind."""

    async def story(client: AsyncClient) -> None:
        answered = asyncio.Event()

        async def one_by_one(failure: Exception | None = None) -> AsyncIterator[np.ndarray[Any, Any]]:
            for n in range(5):
                yield np.full(1, n, np.float32)
                await answered.wait()
                answered.clear()
            if failure is not None:
                raise failure

        got = []
        async for y in client.infer_many("model", one_by_one()):
            got.append(float(y[0]))  # type: ignore[index]
            answered.set()
        assert got == [0, 2, 4, 6, 8]

        async def until_it_fails() -> None:
            async for _ in client.infer_many("model", one_by_one(KeyError("the source"))):
                answered.set()

        with pytest.raises(KeyError, match="the source"):
            await until_it_fails()
        results = client.infer_many("model", one_by_one())
        await anext(results)
        await results.aclose()  # type: ignore[attr-defined]

    run(cluster, story)


@pytest.mark.parametrize(("bad", "error"), [(BAD, ModelError), ([1.0], InvalidArgument)])
def test_error_of_many_is_raised_at_its_place_or_takes_it(
    cluster: LocalCluster, bad: Any, error: type[Exception]
) -> None:
    """The results before it come first, be it refused here or by the model."""

    async def story(client: AsyncClient) -> None:
        got: list[object] = []

        async def gather() -> None:
            async for y in client.infer_many("model", [X, X, bad, X]):
                got.append(y)  # noqa: PERF401 - what came before the error is wanted

        with pytest.raises(error):
            await gather()
        assert len(got) == 2
        kinds = [type(y) async for y in client.infer_many("model", [X, bad, X], return_errors=True)]
        assert kinds == [np.ndarray, error, np.ndarray]

    run(cluster, story)


def test_closing_many_early_takes_back_what_is_pending(cluster: LocalCluster) -> None:
    """What nobody will read is not run."""

    async def story(client: AsyncClient) -> None:
        results = client.infer_many("model", [X, *[sleepy(50)] * 100], in_flight=64)
        await anext(results)
        await results.aclose()  # type: ignore[attr-defined]
        assert client._machine.pending == 0
        await client.infer("model", X)
        outcomes = (await client.status())[0]["requests"]["outcomes"]
        assert outcomes["CANCELLED"] > 0

    run(cluster, story)


@pytest.mark.parametrize(
    "words",
    [
        *({"model": ""}, {"model": 5}, {"model": "\ud800"}, {"version": 0}, {"priority": 4.0}, {"priority": True}),
        *({"deadline_s": 0}, {"deadline_s": 301}, {"key": "k" * 129}, {"idempotent": 1}),
    ],
)
@pytest.mark.parametrize("method", ["infer", "infer_batch", "infer_many"])
def test_argument_out_of_range_hurts_nobody_else(cluster: LocalCluster, method: str, words: dict[str, Any]) -> None:
    """It is refused before it is sent: the gateway would refuse the whole message, with others' calls inside."""
    words = {"model": "model", **words}
    name = words.pop("model")

    async def story(client: AsyncClient) -> None:
        neighbour = asyncio.create_task(client.infer("model", X))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        with pytest.raises(InvalidArgument):
            await (
                anext(client.infer_many(name, [X], **words))
                if method == "infer_many"
                else getattr(client, method)(name, X, **words)
            )
        assert np.array_equal(await neighbour, X * 2)

    run(cluster, story)


@pytest.mark.parametrize("x", [None, 1.5, [1.0], "text", np.array([None]), np.array(["a"]), {"x": [1.0]}, {}])
def test_what_is_no_array_is_refused(cluster: LocalCluster, x: Any) -> None:
    """InvalidArgument, and nothing is sent."""

    async def story(client: AsyncClient) -> None:
        for call in (client.infer, client.infer_batch):
            with pytest.raises(InvalidArgument):
                await call("model", x)

    run(cluster, story)


def test_guilty_request_alone_fails(cluster: LocalCluster) -> None:
    """Its neighbours in the batch get their answers."""

    async def story(client: AsyncClient) -> None:
        xs = [BAD if n == 5 else np.full(4, n, np.float32) for n in range(16)]
        ends = await asyncio.gather(*(client.infer("model", x) for x in xs), return_exceptions=True)
        assert isinstance(ends[5], ModelError)
        assert all(np.array_equal(ends[n], xs[n] * 2) for n in range(16) if n != 5)  # type: ignore[arg-type]

    run(cluster, story)


@pytest.mark.slow
def test_deadline_ends_the_call_in_time(cluster: LocalCluster) -> None:
    """Within 250 ms of the deadline, while the model still runs."""

    async def story(client: AsyncClient) -> None:
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await client.infer("model", sleepy(300), deadline_s=0.1)
        assert 0.1 <= time.monotonic() - began < 0.35

    run(cluster, story)


@pytest.mark.parametrize("method", ["infer", "infer_batch"])
def test_cancelled_task_takes_its_call_back(cluster: LocalCluster, method: str) -> None:
    """The standard CancelledError; nothing stays behind in the client, and the gateway counts it."""

    async def story(client: AsyncClient) -> None:
        x = sleepy(150) if method == "infer" else np.stack([sleepy(150)] * 30)
        await client.infer("model", X)
        before = (await client.status())[0]["requests"]["outcomes"].get("CANCELLED", 0)
        task = asyncio.create_task(getattr(client, method)("model", x))
        # Its request leaves in this turn, and has left in the next.
        for _ in range(3):
            await asyncio.sleep(0)
        assert client._machine.pending > 0
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert client._machine.pending == 0
        assert (await client.status())[0]["requests"]["outcomes"]["CANCELLED"] > before

    run(cluster, story)


def test_timeout_of_asyncio_takes_the_call_back(cluster: LocalCluster) -> None:
    """`asyncio.timeout` and `wait_for` work as with anything else."""

    async def story(client: AsyncClient) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.infer("model", sleepy(150)), 0.02)
        assert client._machine.pending == 0

    run(cluster, story)


@pytest.mark.slow
def test_closing_fails_what_is_pending(cluster: LocalCluster) -> None:
    """With Cancelled, at once; also what was begun in the very turn of the loop that closes; twice is once."""

    async def story(client: AsyncClient) -> None:
        await client.infer("model", X)
        tasks = [asyncio.create_task(client.infer("model", sleepy(300))) for _ in range(3)]
        await asyncio.sleep(0.02)
        tasks += [asyncio.create_task(client.infer("model", X)) for _ in range(3)]
        await asyncio.sleep(0)
        began = time.monotonic()
        await client.close()
        await client.close()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert time.monotonic() - began < 1
        assert [type(end) for end in ends] == [Cancelled] * 6

    run(cluster, story)


def test_a_worker_is_asked_to_drain(cluster: LocalCluster) -> None:
    """By its name; a gateway that knows none of it says whom it knows."""

    async def story(client: AsyncClient) -> None:
        with pytest.raises(NotFound, match=r"ghost.*worker_1"):
            await client.drain("ghost")
        with pytest.raises(InvalidArgument, match="a b"):
            await client.drain("a b")
        with LocalCluster(model, workers=1) as other:
            async with AsyncClient(other.address) as leaving:
                assert "worker_1" in await leaving.drain("worker_1")

    run(cluster, story)


def test_closed_client_is_of_no_use(cluster: LocalCluster) -> None:
    """UsageError, at once, also for one that was never used."""

    async def story(client: AsyncClient) -> None:
        fresh = AsyncClient(cluster.address)
        for one in (client, fresh):
            await one.close()
            for call in (one.infer("model", X), one.infer_batch("model", X), one.status(), one.drain("w")):
                with pytest.raises(UsageError, match="closed"):
                    await call
            with pytest.raises(UsageError, match="closed"):
                await anext(one.infer_many("model", [X]))

    run(cluster, story)


UNCLOSED = """
import asyncio, gc, os, sys, threading
import numpy as np
import zmq
from zmqinfer import AsyncClient, Client

x = np.ones(100_000, np.float32)
# Begins the thread, with descriptors, that pyzmq keeps for what is sent without a copy.
frame = zmq.Frame(bytes(100_000), copy=False)

async def call(address, is_in_cycle):
    client = AsyncClient(address)
    client.itself = client if is_in_cycle else None
    await client.infer("model", x)

def call_in_thread(address, is_in_cycle):
    client = Client(address)
    client.itself = client if is_in_cycle else None
    client.infer("model", x)

kind, address = sys.argv[1:]
descriptors = []
for number in range(4):
    if kind == "async":
        asyncio.run(call(address, number % 2))
    else:
        call_in_thread(address, number % 2)
    gc.collect()
    for thread in threading.enumerate():
        if thread.name == "zmqinfer-client":
            thread.join(10)
    descriptors.append(len(os.listdir("/proc/self/fd")))
print(threading.active_count(), descriptors[-1] - descriptors[0])
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["default", "error"])
@pytest.mark.parametrize("kind", ["async", "sync"])
def test_client_that_nobody_closed_is_let_go(cluster: LocalCluster, kind: str, how: str) -> None:
    """Alone, or in a cycle; nothing hangs, no descriptor or thread stays, and a warning says what was forgotten."""
    command = [sys.executable, "-W", f"{how}::ResourceWarning", "-c", UNCLOSED, kind, cluster.address]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    threads, more = map(int, done.stdout.split())
    assert threads == 2, done.stderr
    assert more == 0, done.stderr
    assert "never closed" in done.stderr


@pytest.mark.parametrize("return_errors", [False, True])
def test_closing_ends_many_as_it_ends_other_calls(cluster: LocalCluster, return_errors: bool) -> None:
    """With `Cancelled`, also for what has not left yet; no more inputs are asked for."""

    async def story(client: AsyncClient) -> None:
        stream = client.infer_many("model", itertools.repeat(X), in_flight=50, return_errors=return_errors)
        await anext(stream)
        await client.close()
        rest: list[object] = []
        try:
            async for result in stream:
                rest.append(result)  # noqa: PERF401 - those before an error count
        except ZmqInferError as error:
            rest.append(error)
        errors = [one for one in rest if not isinstance(one, np.ndarray)]
        assert {type(one) for one in errors} == {Cancelled}
        assert len(errors) == 1 or return_errors

    run(cluster, story)


@pytest.mark.slow
def test_client_belongs_to_one_event_loop(cluster: LocalCluster) -> None:
    """UsageError in another one, whatever is called; it can still be closed there."""

    async def begin() -> AsyncClient:
        client = AsyncClient(cluster.address)
        await client.infer("model", X)
        return client

    async def go_on(client: AsyncClient) -> None:
        for call in (client.infer("model", X), client.infer_batch("model", X), client.status()):
            with pytest.raises(UsageError, match="event loop"):
                await call
        with pytest.raises(UsageError, match="event loop"):
            await anext(client.infer_many("model", [X]))
        await client.close()

    asyncio.run(go_on(asyncio.run(begin())))


@pytest.mark.slow
def test_no_gateway_is_an_error_within_the_connect_timeout() -> None:
    """It names where it looked."""
    addresses = free_addresses(2)

    async def story() -> None:
        async with AsyncClient(addresses, connect_timeout_s=0.3) as client:
            began = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await client.infer("model", X)
            assert time.monotonic() - began < 1.0
            assert all(address in str(caught.value) for address in addresses)

    asyncio.run(story())


@pytest.mark.slow
def test_second_gateway_does_the_work_of_one_that_is_not_there(cluster: LocalCluster) -> None:
    """A list of gateways of which one never answers: nobody waits for it once the other has."""
    (nobody,) = free_addresses(1)

    async def story() -> None:
        async with AsyncClient([nobody, cluster.address]) as client:
            began = time.monotonic()
            got = await asyncio.gather(*(client.infer("model", X) for _ in range(20)))
            assert time.monotonic() - began < 3
            assert all(np.array_equal(y, X * 2) for y in got)

    asyncio.run(story())


def test_big_arrays_travel(cluster: LocalCluster) -> None:
    """2 MB each way, several at a time."""
    x = np.arange(500_000, dtype=np.float32) % 100

    async def story(client: AsyncClient) -> None:
        got = await asyncio.gather(*(client.infer("model", x + n) for n in range(4)))
        assert all(np.array_equal(y, (x + n) * 2) for n, y in enumerate(got))

    run(cluster, story)


def test_status_and_models_tell_of_the_cluster(cluster: LocalCluster) -> None:
    """As with the other client."""

    async def story(client: AsyncClient) -> None:
        (one,) = await client.status()
        (cards,) = await client.models()
        assert one["address"] == cluster.address
        assert [card["name"] for card in cards] == ["model"]

    run(cluster, story)


def test_error_says_which_request_it_was(cluster: LocalCluster) -> None:
    """Its id, its code, and how often it was sent."""

    async def story(client: AsyncClient) -> None:
        with pytest.raises(ZmqInferError) as caught:
            await client.infer("model", BAD)
        assert (caught.value.code, caught.value.attempts, len(caught.value.request_id)) == ("MODEL_ERROR", 1, 16)

    run(cluster, story)


def test_the_end_of_an_asynchronous_source_is_no_reason_to_spin(cluster: LocalCluster) -> None:
    """While its last answers are awaited the loop sleeps."""

    async def story(client: AsyncClient) -> None:
        async def source() -> AsyncIterator[np.ndarray[Any, Any]]:
            yield sleepy(300)

        began = time.thread_time()
        assert [y async for y in client.infer_many("model", source())]
        assert time.thread_time() - began < 0.1

    run(cluster, story)
