"""What is asked of a model, and how an answer is known to be right.

For the shipped models the right answer is known beforehand: echo and sleep give back what they got,
digits is computed here from the shipped weights. For any other model each input is asked once, alone,
before the load begins, and later answers must agree with that one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ConfigError
from zmqinfer.machine.codec import Input, Output
from zmqinfer.signature import Signature
from zmqinfer.tensor import DTYPES, Array

__all__ = ["Workload", "prepare"]

# Distinct inputs. An axis of any length gets so many elements, which is also the digits model's input.
_INPUTS = 256
_FREE_AXIS = 64
# Batches of different sizes run on different kernels and differ in the last digits.
_RTOL, _ATOL = 1e-3, 1e-3


@dataclass(frozen=True)
class Workload:
    """Inputs for one model, and the answer that belongs to each."""

    model: str
    inputs: list[Input]
    answers: list[Output]

    def wrong(self, asked: list[int], got: list[Output]) -> int:
        """Counts the answers in `got` that differ from the ones that belong to the inputs `asked`."""
        if not got:
            return 0
        if all(isinstance(one, np.ndarray) for one in got) and isinstance(self.answers[0], np.ndarray):
            shapes = {one.shape for one in got if isinstance(one, np.ndarray)}
            if (
                shapes == {self.answers[0].shape}
                and len({a.shape for a in self.answers if isinstance(a, np.ndarray)}) == 1
            ):
                wanted = np.stack(self.answers)[asked]  # type: ignore[arg-type]
                same = np.isclose(np.stack(got), wanted, _RTOL, _ATOL, equal_nan=True)  # type: ignore[arg-type]
                return len(got) - int(same.reshape(len(got), -1).all(axis=1).sum())
        return sum(not _agree(one, self.answers[number]) for number, one in zip(asked, got, strict=True))


def _agree(one: Output, other: Output) -> bool:
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_agree(one[name], other[name]) for name in one)
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return one.shape == other.shape and bool(np.isclose(one, other, _RTOL, _ATOL, equal_nan=True).all())
    return False


async def prepare(client: AsyncClient, model: str, cards: list[dict[str, object]]) -> Workload:
    """Makes the workload for a model that a gateway lists among its `cards`.

    Raises:
        ConfigError: the model is not served, or cannot be given made-up inputs.
    """
    signature = _signature(model, cards)
    if model == "digits":
        inputs, answers = _digits()
    else:
        inputs = _random_inputs(model, signature)
        is_mirror = model in {"echo", "sleep"}
        answers = [x if is_mirror else await client.infer(model, x) for x in inputs]  # type: ignore[misc]
    return Workload(model, inputs, answers)


def _signature(model: str, cards: list[dict[str, object]]) -> Signature:
    for card in cards:
        if card["name"] == model:
            return Signature.from_wire(card["signature"])
    served = ", ".join(sorted({str(card["name"]) for card in cards})) or "nothing"
    raise ConfigError(f"--model {model!r} is not served there, expected one of: {served}")


def _digits() -> tuple[list[Input], list[Output]]:
    from zmqinfer.node.models import find_models, load_here
    from zmqinfer.zoo import ZOO
    from zmqinfer.zoo.heldout import heldout

    images = heldout().images
    own = load_here(next(config for config in find_models([ZOO]) if config.name == "digits"))
    logits = own.infer({"pixels": images})["logits"]
    return list(images), list(logits)


def _random_inputs(model: str, signature: Signature) -> list[Input]:
    random = np.random.default_rng(20_231)
    inputs: list[Input] = []
    for _ in range(_INPUTS):
        arrays: dict[str, Array] = {}
        for spec in signature.inputs:
            dtype = DTYPES.get(spec.dtype, DTYPES["FP32"])
            shape = [_FREE_AXIS if axis == -1 else axis for axis in spec.shape or (_FREE_AXIS,)]
            if dtype.kind == "f":
                arrays[spec.name] = random.random(shape).astype(dtype)
            else:
                arrays[spec.name] = random.integers(0, 2, shape).astype(dtype)
        inputs.append(next(iter(arrays.values())) if len(arrays) == 1 else arrays)
    if not inputs:
        raise ConfigError(f"model {model!r} declares no inputs, so none can be made up for it")
    return inputs
