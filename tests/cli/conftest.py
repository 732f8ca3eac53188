"""Processes for the tests of the command line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.processes import Process, Processes, free_addresses, run


@dataclass(frozen=True)
class Cluster:
    """A running gateway with workers."""

    clients: str
    workers: str
    processes: Processes
    gateway: Process

    def wait_workers(self, count: int) -> None:
        """Waits until so many workers are ready."""
        done = run("status", "-g", self.clients, "--wait-workers", str(count), "--timeout-s", "30")
        assert done.returncode == 0, done.stderr + self.gateway.log


def said(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The one sentence of a command that ended with `code`."""
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert done.stdout == ""
    assert done.stderr.strip()
    return done.stderr


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    """Starts processes, and ends them after the test."""
    own = Processes(tmp_path)
    try:
        yield own
    finally:
        own.end()


MODEL_TOML = """
target = "model:predict"
[inputs.x]
dtype = "FP32"
shape = [2]
[inputs.scale]
dtype = "FP32"
shape = []
[outputs.total]
dtype = "FP32"
shape = []
[outputs.scaled]
dtype = "FP32"
shape = [2]
"""
MODEL_PY = """
def predict(batch):
    x, scale = batch["x"], batch["scale"]
    if (x < 0).any():
        raise ValueError("x is negative")
    scaled = x * scale[:, None]
    return {"total": scaled.sum(axis=1), "scaled": scaled}
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A gateway, a worker w1 with the shipped models, and a worker w2 with those and a model of two inputs."""
    folder = tmp_path_factory.mktemp("cluster")
    model = folder / "models" / "pair"
    model.mkdir(parents=True)
    (model / "model.toml").write_text(MODEL_TOML)
    (model / "model.py").write_text(MODEL_PY)
    clients, workers = free_addresses(2)
    own = Processes(folder)
    try:
        gateway = own.start("gateway", "--clients", clients, "--workers", workers)
        own.worker("w1", workers)
        own.worker("w2", workers, "--models", folder / "models")
        one = Cluster(clients, workers, own, gateway)
        one.wait_workers(2)
        yield one
    finally:
        own.end()
