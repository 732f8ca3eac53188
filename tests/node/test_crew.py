"""A model's whole life on one thread, and one loop that many threads turn, one at a time."""

from __future__ import annotations

import random
import re
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError, Status
from zmqinfer.loop.worker import Done
from zmqinfer.machine.worker.task import Batch, Bound, Outcome, Task
from zmqinfer.model_config import ModelConfig
from zmqinfer.node.crew import Crew, EngineThread
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import Layout

BOUND = Bound(Layout((), 0, b""), ())
# How often a test's crew looks whether a batch lasts: seldom enough that a busy machine is not taken for one, or often.
SELDOM_S, OFTEN_S = 60.0, 0.001
PATIENCE_S = 10.0


class Model:
    """What runs the batches of a model, and notes on which thread."""

    signature = Signature((TensorSpec("x"),), (TensorSpec("y"),))

    def __init__(self, infer: Callable[[Batch], object] = lambda _: None) -> None:
        self._infer = infer
        self.threads: list[int] = []

    def load(self, name: str = "m") -> tuple[ModelConfig, Model]:
        self.threads.append(threading.get_ident())
        return ModelConfig(name, ModelSettings()), self

    def run(self, batch: Batch) -> list[Outcome]:
        self.threads.append(threading.get_ident())
        self._infer(batch)
        return []

    def close(self) -> None:
        self.threads.append(threading.get_ident())


def batch(engine: int, *, is_short: bool) -> Batch:
    return Batch(engine, BOUND, [], 1, 0.0, is_short=is_short)


class Loop:
    """Begins each batch of a list, and then ends.

    Args:
        most: so many may be under way.
        at_once: so many may begin in a turn.

    Attributes:
        turns: the thread of each half of a turn.
        answered: the batches that came back, and `outcomes` what became of each.
    """

    def __init__(self, *batches: Batch, most: int = 1, at_once: int = 1) -> None:
        self.done: deque[Done] = deque()
        self.turns: list[int] = []
        self.answered: list[Batch] = []
        self.outcomes: list[list[Outcome]] = []
        self._waiting = list(batches)
        self._running: list[Batch] = []
        self._most, self._at_once = most, at_once
        self._signal = threading.Event()
        self._alone = threading.Lock()
        self._give_up_at = time.monotonic() + PATIENCE_S

    def take_in(self) -> dict[int, deque[Batch]]:
        assert self._alone.acquire(blocking=False), "two threads turn the loop"
        assert time.monotonic() < self._give_up_at, f"{len(self._running)} batches never ended"
        self._answer()
        if len(self._running) == self._most or (self._running and not self._waiting):
            self._signal.wait(0.1)
        self._signal.clear()
        self._answer()
        begun: dict[int, deque[Batch]] = {}
        busy = {one.engine for one in self._running}
        free = min(self._most - len(self._running), self._at_once)
        for one in [one for one in self._waiting if one.engine not in busy][:free]:
            self._waiting.remove(one)
            self._running.append(one)
            begun.setdefault(one.engine, deque()).append(one)
        self._alone.release()
        return begun

    def send_out(self) -> bool:
        assert self._alone.acquire(blocking=False), "two threads turn the loop"
        self.turns.append(threading.get_ident())
        self._answer()
        self._alone.release()
        return bool(self._waiting or self._running)

    def wake(self) -> None:
        self._signal.set()

    def _answer(self) -> None:
        while self.done:
            one, outcomes, _ = self.done.popleft()
            self._running.remove(one)
            self.answered.append(one)
            self.outcomes.append(outcomes)


Start = Callable[[Model], EngineThread]


@pytest.fixture
def start() -> Iterator[Start]:
    """Loads models on threads of their own; they end with the test."""
    threads: list[EngineThread] = []

    def load(model: Model) -> EngineThread:
        threads.append(EngineThread(model.load))
        return threads[-1]

    yield load
    for thread in threads:
        thread.finish()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


# A model's life -----------------------------------------------------------------------------------------


def test_a_model_is_loaded_run_and_closed_on_one_thread() -> None:
    """Whoever turns the loop; the thread is named after it."""
    model = Model()
    thread = EngineThread(lambda: model.load("scorer"))
    batches = [batch(0, is_short=number % 7 < 5) for number in range(100)]
    loop = Loop(*batches)

    Crew(loop, [thread], SELDOM_S).run()
    thread.finish()
    thread.join(PATIENCE_S)

    assert loop.answered == batches
    assert model.threads == [thread.ident] * 102
    assert (thread.name, thread.config.name) == ("scorer", "scorer")


