"""Gateways and workers in processes of their own on free ports, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Self

from zmqinfer.client import Client
from zmqinfer.errors import Unavailable, ZmqInferError
from zmqinfer.launch.child import Child
from zmqinfer.launch.supervisor import Supervisor

__all__ = ["ProcessCluster"]

_START_S = 20.0


class ProcessCluster:
    """Gateways and `workers` processes that serve models, until the block ends.

    Args:
        gateways: how many; more than one only on free ports.
        gateway_settings: by the names in `GatewaySettings`.
        worker_settings: by the names in `WorkerSettings`.
        max_batch_size: of all models, 0 for their own.
        models: folders of model folders; the shipped models if there are none.
        addresses: where clients and where workers dial. Without them free ports are taken; should another
            program take one just then, the gateway says so.

    Attributes:
        clients_address: what clients dial, of several gateways with commas between.
        workers_address: what workers dial, likewise.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_batch_size: int = 0,
        models: Sequence[Path] = (),
        addresses: tuple[str, str] | None = None,
        gateways: int = 1,
        gateway_settings: Mapping[str, object] = MappingProxyType({}),
        worker_settings: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        self._workers = workers
        doors = [addresses] if addresses else _free_addresses(gateways)
        self.clients_address, self.workers_address = (",".join(side) for side in zip(*doors, strict=True))
        quiet = ("--log-level", "warning")
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        worker = ["worker", "--gateway", self.workers_address, *_options(worker_settings), *quiet]
        worker += ["--max-batch-size", str(max_batch_size)] if max_batch_size else []
        worker += [part for folder in models for part in ("--models", str(folder))] or ["--demo"]
        self._gateways = [
            Child(
                f"gateway_{number}",
                ["gateway", "--clients", front, "--workers", back, *_options(gateway_settings), *quiet],
            )
            for number, (front, back) in enumerate(doors)
        ]
        self._supervisor = Supervisor(
            [
                *self._gateways,
                *(
                    Child(
                        f"worker_{number}",
                        [*worker, "--name", f"worker_{number}"],
                        {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads},
                    )
                    for number in range(1, workers + 1)
                ),
            ]
        )

    def __enter__(self) -> Self:
        try:
            for child in self._supervisor.children:
                child.start()
            self._wait_ready()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _wait_ready(self) -> None:
        give_up_at = time.monotonic() + _START_S
        with Client(self.clients_address, connect_timeout_s=_START_S) as client:
            while time.monotonic() < give_up_at:
                for child in self._supervisor.children:
                    if not child.pid and child.ear is not None:
                        child.ear.listen(0.0)
                        raise Unavailable(
                            f"{child.name} has ended before it was ready: {child.ear.told or 'see above'}"
                        )
                try:
                    ready = [sum(w["state"] == "ready" for w in one["workers"]) for one in client.status()]
                    if len(ready) == len(self._gateways) and min(ready) >= self._workers:
                        return
                except ZmqInferError:
                    continue
                time.sleep(0.02)
        raise Unavailable(f"{self._workers} workers were not ready within {_START_S:g} s")

    @property
    def pids(self) -> tuple[int, list[int]]:
        """The first gateway's process id, and those of the workers."""
        return self._gateways[0].pid, [worker.pid for worker in self._supervisor.children[len(self._gateways) :]]

    def close(self) -> None:
        """Drains the workers, then ends the gateways."""
        self._supervisor.stop(self._supervisor.children[len(self._gateways) :], 5.0)
        self._supervisor.stop(self._gateways, 3.0)


def _options(settings: Mapping[str, object]) -> list[str]:
    return [part for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", str(value))]


def _free_addresses(gateways: int) -> list[tuple[str, str]]:
    """Returns two addresses for each gateway at which nobody listens now."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(2 * gateways)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        addresses = [f"tcp://127.0.0.1:{one.getsockname()[1]}" for one in sockets]
    return list(zip(addresses[::2], addresses[1::2], strict=True))
