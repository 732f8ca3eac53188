"""What is done before file descriptors run out; each in a process of its own, whose limit is lowered."""

from __future__ import annotations

import json
import resource
import subprocess
import sys

import pytest

from zmqinfer.node import descriptors

# Leaves fewer and fewer descriptors, and says what a client made then raises; one of before must go on.
FEWER_AND_FEWER = """
import asyncio, json, os, resource, warnings
import numpy as np
from zmqinfer import AsyncClient, Client, LocalCluster
from zmqinfer.errors import ConfigError

warnings.simplefilter("ignore")
said = []

async def attempt(made):
    try:
        client = made("tcp://127.0.0.1:1")
    except ConfigError as error:
        said.append(str(error))
    else:
        closed = client.close()
        if closed is not None:
            await closed

async def main():
    with LocalCluster(lambda x: x, workers=1) as cluster, cluster.client(shared_memory_mb=0) as before:
        before.infer("predict", np.zeros(1))
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256))
        held = []
        while len(os.listdir("/dev/fd")) < 256 - 40:
            held.append(os.open(os.devnull, os.O_RDONLY))
        try:
            while True:
                await attempt(Client)
                await attempt(AsyncClient)
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        # Large enough for frames that are lent to ZeroMQ.
        x = np.arange(100_000.0)
        assert (before.infer("predict", x) == x).all()
        for one in held:
            os.close(one)
        assert (before.infer("predict", x) == x).all()

asyncio.run(main())
print(json.dumps(said))
"""


@pytest.mark.slow
def test_no_client_ends_the_process_that_has_too_few_descriptors() -> None:
    """A new one is refused with the numbers, and one of before goes on, large inputs included."""
    done = subprocess.run(
        [sys.executable, "-c", FEWER_AND_FEWER], capture_output=True, text=True, timeout=60, check=False
    )

    assert done.returncode == 0, (done.returncode, done.stderr)
    said = json.loads(done.stdout)
    assert len(said) > 60
    assert said[0] == (
        "223 of 256 file descriptors are open, expected 34 to be free for ZeroMQ's sockets;"
        " close what is not needed, or raise the limit: ulimit -n 512"
    )


@pytest.mark.parametrize(
    ("soft", "hard", "asked"),
    [
        (1_024, 4_096, [4_096]),
        (4_096, 4_096, []),
        (1_024, 2**30, [2**20]),
        (256, resource.RLIM_INFINITY, [2**20, 10_240]),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, []),
    ],
)
def test_the_limit_is_raised_towards_the_hard_one(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, asked: list[int]
) -> None:
    """As far as is of use; where the hard one is none at all, the system may still refuse what is beyond its own."""
    said: list[int] = []

    def answer(_which: int, limits: tuple[int, int]) -> None:
        said.append(limits[0])
        assert limits[1] == hard
        if limits[0] != asked[-1]:
            raise ValueError

    monkeypatch.setattr(resource, "getrlimit", lambda _which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", answer)

    descriptors.raise_limit()

    assert said == asked
