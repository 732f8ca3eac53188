"""What the tests of the asyncio client ask, and how they are told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from tests.client.served import X, held, model, sleepy
from zmqinfer import AsyncClient, LocalCluster

__all__ = ["BAD", "X", "held", "model", "run", "sleepy"]

BAD = np.full(4, -1, np.float32)


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
