"""Runs one batch: stack the inputs, call the model, check what it gave, split it again.

What users' code raises is caught here and nowhere else. When a batch fails as a whole, it is run
again in halves until the guilty requests stand alone; the others get their answers. Those that
may not run twice are not run again: each of them has run, so each gets ModelError. An answer of
the wrong size is not bisected and never guessed at: every request of that batch gets ModelError.
"""

from __future__ import annotations

import itertools
import operator
import os
import sys
from collections.abc import Iterable, Mapping
from typing import TypeAlias

import numpy as np

from zmqinfer.backends.base import Backend, BadAnswer
from zmqinfer.errors import InvalidArgument, Status
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.node.report import Report
from zmqinfer.origin import told
from zmqinfer.policy.twice import may_run_twice
from zmqinfer.records import IDEMPOTENT, MAX_CALLS, PAYLOAD
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, INLINE_BYTES, Array, Arrays, Layout, Payload, layout_of, pack, unpack

__all__ = ["Engine", "Part", "bodies", "parts_of"]

_MAX_DETAIL = 1_000
# Rows up to this size are all copied at once and then cut; of larger ones each is copied alone.
_SMALL_ROW_BYTES = 4_096


# What an engine needs of a task: how many calls and rows it has, its payload, and whether it may run twice.
Part: TypeAlias = tuple[int, int, Payload, bool]


