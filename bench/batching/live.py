"""The two models under both policies on a gateway and one worker, in an open loop."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from bench.batching.curves import MODELS, WIDTH
from bench.batching.virtual import WINDOW_S
from zmqinfer import AsyncClient, Client
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.load.generator import run_scenario
from zmqinfer.load.results import LoadResult, OpenLoop
from zmqinfer.load.workload import prepare

__all__ = ["POLICIES", "capacity", "cluster", "scenario"]

POLICIES = ("adaptive", "timed")
CAPACITY_S = 2.0
_TOML = """
backend = "python"
target = "served:infer"
policy = "{policy}"
max_wait_ms = {window_ms}

[inputs.x]
dtype = "FP32"
shape = [{width}]

[outputs.y]
dtype = "FP32"
shape = [{width}]
"""
_CODE = """
from bench.batching.curves import MODELS


def infer(batch):
    return {{"y": MODELS["{model}"](batch["x"])}}
"""


@contextmanager
def cluster() -> Iterator[str]:
    """Serves each model under each policy, as MODEL-POLICY, until the block ends; gives the clients' address."""
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            for policy in POLICIES:
                place = Path(folder, f"{model}-{policy}")
                place.mkdir()
                text = _TOML.format(policy=policy, window_ms=round(WINDOW_S * 1e3), width=WIDTH)
                (place / "model.toml").write_text(text)
                (place / "served.py").write_text(_CODE.format(model=model))
        with ProcessCluster(1, models=[Path(folder)]) as started:
            yield started.clients_address


def capacity(address: str, model: str) -> float:
    """Returns the requests a second that the cluster takes at most, with so many waiting that batches are full."""
    x = np.random.default_rng(1).random(WIDTH, np.float32)

    def inputs(until: float) -> Iterator[np.ndarray]:
        while time.perf_counter() < until:
            yield x

    with Client(address) as client:
        began_at = time.perf_counter()
        for lasts_s in (CAPACITY_S / 4, CAPACITY_S):
            began_at = time.perf_counter()
            results = client.infer_many(f"{model}-timed", inputs(began_at + lasts_s), in_flight=256)
            answered = sum(1 for _ in results)
        return answered / (time.perf_counter() - began_at)


def scenario(address: str, model: str, policy: str, rate_per_s: float, seconds: float) -> LoadResult:
    """Runs one load."""

    async def run() -> LoadResult:
        async with AsyncClient(address, deadline_s=120) as client:
            name = f"{model}-{policy}"
            workload = await prepare(client, name, (await client.models())[0])
            return await run_scenario(client, name, workload, OpenLoop(rate_per_s, seconds))

    return asyncio.run(run())
