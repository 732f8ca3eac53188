"""A worker's process: its sockets, its clock, its models' threads, and the loop between them.

The models run apart from the loop, so that a batch of ten seconds keeps no heartbeat from being answered.
crew.py decides which thread turns it.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

from zmqinfer import __version__
from zmqinfer.config import WorkerSettings
from zmqinfer.loop.worker import WorkerLoop
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch
from zmqinfer.node.crew import Crew, EngineThread
from zmqinfer.node.poller import Poller
from zmqinfer.node.ports import Dialler
from zmqinfer.node.report import Report
from zmqinfer.node.shared import SharedReader, host_token

__all__ = ["WorkerNode"]

# So long before a batch begins that may end the process, what is said of it leaves.
_LAST_WORDS_S = 0.002
# So long models may take to close when there is no time of grace, and so often it is looked whether they have.
_CLOSE_S, _LOOK_S = 0.5, 0.1


class WorkerNode:
    """One worker process's or thread's worth of worker.

    Attributes:
        done: batches that have run, for the next half of a turn.
        wake: makes the loop wait no longer, from any thread or signal handler.
        on_welcome: called once, when the first gateway has taken this worker in and before it runs anything.
    """

    def __init__(
        self,
        name: str,
        models: Sequence[EngineThread],
        gateways: Sequence[str],
        settings: WorkerSettings | None = None,
    ) -> None:
        """Dials the gateways' addresses for workers; raises `ConfigError` for one that cannot be dialled.

        Args:
            models: loaded; they are closed when this node ends.
        """
        settings = settings or WorkerSettings()
        most_rows = settings.max_batch_size
        self.machine = WorkerMachine(
            settings,
            name=name,
            session=os.urandom(16),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            cards=[
                ModelCard.of(one.config.name, one.config.version, one.backend.signature, one.config.settings, most_rows)
                for one in models
            ],
            gateways=list(gateways),
            now=time.monotonic(),
            host=host_token(),
        )
        self._dialler = Dialler(self.machine)
        self.on_welcome: Callable[[], None] | None = None
        self._report = Report("worker", worker=name)
        self._is_stop_wanted = False
        self._poller = Poller()
        self.wake = self._poller.wake
        self._settle = partial(self._dialler.settle, self._poller.add, self._poller.remove)
        self._due: float | None = 0.0
        self._ended_at = time.monotonic()
        self._engines = list(models)
        self._shared = SharedReader()
        self._loop = WorkerLoop(self.machine, self._dialler, self._report, self._shared.read)
        self.done = self._loop.done
        self._crew = Crew(self, self._engines, settings.heartbeat_ms / 1000)

    def drain(self) -> None:
        """Begins to leave: finishes what it holds, then `run` returns; from any thread or signal handler."""
        self._loop.drain()
        self.wake()

    def add_gateway(self, address: str) -> None:
        """Joins one more gateway, at its address for workers, unless it serves there already; from any thread.

        Raises as `Dialler.dial` does.
        """
        self._ask(self._dialler.dial(address))

    def remove_gateway(self, address: str) -> None:
        """Leaves a gateway when it has the answers to all that it gave; from any thread or signal handler."""
        self._ask(partial(self._dialler.remove, address))

    def _ask(self, work: Callable[[float], None]) -> None:
        self._loop.inbox.put(work)
        self.wake()
        if not self._dialler.is_open:
            self._loop.inbox.empty(time.monotonic())

    def stop(self) -> None:
        """Ends `run` after its present turn, finished or not."""
        self._is_stop_wanted = True
        self.wake()

    def run(self) -> None:
        """Serves until drained, stopped, or told by a gateway to go (`machine.ended_by`)."""
        models = ",".join(engine.config.name for engine in self._engines)
        self._report.info(
            "worker serves", models=models, gateways=",".join(link.address for link in self.machine.links.values())
        )
        try:
            self._crew.run()
        finally:
            self._close()

    def take_in(self) -> dict[int, deque[Batch]]:
        """Waits for something to do, does it, and returns the batches to begin, by the numbers of their models."""
        self._settle()
        now, away_s = self._poller.wait(self._due, self._ended_at)
        begun = self._loop.take_in(now, away_s)
        if self._loop.is_due:
            self._shared.tidy(now)
        if self.on_welcome is not None and self.machine.was_welcome:
            self.on_welcome()
            self.on_welcome = None
        if self._loop.is_in_danger:
            # For the thread that sends: it would end with this process.
            time.sleep(_LAST_WORDS_S)
        return begun

    def send_out(self) -> bool:
        """Sends what there is to send; False after the last turn."""
        self._due = self._loop.send_out(time.monotonic())
        self._ended_at = time.monotonic()
        return not (self._loop.is_over() or self._is_stop_wanted)

    def _close(self) -> None:
        for engine in self._engines:
            engine.finish()
        began = time.monotonic()
        while (living := [engine for engine in self._engines if engine.is_alive()]) and self._may_close(began):
            living[0].join(_LOOK_S)
        for engine in living:
            engine.backend.kill()
        for engine in living:
            # A model that never returns must not keep the process: the thread is a daemon.
            engine.join(_LOOK_S)
        self._shared.close()
        self._dialler.close()
        # What was asked too late may hold a socket, which has to be closed before the context ends.
        self._loop.inbox.empty(time.monotonic())
        self._dialler.end()
        self._poller.close()

    def _may_close(self, began: float) -> bool:
        """Whether the models have time left to close: after a drain what is left of its grace."""
        now, machine = time.monotonic(), self.machine
        is_patient = machine.is_drained and not self._is_stop_wanted
        return now < began + _CLOSE_S or (is_patient and now < machine.drain_by)
