"""What the tests of the client ask: a model, and nodes in this process."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from tests.processes import PATIENCE_S
from zmqinfer.config import GatewaySettings
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.worker import WorkerNode

X = np.arange(4, dtype=np.float32)
# Above this a first value makes the model sleep, so long as it says.
SLEEPY = 1_000.0
_HELD = 600.0
_is_let_go = threading.Event()


def model(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Doubles; a negative value raises; a value over 1,000 sleeps so many milliseconds more; 500 loses a row.

    What `held` gives is answered at the end of its `with`.
    """
    if x.dtype.kind == "f" and x.size:
        first = x.reshape(len(x), -1)[:, 0]
        if (first < 0).any():
            raise ValueError(f"no square root of {first.min():g}")
        if (first > SLEEPY).any():
            time.sleep(float(first.max() - SLEEPY) / 1_000)
        if (first == _HELD).any():
            _is_let_go.wait(PATIENCE_S)
        if (first == 500).any():
            return x[1:]
    return x * 2 if x.dtype.kind != "b" else x


def sleepy(milliseconds: float) -> np.ndarray[Any, Any]:
    return np.array([SLEEPY + milliseconds], np.float32)


@contextlib.contextmanager
def held() -> Iterator[np.ndarray[Any, Any]]:
    """Gives an input that has no answer before the end, however slow the machine is."""
    _is_let_go.clear()
    try:
        yield np.array([_HELD], np.float32)
    finally:
        _is_let_go.set()


def gateway_here(settings: GatewaySettings | None = None) -> GatewayNode:
    return GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", settings)


class Running:
    """Nodes in threads; the last one that began ends first."""

    def __init__(self, *nodes: GatewayNode | WorkerNode) -> None:
        self._nodes = nodes
        self._threads: dict[GatewayNode | WorkerNode, threading.Thread] = {}

    def __enter__(self) -> Running:
        for node in self._nodes:
            self.begin(node)
        return self

    def begin(self, node: GatewayNode | WorkerNode) -> None:
        self._threads[node] = threading.Thread(target=node.run, daemon=True)
        self._threads[node].start()

    def end(self, node: GatewayNode | WorkerNode) -> None:
        """Ends a node, unless it does so itself or has ended, and waits for that."""
        node.drain() if isinstance(node, WorkerNode) else node.stop()
        self.awaits(node)

    def awaits(self, node: GatewayNode | WorkerNode) -> None:
        """Waits until a node has ended."""
        self._threads[node].join(PATIENCE_S)
        assert not self._threads[node].is_alive()

    def __exit__(self, *_: object) -> None:
        for node in reversed([*self._threads]):
            self.end(node)
