"""A gateway and workers in processes of their own on free ports, for benchmarks and tests."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from zmqinfer.client import Client
from zmqinfer.errors import Unavailable, ZmqInferError
from zmqinfer.launch.supervisor import Child, Supervisor

__all__ = ["ProcessCluster"]

_START_S = 20.0


class ProcessCluster:
    """A gateway and `workers` processes that serve models, until the block ends.

    Args:
        max_batch_size: of all models, 0 for their own.
        models: folders of model folders; the shipped models if there are none.
        addresses: where clients and where workers dial. Without them free ports are taken; should another
            program take one just then, the gateway says so.

    Attributes:
        clients_address: what clients dial.
        workers_address: what workers dial.
    """

    def __init__(
        self,
        workers: int,
        *,
        max_batch_size: int = 0,
        models: Sequence[Path] = (),
        addresses: tuple[str, str] | None = None,
    ) -> None:
        self._workers = workers
        self.clients_address, self.workers_address = addresses or _free_addresses()
        quiet = ("--log-level", "warning")
        threads = str(max(1, (os.cpu_count() or 1) // workers))
        gateway = ["gateway", "--clients", self.clients_address, "--workers", self.workers_address, *quiet]
        worker = ["worker", "--gateway", self.workers_address, "--max-batch-size", str(max_batch_size), *quiet]
        worker += [part for folder in models for part in ("--models", str(folder))]
        self._supervisor = Supervisor(
            [
                Child("gateway", gateway),
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
        for child in self._supervisor.children:
            child.start()
        try:
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
                try:
                    if sum(w["state"] == "ready" for w in client.status()[0]["workers"]) >= self._workers:
                        return
                except ZmqInferError:
                    continue
                time.sleep(0.02)
        raise Unavailable(f"{self._workers} workers were not ready within {_START_S:g} s")

    @property
    def pids(self) -> tuple[int, list[int]]:
        """The gateway's process id, and those of the workers."""
        gateway, *workers = self._supervisor.children
        return gateway.pid, [worker.pid for worker in workers]

    def close(self) -> None:
        """Drains the workers, then ends the gateway."""
        gateway, *workers = self._supervisor.children
        self._supervisor.stop(workers, 5.0)
        self._supervisor.stop([gateway], 3.0)


def _free_addresses() -> tuple[str, str]:
    """Returns two addresses at which nobody listens now."""
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        other.bind(("127.0.0.1", 0))
        return f"tcp://127.0.0.1:{one.getsockname()[1]}", f"tcp://127.0.0.1:{other.getsockname()[1]}"
