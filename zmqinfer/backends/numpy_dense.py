"""The numpy backend: a dense network from one weights.npz.

The archive holds w0, b0, w1, b1, ...: float32, w of shape [inputs, outputs], b of [outputs].
ReLU stands between the layers; the last one's answer goes out as it is (logits).
"""

from __future__ import annotations

import re
import zipfile
import zlib
from itertools import pairwise
from typing import cast

import numpy as np
from numpy.typing import NDArray

from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import Array, Arrays

__all__ = ["NumpyDense"]

FILE_NAME = "weights.npz"

_LAYOUT = "expected float32 arrays w0, b0, w1, b1, ... for layers that fit on one another"
_Floats = NDArray[np.float32]
_Layer = tuple[_Floats, _Floats]


class NumpyDense:
    """Runs the network of `weights.npz` in the model's version folder.

    Without [inputs.*] and [outputs.*] in model.toml its input is called x and its output y.
    """

    before: None = None
    after: None = None

    def __init__(self, config: ModelConfig) -> None:
        self._path = config.folders[0] / FILE_NAME
        self._source = config.source
        self._declared = config.signature
        self._signature: Signature | None = None
        self._layers: list[_Layer] = []
        self._input = self._output = ""

    @property
    def signature(self) -> Signature:
        """One FP32 vector in, one out."""
        assert self._signature is not None, "load() comes first"
        return self._signature

    def load(self) -> None:
        """Reads the weights and checks that they are what model.toml says."""
        self._layers = self._checked(self._read())
        self._signature = self._agreed()
        self._input = self._signature.inputs[0].name
        self._output = self._signature.outputs[0].name

    def infer(self, batch: Arrays) -> Arrays:
        """Runs n rows through all layers."""
        x = cast("_Floats", batch[self._input])
        last = len(self._layers) - 1
        # A caller's NaN or 1e38 gives NaN or inf in that caller's row; warnings would only fill the log.
        with np.errstate(over="ignore", invalid="ignore"):
            for place, (weights, bias) in enumerate(self._layers):
                x = x @ weights
                x += bias
                if place < last:
                    np.maximum(x, 0, out=x)
        return {self._output: x}

    def close(self) -> None:
        """Lets the weights go."""
        self._layers = []

    def _read(self) -> dict[str, Array]:
        try:
            # Opened here, because numpy.load leaves a torn archive open.
            with self._path.open("rb") as file:
                archive = np.load(file, allow_pickle=False)
                if not isinstance(archive, np.lib.npyio.NpzFile):
                    raise ConfigError(f"{self._path} is a single array, {_LAYOUT}; write it with numpy.savez")
                with archive:
                    return {name: np.asarray(archive[name]) for name in archive.files}
        except FileNotFoundError as cause:
            raise ConfigError(f"{self._path} does not exist, {_LAYOUT}; write it with numpy.savez") from cause
        except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as cause:
            raise ConfigError(f"{self._path} cannot be read ({cause}), {_LAYOUT}") from cause

    def _checked(self, arrays: dict[str, Array]) -> list[_Layer]:
        depth = len(arrays) // 2
        wanted = [f"{kind}{layer}" for layer in range(depth) for kind in "wb"]
        if not depth or sorted(arrays) != sorted(wanted):
            found = ", ".join(sorted(arrays, key=_by_number)[:8]) or "nothing"
            raise ConfigError(f"{self._path} holds {found}, {_LAYOUT}")
        for name, axes in zip(wanted, (2, 1) * depth, strict=True):
            array = arrays[name]
            if array.dtype != np.float32 or array.ndim != axes or not array.size:
                raise ConfigError(
                    f"{self._path}: {name} is {array.dtype} {list(array.shape)},"
                    f" expected float32 with {axes} {'axes' if axes > 1 else 'axis'}, none of them empty"
                )
            if not np.isfinite(array).all():
                raise ConfigError(f"{self._path}: {name} holds NaN or infinity, expected finite weights")
        self._check_joints(arrays, wanted)
        return [
            (np.ascontiguousarray(arrays[f"w{layer}"]), np.ascontiguousarray(arrays[f"b{layer}"]))
            for layer in range(depth)
        ]

    def _check_joints(self, arrays: dict[str, Array], wanted: list[str]) -> None:
        for before, after in pairwise(wanted):
            if arrays[before].shape[-1] != arrays[after].shape[0]:
                raise ConfigError(
                    f"{self._path}: {before} is {list(arrays[before].shape)} and {after}"
                    f" {list(arrays[after].shape)}, expected {after} to begin with {arrays[before].shape[-1]}"
                )

    def _agreed(self) -> Signature:
        inputs, outputs = self._layers[0][0].shape[0], self._layers[-1][0].shape[1]
        if self._declared is None:
            return Signature((TensorSpec("x", "FP32", (inputs,)),), (TensorSpec("y", "FP32", (outputs,)),))
        for kind, specs, length in (
            ("inputs", self._declared.inputs, inputs),
            ("outputs", self._declared.outputs, outputs),
        ):
            if len(specs) != 1 or (specs[0].dtype, specs[0].shape) != ("FP32", (length,)):
                declared = ", ".join(f"{spec.name} {spec}" for spec in specs)
                raise ConfigError(
                    f"{self._source}: {kind} are {declared}, but {self._path} has one FP32 [{length}];"
                    " correct the one or the other, or leave both tables out"
                )
        return self._declared


def _by_number(name: str) -> tuple[int, str]:
    number = re.search(r"\d+", name)
    return (int(number[0]) if number else -1, name)
