"""The threads of a worker: one for each model, and one that stands by; one of them has the duty to turn the loop.

Libraries bind what they open to the thread that opened it, so a model is loaded, run and closed on one thread. Yet a
loop that hands a short batch to another thread pays more for that than for the batch. So the duty goes to the model's
thread together with a short batch, and stays there: the next batches of that model need no hand-over. Should one of
them last, the loop must not be silent meanwhile: the thread that stands by takes the duty.
"""

from __future__ import annotations

import functools
import logging
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Protocol, TypeAlias

from zmqinfer.errors import Status
from zmqinfer.loop.worker import Done
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.model_config import ModelConfig
from zmqinfer.node.engine import Engine
from zmqinfer.node.isolation import IsolatedModel
from zmqinfer.node.report import Report

__all__ = ["Crew", "EngineThread", "Loop", "Runs"]

# What runs the batches of one model, and closes it; both on the thread that loaded it.
Runs: TypeAlias = Engine | IsolatedModel

# How long a batch must last before the thread that runs it loses the duty.
_AWAY_S = 0.050
# How long a finished batch may wait for the others that were handed over with it.
_TELL_S = 0.001


class EngineThread(threading.Thread):
    """One model's whole life: it is loaded, run and closed on this thread and no other. The thread has its name.

    `load` makes and loads the model; what it raises is raised where the thread is made.
    """

    config: ModelConfig
    backend: Runs

    def __init__(self, load: Callable[[], tuple[ModelConfig, Runs]]) -> None:
        super().__init__(daemon=True)
        self._load = load
        self._loaded: Future[None] = Future()
        self._jobs: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self.start()
        self._loaded.result()

    def run(self) -> None:
        """Loads the model, does the jobs that come, and closes it."""
        try:
            self.config, self.backend = self._load()
        except BaseException as error:  # noqa: BLE001 - it is raised where the model was asked for
            Report("model").raised("cannot be loaded", error, logging.DEBUG)
            self._loaded.set_exception(error)
            return
        self.name = self.config.name
        self._report = Report("model", model=f"{self.name}:{self.config.version}", worker_pid=os.getpid())
        self._loaded.set_result(None)
        while (job := self._jobs.get()) is not None:
            job()
            # It may hold a client's memory, which would else be kept until the next one comes.
            del job
        self.backend.close()

    def run_batch(self, batch: Batch) -> list[Outcome]:
        """Returns one outcome or more for each task, in the order of the calls, whatever happens; on this thread."""
        try:
            return self.backend.run(batch)
        except BaseException as error:  # noqa: BLE001 - without this thread the model would hang for ever
            self._report.raised("cannot run a batch", error, logging.ERROR)
            detail = f"the worker's own code failed: {type(error).__name__}"
            return [(task.calls, Status.INTERNAL, detail) for task in batch.tasks]

    def do(self, job: Callable[[], None]) -> None:
        """Has something done on this thread, after what it has to do; it must not raise."""
        self._jobs.put(job)

    def finish(self) -> None:
        """Lets the model be closed, and the thread end, after what it has to do."""
        self._jobs.put(None)


class Loop(Protocol):
    """What the crew turns. A turn has two halves, and short batches run between them."""

    # Batches that have run, for the next half of a turn.
    done: deque[Done]

    @property
    def wake(self) -> Callable[[], None]:
        """Makes it wait no longer, from any thread."""

    def take_in(self) -> dict[int, deque[Batch]]:
        """Waits for something to do, does it, and returns the batches to begin, by the numbers of their models."""

    def send_out(self) -> bool:
        """Sends what there is to send; False after the last turn."""


class Crew:
    """Turns a loop and runs its batches.

    Args:
        engines: the models' threads, by the numbers of the models.
        look_s: how often it is looked whether a batch lasts, in seconds.
    """

    def __init__(self, loop: Loop, engines: Sequence[EngineThread], look_s: float) -> None:
        self._loop = loop
        self._engines = engines
        self._look_s = look_s
        # Guards who has the duty, None being the one that stands by, and since when that one has been in a batch.
        self._change = threading.Lock()
        self._on_duty: EngineThread | None = None
        self._away_since: float | None = None
        # Wakes the one that stands by.
        self._called = threading.Event()
        self._is_over = False
        self._error: BaseException | None = None

    def run(self) -> None:
        """Stands by until the last turn, whatever the models' threads do then; raises what a turn raised."""
        while not self._is_over:
            if self._takes_duty(None):
                self._turn(None)
            else:
                self._called.wait(self._look_s)
                self._called.clear()
        if self._error is not None:
            raise self._error

    def _takes_duty(self, me: EngineThread | None) -> bool:
        """Whether a thread that was in a batch, or stood by, has the duty now: its own, or that of who stays away."""
        with self._change:
            if self._on_duty is not me:
                since = self._away_since
                if since is None or time.monotonic() - since < _AWAY_S:
                    return False
                self._on_duty = me
            self._away_since = None
        return True

    def _pass_duty(self, heir: EngineThread | None) -> None:
        """Gives the duty away, to a thread that has a batch to run first or to the one that stands by."""
        with self._change:
            self._on_duty = heir
            self._away_since = None if heir is None else time.monotonic()
        if heir is None:
            self._called.set()

    def _turn(self, me: EngineThread | None) -> None:
        """Turns the loop until the duty is another's, or the last turn is done."""
        try:
            while self._loop.send_out():
                if not self._share_out(me, self._loop.take_in()):
                    return
        except BaseException as error:  # noqa: BLE001 - it is raised where `run` was called
            self._error = error
        self._is_over = True
        self._called.set()

    def _share_out(self, me: EngineThread | None, begun: dict[int, deque[Batch]]) -> bool:
        """Gives batches to the models' threads, and runs our own; whether the duty is still ours then."""
        if not begun:
            return True
        shares = {self._engines[number]: batches for number, batches in begun.items()}
        own = None if me is None else shares.pop(me, None)
        heir = me
        if own is None:
            heir = next((engine for engine, batches in shares.items() if batches[0].is_short), me)
        elif not own[0].is_short:
            heir = None
        # Before anything is handed over: who has run its batch looks whether the duty came with it.
        if heir is not me:
            self._pass_duty(heir)
        for engine, batches in shares.items():
            engine.do(functools.partial(self._work, engine, batches))
        if own is None or me is None:
            return heir is me
        if heir is me:
            self._away_since = time.monotonic()
        return self._run(me, own)

    def _work(self, me: EngineThread, batches: deque[Batch]) -> None:
        """Runs batches on their model's thread, and then turns the loop if the duty came with them."""
        if self._run(me, batches):
            self._turn(me)

    def _run(self, me: EngineThread, batches: deque[Batch]) -> bool:
        """Runs batches one after another, unless they are taken back; whether the duty is ours then."""
        done, clock = self._loop.done, time.perf_counter
        told_at = clock()
        while batches:
            try:
                batch = batches.popleft()
            except IndexError:
                break  # the loop was faster
            began = clock()
            outcomes = me.run_batch(batch)
            ended = clock()
            # Before the last one counts as done: from then on the duty may come with another batch.
            is_ours = not batches and self._takes_duty(me)
            done.append((batch, outcomes, ended - began))
            if is_ours:
                return True
            # Short batches are told of together: their replies then leave as one message, and the loop
            # does not take the interpreter's lock from the next of them.
            if batches and ended - told_at > _TELL_S and self._on_duty is not me:
                told_at = ended
                self._loop.wake()
        self._loop.wake()
        return False
