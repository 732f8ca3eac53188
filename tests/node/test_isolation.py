"""A model in a process of its own may crash, hang and grow: its worker goes on, and only the guilty pay."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest
import zmq

from tests.processes import is_running
from zmqinfer.errors import ConfigError, Status
from zmqinfer.machine.worker.task import Batch, Bound, Outcome, Task
from zmqinfer.node.isolation import IsolatedModel
from zmqinfer.node.models import find_models
from zmqinfer.tensor import layout_of, parse_layout, unpack

TOML = """
target = "model:{target}"
isolation = "process"
memory_mb = {memory_mb}
idempotent = {idempotent}
[inputs.x]
dtype = "FP32"
shape = [2]
[outputs.y]
dtype = "FP32"
shape = [2]
"""
# What it does is what the first number of a row asks for.
MODEL = dedent("""
    import os, re, signal, time

    hoard = []

    def predict(batch):
        x = batch["x"]
        asked = {int(row[0]) for row in x}
        if -1 in asked:
            os.kill(os.getpid(), signal.SIGSEGV)
        if -2 in asked:
            os._exit(3)
        if -6 in asked:
            os.kill(os.getpid(), 35)  # one that has no name
        if -3 in asked:
            re.match(r"(a+)+$", "a" * 60 + "b")
        if -4 in asked:
            while True:
                hoard.append(bytearray(b"x" * 2**24))
                time.sleep(0.01)
        if -5 in asked:
            raise ValueError("minus five")
        x += 1
        return {"y": x}
""")
LAYOUT = layout_of({"x": np.zeros(2, np.float32)}, None)
BOUND = Bound(LAYOUT, (0,))


def isolated(folder: Path, *, memory_mb: int = 0, idempotent: bool = True, model: str = MODEL) -> IsolatedModel:
    place = folder / "guarded"
    place.mkdir()
    (place / "model.py").write_text(model)
    target = "Model" if "class Model" in model else "predict"
    (place / "model.toml").write_text(
        TOML.format(target=target, memory_mb=memory_mb, idempotent=str(idempotent).lower())
    )
    (config,) = find_models([folder])
    made = IsolatedModel(config)
    made.load()
    return made


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[IsolatedModel]:
    """The model above."""
    model = isolated(tmp_path, memory_mb=400)
    yield model
    model.close()


def task(*firsts: float, budget_s: float = 20.0, part: Callable[[bytes], Any] | None = None) -> Task:
    """A request of a row for each number, in a block if they are several; `part` makes a large one's only part."""
    rows = np.array([[first, 0.5] for first in firsts], np.float32)
    payload: Any = rows.tobytes() if part is None else [part(rows.tobytes())]
    calls = len(firsts)
    record = [0, 2**calls - 1, b"id 0", "guarded", 1, None, 0, 4, 1, None, calls, LAYOUT.raw, payload]
    now = time.monotonic()
    return Task(0, record, BOUND, rows.nbytes, now + budget_s, now)


def batch(*tasks: Task) -> Batch:
    return Batch(0, BOUND, list(tasks), sum(one.rows for one in tasks), time.monotonic())


def told(outcomes: list[Outcome]) -> list[Any]:
    """For each call the first number of its answer, or how it ended."""
    found: list[Any] = []
    for calls, first, second in outcomes:
        if type(first) is bytes:
            arrays = unpack(parse_layout(first), calls, second)  # type: ignore[arg-type]
            found += [float(row[0]) for row in arrays[0]]
        else:
            found += [Status(first).name] * calls  # type: ignore[arg-type]
    return found


def pid_of(model: IsolatedModel) -> int:
    assert model._process is not None
    return model._process.pid


def test_it_answers_as_in_a_thread(guarded: IsolatedModel) -> None:
    """Blocks, large inputs as sockets and shared memory deliver them, and a model that writes to its input."""
    large = [task(4.0, part=zmq.Frame), task(5.0, part=memoryview)]

    assert told(guarded.run(batch(task(1.0, 2.0), task(3.0), *large))) == [2.0, 3.0, 4.0, 5.0, 6.0]
    assert pid_of(guarded) != os.getpid()


def test_what_raises_is_found_in_the_process(guarded: IsolatedModel) -> None:
    """The batch is bisected there, and the process stays."""
    before = pid_of(guarded)

    assert told(guarded.run(batch(task(1.0), task(-5.0, 2.0)))) == [2.0, "MODEL_ERROR", 3.0]

    assert pid_of(guarded) == before