@pytest.mark.parametrize("error", [ConfigError("no weights"), KeyboardInterrupt(), SystemExit(3)])
def test_what_loading_raises_reaches_who_asked(error: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever it is; and the thread has gone. Who debugs gets the traceback."""
    caplog.set_level("DEBUG", "zmqinfer.model")
    seen: list[threading.Thread] = []

    def load() -> Any:
        seen.append(threading.current_thread())
        raise error

    with pytest.raises(type(error)):
        EngineThread(load)

    seen[0].join(PATIENCE_S)
    assert not seen[0].is_alive()
    assert re.match(r'cannot be loaded error=\w+ at="test_crew.py:\d+ load"\n  File ', caplog.messages[0])


def test_nothing_that_a_backend_raises_ends_its_thread(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """What an engine itself does not catch is a mistake of ours, and is said so."""

    def infer(one: Batch) -> None:
        if one.rows == 2:
            raise SystemExit("secret")

    thread = start(Model(infer))
    bound = Bound(Layout((), 0, b""), ())
    record = [7, 0b111, b"id", "m", 1, None, 0, 4, 1, None, 3, b"", b""]
    bad = Batch(0, bound, [Task(0, record, bound, 0, 1e9, 0.0)], 2, 0.0)
    loop = Loop(bad, batch(0, is_short=True))

    Crew(loop, [thread], SELDOM_S).run()

    assert loop.answered[0] is bad
    assert loop.outcomes[0] == [(3, Status.INTERNAL, "the worker's own code failed: SystemExit")]
    assert len(loop.answered) == 2
    (line,) = caplog.messages
    assert line.startswith('cannot run a batch error=SystemExit at="test_crew.py:')
    assert "secret" not in line


# Who turns the loop ---------------------------------------------------------------------------------------


def test_short_batches_need_no_other_thread(start: Start) -> None:
    """With the first the duty goes to the model's thread, and stays there."""
    thread = start(Model())
    loop = Loop(*(batch(0, is_short=True) for _ in range(500)))

    Crew(loop, [thread], SELDOM_S).run()

    assert loop.turns[0] == threading.get_ident()
    assert set(loop.turns[1:]) == {thread.ident}


def test_long_batches_leave_the_loop_to_who_stands_by(start: Start) -> None:
    """They are expected to last, so it need not be waited until they do."""
    loop = Loop(*(batch(0, is_short=False) for _ in range(50)))

    Crew(loop, [start(Model())], SELDOM_S).run()

    assert set(loop.turns) == {threading.get_ident()}


def test_a_model_that_is_short_no_more_gives_the_duty_back(start: Start) -> None:
    """Before it runs the long batch: who stands by goes on at once, and does not look first whether it lasts."""
    main = threading.get_ident()
    goes_on = threading.Event()
    thread = start(Model(lambda one: None if one.is_short else goes_on.wait(PATIENCE_S)))
    loop = Loop(*(batch(0, is_short=is_short) for is_short in (True, False, True)))
    take_in = loop.take_in

    def note() -> dict[int, deque[Batch]]:
        if threading.get_ident() == main and loop.answered:
            goes_on.set()
        return take_in()

    loop.take_in = note  # type: ignore[method-assign]

    Crew(loop, [thread], SELDOM_S).run()

    assert goes_on.is_set()
    assert len(loop.answered) == 3
    assert (loop.turns[1], loop.turns[-1]) == (thread.ident, thread.ident)


def test_the_duty_goes_with_the_batch_of_another_model(start: Start) -> None:
    """One change of threads, where a hand-over and the answer are two."""
    threads = [start(Model()), start(Model())]
    loop = Loop(*(batch(number, is_short=True) for number in (0, 1, 0, 1)))

    Crew(loop, threads, SELDOM_S).run()

    assert loop.turns == [threading.get_ident(), *[threads[number].ident for number in (0, 1, 0, 1)]]


@pytest.mark.slow
def test_who_stays_away_is_relieved_and_the_loop_goes_on(start: Start) -> None:
    """Twice, in two models; when their batches end they are answered by whoever turns the loop then."""
    goes_on = threading.Event()
    slow = [start(Model(lambda _: goes_on.wait(PATIENCE_S))) for _ in range(2)]
    quick = start(Model(lambda _: goes_on.set()))
    loop = Loop(*(batch(number, is_short=True) for number in (0, 1, 2)), most=3)

    Crew(loop, [*slow, quick], OFTEN_S).run()

    assert len(loop.answered) == 3


def test_a_models_thread_relieves_who_stays_away_as_well(start: Start) -> None:
    """When it comes back from a batch of its own, sooner than the one that stands by looks."""
    goes_on = threading.Event()
    away = start(Model(lambda _: goes_on.wait(PATIENCE_S)))
    back = start(Model(lambda _: time.sleep(0.06)))
    last = start(Model(lambda _: goes_on.set()))
    loop = Loop(*(batch(number, is_short=True) for number in (0, 1, 2)), most=2, at_once=2)

    Crew(loop, [away, back, last], SELDOM_S).run()

    assert len(loop.answered) == 3
    assert back.ident in loop.turns


@pytest.mark.slow
def test_a_model_that_never_returns_does_not_keep_the_loop_from_ending(start: Start) -> None:
    """It is away with the duty when the last turn is done."""
    for_ever = threading.Event()
    loop = Loop(batch(0, is_short=True))
    loop.send_out = lambda: loop.turns.append(0) or len(loop.turns) < 2  # type: ignore[func-returns-value, method-assign]

    Crew(loop, [start(Model(lambda _: for_ever.wait(PATIENCE_S)))], OFTEN_S).run()

    assert not for_ever.is_set()
    for_ever.set()


def test_an_error_is_raised_where_the_loop_was_started(start: Start) -> None:
    """Also one on a model's thread; whoever started it must know."""
    thread = start(Model())
    loop = Loop(batch(0, is_short=True))
    answer = loop.send_out

    def fail_there() -> bool:
        if threading.get_ident() == thread.ident:
            raise ValueError("a defect")
        return answer()

    loop.send_out = fail_there  # type: ignore[method-assign]

    with pytest.raises(ValueError, match="a defect"):
        Crew(loop, [thread], SELDOM_S).run()


def test_a_batch_may_be_handed_over_before_its_model_has_looked_up_from_the_last(start: Start) -> None:
    """The duty that comes with it is for later: a thread that took it at once would never run that batch."""

    class Slow(deque[Done]):
        def append(self, one: Done) -> None:
            super().append(one)
            loop.wake()
            give_up_at = time.monotonic() + PATIENCE_S
            while loop._waiting and time.monotonic() < give_up_at:
                time.sleep(0.001)

    loop = Loop(batch(0, is_short=False), batch(0, is_short=True))
    loop.done = Slow()

    Crew(loop, [start(Model())], SELDOM_S).run()

    assert len(loop.answered) == 2


def test_what_is_taken_back_is_not_run_and_what_ran_is_told(start: Start) -> None:
    """A batch is taken from the shared row by its model's thread or by the loop; whoever comes second finds none."""
    first, second = batch(0, is_short=False), batch(0, is_short=False)
    ran: list[Batch] = []

    class Robbed(deque[Batch]):
        def popleft(self) -> Batch:
            one = super().popleft()
            if one is second:  # as if the loop had been a moment faster
                raise IndexError
            return one

    class Robbing(Loop):
        def take_in(self) -> dict[int, deque[Batch]]:
            begun = super().take_in()
            if begun:
                self._running.remove(second)
            return {number: Robbed(batches) for number, batches in begun.items()}

    loop = Robbing(first, second, most=2, at_once=2)

    Crew(loop, [start(Model(ran.append))], SELDOM_S).run()

    assert ran == loop.answered == [first]


@pytest.mark.slow
def test_every_batch_is_run_once_and_answered_whoever_is_slow(start: Start) -> None:
    """Models of all kinds at once; `Loop` sees to it that one thread alone turns it."""
    rng = random.Random(7)
    ran: list[Batch] = []

    def infer(one: Batch) -> None:
        ran.append(one)
        if rng.random() < 0.01:
            time.sleep(0.06)  # longer than may be away who has the duty

    threads = [start(Model(infer)) for _ in range(3)]
    batches = [batch(rng.randrange(3), is_short=rng.random() < 0.7) for _ in range(1_500)]
    loop = Loop(*batches, most=2, at_once=2)

    Crew(loop, threads, OFTEN_S).run()

    assert len(ran) == len(loop.answered) == 1_500
    assert set(map(id, ran)) == set(map(id, loop.answered)) == set(map(id, batches))
