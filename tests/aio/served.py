"""What the tests of the asyncio client ask, and how they are told."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np

from zmqinfer import AsyncClient, LocalCluster

X = np.arange(4, dtype=np.float32)
BAD = np.full(4, -1, np.float32)
# Above this a value makes the model sleep, so long as it says.
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
