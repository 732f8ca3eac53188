"""`zmqinfer infer`: one request from the shell."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np

from zmqinfer.cli.options import Within, clients_option
from zmqinfer.errors import ConfigError
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, MAX_NDIM, Array

__all__ = ["infer"]

# As in the JSON of protocol buffers.
_NAMED = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}


@click.command()
@click.argument("model")
@click.argument("file")
@clients_option
@click.option("--batch", is_flag=True, help="The leading axis of FILE is the row: send all rows as one call.")
@click.option("--key", help="The routing key.")
@click.option("--model-version", type=click.IntRange(1), help="The model's version.  [default: the latest]")
@click.option("--deadline-s", type=Within(0.001, 300), default=30.0, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the result to this .npy file, not as JSON.")
def infer(
    model: str,
    file: str,
    gateway: list[str],
    batch: bool,
    key: str | None,
    model_version: int | None,
    deadline_s: float,
    output: Path | None,
) -> None:
    """Send one request to MODEL with the array in FILE (.npy or .json, - for standard input) and print the result.

    JSON is a list, or an object of lists by input name; its numbers take the dtype that the model declares.
    What JSON has no numbers for are the strings "NaN", "Infinity" and "-Infinity", in FILE and in the result.
    """
    from zmqinfer.client import Client

    raw = _bytes_of(file)
    with Client(gateway) as client:
        inputs = _signature(client, model, model_version).inputs
        x = _arrays(raw, file, inputs)
        call = client.infer_batch if batch else client.infer
        y = call(model, x, key=key, version=model_version, deadline_s=deadline_s)
    if output is not None:
        if isinstance(y, dict):
            raise ConfigError(f"model {model!r} has several outputs, which .npy cannot hold; leave out --output")
        try:
            with output.open("wb") as target:
                np.save(target, y, allow_pickle=False)
        except OSError as cause:
            raise ConfigError(f"{output} cannot be written ({cause.strerror}); choose another --output") from cause
        return
    plain: Any = {name: _plain(array) for name, array in y.items()} if isinstance(y, dict) else _plain(y)
    click.echo(json.dumps(plain, allow_nan=False))


def _plain(array: Array) -> Any:
    """Returns an array as lists for JSON."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array.tolist()
    named = array.astype(object)
    for name, number in _NAMED.items():
        named[np.isnan(array) if np.isnan(number) else array == number] = name
    return named.tolist()


def _numbered(value: Any) -> Any:
    """Returns what JSON held with numbers for their names."""
    if isinstance(value, list):
        return [_numbered(one) for one in value]
    return _NAMED.get(value, value) if isinstance(value, str) else value


def _bytes_of(file: str) -> bytes:
    try:
        if file != "-":
            return Path(file).read_bytes()
        if sys.stdin is None:
            # So Python leaves it where the shell has closed it.
            raise ConfigError("standard input is closed, expected a .npy or .json file there; leave out <&-")
        return sys.stdin.buffer.read()
    except OSError as cause:
        why = cause.strerror or cause
        raise ConfigError(f"{file} cannot be read ({why}); give a .npy or .json file, or -") from cause


def _signature(client: Any, model: str, version: int | None) -> Signature:
    for one in client.models()[0]:
        if one["name"] == model and version in {None, one["version"]}:
            return Signature.from_wire(one["signature"])
    return Signature((TensorSpec(""),), (TensorSpec(""),))


def _arrays(raw: bytes, file: str, inputs: tuple[TensorSpec, ...]) -> Array | dict[str, Array]:
    if raw[:6] == b"\x93NUMPY":
        try:
            array: Array = np.load(io.BytesIO(raw), allow_pickle=False)
        except ValueError as cause:
            raise ConfigError(f"{file} is no readable .npy file ({cause})") from cause
        return array
    try:
        value = json.loads(raw)
    except ValueError as cause:
        raise ConfigError(f"{file} is neither .npy nor JSON ({cause})") from cause
    except RecursionError as cause:
        raise ConfigError(f"{file} holds lists in lists too deep to read, expected at most {MAX_NDIM}") from cause
    declared = {spec.name: spec for spec in inputs}
    if isinstance(value, dict):
        return {name: _array(part, declared.get(name), file) for name, part in value.items()}
    return _array(value, inputs[0] if len(inputs) == 1 else None, file)


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
