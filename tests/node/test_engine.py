"""One batch: stacked, run, checked and split; what users' code raises hurts the guilty alone."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import zmq
from hypothesis import given
from hypothesis import strategies as st

from zmqinfer.errors import ModelError, Status
from zmqinfer.machine.worker.task import Batch, Bound, Outcome, Task
from zmqinfer.node.engine import Engine
from zmqinfer.records import IDEMPOTENT, PAYLOAD
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import INLINE_BYTES, Array, Arrays, layout_of, pack, parse_layout, unpack

X = (TensorSpec("x", "FP32", (-1,)),)
Y = (TensorSpec("y", "FP32", (-1,)),)
ANY = TensorSpec("y")


class Model:
    """A backend around a function."""

    def __init__(
        self,
        infer: Callable[[Arrays], Any],
        inputs: tuple[TensorSpec, ...] = X,
        outputs: tuple[TensorSpec, ...] = Y,
        before: Callable[[Arrays], Any] | None = None,
        after: Callable[[Arrays], Any] | None = None,
    ) -> None:
        self._infer = infer
        self.signature = Signature(inputs, outputs)
        self.before = before
        self.after = after
        self.sizes: list[int] = []

    def load(self) -> None: ...

    def infer(self, batch: Arrays) -> Mapping[str, Any]:
        self.sizes.append(len(next(iter(batch.values()))))
        return self._infer(batch)  # type: ignore[no-any-return]

    def close(self) -> None: ...


def batch_of(model: Model, *items: Any, rows: list[int] | None = None, out_of_band: bool = False) -> Batch:
    """Requests as they come from a socket: each item is an array or a dict of them, one row unless `rows` says more."""
    bound = None
    tasks = []
    for number, item in enumerate(items):
        arrays = item if isinstance(item, dict) else {"": item}
        count = rows[number] if rows else None
        layout = parse_layout(layout_of(arrays, count).raw)
        bound = bound or Bound(layout, model.signature.order(layout, "m"))
        payload = pack(list(arrays.values()))
        if out_of_band:
            payload = [zmq.Frame(np.ascontiguousarray(array).tobytes()) for array in arrays.values()]  # type: ignore[misc]
        record = [number, 1, b"id", "m", 1, None, 10**6, 4, 1, None, count or 1, layout.raw, payload]
        tasks.append(Task(0, record, bound, 0, 1e9, 0.0))
    assert bound is not None
    return Batch(0, bound, tasks, sum(task.rows for task in tasks), 0.0)


def run(model: Model, *items: Any, rows: list[int] | None = None, out_of_band: bool = False) -> list[Any]:
    """What each caller gets: its arrays (one bare), or status and sentence."""
    batch = batch_of(model, *items, rows=rows, out_of_band=out_of_band)
    outcomes = Engine(model).run(batch)
    assert len(outcomes) == len(items)
    assert all(outcome[0] == 1 for outcome in outcomes)
    return [
        _seen(outcome, rows[number] if rows else None) if isinstance(outcome[1], bytes) else outcome[1:]
        for number, outcome in enumerate(outcomes)
    ]


def block_of(model: Model, *items: Any) -> Batch:
    """The same requests of one row each as one block."""
    batch = batch_of(model, *items)
    first = batch.tasks[0].record
    payload = b"".join(task.record[PAYLOAD] for task in batch.tasks)
    record = [32, 2 ** len(items) - 1, *first[2:10], len(items), first[11], payload]
    return Batch(0, batch.bound, [Task(0, record, batch.bound, len(payload), 1e9, 0.0)], len(items), 0.0)


def run_block(model: Model, *items: Any) -> list[Any]:
    """What each caller of a block gets, however the answers are divided."""
    seen: list[Any] = []
    for calls, first, second in Engine(model).run(block_of(model, *items)):
        if isinstance(first, bytes) and isinstance(second, bytes):
            size = len(second) // calls
            seen += [_seen((1, first, second[n * size : (n + 1) * size]), None) for n in range(calls)]
        elif isinstance(first, bytes):
            assert calls == 1, "only one call's answer travels in parts"
            seen.append(_seen((1, first, second), None))
        else:
            seen += [(first, second)] * calls
    assert len(seen) == len(items)
    return seen


def _seen(outcome: Outcome, rows: int | None) -> Any:
    _, raw, payload = outcome
    assert isinstance(raw, bytes)
    layout = parse_layout(raw)
    arrays = unpack(layout, rows, payload)  # type: ignore[arg-type]
    return arrays[0] if len(arrays) == 1 else dict(zip((f.name for f in layout.fields), arrays, strict=True))


def vector(*values: float) -> Any:
    return np.array(values, np.float32)


def doubled(batch: Arrays) -> Any:
    return {"y": batch["x"] * 2}


# Stacking and splitting ------------------------------------------------------------------------------


@pytest.mark.parametrize("out_of_band", [False, True])
@pytest.mark.parametrize("count", [1, 2, 32])
def test_each_request_gets_its_own_rows(count: int, out_of_band: bool) -> None:
    """One call of the model for all."""
    model = Model(doubled)

    answers = run(model, *[vector(n, -n) for n in range(count)], out_of_band=out_of_band)

    assert [list(answer) for answer in answers] == [[2 * n, -2 * n] for n in range(count)]
    assert model.sizes == [count]


@given(rows=st.lists(st.integers(1, 5), min_size=1, max_size=6), width=st.integers(0, 3), out_of_band=st.booleans())
def test_requests_of_several_rows_are_cut_where_they_begin(rows: list[int], width: int, out_of_band: bool) -> None:
    """Also rows without a single element."""
    items = [np.full((count, width), number, np.float32) for number, count in enumerate(rows)]

    answers = run(Model(doubled), *items, rows=rows, out_of_band=out_of_band)

    for item, answer in zip(items, answers, strict=True):
        np.testing.assert_array_equal(answer, item * 2)


@pytest.mark.parametrize("dtype", ["?", "<i1", "<i8", "<u2", "<f2", "<f4", "<f8"])
def test_dtypes_pass_as_they_are(dtype: str) -> None:
    """Nothing is cast."""
    model = Model(lambda batch: {"y": batch["x"]}, (TensorSpec("x"),), (ANY,))

    answers = run(model, np.array([0, 1, 1], dtype), np.array([1, 0, 1], dtype))

    assert [list(answer) for answer in answers] == [[0, 1, 1], [1, 0, 1]]
    assert answers[0].dtype == np.dtype(dtype)


def test_true_of_another_machine_is_one() -> None:
    """A BOOL byte of 2 is true, and kernels trip on it; the engine makes it 1."""
    seen: list[Any] = []
    model = Model(lambda batch: seen.append(batch["x"]) or {"y": batch["x"]}, (TensorSpec("x", "BOOL"),), (ANY,))
    batch = batch_of(model, np.array([True, False]), np.array([False, True]))
    batch.tasks[0].record[PAYLOAD] = b"\x02\x00"

    Engine(model).run(batch)

    assert seen[0].view(np.uint8).tolist() == [[1, 0], [0, 1]]


@pytest.mark.parametrize("out_of_band", [False, True])
def test_several_inputs_come_under_their_declared_names(out_of_band: bool) -> None:
    """However the caller ordered them."""
    inputs = (TensorSpec("a", "FP32", (2,)), TensorSpec("b", "INT64", ()))
    model = Model(
        lambda batch: {"sum": batch["a"].sum(1) + batch["b"], "b": batch["b"]},
        inputs,
        (TensorSpec("b", "INT64", ()), TensorSpec("sum", "FP64", ())),
    )
    items = [{"b": np.asarray(10 * n), "a": vector(n, n)} for n in range(3)]

    answers = run(model, *items, out_of_band=out_of_band)

    assert [(float(answer["sum"]), int(answer["b"])) for answer in answers] == [(0, 0), (12, 10), (24, 20)]
    assert list(answers[0]) == ["b", "sum"]


def test_scalars_and_large_rows_are_cut_right() -> None:
    """The two ends of the fast path for small rows, and parts beyond it."""
    for width in (1, 1_024, 1_025, INLINE_BYTES // 4, INLINE_BYTES // 4 + 1):
        items = [np.arange(width, dtype=np.float32) + n for n in range(3)]
        for item, answer in zip(items, run(Model(doubled), *items), strict=True):
            np.testing.assert_array_equal(answer, item * 2)
    scalars = Model(lambda batch: {"y": batch["x"]}, (TensorSpec("x"),), (ANY,))
    assert [float(answer) for answer in run(scalars, *[np.asarray(float(n)) for n in range(4)])] == [0, 1, 2, 3]


def test_answer_that_does_not_lie_in_order_is_cut_right() -> None:
    """A transposed view, a reversed one, another byte order."""
    for turn in (np.asfortranarray, lambda a: a[:, ::-1], lambda a: a.astype(">f4")):
        model = Model(lambda batch, turn=turn: {"y": turn(batch["x"])}, X, (ANY,))
        first, second = run(model, vector(1, 2, 3), vector(4, 5, 6))
        assert sorted(first) == [1, 2, 3]
        assert sorted(second) == [4, 5, 6]


def test_large_request_alone_in_its_batch_is_not_copied() -> None:
    """The model gets the very memory that came, and may write to it; a companion in the batch means a copy."""
    seen: list[Array] = []
    model = Model(lambda batch: (seen.append(batch["x"]), {"y": batch["x"][:, :1] + 1})[1])
    batch = batch_of(model, vector(*range(20_000)), out_of_band=True)
    frame = bytearray(memoryview(batch.tasks[0].record[PAYLOAD][0]))
    batch.tasks[0].record[PAYLOAD] = [memoryview(frame)]

    Engine(model).run(batch)
    run(model, vector(*range(20_000)), vector(*range(20_000)), out_of_band=True)

    assert np.shares_memory(seen[0], np.frombuffer(frame, np.float32))
    assert seen[0].shape == (1, 20_000)
    assert seen[0].flags.writeable
    assert seen[1].shape == (2, 20_000)


def test_memory_that_may_only_be_read_is_copied_unless_the_model_borrows() -> None:
    """At the first attempt: some libraries write where numpy says that they must not, and some models run only once."""
    for borrows in (False, True):
        seen: list[Array] = []
        model = Model(lambda batch, seen=seen: (seen.append(batch["x"]), {"y": batch["x"][:, :1] + 1})[1])
        batch = batch_of(model, vector(*range(20_000)), out_of_band=True)
        memory = batch.tasks[0].record[PAYLOAD][0] = memoryview(bytes(memoryview(batch.tasks[0].record[PAYLOAD][0])))

        Engine(model, borrows_inputs=borrows).run(batch)

        assert len(seen) == 1
        assert np.shares_memory(seen[0], np.frombuffer(memory, np.float32)) == borrows
        assert seen[0].flags.writeable != borrows


@pytest.mark.parametrize("width", [2, 2_000, 20_000])
def test_model_may_write_to_its_input(width: int) -> None:
    """And what it wrote is nobody else's."""

    def infer(batch: Arrays) -> Any:
        batch["x"] += 1
        return {"y": batch["x"]}

    items = [np.full(width, n, np.float32) for n in range(2)]
    for out_of_band in (False, True):
        model = Model(infer)
        batch = batch_of(model, *items, out_of_band=out_of_band)
        for _ in range(2):
            answers = [_seen(outcome, None) for outcome in Engine(model).run(batch)]
            assert [answer[0] for answer in answers] == [1, 2]


