"""Workers die, come, go and fall silent under load, and nobody who calls notices."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.processes import Processes, children_of, free_addresses, is_running, parsed, run, wait_until
from zmqinfer.aio import AsyncClient
from zmqinfer.client import Client
from zmqinfer.errors import Poisoned, ZmqInferError
from zmqinfer.zoo import ZOO
from zmqinfer.zoo.heldout import heldout

RATE_PER_S = 2_000
# The issue's own figure is 20,000; ten seconds are too many for every run of the suite.
REQUESTS = int(os.environ.get("ZMQINFER_TEST_REQUESTS", "8000"))

IMAGES = heldout().images


class Load:
    """An open loop: requests leave at their instants whatever became of the earlier ones; each answer is checked."""

    def __init__(self) -> None:
        self.sent = 0
        self.right = 0
        self.failures: list[str] = []

    async def ask(self, client: AsyncClient, number: int) -> None:
        """Sends one request of two kinds and checks what comes."""
        try:
            if number % 2:
                x = np.array([number, -number], np.float32)
                y = await client.infer("echo", x)
                is_right = isinstance(y, np.ndarray) and np.array_equal(y, x)
            else:
                which = number // 2 % len(IMAGES)
                y = await client.infer("digits", IMAGES[which])
                is_right = isinstance(y, np.ndarray) and np.allclose(y, self.logits[which], 1e-3, 1e-3)
        except ZmqInferError as error:
            self.failures.append(repr(error))
            return
        if is_right:
            self.right += 1
        else:
            self.failures.append(f"request {number} got {y!r}")

    async def run(self, address: str, requests: int, steps: dict[int, Any]) -> None:
        """Sends `requests`; before the request with a number in `steps`, takes that step."""
        async with AsyncClient(address, heartbeat_ms=100) as client:
            # The right answers, from before anything happens.
            self.logits = [np.asarray(y) async for y in client.infer_many("digits", list(IMAGES))]
            began = time.perf_counter()
            async with asyncio.TaskGroup() as tasks:
                for number in range(requests):
                    if number in steps:
                        tasks.create_task(asyncio.to_thread(steps[number]))
                    wait_s = began + number / RATE_PER_S - time.perf_counter()
                    if wait_s > 0 or not number % 16:
                        await asyncio.sleep(max(0.0, wait_s))
                    tasks.create_task(self.ask(client, number))
                    self.sent += 1


def books(address: str) -> dict[str, Any]:
    """The one gateway's entry of `status --json`, whose books must balance at every instant."""
    (one,) = parsed(run("status", "-g", address, "--json"))["gateways"]
    requests = one["requests"]
    assert requests["received"] == requests["refused"] + requests["accepted"]
    assert requests["accepted"] == requests["answered"] + requests["pending"]
    assert requests["answered"] + requests["refused"] == sum(requests["outcomes"].values())
    assert isinstance(one, dict)
    return one


@pytest.mark.slow
def test_a_killed_a_joining_and_a_leaving_worker_cost_no_request(processes: Processes) -> None:
    """kill -9 of one of three, a fourth joins, SIGTERM to another: 0 failures, every answer right."""
    clients, workers = free_addresses(2)
    gateway = processes.start("gateway", "--clients", clients, "--workers", workers)
    killed, drained, _ = (processes.worker(f"w{number}", workers) for number in (1, 2, 3))
    assert run("status", "-g", clients, "--wait-workers", "3", "--timeout-s", "30").returncode == 0
    load = Load()
    steps = {
        REQUESTS // 4: lambda: killed.sends(signal.SIGKILL),
        REQUESTS // 3: lambda: processes.worker("w4", workers),
        REQUESTS * 3 // 4: lambda: (gateway.says("worker joined worker=w4"), drained.sends(signal.SIGTERM)),
    }

    asyncio.run(load.run(clients, REQUESTS, steps))

    assert load.failures == []
    assert load.right == REQUESTS
    assert killed.ends() == -signal.SIGKILL
    assert drained.ends() == 0, drained.log
    one = books(clients)
    assert one["requests"]["outcomes"] == {"OK": REQUESTS + len(IMAGES)}
    assert one["requests"]["pending"] == 0
    assert {worker["name"]: worker["state"] for worker in one["workers"]} == {"w3": "ready", "w4": "ready"}
    assert all(worker["answered"] > 0 and worker["in_flight"] == 0 for worker in one["workers"])
    ring = parsed(run("ring", "-g", clients, "--json"))
    assert set(ring["shares"]) == {"w3", "w4"}
    assert sum(ring["shares"].values()) == pytest.approx(1)
    assert 1 <= ring["peak_to_mean"] < 1.25


