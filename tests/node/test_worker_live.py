"""The worker's loop on real sockets and threads."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest

from zmqinfer import LocalCluster
from zmqinfer.config import GatewaySettings, WorkerSettings


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