# Blocks ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0, 1, 1_024, 1_025, INLINE_BYTES // 8, INLINE_BYTES // 4 + 1])
def test_each_call_of_a_block_gets_its_own_row(width: int) -> None:
    """However large: small rows are answered together, as many as fit into a head, the largest one by one."""
    items = [np.arange(width, dtype=np.float32)[: min(width, 8)] + n for n in range(5)]
    model = Model(lambda batch: {"y": np.repeat(batch["x"][:, :1], width, axis=1) if width else batch["x"]})

    answers = run_block(model, *items)

    for n, answer in enumerate(answers):
        np.testing.assert_array_equal(answer, np.full(width, n, np.float32))
    assert model.sizes == [5]


def test_calls_of_a_block_with_several_inputs_and_outputs_are_kept_apart() -> None:
    """Their payloads lie call by call, not input by input."""
    inputs = (TensorSpec("a", "FP32", (2,)), TensorSpec("b", "BOOL", ()))
    outputs = (TensorSpec("b", "BOOL", ()), TensorSpec("sum", "FP32", ()))
    model = Model(lambda batch: {"sum": batch["a"].sum(1), "b": batch["b"]}, inputs, outputs)

    answers = run_block(model, *[{"b": np.asarray(n == 1), "a": vector(n, n)} for n in range(3)])

    assert [(bool(answer["b"]), float(answer["sum"])) for answer in answers] == [(False, 0), (True, 2), (False, 4)]