@pytest.mark.slow
def test_a_frozen_worker_loses_its_requests_and_comes_back(processes: Processes) -> None:
    """SIGSTOP is silence: others answer what it held; after SIGCONT nobody hears it twice, and it joins anew."""
    clients, workers = free_addresses(2)
    gateway = processes.start("gateway", "--clients", clients, "--workers", workers, "--heartbeat-ms", "100")
    frozen, _ = (processes.worker(f"w{number}", workers, "--heartbeat-ms", "100") for number in (1, 2))
    assert run("status", "-g", clients, "--wait-workers", "2", "--timeout-s", "30").returncode == 0
    load = Load()
    steps = {
        200: lambda: frozen.sends(signal.SIGSTOP),
        2_200: lambda: (gateway.says("worker gone worker=w1"), frozen.sends(signal.SIGCONT)),
    }

    asyncio.run(load.run(clients, 3_000, steps))

    assert load.failures == []
    assert load.right == 3_000
    wait_until(lambda: gateway.log.count("worker joined worker=w1") == 2, what="w1 joins again")
    with Client(clients) as client:
        x = np.ones(1, np.float32)
        wait_until(lambda: client.infer("echo", x) is not None and books_of(client, "w1")["answered"] > 0)
    one = books(clients)
    assert one["requests"]["moved"] > 0
    assert one["stray_replies"] == 0
    assert {worker["name"]: worker["state"] for worker in one["workers"]} == {"w1": "ready", "w2": "ready"}


