"""What may be asked: bad arguments get one sentence and hurt nobody else."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from tests.client.served import X, sleepy
from zmqinfer import Client, LocalCluster
from zmqinfer.errors import (
    ConfigError,
    InvalidArgument,
)
from zmqinfer.node.arguments import Options, options_of


@pytest.mark.parametrize(
    "x",
    [
        *(None, 1.5, [1.0, 2.0], "text", b"bytes", np.str_("text"), {"x": [1.0]}, {}),
        *(np.array([None]), np.array(["a"]), np.array([1], "M8[s]"), np.array([1 + 2j]), np.array([(1, 2)], "i4,i4")),
    ],
)
@pytest.mark.parametrize("method", ["infer", "submit", "infer_batch", "infer_many"])
def test_what_is_no_array_is_refused(client: Client, method: str, x: Any) -> None:
    """Objects, text, dates, lists: InvalidArgument, which is a ValueError too, and nothing is sent."""
    calls = {"infer_many": lambda: list(client.infer_many("model", [x]))}

    with pytest.raises(InvalidArgument) as caught:
        calls.get(method, lambda: getattr(client, method)("model", x))()

    assert isinstance(caught.value, ValueError)
    assert np.array_equal(client.infer("model", X), X * 2)


@pytest.mark.parametrize(
    "words",
    [
        {"model": ""},
        {"model": 5},
        {"model": "x" * 129},
        {"model": "\ud800"},
        {"version": 0},
        {"version": "1"},
        {"version": True},
        {"version": np.float32(1)},
        {"priority": 0},
        {"priority": 9},
        {"priority": 4.0},
        {"priority": True},
        {"deadline_s": 0},
        {"deadline_s": -1.0},
        {"deadline_s": 301},
        {"deadline_s": float("nan")},
        {"deadline_s": "5"},
        {"deadline_s": True},
        {"key": 5},
        {"key": "k" * 129},
        {"key": "\ud800"},
        {"idempotent": 1},
    ],
)
@pytest.mark.parametrize("method", ["infer", "submit", "infer_batch", "infer_many"])
def test_argument_out_of_range_hurts_nobody_else(client: Client, method: str, words: dict[str, Any]) -> None:
    """It is refused before it is sent: the gateway would refuse the whole message, with others' calls inside."""
    neighbour = client.submit("model", X)
    words = {"model": "model", **words}
    name = words.pop("model")

    with pytest.raises(InvalidArgument):
        list(client.infer_many(name, [X], **words)) if method == "infer_many" else getattr(client, method)(
            name, X, **words
        )

    assert np.array_equal(neighbour.result(5), X * 2)


@pytest.mark.parametrize(
    "words",
    [
        {"deadline_s": np.float32(5)},
        {"deadline_s": Fraction(9, 2)},
        {"priority": np.int64(3)},
        {"priority": np.uint8(8)},
        {"version": np.int64(1)},
    ],
)
def test_numbers_of_other_kinds_are_numbers(client: Client, words: dict[str, Any]) -> None:
    """NumPy's above all."""
    assert np.array_equal(client.infer("model", X, **words), X * 2)  # type: ignore[arg-type]


def test_scalars_of_numpy_are_arrays_without_axes(client: Client) -> None:
    """As NumPy has it; a batch needs an axis."""
    y = client.infer("model", np.float32(1.5))

    assert isinstance(y, np.ndarray)
    assert (y.shape, y.dtype, float(y)) == ((), np.float32, 3.0)
    assert [float(y) for y in client.infer_many("model", np.arange(3.0))] == [0, 2, 4]  # type: ignore[arg-type]
    with pytest.raises(InvalidArgument, match=r"shape \[\], expected a leading axis"):
        client.infer_batch("model", np.float32(1.5))


@pytest.mark.parametrize("method", ["infer", "submit", "infer_batch", "infer_many"])
def test_option_that_is_none_is_a_type_error(client: Client, method: str) -> None:
    """As a keyword that a function does not have; the sentence has those that there are."""
    with pytest.raises(TypeError, match=r"no option 'deadline', expected deadline_s, .*did you mean 'deadline_s'\?"):
        getattr(client, method)("model", X, deadline=5)
    with pytest.raises(TypeError, match=r"no option 'timeout', .*did you mean 'deadline_s'\?"):
        getattr(client, method)("model", X, timeout=5)


def test_default_that_is_said_is_no_other_call(client: Client) -> None:
    """It joins the blocks of those that say nothing."""
    plain = client._connection.plain
    said = {"deadline_s": None, "key": None, "priority": None, "version": None, "idempotent": None, "hedge": None}

    assert options_of(plain, said) is plain  # type: ignore[arg-type]
    assert said.keys() == Options.__annotations__.keys()


@pytest.mark.parametrize(
    ("model", "words", "sentence"),
    [
        (b"thr", {}, "model is b'thr', which is bytes, expected text"),
        ("model", {"priority": 4.0}, "priority is 4.0, a float, expected a whole number"),
        ("model", {"deadline_s": "5"}, "deadline_s is '5', a str, expected a number of seconds"),
        ("model", {"deadline_s": True}, "deadline_s is True, a bool, expected a number of seconds"),
        (
            "model",
            {"key": ["a", "b"]},
            "key is a list, expected str or bytes; infer_many takes keys, one for each input",
        ),
    ],
)
def test_argument_of_another_type_is_named_with_it(
    client: Client, model: Any, words: dict[str, Any], sentence: str
) -> None:
    """A range would mislead."""
    with pytest.raises(InvalidArgument, match=re.escape(sentence)):
        client.infer(model, X, **words)


@pytest.mark.parametrize("endpoints", ["", ",", [], "http://localhost:1", "tcp://127.0.0.1", "5555", 5555, None, [5]])
def test_address_that_is_none_is_refused(endpoints: Any) -> None:
    """When the client is made."""
    with pytest.raises(ConfigError):
        Client(endpoints)


@pytest.mark.parametrize(
    "words", [{"connect_timeout_s": "a"}, {"deadline_s": None}, {"heartbeat_ms": 1.5}, {"deadline_s": True}]
)
def test_setting_that_is_none_is_refused(words: dict[str, Any]) -> None:
    """With one sentence that names it."""
    with pytest.raises(ConfigError, match=f"{next(iter(words))} is .*, expected"):
        Client("tcp://127.0.0.1:1", **words)


@pytest.mark.parametrize("workers", [0, -1, "a"])
def test_cluster_without_workers_is_refused(workers: Any) -> None:
    """Nobody would answer."""
    with pytest.raises(ConfigError, match=r"workers is .*, expected"):
        LocalCluster(lambda x: x, workers=workers)


@pytest.mark.parametrize("wrong", [["model"], {}, None])
def test_a_senseless_argument_hurts_its_caller_alone(client: Client, wrong: Any) -> None:
    """Another thread's call goes on."""
    pending = client.submit("model", sleepy(200))
    with pytest.raises(InvalidArgument, match="model"):
        client.infer(wrong, X)
    with pytest.raises(InvalidArgument, match="model"):
        client.submit(wrong, X)

    assert np.array_equal(pending.result(5), sleepy(200) * 2)


@pytest.mark.parametrize("method", ["submit", "infer_batch", "infer_many"])
def test_where_a_call_tells_how_it_was_served_is_said(client: Client, method: str) -> None:
    """Of many calls there is none to tell of."""
    with pytest.raises(TypeError, match=r"with_info is for infer alone; .* submit, info\(\) tells"):
        getattr(client, method)("model", [X], with_info=True)
