"""Closing it, and what it asks of the cluster besides calls."""

from __future__ import annotations

import asyncio
import itertools
import subprocess
import sys

import numpy as np
import pytest

from tests.aio.served import X, held, model, run
from tests.processes import free_addresses
from zmqinfer import AsyncClient, LocalCluster
from zmqinfer.errors import (
    Cancelled,
    InvalidArgument,
    NotFound,
    Unavailable,
    UsageError,
    ZmqInferError,
)

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
def test_closing_fails_what_is_pending(cluster: LocalCluster) -> None:
    """With Cancelled, while the model runs; also what was begun in the turn of the loop that closes; twice is once."""

    async def story(client: AsyncClient) -> None:
        await client.infer("model", X)
        with held() as x:
            tasks = [asyncio.create_task(client.infer("model", x)) for _ in range(3)]
            await asyncio.sleep(0.02)
            tasks += [asyncio.create_task(client.infer("model", x)) for _ in range(3)]
            await asyncio.sleep(0)
            await client.close()
            await client.close()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
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
            with pytest.raises(Unavailable) as caught:
                await client.infer("model", X)
            assert all(address in str(caught.value) for address in addresses)

    asyncio.run(story())


@pytest.mark.slow
def test_second_gateway_does_the_work_of_one_that_is_not_there(cluster: LocalCluster) -> None:
    """A list of gateways of which one never answers: nobody waits for it once the other has."""
    (nobody,) = free_addresses(1)

    async def story() -> None:
        async with AsyncClient([nobody, cluster.address]) as client:
            got = await asyncio.gather(*(client.infer("model", X) for _ in range(20)))
            assert all(np.array_equal(y, X * 2) for y in got)

    asyncio.run(story())


def test_status_and_models_tell_of_the_cluster(cluster: LocalCluster) -> None:
    """As with the other client."""

    async def story(client: AsyncClient) -> None:
        (one,) = await client.status()
        (cards,) = await client.models()
        assert one["address"] == cluster.address
        assert [card["name"] for card in cards] == ["model"]

    run(cluster, story)


@pytest.mark.slow
def test_call_fails_fast_when_nobody_is_there() -> None:
    """The first after `fail_fast_s`, the next ones at once."""
    (nowhere,) = free_addresses(1)

    async def story() -> None:
        async with AsyncClient(nowhere, fail_fast_s=0.3) as client:
            with pytest.raises(Unavailable, match="fail_fast_s"):
                await client.infer("model", X)
            ends = await asyncio.gather(*(client.infer("model", X) for _ in range(100)), return_exceptions=True)
            assert {type(end) for end in ends} == {Unavailable}

    asyncio.run(story())