def books_of(client: Client, name: str) -> dict[str, Any]:
    """One worker's entry of `status`."""
    found: dict[str, Any] = next(worker for worker in client.status()[0]["workers"] if worker["name"] == name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("comes_back", [False, True])
def test_a_killed_gateway_costs_no_request(processes: Processes, comes_back: bool) -> None:
    """Of two: its calls go to the other one. The only one: they wait for it to come back."""
    addresses = [free_addresses(2) for _ in range(1 if comes_back else 2)]
    gateways = [processes.start("gateway", "--clients", front, "--workers", back) for front, back in addresses]
    for number in (1, 2):
        processes.worker(f"w{number}", ",".join(back for _, back in addresses))
    for front, _ in addresses:
        assert run("status", "-g", front, "--wait-workers", "2", "--timeout-s", "30").returncode == 0
    load = Load()

    def kill() -> None:
        gateways[0].sends(signal.SIGKILL)
        if comes_back:
            time.sleep(1.0)
            front, back = addresses[0]
            processes.start("gateway", "--clients", front, "--workers", back)

    asyncio.run(load.run(",".join(front for front, _ in addresses), REQUESTS, {REQUESTS // 4: kill}))

    assert load.failures == []
    assert load.right == REQUESTS
    assert gateways[0].ends() == -signal.SIGKILL


@pytest.mark.slow
@pytest.mark.parametrize("gateways", [1, 2])
def test_a_rolling_restart_costs_no_request(processes: Processes, tmp_path: Path, gateways: int) -> None:
    """SIGHUP to `up` under load: every gateway and worker is another process then, and nobody noticed."""
    clients, workers = f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/w"
    doors = [clients, f"{clients}-1"][:gateways]
    process = processes.start(
        "up", "--gateways", str(gateways), "--workers", "2", "--clients", clients, "--workers-at", workers
    )
    process.says("\nready: ")
    before = set(children_of(process.pid))
    load = Load()

    asyncio.run(load.run(",".join(doors), REQUESTS, {REQUESTS // 4: lambda: process.sends(signal.SIGHUP)}))
    process.says("restarted all")
    after = set(children_of(process.pid))

    assert load.failures == []
    assert load.right == REQUESTS
    assert len(after) == len(before) == gateways + 2
    assert not before & after
    assert "died" not in process.log
    process.sends(signal.SIGINT)
    assert process.ends() == 0, process.log


DEADLY = """
import os

def double(x):
    if (x < 0).any():
        os._exit(139)
    return x * 2
"""


@pytest.mark.slow
def test_an_input_that_ends_workers_ends_two_at_most(processes: Processes, tmp_path: Path) -> None:
    """It is refused from then on; everybody else is answered, those of its batches among them."""
    (tmp_path / "scorer.py").write_text(DEADLY)
    clients, workers = f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/w"
    process = processes.start(
        "up", "scorer:double", "--workers", "3", "--clients", clients, "--workers-at", workers, cwd=tmp_path
    )
    process.says("\nready: ")
    asked = [np.full(2, n, np.float32) for n in range(2_000)]

    with Client(clients, deadline_s=20.0) as client:
        deadly = client.submit("double", np.full(2, -1, np.float32))
        answers = list(client.infer_many("double", asked))
        with pytest.raises(Poisoned, match="ended while it ran alone"):
            deadly.result(20)
        with pytest.raises(Poisoned, match="not run again for ten minutes") as caught:
            client.infer("double", np.full(2, -1, np.float32))
        outcomes = client.status()[0]["requests"]["outcomes"]
    process.sends(signal.SIGINT)

    assert all(np.array_equal(answer, 2 * x) for answer, x in zip(answers, asked, strict=True))
    assert caught.value.executed == "no"
    assert outcomes == {"OK": 2_000, "POISONED": 2}
    assert process.ends() == 0, process.log
    assert process.log.count("died child=worker_") == 2


ISOLATED = """
target = "model:predict"
isolation = "process"
[inputs.x]
dtype = "FP32"
shape = [2]
[outputs.y]
dtype = "FP32"
shape = [2]
"""


@pytest.mark.slow
def test_a_model_in_a_process_of_its_own_dies_alone(processes: Processes, tmp_path: Path) -> None:
    """The worker keeps its session and its other models, and the model comes back."""
    folder = tmp_path / "models" / "guarded"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(ISOLATED)
    code = DEADLY.replace("def double(x):", 'def predict(batch):\n    x = batch["x"]').replace("x * 2", '{"y": x * 2}')
    (folder / "model.py").write_text(code)
    clients, workers = free_addresses(2)
    gateway = processes.start("gateway", "--clients", clients, "--workers", workers)
    worker = processes.worker("w1", workers, "--models", tmp_path / "models", "--models", ZOO)
    assert run("status", "-g", clients, "--wait-workers", "1", "--timeout-s", "30").returncode == 0
    x = np.ones(2, np.float32)

    with Client(clients) as client:
        assert np.array_equal(client.infer("guarded", x), 2 * x)  # type: ignore[arg-type]
        with pytest.raises(Poisoned, match="exit code 139 while this ran alone"):
            client.infer("guarded", -x)
        assert np.array_equal(client.infer("guarded", x), 2 * x)  # type: ignore[arg-type]
        assert client.infer("echo", x) is not None
        with pytest.raises(Poisoned, match="not run again"):
            client.infer("guarded", -x)

    assert gateway.log.count("worker joined") == 1
    children = children_of(worker.pid)
    worker.sends(signal.SIGKILL)
    assert children
    wait_until(lambda: not [pid for pid in children if is_running(pid)], what="the model's process has gone too")