@pytest.mark.parametrize(
    ("crash", "how"), [(-1.0, "by signal SIGSEGV"), (-2.0, "with exit code 3"), (-6.0, "by signal 35")]
)
def test_a_crash_is_the_fault_of_one_call(guarded: IsolatedModel, crash: float, how: str) -> None:
    """The others of its batch are answered, by the next process."""
    outcomes = guarded.run(batch(task(1.0, crash, 2.0), task(3.0)))

    assert told(outcomes) == [2.0, "POISONED", 3.0, 4.0]
    assert any(how in str(second) for _, first, second in outcomes if first is Status.POISONED)
    assert told(guarded.run(batch(task(7.0)))) == [8.0]


def test_each_end_of_a_process_is_one_event(guarded: IsolatedModel, caplog: pytest.LogCaptureFixture) -> None:
    """With its cause: a signal, memory, time; and one that came while nobody asked for anything."""
    guarded.run(batch(task(-1.0)))
    guarded.run(batch(task(-4.0)))
    guarded.run(batch(task(1.0)))
    guarded.run(batch(task(-3.0, budget_s=0.1)))
    guarded.run(batch(task(1.0)))
    os.kill(pid_of(guarded), signal.SIGKILL)
    guarded._process.wait()  # type: ignore[union-attr]
    guarded.run(batch(task(1.0)))

    whys = [re.fullmatch(r'process ended why="the model\'s process (.*)" model=guarded:1 worker_pid=\d+', line)
            for line in caplog.messages]  # fmt: skip
    assert [why and why[1] for why in whys] == [
        "ended by signal SIGSEGV",
        "had more than 400 MiB and was killed",
        "ran beyond the deadlines of all that it had, and was killed",
        "ended by signal SIGKILL",
    ]


def test_alone_in_its_batch_it_is_guilty_at_once(guarded: IsolatedModel) -> None:
    """It needs no second try."""
    assert told(guarded.run(batch(task(-1.0)))) == ["POISONED"]


def test_a_process_that_died_at_rest_is_started_again(guarded: IsolatedModel) -> None:
    """Nobody's input is to blame."""
    os.kill(pid_of(guarded), signal.SIGKILL)
    guarded._process.wait()  # type: ignore[union-attr]

    assert told(guarded.run(batch(task(1.0)))) == [2.0]


def test_a_hang_ends_with_the_last_deadline(guarded: IsolatedModel) -> None:
    """With the interpreter's lock held in there; a quarter of a second later it is killed, and then there again."""
    before = pid_of(guarded)
    began = time.monotonic()

    assert told(guarded.run(batch(task(-3.0, budget_s=0.3), task(1.0, budget_s=0.5)))) == ["DEADLINE_EXCEEDED"] * 2

    assert time.monotonic() - began >= 0.75
    assert not is_running(before)
    assert told(guarded.run(batch(task(1.0)))) == [2.0]


def test_one_that_does_not_even_read_is_killed_as_well(guarded: IsolatedModel) -> None:
    """A batch that is larger than what a socket holds."""
    before = pid_of(guarded)
    os.kill(before, signal.SIGSTOP)
    rows = 200_000
    x = np.ones((rows, 2), np.float32)
    record: list[Any] = [1, 1, b"id", "m", 1, None, 0, 4, 1, None, rows, LAYOUT.raw, [x.data.cast("B")]]
    large = Task(0, record, BOUND, x.nbytes, time.monotonic() + 0.2, time.monotonic())
    began = time.monotonic()

    assert told(guarded.run(Batch(0, BOUND, [large], rows, time.monotonic()))) == ["DEADLINE_EXCEEDED"]

    assert time.monotonic() - began < 5
    assert not is_running(before)
    assert told(guarded.run(batch(task(1.0)))) == [2.0]


def test_one_that_grows_beyond_its_limit_is_killed(guarded: IsolatedModel) -> None:
    """Which is a way of ending that its batch-mates do not share."""
    outcomes = guarded.run(batch(task(1.0), task(-4.0)))

    assert told(outcomes) == [2.0, "POISONED"]
    assert "more than 400 MiB" in str(outcomes[-1][2])


