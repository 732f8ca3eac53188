"""The model that answers what it was asked."""  # noqa: INP001 - a model folder is no package

from zmqinfer.tensor import Arrays

__all__ = ["echo"]


def echo(batch: Arrays) -> Arrays:
    """Gives `x` back as `y`, without a copy."""
    return {"y": batch["x"]}
