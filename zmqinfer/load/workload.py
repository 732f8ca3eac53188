"""What is asked of a model, and the answers that belong to it.

What the shipped models answer is known here. Of any other model each input is asked once, alone, before the load
begins, and later answers must agree with that one; if it does not answer the same twice, only in kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ConfigError, InvalidArgument, ModelError, Poisoned
from zmqinfer.load.inputs import made_up
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.signature import Signature
from zmqinfer.tensor import Array

__all__ = ["Workload", "prepare", "signature_of"]

# Batches of different sizes run on different kernels and differ in the last digits.
_RTOL, _ATOL = 1e-3, 1e-3
# A slow model is not asked for all of its answers first.
_ASKING_S = 5.0
_KEPT_BYTES = 64 * 2**20
_NOT_TAKEN = (InvalidArgument, ModelError, Poisoned)
_NOT_SHIPPED = "model {!r} does not answer as the shipped one does; its own first answers count as right"
_NOT_STEADY = "model {!r} answers the same input differently; only names, dtypes and shapes of answers are compared"


@dataclass(frozen=True)
class Workload:
    """Inputs for one model, and the answer that belongs to each.

    Attributes:
        is_steady: whether the model gives the same answer each time; if not, only names, dtypes and shapes count.
        note: what people should know of how answers are judged.
    """

    model: str
    inputs: Sequence[Input]
    answers: Sequence[Output]
    is_steady: bool = True
    note: str = ""

    @property
    def kept_answers(self) -> int:
        """How many answers should be kept at most before they are compared."""
        first = _named(self.answers[0])
        return max(1, _KEPT_BYTES // max(1, sum(array.nbytes for array in first.values())))

    def right(self, asked: Sequence[int], got: Sequence[Output]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Says of each answer in `got` whether it agrees with the one that belongs to the input in `asked`."""
        wanted = [self.answers[number] for number in asked]
        kinds = {_kind(one) for one in (*wanted, *got)}
        if len(kinds) == 1 and self.is_steady and got:
            # All at once: 40 times as quick as one after another.
            same = [_close(name, got, wanted) for name in _named(got[0])]
            return np.asarray(np.logical_and.reduce(same))
        return np.array([self._agrees(one, other) for one, other in zip(got, wanted, strict=True)], bool)

    def _agrees(self, one: Output, other: Output) -> bool:
        if _kind(one) != _kind(other):
            return False
        return not self.is_steady or all(bool(_close(name, [one], [other])[0]) for name in _named(one))


def _named(output: Output) -> dict[str, Array]:
    return output if isinstance(output, dict) else {"": output}


def _kind(output: Output) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    return tuple((name, array.dtype.str, array.shape) for name, array in sorted(_named(output).items()))


def _close(name: str, some: Sequence[Output], others: Sequence[Output]) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """Says for each pair whether its arrays of this name agree, all being of one shape."""
    left, right = (np.stack([_named(one)[name] for one in side]) for side in (some, others))
    same = np.isclose(left, right, _RTOL, _ATOL, equal_nan=True)
    return np.asarray(same.reshape(len(some), -1).all(axis=1))


async def prepare(
    client: AsyncClient, model: str, cards: Sequence[dict[str, object]], given: Sequence[Input] = ()
) -> Workload:
    """Makes the workload for a model that a gateway lists among its `cards`.

    Args:
        given: the inputs; made up if there are none.

    Raises:
        ConfigError: the model is not served, or does not take the inputs.
    """
    signature = signature_of(model, cards)
    inputs = given or made_up(signature)
    known = None if given else _known(model, inputs)
    if known is not None and await _is_kept(client, known):
        return known
    answers: list[Output] = []
    give_up_at = time.perf_counter() + _ASKING_S
    try:
        for x in inputs:
            answers.append(await client.infer(model, x))
            if time.perf_counter() > give_up_at:
                break
        again = await client.infer(model, inputs[0])
    except _NOT_TAKEN as error:
        what, todo = ("an input", "mend it") if given else ("a made-up input", "give real ones with --input FILE")
        raise ConfigError(f"model {model!r} does not take {what}: {error}; {todo}") from error
    workload = Workload(model, inputs[: len(answers)], answers, note=_NOT_SHIPPED.format(model) if known else "")
    if workload.right([0], [again])[0]:
        return workload
    return replace(workload, is_steady=False, note=_NOT_STEADY.format(model))


async def _is_kept(client: AsyncClient, known: Workload) -> bool:
    """Whether a model answers as the shipped one of its name."""
    try:
        return bool(known.right([0], [await client.infer(known.model, known.inputs[0])])[0])
    except _NOT_TAKEN:
        return False


def signature_of(model: str, cards: Sequence[dict[str, object]]) -> Signature:
    """Returns what the latest version of a model takes and gives.

    Raises:
        ConfigError: it is not served.
    """
    served = {int(str(card["version"])): card for card in cards if card["name"] == model}
    if not served:
        names = ", ".join(sorted({str(card["name"]) for card in cards})) or "nothing"
        raise ConfigError(f"--model {model!r} is not served there, expected one of: {names}")
    return Signature.from_wire(served[max(served)]["signature"])


def _known(model: str, inputs: Sequence[Input]) -> Workload | None:
    """Returns the workload of a shipped model, which owes nothing to what is measured."""
    if model == "digits":
        return _digits()
    # These give what they get: one array for one.
    mirrored = [x for x in inputs if isinstance(x, np.ndarray)]
    return Workload(model, inputs, mirrored) if model in {"echo", "sleep"} and mirrored else None


def _digits() -> Workload:
    from zmqinfer.node.models import find_models, load_here
    from zmqinfer.zoo import ZOO
    from zmqinfer.zoo.heldout import heldout

    images = heldout().images
    own = load_here(next(config for config in find_models([ZOO]) if config.name == "digits"))
    logits = own.infer({"pixels": images})["logits"]
    return Workload("digits", list(images), list(logits))
