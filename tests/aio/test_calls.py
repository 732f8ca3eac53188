"""The asyncio client against a real gateway and workers, over real sockets: its calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import msgpack
import numpy as np
import pytest

from tests.aio.served import BAD, X, held, run, sleepy
from zmqinfer import AsyncClient, LocalCluster
from zmqinfer.errors import (
    DeadlineExceeded,
    InvalidArgument,
    ModelError,
    ZmqInferError,
)


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
        before = (await client.status())[0]["requests"]["outcomes"].get("CANCELLED", 0)
        with held() as x:
            # What is no input has its result as soon as the others are sent.
            inputs = [None, *[x] * 100]
            results = client.infer_many("model", inputs, in_flight=64, return_errors=True)  # type: ignore[arg-type]
            assert isinstance(await anext(results), InvalidArgument)
            await results.aclose()  # type: ignore[attr-defined]
            assert client._machine.pending == 0
            assert (await client.status())[0]["requests"]["outcomes"]["CANCELLED"] > before

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
    """Not before it, and while the model still runs."""

    async def story(client: AsyncClient) -> None:
        began = time.monotonic()
        with held() as x, pytest.raises(DeadlineExceeded):
            await client.infer("model", x, deadline_s=0.1)
        assert time.monotonic() - began >= 0.1

    run(cluster, story)


@pytest.mark.parametrize("method", ["infer", "infer_batch"])
def test_cancelled_task_takes_its_call_back(cluster: LocalCluster, method: str) -> None:
    """The standard CancelledError; nothing stays behind in the client, and the gateway counts it."""

    async def story(client: AsyncClient) -> None:
        await client.infer("model", X)
        before = (await client.status())[0]["requests"]["outcomes"].get("CANCELLED", 0)
        with held() as x:
            task = asyncio.create_task(getattr(client, method)("model", x if method == "infer" else np.stack([x] * 30)))
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
        with held() as x, pytest.raises(TimeoutError):
            await asyncio.wait_for(client.infer("model", x), 0.02)
        assert client._machine.pending == 0

    run(cluster, story)


def test_big_arrays_travel(cluster: LocalCluster) -> None:
    """2 MB each way, several at a time."""
    x = np.arange(500_000, dtype=np.float32) % 100

    async def story(client: AsyncClient) -> None:
        got = await asyncio.gather(*(client.infer("model", x + n) for n in range(4)))
        assert all(np.array_equal(y, (x + n) * 2) for n, y in enumerate(got))

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


def test_call_tells_how_it_was_served(cluster: LocalCluster) -> None:
    """Who asks for it gets it beside the same output, also in the block of those who do not."""

    async def story(client: AsyncClient) -> None:
        await client.infer("model", X)
        plain, (y, info), body = await asyncio.gather(
            client.infer("model", X),
            client.infer("model", X, with_info=True),
            client.infer_body("model", msgpack.packb([["", "FP32", [4]]]), X.tobytes()),
        )
        assert np.array_equal(plain, X * 2)  # type: ignore[arg-type]
        assert np.array_equal(y, X * 2)  # type: ignore[arg-type]
        assert body.payload == (X * 2).tobytes()
        for one in (info, body.info):
            assert one.worker.startswith("worker_")
            assert 0 < one.compute_us <= one.round_trip_us
            assert (one.version, one.attempts) == (1, 1)

        with pytest.raises(InvalidArgument, match="expected 16"):
            await client.infer_body("model", msgpack.packb([["", "FP32", [4]]]), b"short")
        with held() as x, pytest.raises(TimeoutError):
            await asyncio.wait_for(client.infer("model", x, with_info=True), 0.02)
        assert client._machine.pending == 0

    run(cluster, story)
