"""A scenario on real processes: its models, served by `sleep`, and its load, made by clients in this process.

What `zmqinfer simulate` does in virtual time, but for the faults: those happen to real processes in other trials.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from pathlib import Path

import numpy as np

from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError
from zmqinfer.load.generator import sleep_until
from zmqinfer.load.measured import Ended, Status
from zmqinfer.scenario import Ask, Load, Scenario, TimedModel
from zmqinfer.zoo import ZOO

__all__ = ["run_live", "write_models"]

_TOML = """\
target = "sleep:Sleep"
max_batch_size = {0.max_batch_size}
max_wait_ms = {0.max_wait_ms}
policy = {policy}
idempotent = {idempotent}
hedge = {hedge}

[parameters]
a_ms = {0.a_ms}
b_ms = {0.b_ms}
noise = {0.noise}
stall_every = {0.stall_every}
stall_ms = {0.stall_ms}

[inputs.x]
dtype = "FP32"
shape = [2]

[outputs.y]
dtype = "FP32"
shape = [2]
"""


def write_models(models: tuple[TimedModel, ...], folder: Path) -> None:
    """Writes a model folder for each model into `folder`."""
    for model in models:
        own = folder / model.name
        own.mkdir()
        shutil.copy(ZOO / "sleep" / "sleep.py", own)
        words = {name: json.dumps(getattr(model, name)) for name in ("policy", "idempotent", "hedge")}
        (own / "model.toml").write_text(_TOML.format(model, **words))


class _Run:
    """The load of one run.

    Attributes:
        ended: the calls that have ended, those excepted that were to be taken back.
    """

    def __init__(self, scenario: Scenario, load: Load, clients: list[AsyncClient]) -> None:
        self._scenario = scenario
        self._load = load
        self._clients = clients
        self._began_at = time.perf_counter()
        self._number = 0
        self.ended: list[Ended] = []

    def now(self) -> float:
        return time.perf_counter() - self._began_at

    async def open_loop(self) -> None:
        """Lets bursts of calls leave when they should, whether or not earlier ones are answered."""
        load, at = self._load, 0.0
        async with asyncio.TaskGroup() as tasks:
            while at < self._scenario.duration_s:
                if not await sleep_until(self._began_at + at):
                    await asyncio.sleep(0)  # behind its time it still lets answers in
                calls, place = load.burst(len(self._clients))
                for _ in range(calls):
                    tasks.create_task(self._make(place, load.ask(), at))
                at += load.pause_s()

    async def closed_loop(self) -> None:
        """Keeps so many calls in flight, each client its part."""
        async with asyncio.TaskGroup() as tasks:
            for number in range(self._scenario.in_flight):
                tasks.create_task(self._keep_asking(number % len(self._clients)))

    async def _keep_asking(self, place: int) -> None:
        while (now := self.now()) < self._scenario.duration_s:
            await self._make(place, self._load.ask(), now)

    async def _make(self, place: int, ask: Ask, intended_at: float) -> None:
        """Makes a call, whose time counts from when it should have left."""
        if not ask.takes_back_after_s:
            self.ended.append(await self._call(place, ask, intended_at))
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ask.takes_back_after_s):
                await self._call(place, ask, intended_at)

    async def _call(self, place: int, ask: Ask, intended_at: float) -> Ended:
        self._number += 1
        # Whole numbers that FP32 holds exactly, so that no two calls within a minute or two have the same input.
        x = np.array([self._number % 2**24, place], np.float32)
        model, failure, is_wrong = ask.model.name, "", False
        try:
            y = await self._clients[place].infer(
                model, x, deadline_s=ask.deadline_s, key=ask.key, priority=ask.priority
            )
            is_wrong = not np.array_equal(y, x)  # type: ignore[arg-type]
        except ZmqInferError as error:
            failure = error.code
        return Ended(model, intended_at, self.now() - intended_at, failure, is_wrong)


async def run_live(scenario: Scenario, load: Load, endpoints: str) -> tuple[list[Ended], Status, Status]:
    """Runs the load on a cluster that serves the scenario's models.

    Returns:
        the calls that ended, and what the gateways told when the warm-up was over and when the last call was made.
    """
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(AsyncClient(endpoints)) for _ in range(load.clients)]
        for client in clients:
            await client.models()
        run = _Run(scenario, load, clients)

        async def look(at: float) -> Status:
            await asyncio.sleep(at - run.now())
            return await clients[0].status()

        looks = [asyncio.create_task(look(at)) for at in (scenario.warm_up_s, scenario.duration_s)]
        await (run.closed_loop() if scenario.in_flight else run.open_loop())
        before, after = await asyncio.gather(*looks)
        return run.ended, before, after
