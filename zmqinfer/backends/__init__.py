"""What runs a model: one file for each backend, all of them `base.Backend`.

    base.py             the four methods and two hooks that the worker's engine calls
    numpy_dense.py      backend = "numpy": a dense network from weights.npz
    python_callable.py  backend = "python": a function or class of the user's; and bare functions

Backends import the vocabulary (errors, config, tensor, signature, model_config) and their own
library, nothing else of zmqinfer. Each is imported when its first model is made, so that a
worker pays only for what it serves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqinfer.errors import ConfigError

if TYPE_CHECKING:
    from zmqinfer.backends.base import Backend
    from zmqinfer.model_config import ModelConfig

__all__ = ["make_backend"]


def make_backend(config: ModelConfig) -> Backend:
    """Makes the backend that `config` names, not yet loaded.

    Raises:
        ConfigError: no backend has that name.
    """
    match config.settings.backend:
        case "numpy":
            from zmqinfer.backends.numpy_dense import NumpyDense

            return NumpyDense(config)
        case "python":
            from zmqinfer.backends.python_callable import PythonCallable

            return PythonCallable(config)
        case other:
            raise ConfigError(f"{config.source}: backend is {other!r}, which this version does not know")