class Engine:
    """One loaded model, run batch by batch, never two at a time.

    Args:
        backend: what runs the model.
        idempotent: whether requests may run twice that do not say so themselves.
        borrows_inputs: whether large inputs may reach it where they lie, in memory that is not its own.
        name: what the log calls it.
        worker: the process id of its worker, for the log.
        has_tracebacks: whether the log has those of the model's errors in full.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        idempotent: bool = True,
        borrows_inputs: bool = False,
        name: str = "",
        worker: int = 0,
        has_tracebacks: bool = False,
    ) -> None:
        worker = worker or os.getpid()
        self._report = Report("model", has_tracebacks=has_tracebacks, model=name, worker_pid=worker)
        self._backend = backend
        self._infer = backend.infer
        self._before, self._after = backend.before, backend.after
        self.signature: Signature = backend.signature
        self._idempotent = idempotent
        self._borrows_inputs = borrows_inputs
        # The last answer that was in order, by what its arrays look like: 0.4 us, where looking anew takes 3.
        self._known: tuple[list[tuple[str, np.dtype[np.generic], tuple[int, ...]]], Layout] | None = None

    def run(self, batch: Batch) -> list[Outcome]:
        """Returns one outcome or more for each task, in the order of the calls. Raises nothing that a model may."""
        return self.run_parts(parts_of(batch, self._idempotent), batch.rows, batch.bound.layout, batch.bound.order)

    def close(self) -> None:
        """Closes the model; what it raises then is said, and hurts nobody any more."""
        try:
            self._backend.close()
        except BaseException as error:  # noqa: BLE001 - the user's own code
            self._report.raised("raised while closing", error)

    def kill(self) -> None:
        """Does nothing: a thread cannot be ended."""

    def run_parts(self, parts: list[Part], rows: int, layout: Layout, order: tuple[int, ...]) -> list[Outcome]:
        """Does the same for the bare parts of a batch."""
        try:
            return self._attempt(parts, rows, layout, order)
        except BadAnswer as error:
            detail = _fit_to_travel(str(error))
            self._report.warning("wrong output", why=detail)
            return [(calls, Status.MODEL_ERROR, detail) for calls, *_ in parts]
        except BaseException as error:  # noqa: BLE001 - a model may raise anything; a real Ctrl-C reaches the main thread only
            calls = sum(calls for calls, *_ in parts)
            may_go_on = calls > 1 and any(again for *_, again in parts)
            if not may_go_on:
                self._report.raised("raised", error)
            if calls == 1:
                # Its words are for the caller alone: they may hold what it sent.
                return [(1, Status.MODEL_ERROR, _fit_to_travel(told(error)))]
            detail = (
                f"the model raised {type(error).__name__} for a batch of {calls} calls;"
                " this one of them may not run twice, so it was not tried alone"
            )
        outcomes: list[Outcome] = []
        for some in _divided(parts):
            if some[0][-1]:
                outcomes += self.run_parts(some, sum(part_rows for _, part_rows, *_ in some), layout, order)
            else:
                outcomes += [(calls, Status.MODEL_ERROR, detail) for calls, *_ in some]
        return outcomes

    def _attempt(self, parts: list[Part], rows: int, layout: Layout, order: tuple[int, ...]) -> list[Outcome]:
        inputs = self._stack(parts, layout, order, rows)
        before, after = self._before, self._after
        if before is not None:
            inputs = _restacked([before({n: a[row] for n, a in inputs.items()}) for row in range(rows)])
        outputs = self._infer(inputs)
        if after is not None:
            outputs = self._checked(outputs, rows, is_final=False)
            items = [after({n: a[row] for n, a in outputs.items()}) for row in range(rows)]
            outputs = _restacked(items)
        arrays, layout = self._described(outputs, rows)
        return _split(parts, arrays, layout)

    def _described(self, outputs: object, rows: int) -> tuple[list[Array], Layout]:
        """Returns the declared outputs in order and what one row of them looks like."""
        known = self._known
        if known is not None and type(outputs) is dict and len(outputs) == len(known[0]):
            arrays: list[Array] = []
            for name, dtype, shape in known[0]:
                array = outputs.get(name)
                if type(array) is not np.ndarray or array.dtype != dtype or array.shape != (rows, *shape):
                    break
                arrays.append(array)
            else:
                return arrays, known[1]
        checked = self._checked(outputs, rows, is_final=True)
        try:
            layout = layout_of(checked, rows)
        except InvalidArgument as error:
            raise BadAnswer(f"the model's answer cannot travel: {error}".replace("input", "output")) from error
        if all(type(array) is np.ndarray for array in checked.values()):
            self._known = [(name, array.dtype, array.shape[1:]) for name, array in checked.items()], layout
        return list(checked.values()), layout

    def _stack(self, parts: list[Part], layout: Layout, order: tuple[int, ...], rows: int) -> Arrays:
        """Joins the inputs along the batch axis, under the declared names. Copies once at most."""
        specs = self.signature.inputs
        fields = layout.fields
        payloads = [payload for _, _, payload, _ in parts if type(payload) is bytes]
        if len(fields) == 1 and fields[0].dtype != "BOOL" and len(payloads) == len(parts):
            # 1.1 us for 32 bodies, where np.stack takes 12. A bytearray, so that a model may write to its input.
            field = fields[0]
            joined = np.frombuffer(bytearray().join(payloads), DTYPES[field.dtype])
            return {specs[0].name: joined.reshape(rows, *field.shape)}
        unpacked = [
            unpack(layout, part_rows // calls, body, writable=True)
            for calls, part_rows, payload, _ in parts
            for body in bodies(calls, payload)
        ]
        if len(unpacked) == 1:
            # Frames of a request that fills a batch are nobody else's: the model gets them as they came, 602 KB in
            # 3 us. What lies in memory that this process may only read is its client's, which may change it, and
            # not every library minds that an array is read-only: one that writes there ends the process.
            return {
                spec.name: array if array.flags.writeable or self._borrows_inputs else array.copy()
                for spec, place in zip(specs, order, strict=True)
                for array in (unpacked[0][place],)
            }
        return {
            spec.name: np.concatenate([arrays[place] for arrays in unpacked])
            for spec, place in zip(specs, order, strict=True)
        }

    def _checked(self, outputs: object, rows: int, *, is_final: bool) -> Arrays:
        """Returns the declared outputs; anything but `rows` rows of each is a bad answer."""
        if not isinstance(outputs, Mapping):
            raise BadAnswer(f"the model returned a {type(outputs).__name__}, expected a dict of arrays")
        declared = {spec.name: spec for spec in self.signature.outputs} if is_final else dict.fromkeys(outputs)
        if outputs.keys() != declared.keys():
            raise BadAnswer(f"the model returned {_names(outputs)}, it declares {_names(declared)}")
        for name, spec in declared.items():
            _check(name, outputs[name], rows, spec)
        return {name: outputs[name] for name in declared}


def _fit_to_travel(text: str) -> str:
    """Cuts a text, and replaces what UTF-8 cannot carry, such as the surrogates of an undecodable file name."""
    return text[:_MAX_DETAIL].encode(errors="replace").decode()


def _check(name: str, array: object, rows: int, spec: TensorSpec | None) -> None:
    if not isinstance(array, np.ndarray):
        raise BadAnswer(f"output {name!r} is a {type(array).__name__}, expected a numpy.ndarray")
    if not array.shape or array.shape[0] != rows:
        raise BadAnswer(
            f"output {name!r} has shape {list(array.shape)}, expected a leading axis of {rows}, one for each row"
        )
    if spec is None:
        return
    wanted, shape = DTYPES.get(spec.dtype), array.shape[1:]
    if wanted is not None and array.dtype != wanted:
        raise BadAnswer(f"output {name!r} is {array.dtype}, the model declares {spec}")
    if spec.shape is not None and (
        len(spec.shape) != len(shape) or any(want not in (-1, got) for want, got in zip(spec.shape, shape, strict=True))
    ):
        raise BadAnswer(f"output {name!r} has rows of {list(shape)}, the model declares {spec}")


def _names(names: Iterable[str]) -> str:
    return ", ".join(map(repr, names)) or "nothing"


def _restacked(items: list[Mapping[str, Array]]) -> Arrays:
    return {name: np.stack([item[name] for item in items]) for name in items[0]}


def parts_of(batch: Batch, idempotent: bool) -> list[Part]:
    """Returns what an engine needs of each task of a batch; `idempotent` is what its model says."""
    return [
        (task.calls, task.rows, _plain(record[PAYLOAD]), may_run_twice(record[IDEMPOTENT], idempotent))
        for task in batch.tasks
        for record in (task.record,)
    ]


def _plain(payload: Payload) -> Payload:
    """Makes memoryviews of what else sockets deliver: a zmq.Frame has the buffer of one, but nothing can pack it."""
    return [memoryview(part) for part in payload] if type(payload) is list else payload


def bodies(calls: int, payload: Payload) -> list[Payload]:
    """Cuts the payload of a block into those of its calls."""
    if calls == 1 or type(payload) is not bytes:
        return [payload]
    size = len(payload) // calls
    return [payload[at * size : (at + 1) * size] for at in range(calls)]


def _divided(parts: list[Part]) -> Iterable[list[Part]]:
    """Divides a batch: in halves, or where those begin or end that may not run twice."""
    if not all(again for *_, again in parts):
        return [list(some) for _, some in itertools.groupby(parts, key=operator.itemgetter(-1))]
    if len(parts) > 1:
        half = len(parts) // 2
        return parts[:half], parts[half:]
    calls, _, payload, again = parts[0]
    assert type(payload) is bytes, calls
    half = calls // 2
    cut = len(payload) // calls * half
    return [(half, half, payload[:cut], again)], [(calls - half, calls - half, payload[cut:], again)]


def _split(parts: list[Part], arrays: list[Array], layout: Layout) -> list[Outcome]:
    """Cuts the outputs into each call's own rows."""
    raw, size = layout.raw, layout.row_bytes
    # So many calls are answered as one: their payload is to travel inside the head.
    most = max(1, INLINE_BYTES // size) if size else MAX_CALLS
    everything = _bytes(arrays[0]) if len(arrays) == 1 and size <= _SMALL_ROW_BYTES else None
    outcomes: list[Outcome] = []
    at = 0
    for calls, part_rows, *_ in parts:
        end = at + part_rows
        while at < end:
            # A block has a row for each call; a single call may have several.
            answered = min(most, end - at) if calls > 1 else 1
            until = at + answered if calls > 1 else end
            if everything is not None and (until - at) * size <= INLINE_BYTES:
                outcomes.append((answered, raw, everything[at * size : until * size]))
            elif answered == 1:
                outcomes.append((1, raw, _packed(arrays, at, until)))
            else:
                packed = [_packed(arrays, row, row + 1) for row in range(at, until)]
                outcomes.append((answered, raw, b"".join([body for body in packed if type(body) is bytes])))
            at = until
    return outcomes


def _bytes(array: Array) -> bytes:
    if array.dtype.byteorder == ">" or sys.byteorder == "big":
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return array.tobytes()


def _packed(arrays: list[Array], at: int, until: int) -> Payload:
    payload = pack([array[at:until] for array in arrays])
    # A large one is a view of the model's memory, which the model may use again before the reply has left.
    return [bytes(part) for part in payload] if type(payload) is list else payload
