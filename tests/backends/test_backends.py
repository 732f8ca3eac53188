"""The registry of backends."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from zmqinfer.backends import make_backend
from zmqinfer.backends.numpy_dense import NumpyDense
from zmqinfer.backends.python_callable import PythonCallable
from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.signature import Signature, TensorSpec

CONFIG = ModelConfig(
    "net",
    ModelSettings(backend="numpy"),
    Signature((TensorSpec("x"),), (TensorSpec("y"),)),
    source="net/model.toml",
    folders=(Path("net"),),
)
PYTHON = dataclasses.replace(CONFIG, settings=ModelSettings(target="a:b"))


def test_each_backend_is_made_by_its_name() -> None:
    """As model.toml spells it; nothing is loaded yet."""
    assert type(make_backend(CONFIG)) is NumpyDense
    assert type(make_backend(PYTHON)) is PythonCallable


def test_every_backend_that_settings_allow_can_be_made() -> None:
    """The two lists agree."""
    (backend,) = (one for one in ModelSettings.describe() if one.name == "backend")

    for name in backend.choices:
        assert make_backend(dataclasses.replace(CONFIG, settings=ModelSettings(backend=name)))


def test_an_unknown_backend_is_a_config_error() -> None:
    """A plug-in that is not there is named with the file that wants it."""
    settings = ModelSettings()
    object.__setattr__(settings, "backend", "onnx")

    with pytest.raises(ConfigError, match=r"net/model\.toml: backend is 'onnx', which this version does not know"):
        make_backend(dataclasses.replace(CONFIG, settings=settings))


def test_a_backend_is_imported_when_it_is_needed() -> None:
    """A worker pays only for what it serves."""
    check = (
        "import sys, zmqinfer.backends as b;"
        "loaded = {m for m in sys.modules if m.startswith('zmqinfer.backends.')};"
        "assert not loaded, loaded"
    )

    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
