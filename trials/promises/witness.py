"""A model that writes down which call ran where and when.

It is the shipped `sleep` with a journal: a line when a batch begins and one when it has ended, with the process and
the numbers of its calls. All processes of a machine share the clock of `time.monotonic`, so what the journal says can
be set against when a worker was killed and when a call was answered: from outside, without asking the gateway.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from zmqinfer.tensor import Array, Arrays

__all__ = ["Run", "Witness", "answer_to", "input_of", "model_toml", "read_journal"]

_BEGINS, _ENDS = "begins", "ends"
_MODEL_TOML = """\
target = "trials.promises.witness:Witness"
max_batch_size = {max_batch_size}

[parameters]
a_ms = {a_ms}
journal = "{journal}"

[inputs.x]
dtype = "FP32"
shape = [2]

[outputs.y]
dtype = "FP32"
shape = []
"""


def model_toml(a_ms: float, max_batch_size: int, journal: Path) -> str:
    """Returns the model.toml of a model whose batches take `a_ms`."""
    return _MODEL_TOML.format(a_ms=a_ms, max_batch_size=max_batch_size, journal=journal)


def input_of(number: int, longer_s: float = 0.0) -> Array:
    """Returns what call `number` asks; its batch takes so much longer than the others."""
    return np.array([number, longer_s], np.float32)


def answer_to(x: Array) -> Array:
    """Returns the right answers to inputs, exact up to the call 2**22."""
    return 2 * x[..., 0] + 1


class Witness:
    """Answers after `a_ms`, with the interpreter's lock released, and keeps the journal."""

    def __init__(self, a_ms: float, journal: str) -> None:
        self._a_s = a_ms / 1000
        self._path = journal
        self._journal = -1

    def load(self) -> None:
        """Opens the journal; what several processes append to it does not mix."""
        self._journal = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def close(self) -> None:
        """Closes it."""
        os.close(self._journal)

    def infer(self, batch: Arrays) -> Arrays:
        """Runs one batch, as long as its longest call wants."""
        x = batch["x"]
        numbers = " ".join(str(int(number)) for number in x[:, 0])
        self._write(_BEGINS, numbers)
        time.sleep(self._a_s + float(x[:, 1].max()))
        self._write(_ENDS, numbers)
        return {"y": answer_to(x)}

    def _write(self, what: str, numbers: str) -> None:
        os.write(self._journal, f"{what} {time.monotonic()} {os.getpid()} {numbers}\n".encode())


@dataclass(slots=True)
class Run:
    """A call in a batch of a process; `ended_at` is infinite if the process never got so far."""

    pid: int
    began_at: float
    ended_at: float = float("inf")


def read_journal(path: Path) -> dict[int, list[Run]]:
    """Returns the runs of each call by its number, in the order in which they began."""
    runs: dict[int, list[Run]] = {}
    for line in path.read_text().splitlines():
        what, at, pid, *numbers = line.split()
        for number in map(int, numbers):
            if what == _BEGINS:
                runs.setdefault(number, []).append(Run(int(pid), float(at)))
            else:
                next(run for run in reversed(runs[number]) if run.pid == int(pid)).ended_at = float(at)
    return runs