@given(count=st.integers(2, 32), bad=st.sets(st.integers(0, 31)))
def test_guilty_calls_of_a_block_fail_alone(count: int, bad: set[int]) -> None:
    """A block is halved as a batch is."""
    answers = run_block(Model(refuses({float(n) for n in bad})), *[vector(n) for n in range(count)])

    for n, answer in enumerate(answers):
        if n in bad:
            assert answer == (Status.MODEL_ERROR, f"ValueError: bad crop {float(n)}")
        else:
            assert list(answer) == [2 * n]


def test_wrong_answer_fails_the_whole_block() -> None:
    """It is never guessed at."""
    answers = run_block(Model(lambda batch: {"y": batch["x"][1:]}), vector(1), vector(2))

    assert [answer[0] for answer in answers] == [Status.MODEL_ERROR] * 2


# Models that fail ------------------------------------------------------------------------------------


def refuses(bad: set[float]) -> Callable[[Arrays], Any]:
    def infer(batch: Arrays) -> Any:
        guilty = [float(row[0]) for row in batch["x"] if float(row[0]) in bad]
        if guilty:
            raise ValueError(f"bad crop {guilty[0]}")
        return doubled(batch)

    return infer


@given(count=st.integers(1, 16), bad=st.sets(st.integers(0, 15)))
def test_guilty_requests_fail_alone(count: int, bad: set[int]) -> None:
    """The batch is run again in halves; the mates get their right answers."""
    answers = run(Model(refuses({float(n) for n in bad})), *[vector(n) for n in range(count)])

    for n, answer in enumerate(answers):
        if n in bad:
            assert answer == (Status.MODEL_ERROR, f"ValueError: bad crop {float(n)}")
        else:
            assert list(answer) == [2 * n]


