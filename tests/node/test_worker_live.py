"""The worker's loop on real sockets and threads."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from textwrap import dedent
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from tests.client.served import Running, gateway_here
from tests.processes import free_addresses, is_running, wait_until
from zmqinfer import Client, LocalCluster
from zmqinfer.config import GatewaySettings, WorkerSettings
from zmqinfer.node.crew import EngineThread
from zmqinfer.node.models import find_models, function_model, load_model
from zmqinfer.node.worker import WorkerNode
from zmqinfer.records import Kind
from zmqinfer.wire import VERSION, decode


@pytest.mark.slow
def test_a_long_batch_of_a_model_that_was_short_is_no_silence() -> None:
    """The loop runs short batches itself; when one lasts, the other thread goes on answering heartbeats."""
    began: list[float] = []

    def model(x: Any) -> Any:
        if x[0, 0] < 0:
            began.append(time.monotonic())
            time.sleep(1.0)  # three times the silence after which this worker would be lost
        return x

    fast = {"gateway": GatewaySettings(heartbeat_ms=100), "worker": WorkerSettings(heartbeat_ms=100)}
    with LocalCluster(model, workers=1, **fast) as cluster, cluster.client() as client:
        for _ in range(200):
            client.infer("model", np.zeros(1, np.float32))
        y = client.infer("model", -np.ones(1, np.float32))
        (status,) = client.status()

    assert y[0] == -1
    assert len(began) == 1
    assert status["requests"]["moved"] == 0


@pytest.mark.slow
def test_a_long_batch_holds_up_its_own_model_alone() -> None:
    """Batches of other models that were taken in the same turn go on as soon as the loop is relieved."""
    is_long = False

    def first(x: Any) -> Any:
        if is_long:
            time.sleep(1.5)
        return x

    def second(x: Any) -> Any:
        return x

    gateway = gateway_here()
    models = [function_model(first), function_model(second)]
    worker = WorkerNode("w1", models, [gateway.workers_address], WorkerSettings(heartbeat_ms=100))
    x = np.zeros(1, np.float32)
    with Running(gateway, worker), Client(gateway.clients_address) as client:
        for _ in range(100):
            client.infer("first", x)
            client.infer("second", x)
        is_long = True
        slow = client.submit("first", x)
        began = time.monotonic()

        for _ in range(20):
            client.infer("second", x)

        assert time.monotonic() - began < 1.0
        assert slow.result(10) == 0


def isolated(place: Path, code: str, target: str = "predict") -> EngineThread:
    """A model of its own process, loaded: a row of any length to one of one number."""
    folder = place / "guarded"
    folder.mkdir()
    (folder / "model.py").write_text(dedent(code))
    (folder / "model.toml").write_text(
        dedent(
            f"""
            target = "model:{target}"
            isolation = "process"
            inputs.x = {{dtype = "FP32", shape = [-1]}}
            outputs.y = {{dtype = "FP32", shape = [1]}}
            """
        )
    )
    (config,) = find_models([place])
    return load_model(config)


CLOSING = """
    import os, time
    class Model:
        def infer(self, batch): return {{"y": batch["x"][:, :1]}}
        def close(self):
            with open({begun!r}, "w"): pass
            time.sleep({seconds})
            with open({ended!r}, "w"): pass
"""


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "grace_s", "is_patient"), [(0.3, 20.0, True), (60.0, 1.0, False)])
def test_a_model_in_a_process_of_its_own_closes_within_the_grace_of_a_drain(
    tmp_path: Path, seconds: float, grace_s: float, is_patient: bool
) -> None:
    """And is killed after that."""
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    model = isolated(tmp_path, CLOSING.format(begun=str(begun), ended=str(ended), seconds=seconds), "Model")
    gateway = gateway_here()
    worker = WorkerNode("w1", [model], [gateway.workers_address], WorkerSettings(drain_grace_s=grace_s))
    with Running(gateway), Client(gateway.clients_address) as client:
        thread = threading.Thread(target=worker.run)
        thread.start()
        assert client.infer("guarded", np.ones(3, np.float32)) == 1
        child = model.backend._process.pid  # type: ignore[attr-defined]

        worker.drain()
        thread.join(20)

        assert not thread.is_alive()
        assert not is_running(child)
    assert begun.exists()
    assert ended.exists() is is_patient


@pytest.mark.slow
def test_inputs_of_all_sizes_reach_a_model_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Inside the head, as a frame, and through shared memory."""
    model = isolated(tmp_path, "def predict(batch): return {'y': batch['x'][:, :1]}")
    gateway = gateway_here()
    worker = WorkerNode("w1", [model], [gateway.workers_address])

    with Running(gateway, worker), Client(gateway.clients_address) as client:
        answers = [client.infer("guarded", np.full(size, size, np.float32)) for size in (10, 10_000, 100_000)]

    assert answers == [10, 10_000, 100_000]


@pytest.mark.slow
def test_a_message_that_cannot_be_read_begins_a_new_life() -> None:
    """What is in it would keep its credits for ever; so the gateway is greeted again and knows that it is lost."""
    context = zmq.Context()
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.RCVTIMEO, 10_000)
    port = router.bind_to_random_port("tcp://127.0.0.1")

    def model(x: Any) -> Any:
        return x

    worker = WorkerNode("w1", [function_model(model)], [f"tcp://127.0.0.1:{port}"])

    def heard(kind: Kind, within_s: float = 10.0) -> bytes:
        give_up_at = time.monotonic() + within_s
        while time.monotonic() < give_up_at:
            peer, head, *parts = router.recv_multipart()
            if decode(head, parts)[0] is kind:
                return peer
        raise AssertionError(f"no {kind.name} came")

    with Running(worker):
        peer = heard(Kind.READY)
        welcome = [b"g" * 16, "gateway", 500, 2**20, []]
        router.send_multipart([peer, msgpack.packb([VERSION, Kind.WELCOME, [welcome]])])
        heard(Kind.HEARTBEAT)
        for _ in range(2):  # no silence is the reason: that is 1.5 s
            router.send_multipart([peer, msgpack.packb([VERSION, Kind.HEARTBEAT, []])])
        router.send_multipart([peer, b"no msgpack at all"])

        heard(Kind.READY, within_s=1.0)

        worker.stop()
    router.close(0)
    context.term()


def test_what_somebody_should_do_something_about_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As that nobody is where the gateway should be; what else there is to know is none."""
    caplog.set_level("INFO")
    monkeypatch.setattr("zmqinfer.machine.worker.machine._UNREACHED_S", 0.0)
    (nobody,) = free_addresses(1)
    worker = WorkerNode("w1", [function_model(np.negative)], [nobody], WorkerSettings(heartbeat_ms=20))
    with Running(worker):
        wait_until(lambda: len(caplog.records) > 1)
        worker.stop()

    assert [(record.levelname, record.getMessage()) for record in caplog.records[:2]] == [
        ("INFO", f"worker serves models=negative gateways={nobody} worker=w1"),
        ("WARNING", f"cannot reach gateway gateway={nobody} for_s=0 worker=w1"),
    ]
