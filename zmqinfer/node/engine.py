"""Runs one batch: stack the inputs, call the model, check what it gave, split it again.

What users' code raises is caught here and nowhere else. When a batch fails as a whole, it is run
again in halves until the guilty requests stand alone; the others get their answers. An answer of
the wrong size is not bisected and never guessed at: every request of that batch gets ModelError.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Mapping

import numpy as np

from zmqinfer.backends.base import Backend
from zmqinfer.errors import InvalidArgument, ModelError, Status
from zmqinfer.machine.task import Batch, Outcome, Task
from zmqinfer.node.waker import Waker
from zmqinfer.records import PAYLOAD
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, Array, Arrays, Layout, layout_of, pack, unpack

__all__ = ["Engine", "EngineThread"]

_MAX_DETAIL = 1_000
# How long a finished batch may wait for the others that were handed over with it.
_TELL_S = 0.001


class _BadAnswerError(Exception):
    """The model ran and gave something else than it declared."""


class Engine:
    """One loaded model, run batch by batch on one thread."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._signature: Signature = backend.signature

    def run(self, batch: Batch) -> list[Outcome]:
        """Returns one outcome for each task, in their order. Raises nothing that a model may raise."""
        return self._run(batch.tasks, batch.bound.layout, batch.bound.order)

    def _run(self, tasks: list[Task], layout: Layout, order: tuple[int, ...]) -> list[Outcome]:
        try:
            return self._attempt(tasks, layout, order)
        except (_BadAnswerError, ModelError) as error:
            return [(Status.MODEL_ERROR, _fit_to_travel(str(error)))] * len(tasks)
        except KeyboardInterrupt:
            raise  # meant for the process
        except BaseException as error:  # noqa: BLE001 - a user's model may raise anything, SystemExit too
            if len(tasks) == 1:
                return [(Status.MODEL_ERROR, _told(error))]
        half = len(tasks) // 2
        return [*self._run(tasks[:half], layout, order), *self._run(tasks[half:], layout, order)]

    def _attempt(self, tasks: list[Task], layout: Layout, order: tuple[int, ...]) -> list[Outcome]:
        rows = sum([task.rows for task in tasks])
        inputs = self._stack(tasks, layout, order, rows)
        before, after = self._backend.before, self._backend.after
        if before is not None:
            inputs = _restacked([before({n: a[row] for n, a in inputs.items()}) for row in range(rows)])
        outputs = self._checked(self._backend.infer(inputs), rows, is_final=after is None)
        if after is not None:
            items = [after({n: a[row] for n, a in outputs.items()}) for row in range(rows)]
            outputs = self._checked(_restacked(items), rows, is_final=True)
        return _split(tasks, outputs, rows)

    def _stack(self, tasks: list[Task], layout: Layout, order: tuple[int, ...], rows: int) -> Arrays:
        """Joins the tasks' inputs along the batch axis, under the declared names. Copies once."""
        specs = self._signature.inputs
        payloads = [task.record[PAYLOAD] for task in tasks]
        fields = layout.fields
        if len(fields) == 1 and fields[0].dtype != "BOOL" and all(type(p) is bytes for p in payloads):
            # 1.1 us for 32 bodies, where np.stack takes 12. A bytearray, so that a model may write to its input.
            field = fields[0]
            joined = np.frombuffer(bytearray().join(payloads), DTYPES[field.dtype])
            return {specs[0].name: joined.reshape(rows, *field.shape)}
        unpacked = [unpack(layout, task.rows, payload) for task, payload in zip(tasks, payloads, strict=True)]
        return {
            spec.name: np.concatenate([arrays[place] for arrays in unpacked])
            for spec, place in zip(specs, order, strict=True)
        }

    def _checked(self, outputs: object, rows: int, *, is_final: bool) -> Arrays:
        """Returns the declared outputs; anything but `rows` rows of each is a bad answer."""
        if not isinstance(outputs, Mapping):
            raise _BadAnswerError(f"the model returned a {type(outputs).__name__}, expected a dict of arrays")
        if not is_final:
            for name, array in outputs.items():
                _check_rows(name, array, rows)
            return dict(outputs)
        declared = self._signature.outputs
        if len(outputs) != len(declared) or any(spec.name not in outputs for spec in declared):
            raise _BadAnswerError(
                f"the model returned {_names(outputs)}, it declares {_names([spec.name for spec in declared])}"
            )
        for spec in declared:
            array = outputs[spec.name]
            _check_rows(spec.name, array, rows)
            _check_spec(spec, array)
        return {spec.name: outputs[spec.name] for spec in declared}


