"""Asynchronous sources of `infer_many`: one task drives each from its first input to its end."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from tests.aio.served import BAD, X, run, sleepy
from zmqinfer import AsyncClient, LocalCluster
from zmqinfer.errors import ModelError, ZmqInferError

Source = AsyncIterator[np.ndarray[Any, Any]]

SPAN = contextvars.ContextVar("SPAN", default="")


class Driven:
    """A source that notes the task of each of its steps, and how it ended."""

    def __init__(self, *, waits: bool = False) -> None:
        self.tasks: list[object] = []
        self.end: type[BaseException] | None = None
        self._waits = waits

    async def inputs(self) -> Source:
        token = SPAN.set("source")
        try:
            for n in itertools.count():
                self.tasks.append(asyncio.current_task())
                assert SPAN.get() == "source"
                if self._waits and n == 3:
                    await asyncio.Event().wait()
                yield np.full(1, n, np.float32)
        except BaseException as error:
            self.end = type(error)
            raise
        finally:
            self.tasks.append(asyncio.current_task())
            SPAN.reset(token)

    def was_driven_by_one_task(self) -> bool:
        return len({id(task) for task in self.tasks}) == 1


async def taken(stream: AsyncIterator[Any], most: int = 1_000_000) -> tuple[list[float], BaseException | None]:
    """What comes before the error that ends it, and that error."""
    got: list[float] = []
    try:
        async for y in stream:
            got.append(float(y[0]))
            if len(got) == most:
                break
    except (KeyError, TimeoutError, ZmqInferError) as error:
        return got, error
    return got, None


@pytest.mark.parametrize("in_flight", [1, 4, 1_000])
@pytest.mark.parametrize("waits", [False, True])
def test_source_that_is_left_ends_in_the_task_that_drove_it(cluster: LocalCluster, in_flight: int, waits: bool) -> None:
    """Wherever it stands: at its `yield`, or at an await of its own, which is cancelled."""

    async def story(client: AsyncClient) -> None:
        driven = Driven(waits=waits)
        stream = client.infer_many("model", driven.inputs(), in_flight=in_flight)
        assert await taken(stream, 3) == ([0, 2, 4], None)
        await asyncio.sleep(0.01)  # it goes on as far as it can
        await stream.aclose()  # type: ignore[attr-defined]

        assert driven.was_driven_by_one_task()
        assert driven.end is (asyncio.CancelledError if waits and len(driven.tasks) > 4 else GeneratorExit)
        assert SPAN.get() == ""
        assert client._machine.pending == 0

    run(cluster, story)


def test_cancelled_consumer_ends_its_source(cluster: LocalCluster) -> None:
    """And waits until it has ended."""

    async def story(client: AsyncClient) -> None:
        driven = Driven(waits=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await taken(client.infer_many("model", driven.inputs()))

        assert driven.end is asyncio.CancelledError
        assert driven.was_driven_by_one_task()

    run(cluster, story)


@pytest.mark.parametrize("is_awaiting", [False, True])
@pytest.mark.parametrize("in_flight", [1, 1_000])
def test_timeout_of_a_source_ends_it_at_its_place(cluster: LocalCluster, in_flight: int, is_awaiting: bool) -> None:
    """Whether the source awaits something then, or its consumer takes its time and no more input is asked for."""
    limits: list[asyncio.Timeout] = []

    async def source() -> Source:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            yield np.zeros(1, np.float32)
            yield np.ones(1, np.float32)
            await asyncio.Event().wait()
            yield np.ones(1, np.float32)

    async def story(client: AsyncClient) -> None:
        stream = client.infer_many("model", source(), in_flight=in_flight)
        assert await taken(stream, 2) == ([0, 2], None)
        third = asyncio.create_task(taken(stream)) if is_awaiting else None
        await asyncio.sleep(0.01)
        limits[0].reschedule(0)
        await asyncio.sleep(0.01)
        got, error = await (third or taken(stream))
        assert (got, type(error)) == ([], TimeoutError)

    run(cluster, story)


def test_source_may_survive_its_timeout(cluster: LocalCluster) -> None:
    """It is told of it at its `yield`, and may go on."""

    limits: list[asyncio.Timeout] = []

    async def source() -> Source:
        try:
            async with asyncio.timeout(None) as limit:
                limits.append(limit)
                for _ in range(3):
                    yield np.zeros(1, np.float32)
        except TimeoutError:
            yield np.ones(1, np.float32)

    async def story(client: AsyncClient) -> None:
        stream = client.infer_many("model", source(), in_flight=1)
        await anext(stream)
        await asyncio.sleep(0.01)  # the second is under way, and no third is asked for
        limits[0].reschedule(0)
        await asyncio.sleep(0.01)
        assert await taken(stream) == ([0, 2], None)

    run(cluster, story)


@pytest.mark.parametrize("kind", ["plain", "asynchronous"])
@pytest.mark.parametrize("return_errors", [False, True])
def test_error_of_a_source_is_raised_at_its_place(cluster: LocalCluster, kind: str, return_errors: bool) -> None:
    """Behind the results of what it gave before, of which the first fails here or does not; and never given out."""

    def plain(first: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
        yield from (first, X, X + 1)
        raise KeyError("the source")

    async def asynchronous(first: np.ndarray[Any, Any]) -> Source:
        for x in plain(first):
            yield x

    async def story(client: AsyncClient) -> None:
        source = plain if kind == "plain" else asynchronous
        stream = client.infer_many("model", source(X + 4), return_errors=return_errors)
        got, error = await taken(stream)
        assert (got, type(error)) == ([8, 0, 2], KeyError)

        with pytest.raises(KeyError if return_errors else ModelError):
            _ = [y async for y in client.infer_many("model", source(BAD), return_errors=return_errors)]

    run(cluster, story)


def test_error_with_which_a_source_ends_reaches_who_left_it(cluster: LocalCluster) -> None:
    """As it would without a client between them."""

    async def source() -> Source:
        try:
            while True:
                yield X
        finally:
            raise KeyError("the source")

    async def story(client: AsyncClient) -> None:
        stream = client.infer_many("model", source(), in_flight=2)
        await anext(stream)
        with pytest.raises(KeyError, match="the source"):
            await stream.aclose()  # type: ignore[attr-defined]

    run(cluster, story)


@pytest.mark.slow
def test_large_inputs_of_a_source_stay_within_what_a_gateway_takes(cluster: LocalCluster) -> None:
    """However many may be in flight, and however fast it has them: 320 MB, of which 64 MiB may be under way."""
    x = np.zeros(2_000_000, np.float32)
    given = 0

    async def source() -> Source:
        nonlocal given
        for given in range(1, 41):  # noqa: B007 - how far it came
            yield x

    async def story(client: AsyncClient) -> None:
        count = 0
        async for _ in client.infer_many("model", source()):
            assert (given - count - 1) * x.nbytes <= 64 << 20
            count += 1
        assert count == 40

    run(cluster, story, shared_memory_mb=0)


@pytest.mark.slow
def test_source_that_never_waits_lets_others_run(cluster: LocalCluster) -> None:
    """Its inputs leave in parts, and answers come, though it could go on for ever."""

    async def source() -> Source:
        for n in itertools.count():
            yield np.full(1, n % 100, np.float32)

    async def story(client: AsyncClient) -> None:
        got, error = await taken(client.infer_many("model", source(), in_flight=1_000_000), 3_000)
        assert (got, error) == ([n % 100 * 2 for n in range(3_000)], None)
        await asyncio.wait_for(client.infer("model", sleepy(1)), 5)

    run(cluster, story)
