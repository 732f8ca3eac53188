"""Several gateways on one host share nothing, and agree."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

from tests.processes import Processes, parsed, run
from zmqinfer import Client


@pytest.mark.slow
def test_two_gateways_share_the_calls_and_agree_on_every_home(processes: Processes, tmp_path: Path) -> None:
    """One ring version, one order of workers for a key, and calls of one key meet on one worker through both."""
    clients, workers = f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/w"
    doors = [clients, f"{clients}-1"]
    process = processes.start("up", "--gateways", "2", "--workers", "3", "--clients", clients, "--workers-at", workers)
    process.says("\nready: ")
    x = np.arange(4, dtype=np.float32)

    rings = [[parsed(run("ring", "--explain", f"user-{n}", "--json", "-g", door)) for n in range(5)] for door in doors]
    with Client(doors) as client:
        for _ in range(40):
            assert np.array_equal(client.infer("echo", x, key="user-3"), x)  # type: ignore[arg-type]
        status = client.status()
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert rings[0] == rings[1]
    assert len({one["ring_version"] for one in status}) == 1
    answered = [one["requests"]["answered"] for one in status]
    assert sum(answered) == 40
    assert min(answered) >= 15
    busy = {worker["name"] for one in status for worker in one["workers"] if worker["answered"]}
    assert busy == {rings[0][3]["key"]["order"][0]}
