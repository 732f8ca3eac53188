"""Files with the input of a call: what `infer` sends, and what `bench` makes its load of."""

from __future__ import annotations

import io
import json
import sys
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zmqinfer.errors import ConfigError
from zmqinfer.signature import TensorSpec
from zmqinfer.tensor import DTYPES, MAX_NDIM, Array

__all__ = ["NAMED", "arrays_of", "read_file"]

# What JSON has no numbers for, as in the JSON of protocol buffers.
NAMED = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


def read_file(file: str) -> bytes:
    """Returns what is in a file, or in standard input if it is called `-`.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        if file != "-":
            return Path(file).read_bytes()
        if sys.stdin is None:
            # So Python leaves it where the shell has closed it.
            raise ConfigError("standard input is closed, expected a file there; leave out <&-")
        return sys.stdin.buffer.read()
    except OSError as cause:
        why = cause.strerror or cause
        raise ConfigError(f"{file} cannot be read ({why}); give a .npy, .npz or .json file, or -") from cause


def arrays_of(raw: bytes, file: str, inputs: Sequence[TensorSpec]) -> Array | dict[str, Array]:
    """Returns the arrays of a .npy, .npz or .json file.

    Args:
        raw: what the file holds.
        file: its name, for messages.
        inputs: what the model declares; the numbers of JSON take the dtypes.

    Raises:
        ConfigError: the file holds something else.
    """
    if raw[:6] == b"\x93NUMPY" or raw[:4] == b"PK\x03\x04":
        return _loaded(raw, file)
    try:
        value = json.loads(raw)
    except ValueError as cause:
        raise ConfigError(f"{file} is neither .npy, .npz nor JSON ({cause})") from cause
    except RecursionError as cause:
        raise ConfigError(f"{file} holds lists in lists too deep to read, expected at most {MAX_NDIM}") from cause
    declared = {spec.name: spec for spec in inputs}
    if isinstance(value, dict):
        return {name: _array(part, declared.get(name), file) for name, part in value.items()}
    return _array(value, inputs[0] if len(inputs) == 1 else None, file)


def _loaded(raw: bytes, file: str) -> Array | dict[str, Array]:
    try:
        found = np.load(io.BytesIO(raw), allow_pickle=False)
        if isinstance(found, np.ndarray):
            return found
        arrays = {name: found[name] for name in found.files}
    except (ValueError, EOFError, MemoryError, RuntimeError, zipfile.BadZipFile, zlib.error) as cause:
        raise ConfigError(f"{file} is no readable .npy or .npz file ({cause})") from cause
    # So NumPy calls what was saved without a name.
    return arrays["arr_0"] if list(arrays) == ["arr_0"] else arrays


def _array(value: object, spec: TensorSpec | None, file: str) -> Array:
    """Makes an array of JSON numbers, which have no dtype of their own: they take the declared one."""
    try:
        given = np.asarray(value)
        if given.dtype.kind == "U":
            given = np.asarray(_numbered(value))
    except (ValueError, TypeError, OverflowError) as cause:
        raise ConfigError(f"{file} holds no regular array of numbers ({cause})") from cause
    if given.dtype.kind not in "biuf":
        raise ConfigError(f"{file} holds {given.dtype} values, expected numbers in lists of equal length")
    dtype = DTYPES.get(spec.dtype) if spec else None
    if spec is None or dtype is None:
        return given
    with np.errstate(all="ignore"):
        array = given.astype(dtype)
    fits = np.isinf(array) == np.isinf(given) if dtype.kind == "f" else array == given
    if not np.all(fits):
        raise ConfigError(f"{file} holds numbers that are no {spec.dtype}, which input {spec.name!r} takes; mend them")
    return array


def _numbered(value: Any) -> Any:
    """Returns what JSON held with numbers for their names."""
    if isinstance(value, list):
        return [_numbered(one) for one in value]
    return NAMED.get(value, value) if isinstance(value, str) else value
