"""`zmqinfer infer`: one request from the shell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np

from zmqinfer.cli.files import NAMED, arrays_of, read_file
from zmqinfer.cli.options import Within, clients_option
from zmqinfer.errors import ConfigError
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import Array

__all__ = ["infer"]


@click.command()
@click.argument("model")
@click.argument("file")
@clients_option
@click.option("--batch", is_flag=True, help="The leading axis of FILE is the row: send all rows as one call.")
@click.option("--key", help="The routing key.")
@click.option("--model-version", type=click.IntRange(1), help="The model's version.  [default: the latest]")
@click.option(
    "--deadline-s", type=Within(0.001, 300), default=30.0, show_default=True, help="How long the call may take."
)
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
    """Send one request to MODEL, with the arrays in FILE, and print the result.

    FILE is .npy, .npz or .json, or - for standard input.

    JSON is a list, or an object of lists by input name; its numbers take the dtype that the model declares.
    What JSON has no numbers for are the strings "NaN", "Infinity" and "-Infinity", in FILE and in the result.
    """
    from zmqinfer.client import Client

    raw = read_file(file)
    with Client(gateway) as client:
        inputs = _signature(client, model, model_version).inputs
        x = arrays_of(raw, file, inputs)
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
    for name, number in NAMED.items():
        named[np.isnan(array) if np.isnan(number) else array == number] = name
    return named.tolist()


def _signature(client: Any, model: str, version: int | None) -> Signature:
    served = {one["version"]: one for one in client.models()[0] if one["name"] == model}
    one = served.get(version or max(served, default=0))
    return Signature.from_wire(one["signature"]) if one else Signature((TensorSpec(""),), (TensorSpec(""),))
