"""What a model.toml says: how to run one model, and what it takes and gives.

Pure: text in, `ModelConfig` out; node/models.py finds and reads the files. Whoever writes
a model.toml has no debugger at hand, so every mistake is one `ConfigError` with file, key,
value and what was expected, and an unknown key is a mistake too: it is most often a typo.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from zmqinfer.config import ModelSettings, refuse_unknown
from zmqinfer.errors import ConfigError
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import DTYPES, MAX_ELEMENTS, MAX_NDIM, MAX_TENSORS, NAME, RESERVED_DTYPES

__all__ = ["FILE_NAME", "ModelConfig", "parse_model_toml"]

FILE_NAME = "model.toml"

_TABLES = ("inputs", "outputs", "parameters")
_TENSOR_KEYS = ("dtype", "shape", "batch_axis")
# Known to the documentation, but their rooms are not built yet.
_LATER_BACKENDS = ("onnx", "torch", "pipeline", "parallel")
_LATER_BATCH_AXES = (1, "none")

# What people write who think in NumPy: float32 for FP32.
_NUMPY_NAMES = {dtype.name: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """One version of one model, before it is loaded.

    Attributes:
        name: as callers spell it.
        settings: backend, batching and the like.
        signature: what model.toml declares, or None when it leaves that to the backend.
        parameters: the keywords for the class of a python target.
        version: the number of its folder; 1 without numbered folders.
        source: the model.toml as messages name it, or the function that is served without one.
        folders: where the backend's files lie, the version's own folder first; empty for a bare function.
    """

    name: str
    settings: ModelSettings
    signature: Signature | None = None
    parameters: Mapping[str, object] = field(default_factory=dict)
    version: int = 1
    source: str = ""
    folders: tuple[Path, ...] = ()


def parse_model_toml(text: str, path: Path | str, name: str) -> ModelConfig:
    """Reads one model.toml.

    Args:
        text: what the file holds.
        path: where it lies; named in every message, and its folder becomes the model's.
        name: the model's, by custom the name of its folder.

    Raises:
        ConfigError: the text is no TOML, or a key, a type or a value is wrong; one sentence.
    """
    where = f"{path}: "
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}model name {name!r} does not match {NAME.pattern}; rename its folder")
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as cause:
        raise ConfigError(f"{where}no valid TOML: {cause}") from cause
    settings = _settings(table, where)
    parameters = _table(table, "parameters", where)
    if parameters and settings.backend != "python":
        raise ConfigError(f"{where}backend {settings.backend!r} takes no [parameters]; remove the table")
    signature = _signature(table, settings.backend, where)
    return ModelConfig(name, settings, signature, parameters, source=str(path), folders=(Path(path).parent,))


def _settings(table: Mapping[str, object], where: str) -> ModelSettings:
    declared = {one.name: one for one in ModelSettings.describe()}
    refuse_unknown(table, (*declared, *_TABLES), where)
    given = {key: value for key, value in table.items() if key in declared}
    if given.get("backend") in _LATER_BACKENDS:
        raise ConfigError(
            f"{where}backend is {given['backend']!r}, which this version does not serve yet,"
            f" expected one of: {', '.join(declared['backend'].choices)}"
        )
    try:
        settings = ModelSettings(**given)  # type: ignore[arg-type]  # it sees to the types itself
    except ConfigError as error:
        raise ConfigError(f"{where}{error}") from error
    if settings.backend == "python" and not settings.target:
        others = " or ".join(choice for choice in declared["backend"].choices if choice != "python")
        raise ConfigError(
            f"{where}target is missing, backend 'python' expects module:callable;"
            ' add for example: target = "scorer:predict"'
            + ("" if "backend" in given else f", or say which backend but the default, python, runs it: {others}")
        )
    if settings.backend != "python" and settings.target:
        raise ConfigError(f"{where}target is {settings.target!r}, backend {settings.backend!r} takes none; remove it")
    return settings


def _signature(table: Mapping[str, object], backend: str, where: str) -> Signature | None:
    inputs, outputs = (_specs(table, kind, where) for kind in ("inputs", "outputs"))
    if inputs and outputs:
        return Signature(inputs, outputs)
    if not inputs and not outputs and backend != "python":
        return None
    missing = " and ".join(f"[{kind}.NAME]" for kind, specs in (("inputs", inputs), ("outputs", outputs)) if not specs)
    expected = "both with backend 'python'" if backend == "python" else f"both or, with backend {backend!r}, none"
    raise ConfigError(f"{where}{missing} missing, expected {expected}; add each with its dtype and shape")


def _specs(table: Mapping[str, object], kind: str, where: str) -> tuple[TensorSpec, ...]:
    tensors = _table(table, kind, where)
    if len(tensors) > MAX_TENSORS:
        raise ConfigError(f"{where}{kind} has {len(tensors)} tensors, expected at most {MAX_TENSORS}")
    return tuple(_spec(tensors, kind, name, where) for name in tensors)


def _spec(tensors: Mapping[str, object], kind: str, name: str, where: str) -> TensorSpec:
    if not NAME.fullmatch(name):
        raise ConfigError(f"{where}{kind} has a tensor named {name!r}, expected {NAME.pattern}; rename it")
    entry = _table(tensors, name, where, f"{kind}.")
    prefix = f"{where}{kind}.{name}."
    refuse_unknown(entry, _TENSOR_KEYS, f"{where}in [{kind}.{name}] ")
    for key in ("dtype", "shape"):
        if key not in entry:
            raise ConfigError(f"{prefix}{key} is missing; {_EXAMPLES[key]}")
    _check_batch_axis(entry.get("batch_axis", 0), prefix)
    return TensorSpec(name, _dtype(entry["dtype"], prefix), _shape(entry["shape"], prefix))


_EXAMPLES = {
    "dtype": 'add for example: dtype = "FP32"',
    "shape": "add for example: shape = [64], without the batch axis, -1 for an axis of any length",
}


def _dtype(value: object, prefix: str) -> str:
    if isinstance(value, str) and value in DTYPES:
        return value
    expected = f"expected one of: {', '.join(DTYPES)}"
    if value in RESERVED_DTYPES:
        raise ConfigError(f"{prefix}dtype is {value!r}, reserved and not served by this version, {expected}")
    if isinstance(value, str):
        meant = _NUMPY_NAMES.get(value.lower()) or value.upper()
        if meant in DTYPES:
            expected += f"; write {meant!r}"
    raise ConfigError(f"{prefix}dtype is {value!r}, {expected}")


def _shape(value: object, prefix: str) -> tuple[int, ...]:
    if (
        not isinstance(value, list)
        or len(value) > MAX_NDIM
        or not all(type(axis) is int and (axis == -1 or 1 <= axis <= MAX_ELEMENTS) for axis in value)
    ):
        raise ConfigError(
            f"{prefix}shape is {value!r}, expected a list of at most {MAX_NDIM} lengths without the"
            f" batch axis, each from 1 to {MAX_ELEMENTS:,}, or -1 for any length"
        )
    return tuple(value)


def _check_batch_axis(value: object, prefix: str) -> None:
    if type(value) is int and value == 0:
        return
    if type(value) is not bool and value in _LATER_BATCH_AXES:
        raise ConfigError(
            f"{prefix}batch_axis is {value!r}, which comes with the repository of models and is not served"
            " by this version; leave it out and put the batch on axis 0"
        )
    raise ConfigError(f"{prefix}batch_axis is {value!r}, expected 0; leave it out")


def _table(table: Mapping[str, object], key: str, where: str, parent: str = "") -> dict[str, object]:
    value = table.get(key, {})
    if not isinstance(value, dict):
        raise ConfigError(
            f"{where}{parent}{key} is {value!r}, expected a table; write [{parent}{key}"
            f"{'.NAME' if key in ('inputs', 'outputs') and not parent else ''}]"
        )
    return value