@given(
    asked=st.lists(st.tuples(st.booleans(), st.sampled_from([None, True, False])), min_size=1, max_size=12),
    of_model=st.booleans(),
)
def test_what_may_not_run_twice_is_not_bisected(asked: list[tuple[bool, bool | None]], of_model: bool) -> None:
    """The others of its batch are; it has run, and nobody knows what became of it unless it was alone."""
    ran: list[float] = []
    refuse = refuses({float(n) for n, (is_bad, _) in enumerate(asked) if is_bad})

    def infer(batch: Arrays) -> Any:
        ran.extend(batch["x"][:, 0].tolist())
        return refuse(batch)

    model = Model(infer)
    batch = batch_of(model, *[vector(n) for n in range(len(asked))])
    for task, (_, declared) in zip(batch.tasks, asked, strict=True):
        task.record[IDEMPOTENT] = declared

    outcomes = Engine(model, idempotent=of_model).run(batch)

    assert [calls for calls, _, _ in outcomes] == [1] * len(asked)
    for n, ((is_bad, declared), outcome) in enumerate(zip(asked, outcomes, strict=True)):
        if declared or (declared is None and of_model) or len(asked) == 1:
            found = outcome[1:] if is_bad else list(_seen(outcome, None))
            assert found == ((Status.MODEL_ERROR, f"ValueError: bad crop {float(n)}") if is_bad else [2 * n])
        elif any(is_bad for is_bad, _ in asked):
            assert ran.count(n) == 1
            assert outcome[1] is Status.MODEL_ERROR
            assert str(outcome[2]).startswith(
                f"the model raised ValueError for a batch of {len(asked)} calls; this one"
            )
        else:
            assert list(_seen(outcome, None)) == [2 * n]


def test_a_block_that_may_not_run_twice_fails_as_a_whole() -> None:
    """Each of its calls has run."""
    model = Model(refuses({2.0}))
    batch = block_of(model, vector(1), vector(2), vector(3))

    ((calls, status, detail),) = Engine(model, idempotent=False).run(batch)

    assert (calls, status, model.sizes) == (3, Status.MODEL_ERROR, [3])
    assert "bad crop" not in str(detail)  # that may hold the input of another caller


def test_one_guilty_of_many_costs_few_runs() -> None:
    """Halves, not one by one: 11 runs for one of 32."""
    model = Model(refuses({20.0}))

    run(model, *[vector(n) for n in range(32)])

    assert len(model.sizes) == 11
    assert model.sizes[0] == 32


