"""What a model takes and gives, and whether an input fits.

A signature travels in READY from a worker to its gateways and in WELCOME from
there to the clients. The client checks an input first, so that a mistake is told
at the call; the worker checks again, because it believes no one.
"""

from __future__ import annotations

from dataclasses import dataclass

from zmqinfer.errors import InvalidArgument, ProtocolError
from zmqinfer.tensor import DTYPES, MAX_ELEMENTS, MAX_NDIM, MAX_TENSORS, NAME, Field, Layout

__all__ = ["ANY", "Signature", "TensorSpec"]

ANY = "ANY"
_SPEC_FIELDS = 3


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One declared input or output, without the batch axis.

    Attributes:
        name: as callers spell it.
        dtype: a name of `tensor.DTYPES`, or `ANY`.
        shape: one entry for each axis, -1 for one of any length; None for any shape at all.
    """

    name: str
    dtype: str = ANY
    shape: tuple[int, ...] | None = None

    def fits(self, field: Field) -> bool:
        """Whether a tensor of this dtype and shape is one of ours; names are not compared."""
        if self.dtype not in (ANY, field.dtype):
            return False
        if self.shape is None:
            return True
        return len(self.shape) == len(field.shape) and all(
            want in (-1, got) for want, got in zip(self.shape, field.shape, strict=True)
        )

    def __str__(self) -> str:
        shape = "of any shape" if self.shape is None else str(list(self.shape))
        return f"{'any dtype' if self.dtype == ANY else self.dtype} {shape}"


@dataclass(frozen=True, slots=True)
class Signature:
    """The declared inputs and outputs of one model."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def order(self, layout: Layout, model: str) -> tuple[int, ...]:
        """Returns where in `layout` each declared input lies, in the order of declaration.

        Raises:
            InvalidArgument: an input is missing, unknown, or of another dtype or shape.
        """
        fields = layout.fields
        if len(fields) == 1 and fields[0].name == "" and len(self.inputs) == 1:
            self._check(self.inputs[0], fields[0], model)
            return (0,)
        places = {field.name: place for place, field in enumerate(fields)}
        declared = ", ".join(spec.name for spec in self.inputs)
        if "" in places:
            raise InvalidArgument(
                f"model {model!r} takes {len(self.inputs)} inputs ({declared}), a bare array came;"
                " pass a dict of arrays by name"
            )
        for name in places:
            if all(spec.name != name for spec in self.inputs):
                raise InvalidArgument(f"model {model!r} has no input {name!r}; it takes {declared}")
        found = []
        for spec in self.inputs:
            if spec.name not in places:
                raise InvalidArgument(f"input {spec.name!r} is missing; model {model!r} takes {declared}")
            self._check(spec, fields[places[spec.name]], model)
            found.append(places[spec.name])
        return tuple(found)

    @staticmethod
    def _check(spec: TensorSpec, field: Field, model: str) -> None:
        if not spec.fits(field):
            raise InvalidArgument(
                f"input {spec.name!r} is {field}, model {model!r} takes {spec};"
                " convert before sending, nothing is cast or reshaped"
            )

    def to_wire(self) -> list[list[object]]:
        """Returns the form in which READY and WELCOME carry a signature."""
        return [[[spec.name, spec.dtype, spec.shape] for spec in specs] for specs in (self.inputs, self.outputs)]

    @classmethod
    def from_wire(cls, value: object) -> Signature:
        """Reads what `to_wire` wrote.

        Raises:
            ProtocolError: anything else.
        """
        if type(value) is not list or len(value) != 2:
            raise ProtocolError("a signature that is not [inputs, outputs]")
        return cls(_specs(value[0]), _specs(value[1]))


def _specs(value: object) -> tuple[TensorSpec, ...]:
    if type(value) is not list or not 1 <= len(value) <= MAX_TENSORS:
        raise ProtocolError(f"a signature without 1 to {MAX_TENSORS} tensors each way")
    specs = tuple(_spec(entry) for entry in value)
    if len({spec.name for spec in specs}) != len(specs):
        raise ProtocolError("a signature that names a tensor twice")
    return specs


def _spec(entry: object) -> TensorSpec:
    if type(entry) is not list or len(entry) != _SPEC_FIELDS:
        raise ProtocolError("a declared tensor that is not [name, dtype, shape]")
    name, dtype, shape = entry
    if type(name) is not str or not NAME.fullmatch(name):
        raise ProtocolError(f"a declared name that does not match {NAME.pattern}")
    if type(dtype) is not str or dtype not in (ANY, *DTYPES):
        raise ProtocolError("a declared dtype that is not known")
    if shape is None:
        return TensorSpec(name, dtype, None)
    if type(shape) is not list or len(shape) > MAX_NDIM:
        raise ProtocolError("a declared shape that is no list of axes")
    for axis in shape:
        if type(axis) is not int or not -1 <= axis <= MAX_ELEMENTS:
            raise ProtocolError("a declared axis that is no length")
    return TensorSpec(name, dtype, tuple(shape))