def _told(error: BaseException) -> str:
    try:
        text = str(error)
    except Exception as cause:  # noqa: BLE001 - the message is the user's code too
        text = f"its message cannot be shown, for that raises {type(cause).__name__}"
    return _fit_to_travel(f"{type(error).__name__}: {text}")


def _fit_to_travel(text: str) -> str:
    """Cuts a text, and replaces what UTF-8 cannot carry, such as the surrogates of an undecodable file name."""
    return text[:_MAX_DETAIL].encode(errors="replace").decode()


def _check_rows(name: str, array: object, rows: int) -> None:
    if not isinstance(array, np.ndarray):
        raise _BadAnswerError(f"output {name!r} is a {type(array).__name__}, expected a numpy.ndarray")
    if not array.shape or array.shape[0] != rows:
        raise _BadAnswerError(
            f"output {name!r} has shape {list(array.shape)}, expected a leading axis of {rows}, one for each row"
        )


def _check_spec(spec: TensorSpec, array: Array) -> None:
    wanted = DTYPES.get(spec.dtype)
    shape = array.shape[1:]
    if wanted is not None and array.dtype != wanted:
        raise _BadAnswerError(f"output {spec.name!r} is {array.dtype}, the model declares {spec}")
    if spec.shape is not None and (
        len(spec.shape) != len(shape) or any(want not in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    ):
        raise _BadAnswerError(f"output {spec.name!r} has rows of {list(shape)}, the model declares {spec}")


def _names(names: object) -> str:
    return ", ".join(map(repr, names)) if names else "nothing"  # type: ignore[call-overload]


def _restacked(items: list[Mapping[str, Array]]) -> Arrays:
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def _split(tasks: list[Task], outputs: Arrays, rows: int) -> list[Outcome]:
    """Cuts the outputs into each task's own rows."""
    try:
        layout = layout_of(outputs, rows)
    except InvalidArgument as error:
        raise _BadAnswerError(f"the model's answer cannot travel: {error}".replace("input", "output")) from error
    raw = layout.raw
    arrays = list(outputs.values())
    if len(arrays) == 1 and layout.row_bytes * max(task.rows for task in tasks) <= 4_096:
        # Small rows: one copy of everything, then slices of it.
        everything = np.ascontiguousarray(arrays[0]).astype(arrays[0].dtype.newbyteorder("<"), copy=False).tobytes()
        size = layout.row_bytes
        if len(tasks) == rows:
            return (
                [(raw, everything[at : at + size]) for at in range(0, rows * size, size)]
                if size
                else [(raw, b"")] * rows
            )
    outcomes: list[Outcome] = []
    at = 0
    for task in tasks:
        payload = pack([array[at : at + task.rows] for array in arrays])
        # A large one is a view of the model's memory, which the model may use again before the reply has left.
        if type(payload) is list:
            payload = [bytes(part) for part in payload]
        outcomes.append((raw, payload))
        at += task.rows
    return outcomes


class EngineThread(threading.Thread):
    """Runs the batches of one model apart from the worker's loop, so that a long one is not silence."""

    def __init__(self, name: str, engine: Engine, waker: Waker) -> None:
        super().__init__(name=f"engine-{name}", daemon=True)
        self.engine = engine
        self.done: deque[tuple[Batch, list[Outcome], float]] = deque()
        self._waker = waker
        self._queue: queue.SimpleQueue[list[Batch] | None] = queue.SimpleQueue()

    def begin(self, batches: list[Batch]) -> None:
        """Hands batches over, to run one after another; they come back through `done`, and the waker is woken."""
        self._queue.put(batches)

    def finish(self) -> None:
        """Lets the thread end after what it was given."""
        self._queue.put(None)

    def run(self) -> None:
        """Runs batches until `finish`."""
        take, clock = self._queue.get, time.perf_counter
        while (batches := take()) is not None:
            told_at = clock()
            for batch in batches:
                began = clock()
                outcomes = self.engine.run(batch)
                ended = clock()
                self.done.append((batch, outcomes, ended - began))
                # Short batches are told of together: their replies then leave as one message, and the loop
                # does not take the interpreter's lock from the next of them.
                if ended - told_at > _TELL_S:
                    told_at = ended
                    self._waker.wake()
            self._waker.wake()