def test_guilty_request_of_several_rows_fails_as_a_whole() -> None:
    """It is one request."""
    answers = run(Model(refuses({7.0})), np.ones((3, 1), "f4"), np.array([[1], [7]], "f4"), np.ones((1, 1), "f4"),
                  rows=[3, 2, 1])  # fmt: skip

    assert [type(answer) for answer in answers] == [np.ndarray, tuple, np.ndarray]
    assert answers[0].shape == (3, 1)


class _UnspeakableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("even my message fails")


ODD = {
    "huge": (ValueError("x" * 10**7), "ValueError: xxx"),
    "empty": (ValueError(), "ValueError"),
    "surrogate": (ValueError("caf\udce9 \ud800"), "ValueError: caf"),
    "unspeakable": (_UnspeakableError(), "_UnspeakableError"),
    "no text": (ValueError(object()), "ValueError: <object"),
    "exit": (SystemExit(3), "SystemExit: 3"),
    "stop": (StopIteration("done"), "StopIteration: done"),
    "memory": (MemoryError(), "MemoryError"),
    "recursion": (RecursionError("too deep"), "RecursionError: too deep"),
    "base": (BaseException("rare"), "BaseException: rare"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "our own": (ModelError("mine"), "ModelError: mine"),
}


@pytest.mark.parametrize("case", ODD)
def test_whatever_a_model_raises_is_a_model_error(case: str) -> None:
    """Told in a sentence that can travel, and hurting nobody else."""
    error, begin = ODD[case]

    def infer(batch: Arrays) -> Any:
        if 1.0 in batch["x"]:
            raise error
        return doubled(batch)

    first, second = run(Model(infer), vector(0), vector(1))

    assert list(first) == [0]
    assert second[0] is Status.MODEL_ERROR
    assert second[1].startswith(begin)
    assert len(second[1].encode()) <= 4_000


# Models that answer something else -------------------------------------------------------------------

WRONG: dict[str, tuple[Callable[[Arrays], Any], str]] = {
    "a row too few": (lambda batch: {"y": batch["x"][1:]}, "leading axis of 3"),
    "a row too many": (lambda batch: {"y": np.vstack([batch["x"], batch["x"][:1]])}, "leading axis of 3"),
    "no rows": (lambda batch: {"y": np.float32(1)}, "float32"),
    "a scalar array": (lambda batch: {"y": np.asarray(1, np.float32)}, "leading axis of 3"),
    "another dtype": (lambda batch: {"y": batch["x"].astype(np.float64)}, "float64"),
    "another rank": (lambda batch: {"y": batch["x"][:, :, None]}, "declares FP32 [-1]"),
    "no dict": (lambda batch: batch["x"], "expected a dict"),
    "nothing": (lambda batch: None, "NoneType"),
    "a list": (lambda batch: {"y": batch["x"].tolist()}, "expected a numpy.ndarray"),
    "no output": (lambda batch: {}, "nothing"),
    "another output": (lambda batch: {"z": batch["x"]}, "'z'"),
    "an output too many": (lambda batch: {"y": batch["x"], "z": batch["x"]}, "'z'"),
    "odd names": (lambda batch: {1: batch["x"], ("caf\udce9" * 5_000): batch["x"]}, "1, "),
    "a masked array": (lambda batch: {"y": np.ma.masked_array(batch["x"], mask=True)}, "travel"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_answer_fails_the_batch_and_is_never_guessed_at(case: str) -> None:
    """Nobody gets the neighbour's rows; the model is not asked again."""
    infer, words = WRONG[case]
    model = Model(infer)

    answers = run(model, vector(1), vector(2), vector(3))

    assert [answer[0] for answer in answers] == [Status.MODEL_ERROR] * 3
    assert words in answers[0][1]
    assert len(answers[0][1].encode()) <= 4_000
    assert model.sizes == [3]


def test_what_a_model_raises_is_logged_with_its_place(caplog: pytest.LogCaptureFixture) -> None:
    """For the guilty call alone; the caller gets the error, and does not have the model's code."""

    def infer(batch: Arrays) -> Any:
        if (batch["x"] < 0).any():
            raise ValueError("negative")
        return {"y": batch["x"]}

    batch = batch_of(Model(infer), vector(1), vector(-1), vector(2))
    Engine(Model(infer), name="m:1").run(batch)
    Engine(Model(lambda _: 3), name="n:1").run(batch)

    raised, wrong = caplog.messages
    about = rf"worker_pid={os.getpid()}"
    assert re.fullmatch(rf'raised error=ValueError at=".*test_engine.py:\d+ infer" model=m:1 {about}', raised)
    assert wrong == f'wrong output why="the model returned a int, expected a dict of arrays" model=n:1 {about}'


def test_what_closing_raises_is_logged_and_no_more(caplog: pytest.LogCaptureFixture) -> None:
    """Nobody waits for it."""

    class Careless(Model):
        def close(self) -> None:
            raise SystemExit("secret")

    Engine(Careless(doubled), name="m:1").close()

    (line,) = caplog.messages
    assert re.match(r'raised while closing error=SystemExit at="test_engine.py:\d+ close" model=m:1', line)
    assert "secret" not in line


@pytest.mark.parametrize("output", [np.array([object()] * 3), np.array(["a", "b", "c"]), np.zeros(3, "c8")])
def test_answer_that_cannot_travel_is_a_model_error(output: Any) -> None:
    """Object, text and complex dtypes are not in the closed table."""
    answers = run(Model(lambda batch: {"y": output}, X, (ANY,)), vector(1), vector(2), vector(3))

    assert [answer[0] for answer in answers] == [Status.MODEL_ERROR] * 3
    assert "output" in answers[0][1]


def test_answer_in_a_buffer_that_the_model_uses_again_is_kept() -> None:
    """The next batch may run before the reply has left: a large answer must not change under way."""
    kept = np.zeros((1, INLINE_BYTES), np.float32)

    def infer(batch: Arrays) -> Any:
        kept[:] = batch["x"][:, :1]
        return {"y": kept}

    model = Model(infer)
    (first,) = Engine(model).run(batch_of(model, vector(1)))
    Engine(model).run(batch_of(model, vector(2)))

    assert _seen(first, None)[0] == 1


# Hooks -----------------------------------------------------------------------------------------------


def test_hooks_turn_items_and_rows() -> None:
    """Before for each item as it came, after for each row of the result."""
    model = Model(
        lambda batch: {"logits": batch["crop"] * 10},
        X,
        (TensorSpec("y", "INT64", ()),),
        before=lambda item: {"crop": item["x"][:1]},
        after=lambda row: {"y": np.asarray(int(row["logits"][0]))},
    )

    answers = run(model, vector(1, 9), vector(2, 9))

    assert [int(answer) for answer in answers] == [10, 20]


@pytest.mark.parametrize("which", ["before", "after"])
def test_hook_that_raises_fails_its_item_alone(which: str) -> None:
    """As the model does."""

    def hook(item: Arrays) -> Any:
        if item["x" if which == "before" else "y"][0] == (2.0 if which == "before" else 4.0):
            raise ValueError("no")
        return dict(item)

    answers = run(Model(doubled, **{which: hook}), vector(1), vector(2), vector(3))

    assert answers[1] == (Status.MODEL_ERROR, "ValueError: no")
    assert [list(answers[0]), list(answers[2])] == [[2], [6]]


def test_hooks_may_give_rows_of_different_shapes() -> None:
    """They cannot be one array; each runs alone then."""
    model = Model(doubled, after=lambda row: {"y": row["y"][: int(row["y"][0])]})

    answers = run(model, vector(0.5, 7, 7), vector(1, 7, 7))

    assert [list(answer) for answer in answers] == [[1], [2, 14]]


def test_raw_result_before_the_hook_needs_a_row_for_each_request() -> None:
    """Else rows would be given to others."""
    model = Model(lambda batch: {"anything": batch["x"][1:]}, after=lambda row: {"y": row["anything"]})

    answers = run(model, vector(1), vector(2))

    assert [answer[0] for answer in answers] == [Status.MODEL_ERROR] * 2
    assert model.sizes == [2]


@pytest.mark.parametrize("answer", [None, {}, {"z": np.zeros(1, "f4")}, {"y": np.zeros(1, "f8")}])
def test_wrong_answer_of_a_hook_is_a_model_error(answer: Any) -> None:
    """It is the last word, so it is checked against the signature."""
    answers = run(Model(doubled, after=lambda row: answer), vector(1), vector(2))

    assert [outcome[0] for outcome in answers] == [Status.MODEL_ERROR] * 2