def test_what_may_not_run_twice_does_not(tmp_path: Path) -> None:
    """Whoever is guilty."""
    model = isolated(tmp_path, idempotent=False)
    try:
        assert told(model.run(batch(task(1.0, 2.0), task(-1.0)))) == ["WORKER_LOST"] * 3
        assert told(model.run(batch(task(1.0)))) == [2.0]
    finally:
        model.close()


@pytest.mark.parametrize(
    ("code", "words"),
    [("raise ValueError('no weights')", "no weights"), ("import os\nos._exit(7)", "ended with exit code 7")],
)
def test_one_that_cannot_be_loaded_says_why(tmp_path: Path, code: str, words: str) -> None:
    """In one sentence, as in a thread."""
    with pytest.raises(ConfigError, match=words):
        isolated(tmp_path, model=code)


def test_a_process_that_cannot_be_started_is_a_sentence(
    guarded: IsolatedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the model is loaded, and when it is to be again."""
    os.kill(pid_of(guarded), signal.SIGKILL)
    guarded._process.wait()  # type: ignore[union-attr]

    def refuse(*_: object, **__: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr("subprocess.Popen", refuse)

    ((_, status, detail),) = guarded.run(batch(task(1.0)))
    assert (status, "cannot be started (Resource temporarily unavailable)" in str(detail)) == (Status.WORKER_LOST, True)
    with pytest.raises(ConfigError, match=r"guarded/model\.toml: the model's process cannot be started"):
        guarded.load()


def test_one_that_cannot_be_loaded_again_says_why(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Its files were changed since; the worker lives."""
    model = isolated(tmp_path)
    (tmp_path / "guarded" / "model.py").write_text("raise ValueError('half a file')")

    outcomes = model.run(batch(task(1.0), task(-1.0)))

    assert told(outcomes) == ["WORKER_LOST"] * 2
    assert "half a file" in str(outcomes[0][2])
    ended, *again = caplog.messages
    assert ended.startswith("process ended why=")
    place = tmp_path / "guarded" / "model.toml"
    # It is tried once for all that is left of a batch.
    assert [line.partition(": target")[0] for line in again] == [f'cannot be loaded again why="{place}']
    model.close()


CLOSING = """
class Model:
    def infer(self, batch): return {"y": batch["x"]}
    def close(self): %s
"""


def test_closed_it_leaves_no_process(tmp_path: Path) -> None:
    """It is waited until the model is closed, whose last words are no traceback."""
    model = isolated(tmp_path, model=CLOSING % f"open({str(tmp_path / 'closed')!r}, 'w').close(); 1 / 0")
    pid = pid_of(model)

    model.close()

    assert not is_running(pid)
    assert (tmp_path / "closed").exists()


def test_killed_it_is_not_loaded_again(guarded: IsolatedModel) -> None:
    """Whatever it was doing."""
    pid = pid_of(guarded)
    threading.Timer(0.05, guarded.kill).start()

    guarded.run(batch(task(-3.0, 1.0), task(2.0)))

    assert guarded._process is None
    assert not is_running(pid)


@pytest.mark.slow
def test_a_signal_to_all_processes_lets_the_worker_decide(guarded: IsolatedModel) -> None:
    """As systemd and Ctrl-C send it; what is under way is finished."""
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(pid_of(guarded), number)

    assert told(guarded.run(batch(task(1.0)))) == [2.0]


LOADS_SLOWLY = (
    dedent("""
    import pathlib, time
    journal = pathlib.Path(__file__).with_name("loads")
    with journal.open("a") as file:
        file.write("loaded ")
    if journal.read_text().count("loaded") > 1:
        time.sleep(0.6)
""")
    + MODEL
)


@pytest.mark.slow
def test_who_is_late_after_a_crash_costs_no_more_loads(tmp_path: Path) -> None:
    """One load tells that the time of all is up; the process that it made is left alone."""
    model = isolated(tmp_path, model=LOADS_SLOWLY)
    outcomes = model.run(batch(task(1.0, -1.0, 2.0, 3.0, 4.0, budget_s=0.3)))

    assert told(outcomes) == ["DEADLINE_EXCEEDED"] * 5
    assert (tmp_path / "guarded" / "loads").read_text().split() == ["loaded"] * 2
    assert told(model.run(batch(task(1.0)))) == [2.0]
    assert (tmp_path / "guarded" / "loads").read_text().split() == ["loaded"] * 2
    model.close()
