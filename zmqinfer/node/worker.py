"""The worker's loop: a DEALER for each gateway around a WorkerMachine, and a thread for each model.

The models run apart from the loop, so a batch of ten seconds does not keep heartbeats from
being answered. The loop hands batches over and takes what became of them; nothing else is shared.
Only engines whose batches have all been shorter than half a millisecond run in the loop itself.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence

import zmq

from zmqinfer import __version__
from zmqinfer.config import WorkerSettings
from zmqinfer.machine.task import Batch
from zmqinfer.machine.worker import ModelCard, WorkerMachine
from zmqinfer.node import sockets
from zmqinfer.node.dialler import Dialler
from zmqinfer.node.engine import Engine, EngineThread
from zmqinfer.node.models import LoadedModel
from zmqinfer.node.report import Report
from zmqinfer.node.waker import Waker, poll_ms
from zmqinfer.policy.batching import BatchLimits

__all__ = ["WorkerNode"]

# A socket that is not connected yet does not say when it will be: what waits to leave is tried so often.
_RETRY_MS = 10


class WorkerNode:
    """One worker process's or thread's worth of worker."""

    def __init__(
        self,
        name: str,
        models: Sequence[LoadedModel],
        gateways: Sequence[str],
        settings: WorkerSettings | None = None,
    ) -> None:
        """Dials the gateways' addresses for workers; raises `ConfigError` for one that cannot be dialled."""
        settings = settings or WorkerSettings()
        self._context = sockets.new_context()
        try:
            self._dialler = Dialler(self._context, gateways)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self._report = Report("worker")
        self._waker = Waker()
        self._drain_wanted = threading.Event()
        self._stop_wanted = threading.Event()
        self._engines = [EngineThread(model.name, Engine(model.backend), self._waker) for model in models]
        self._models = list(models)
        self.machine = WorkerMachine(
            settings,
            name=name,
            session=os.urandom(16),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            cards=[_card(model, settings) for model in models],
            gateways=list(gateways),
            now=time.monotonic(),
        )

    def drain(self) -> None:
        """Begins to leave: finishes what it holds, then `run` returns; from any thread or signal handler."""
        self._drain_wanted.set()
        self._waker.wake()

    def stop(self) -> None:
        """Ends `run` after its present turn, finished or not."""
        self._stop_wanted.set()
        self._waker.wake()

    def run(self) -> None:
        """Serves until drained, stopped, or told by a gateway to go (`machine.ended_by`)."""
        for engine in self._engines:
            engine.start()
        poller = zmq.Poller()
        for socket in self._dialler.sockets:
            poller.register(socket, zmq.POLLIN)
        poller.register(self._waker.fileno(), zmq.POLLIN)
        machine, clock = self.machine, time.monotonic
        ended_at = clock()
        # READY waits to leave from the beginning.
        is_stuck = True
        try:
            while not (machine.is_drained or machine.ended_by or self._stop_wanted.is_set()):
                now = clock()
                due = machine.wake_at()
                wait_ms = poll_ms(due, now)
                if is_stuck:
                    wait_ms = min(wait_ms, _RETRY_MS)
                poller.poll(wait_ms)
                now = clock()
                is_stuck = self._turn(now, max(0.0, now - ended_at - wait_ms / 1e3))
                ended_at = clock()
        finally:
            self._close()

    def _turn(self, now: float, gap: float) -> bool:
        machine = self.machine
        self._waker.clear()
        for engine in self._engines:
            while engine.done:
                machine.on_batch_done(*engine.done.popleft())
        self._dialler.drain(lambda number, kind, records, at: machine.on_message(number, kind, records, at, gap), now)
        if self._drain_wanted.is_set():
            machine.drain(now)
        due = machine.wake_at()
        if machine.is_draining or (due is not None and due <= now):
            machine.on_timer(now)
        for number, batches in machine.take_batches(now).items():
            self._begin(number, batches)
        is_stuck = self._dialler.flush(machine.dirty, now)
        for event, values in machine.events:
            self._report.info(event, **values)
        machine.events.clear()
        return is_stuck

    def _begin(self, number: int, batches: list[Batch]) -> None:
        thread, machine = self._engines[number], self.machine
        for at, batch in enumerate(batches):
            if not machine.is_short(number):
                # Perhaps since the last one: its replies shall not wait for the others as well.
                thread.begin(batches[at:])
                return
            began = time.perf_counter()
            outcomes = thread.engine.run(batch)
            machine.on_batch_done(batch, outcomes, time.perf_counter() - began)

    def _close(self) -> None:
        for engine in self._engines:
            engine.finish()
        for engine in self._engines:
            # A model that never returns must not keep the process: the thread is a daemon.
            if engine.ident is not None:
                engine.join(timeout=0.5)
        for model, engine in zip(self._models, self._engines, strict=True):
            if not engine.is_alive():
                model.backend.close()
        self._dialler.close()
        self._context.destroy(linger=sockets.LINGER_MS)
        self._waker.close()


def _card(model: LoadedModel, settings: WorkerSettings) -> ModelCard:
    own = model.settings
    limits = BatchLimits(
        max_rows=settings.max_batch_size or own.max_batch_size,
        max_wait_s=own.max_wait_ms / 1000,
        is_timed=own.policy == "timed",
    )
    return ModelCard(model.name, model.version, model.signature, limits, own.idempotent)
