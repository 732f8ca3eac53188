"""A gateway and workers in threads of this process, for tests and notebooks."""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from zmqinfer.backends.python_callable import BareFunction
from zmqinfer.client import Client
from zmqinfer.config import GatewaySettings, ModelSettings, WorkerSettings
from zmqinfer.errors import ConfigError, Unavailable, UsageError
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.models import function_model
from zmqinfer.node.worker import WorkerNode

__all__ = ["LocalCluster"]

_START_S = 5.0
_END_S = 5.0


class LocalCluster:
    """Serves one function: an array of n rows to an array of n rows, one call for each batch.

    It may be a class with `infer(x)`, and `load()` and `close()` if it likes: each worker makes its own object.
    The model has the function's name; a lambda, and what else has no name that a model can have, is called `predict`.
    It runs from `with` to its end, and may then be entered again.
    What it raises is logged with the whole traceback, by `zmqinfer.model` of `logging`.
    All run in this process and share its interpreter's lock, so this is for tests and notebooks;
    `zmqinfer up` serves the same function from processes of its own.

    Args:
        function: the model: a function, or a class.
        workers: how many threads of workers; they call `function` at the same time.
        settings: how batches are made: a `ModelSettings` of `zmqinfer.config`, or a dict with some of its names.
        gateway: settings of the gateway: a `GatewaySettings`, or a dict.
        worker: settings of the workers: a `WorkerSettings`, or a dict.

    Attributes:
        address: what clients dial; empty while it does not run.
    """

    def __init__(
        self,
        function: Callable[[Any], Any],
        *,
        workers: int = 2,
        settings: ModelSettings | Mapping[str, Any] | None = None,
        gateway: GatewaySettings | Mapping[str, Any] | None = None,
        worker: WorkerSettings | Mapping[str, Any] | None = None,
    ) -> None:
        if type(workers) is not int or workers < 1:
            raise ConfigError(f"workers is {workers!r}, expected a whole number from 1")
        BareFunction(function)  # says at once if it is none
        model = ModelSettings.of(settings, "settings")
        _check_here(model)
        if worker is None or isinstance(worker, Mapping):
            # Nobody would start a worker again that ended for a long batch.
            worker = {"max_batch_s": 0.0, **(worker or {})}
        self._workers = workers
        self._load = functools.partial(function_model, function, model, has_tracebacks=True)
        self._gateway_settings = GatewaySettings.of(gateway, "gateway")
        self._worker_settings = WorkerSettings.of(worker, "worker")
        self._nodes: list[WorkerNode] = []
        self._threads: list[threading.Thread] = []
        self._gateway: GatewayNode | None = None
        self._gateway_thread: threading.Thread | None = None
        self.address = ""

    def __enter__(self) -> Self:
        if self._gateway is not None:
            raise UsageError("this cluster runs already; leave its `with` first, or make another one")
        gateway = self._gateway = GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", self._gateway_settings)
        try:
            self._gateway_thread = self._start(gateway.run, "gateway")
            self.address = gateway.clients_address
            for number in range(1, self._workers + 1):
                models, gateways = [self._load()], [gateway.workers_address]
                node = WorkerNode(f"worker_{number}", models, gateways, self._worker_settings)
                self._nodes.append(node)
                self._threads.append(self._start(node.run, f"worker_{number}"))
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def client(self, **settings: Any) -> Client:
        """Returns a new client of this cluster, which has to run; the caller closes it."""
        if not self.address:
            raise UsageError("this cluster does not run; enter it first: with LocalCluster(function) as cluster")
        return Client(self.address, **settings)

    def close(self) -> None:
        """Drains the workers, then ends the gateway."""
        for node in self._nodes:
            node.drain()
        for node, thread in zip(self._nodes, self._threads, strict=True):
            thread.join(_END_S)
            node.stop()
        if self._gateway is not None and self._gateway_thread is not None:
            self._gateway.stop()
            self._gateway_thread.join(_END_S)
        self._nodes.clear()
        self._threads.clear()
        self._gateway = None
        self.address = ""

    @staticmethod
    def _start(run: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=run, name=f"zmqinfer-{name}", daemon=True)
        thread.start()
        return thread

    def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + _START_S
        with self.client() as client:
            while sum(worker["state"] == "ready" for worker in client.status()[0]["workers"]) < len(self._nodes):
                if time.monotonic() > give_up_at:
                    raise Unavailable(f"the workers were not ready within {_START_S:g} s")
                time.sleep(0.002)


def _check_here(settings: ModelSettings) -> None:
    """Raises `ConfigError` for what a function in this process cannot have."""
    if settings.isolation != "thread":
        raise ConfigError(
            f"isolation is {settings.isolation!r}, but a LocalCluster runs its function in this process, expected"
            " 'thread'; serve it with: zmqinfer up MODULE:CALLABLE --isolation process"
        )
    if settings.target or settings.backend != "python":
        raise ConfigError(
            f"backend and target are for model folders, and are {settings.backend!r} and {settings.target!r} for a"
            " function; leave them out"
        )
