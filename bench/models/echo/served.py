"""The model of bench/peers/models.py, as zmqinfer serves it."""  # noqa: INP001 - a model folder is no package

from bench.peers import models
from zmqinfer.tensor import Arrays


def echo(batch: Arrays) -> Arrays:
    """Gives `y` for `x`."""
    return {"y": models.echo(batch["x"])}  # type: ignore[arg-type]
