"""A worker's process: production's loop and machine on the virtual network, and models that take known times."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from zmqinfer.config import WorkerSettings
from zmqinfer.errors import Status
from zmqinfer.loop.dialler import Dialler
from zmqinfer.loop.ports import Reporter
from zmqinfer.loop.worker import WorkerLoop
from zmqinfer.machine.worker.machine import WorkerMachine
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.records import PAYLOAD
from zmqinfer.scenario import TimedModel
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.sim.history import ANSWER_BYTES, OUTPUT_LAYOUT, ROW_BYTES, History, answer_to, is_poison
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process

__all__ = ["WorkerProcess"]

# What a batch takes besides its model: it is stacked, checked and split, and who sleeps is woken some 0.1 ms late.
_BATCH_S = 200e-6
# Batches of one row that are remembered, and for how long an answer may be under way before its connection ends.
_ALONE, _UNHEARD_S = 64, 4.0
_SIGNATURE = Signature((TensorSpec("x", "INT64", (2,)),), (TensorSpec("y", "INT64", (3,)),))


@dataclass(slots=True)
class _Engine:
    """One model's thread: what it was given, and when the batch that it runs will be done.

    Attributes:
        batch: the one that it runs.
        batches: how many it has run.
        hangs: whether the present one was made to last.
    """

    model: TimedModel
    queue: deque[Batch] = field(default_factory=deque)
    batch: Batch | None = None
    ends_at: float = 0.0
    took_s: float = 0.0
    batches: int = 0
    hangs: bool = False


class WorkerProcess(Process):
    """One life of one worker.

    Attributes:
        slowness: how much longer than they should its models take.
        is_faulty: whether its models raise, whatever they are asked.
    """

    turn_s, record_s = 50e-6, 8e-6

    def __init__(
        self, name: str, worker: str, network: Network, random: Random, gateways: Sequence[str],
        models: Sequence[TimedModel], settings: WorkerSettings, history: History, on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(name, network.timeline)
        self.machine = WorkerMachine(
            settings,
            name=worker,
            session=random.randbytes(16),
            agent="simulated",
            cards=[ModelCard.of(model.name, 1, _SIGNATURE, model) for model in models],
            gateways=list(gateways),
            now=self.timeline.now,
        )
        self.slowness = 1.0
        self.is_faulty = False
        self._random = random
        self._history = history
        self._on_end = on_end
        self.dialler = self.counted = Dialler(self.machine, partial(network.dial, self))
        # When batches of a single row began, and which.
        self._alone: deque[tuple[float, bytes]] = deque(maxlen=_ALONE)
        self._engines = [_Engine(model) for model in models]
        self._loop = WorkerLoop(self.machine, self.dialler, Reporter())
        self.rouse()

    def drain(self) -> None:
        """Begins to leave, as after SIGTERM."""
        self._loop.drain()
        self.rouse()

    def turn(self, now: float, gap: float) -> float | None:
        """Does a turn of the loop, and lets the engines begin."""
        for number, batches in self._loop.take_in(now, gap).items():
            engine = self._engines[number]
            engine.queue = batches
            self._begin(engine, self.departs_at())
        due = self._loop.send_out(now)
        self.dialler.settle(lambda _: None, lambda _: None)
        if self.dialler.is_readable():
            self.rouse()
        if self._loop.is_over():
            self._on_end()
        return due

    # Engines --------------------------------------------------------------------------------------

    def _begin(self, engine: _Engine, now: float) -> None:
        """Begins the first batch of an engine's queue."""
        engine.batch = batch = engine.queue.popleft()
        model = engine.model
        rows = _rows(batch)
        if len(rows) == 1:
            self._alone.append((now, rows[0]))
        for row in rows:
            self._history.ran(row, now)
        # As the model `sleep` does it.
        ms = (model.a_ms + model.b_ms * batch.rows) * self._random.uniform(1 - model.noise, 1 + model.noise)
        if model.stall_every and not self._random.randrange(model.stall_every):
            ms += model.stall_ms
        engine.took_s = ms / 1000 * self.slowness + _BATCH_S
        engine.ends_at = now
        self._put_off(engine, engine.took_s)

    def hang(self, lasts_s: float) -> bool:
        """Lets a model that runs a batch take so much longer for it; False if none does.

        It is one that has run another before: nobody can know how long the first should take.
        """
        for engine in self._engines:
            if engine.batch and engine.batches and not engine.hangs:
                for row in _rows(engine.batch):
                    self._history.of(row).has_hung = True
                engine.hangs = True
                engine.took_s += lasts_s
                self._put_off(engine, lasts_s)
                return True
        return False

    def _put_off(self, engine: _Engine, seconds: float) -> None:
        engine.ends_at += seconds
        self.timeline.at(engine.ends_at, lambda: self._end(engine))

    def _end(self, engine: _Engine) -> None:
        now, batch = self.timeline.now, engine.batch
        if not self.is_alive or self.is_frozen or engine.ends_at > now or batch is None:
            return  # if it was put off, there is another event for the end
        engine.batch = None
        engine.batches += 1
        engine.hangs = False
        rows = _rows(batch)
        killers = [row for row in rows if is_poison(row)]
        for row in killers:
            self._history.kill(row)
        if killers:
            self._on_end()
            return
        if self.is_faulty:
            for row in rows:
                self._history.of(row).has_failed = True
            outcomes: list[Outcome] = [(task.calls, Status.MODEL_ERROR, "faulty") for task in batch.tasks]
        else:
            answers = iter([answer_to(engine.model.name, row) for row in rows])
            outcomes = [
                (task.calls, OUTPUT_LAYOUT, b"".join(next(answers) for _ in range(task.rows))) for task in batch.tasks
            ]
            assert all(len(outcome[2]) == outcome[0] * ANSWER_BYTES for outcome in outcomes)
        self._loop.done.append((batch, outcomes, engine.took_s))
        self.rouse()
        if engine.queue:
            self._begin(engine, now)

    def on_lost(self) -> None:
        """Notes what ran alone of late: while its answer is under way its gateway believes that it still runs."""
        for began_at, row in self._alone:
            if began_at > self.timeline.now - _UNHEARD_S:
                self._history.of(row).has_vanished = True
        self._alone.clear()

    def thaw(self) -> None:
        """Lets it go on: what its engines had still to do, they have still to do."""
        was_away_s = self.timeline.now - self._frozen_at
        super().thaw()
        for engine in self._engines:
            if engine.batch:
                self._put_off(engine, was_away_s)


def _rows(batch: Batch) -> list[bytes]:
    return [
        task.record[PAYLOAD][at : at + ROW_BYTES]
        for task in batch.tasks
        for at in range(0, task.rows * ROW_BYTES, ROW_BYTES)
    ]
