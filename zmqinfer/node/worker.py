"""The worker's loop: a DEALER for each gateway around a WorkerMachine, and a thread for each model.

The models run apart from the loop, so a batch of ten seconds does not keep heartbeats from
being answered. The loop hands batches over and takes what became of them; nothing else is shared.
Engines whose batches have all been shorter than half a millisecond run in the loop itself, which
another thread takes over should one of them last.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Sequence

from zmqinfer import __version__
from zmqinfer.config import WorkerSettings
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch
from zmqinfer.node import sockets
from zmqinfer.node.crew import Crew, RelievedError
from zmqinfer.node.dialler import Dialler
from zmqinfer.node.engine import Engine, EngineThread, Runs
from zmqinfer.node.isolation import IsolatedModel
from zmqinfer.node.models import LoadedModel
from zmqinfer.node.poller import Poller
from zmqinfer.node.report import Report
from zmqinfer.node.shared import SharedReader, host_token
from zmqinfer.node.waker import Waker, poll_ms
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import PAYLOAD, Kind, Record
from zmqinfer.tensor import Buffer, SharedPayload

__all__ = ["WorkerNode"]

# A socket that is not connected yet does not say when it will be: what waits to leave is tried so often.
_RETRY_S = 0.010
# So long before a batch begins that may end the process, what is said of it leaves.
_LAST_WORDS_S = 0.002


class WorkerNode:
    """One worker process's or thread's worth of worker.

    Attributes:
        on_welcome: called once, when the first gateway has taken this worker in and before it runs anything.
    """

    def __init__(
        self,
        name: str,
        models: Sequence[LoadedModel],
        gateways: Sequence[str],
        settings: WorkerSettings | None = None,
    ) -> None:
        """Dials the gateways' addresses for workers; raises `ConfigError` for one that cannot be dialled."""
        settings = settings or WorkerSettings()
        self._context = sockets.new_context(len(gateways))
        try:
            self._dialler = Dialler(self._context, gateways)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.on_welcome: Callable[[], None] | None = None
        self._report = Report("worker", worker=name)
        self._waker = Waker()
        self._is_drain_wanted = self._is_stop_wanted = False
        self._crew = Crew(self._step, settings.heartbeat_ms / 1000)
        self._woken = self._waker.fileno()
        self._poller = Poller(self._dialler.sockets, [self._woken])
        # Batches to run in the loop, and the engines that run one now. Should one of these last, whoever relieves
        # the loop goes on with the batches of the others.
        self._here: deque[Batch] = deque()
        self._away: dict[int, None] = {}
        # READY waits to leave from the beginning.
        self._is_stuck = True
        self._due: float | None = 0.0
        self._ended_at = time.monotonic()
        # How long what the sockets hold may have waited while this node was not looking.
        self._gap = 0.0
        self._engines = [EngineThread(model.name, _engine_of(model), self._waker) for model in models]
        self._models = list(models)
        self._shared = SharedReader()
        self.machine = WorkerMachine(
            settings,
            name=name,
            session=os.urandom(16),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            cards=[_card(model, settings) for model in models],
            gateways=list(gateways),
            now=time.monotonic(),
            host=host_token(),
        )

    def drain(self) -> None:
        """Begins to leave: finishes what it holds, then `run` returns; from any thread or signal handler."""
        self._is_drain_wanted = True
        self._waker.wake()

    def stop(self) -> None:
        """Ends `run` after its present turn, finished or not."""
        self._is_stop_wanted = True
        self._waker.wake()

    def run(self) -> None:
        """Serves until drained, stopped, or told by a gateway to go (`machine.ended_by`)."""
        for engine in self._engines:
            engine.start()
        models = ",".join(model.name for model in self._models)
        self._report.info(
            "worker serves", models=models, gateways=",".join(link.address for link in self.machine.links)
        )
        try:
            self._crew.run()
        finally:
            self._close()

    def _step(self) -> bool:
        """Waits for something to do and does a turn; False after the last one."""
        machine = self.machine
        wait_ms = poll_ms(self._due, self._ended_at)
        ready = self._poller.poll(wait_ms)
        now = time.monotonic()
        self._turn(now, max(0.0, now - self._ended_at - wait_ms / 1e3), ready)
        self._due = machine.wake_at()
        self._ended_at = now = time.monotonic()
        if self._is_stuck and (self._due is None or self._due > now + _RETRY_S):
            self._due = now + _RETRY_S
        return not (machine.is_drained or machine.ended_by or self._is_stop_wanted)

    def _turn(self, now: float, gap: float, ready: Sequence[object]) -> None:
        machine = self.machine
        if self._woken in ready:
            self._waker.clear()
            for engine in self._engines:
                while engine.done:
                    machine.on_batch_done(*engine.done.popleft())
        self._gap = max(self._gap, gap)
        # A backlog takes several turns: until it is gone everything in it may be as old.
        if not self._dialler.drain(self._on_message, now, machine.on_broken, ready):
            self._gap = 0.0
        if self._is_drain_wanted:
            machine.drain(now)
        if machine.is_draining or (self._due is not None and self._due <= now):
            machine.on_timer(now)
            self._shared.tidy(now)
        if self.on_welcome is not None and machine.was_welcome:
            self.on_welcome()
            self.on_welcome = None
        begun = machine.take_batches(now)
        if machine.is_in_danger:
            machine.is_in_danger = False
            self._dialler.flush(machine.dirty, time.monotonic())
            # For the thread that sends: it would end with this process.
            time.sleep(_LAST_WORDS_S)
        self._begin(begun)
        self._is_stuck = self._dialler.flush(machine.dirty, time.monotonic())
        for news, say in ((machine.events, self._report.info), (machine.warnings, self._report.warning)):
            for event, values in news:
                say(event, **values)
            news.clear()

    def _on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        if kind is Kind.REQUEST:
            for record in records:
                if type(record[PAYLOAD]) is tuple:
                    record[PAYLOAD] = self._read(record[PAYLOAD])
        self.machine.on_message(number, kind, records, now, self._gap)

    def _read(self, payload: SharedPayload) -> list[Buffer] | None:
        """Returns the parts of a payload in shared memory, None if they cannot be had."""
        try:
            return self._shared.view(payload)
        except (OSError, ValueError):
            return None

    def _begin(self, begun: dict[int, list[Batch]]) -> None:
        """Hands batches to their engines' threads, or runs them here if they are short."""
        for number, batches in begun.items():
            if self.machine.is_short(number):
                self._here += batches
            else:
                self._engines[number].begin(batches)
        if not self._here:
            return
        for batch in [batch for batch in self._here if batch.engine not in self._away]:
            self._here.remove(batch)
            thread = self._engines[batch.engine]
            if not self.machine.is_short(batch.engine):
                # Since the last one: its replies shall not wait for the others as well.
                thread.begin([batch])
                continue
            began = time.perf_counter()
            self._away[batch.engine] = None
            # Whoever relieves this thread shall not sleep first: its turn is not over.
            self._due = 0.0
            self._crew.leave()
            outcomes = thread.engine.run(batch)
            took_s = time.perf_counter() - began
            is_relieved = not self._crew.come_back()
            del self._away[batch.engine]
            if is_relieved:
                thread.done.append((batch, outcomes, took_s))
                self._waker.wake()
                raise RelievedError
            self.machine.on_batch_done(batch, outcomes, took_s)

    def _close(self) -> None:
        for engine in self._engines:
            engine.finish()
        for engine in self._engines:
            # A model that never returns must not keep the process: the thread is a daemon.
            if engine.ident is not None:
                engine.join(timeout=0.5)
        for model, engine in zip(self._models, self._engines, strict=True):
            if not engine.is_alive() and not self._crew.is_away:
                model.backend.close()
        self._shared.close()
        self._dialler.close()
        self._context.destroy(linger=sockets.LINGER_MS)
        self._waker.close()


def _engine_of(model: LoadedModel) -> Runs:
    if isinstance(model.backend, IsolatedModel):
        return model.backend
    return Engine(model.backend, borrows_inputs=model.settings.borrows_inputs, name=f"{model.name}:{model.version}")


def _card(model: LoadedModel, settings: WorkerSettings) -> ModelCard:
    own = model.settings
    limits = BatchLimits(
        max_rows=settings.max_batch_size or own.max_batch_size,
        max_wait_s=own.max_wait_ms / 1000,
        is_timed=own.policy == "timed",
    )
    return ModelCard(model.name, model.version, model.signature, limits, own.idempotent, own.hedge)
