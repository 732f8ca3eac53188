"""The file of what a benchmark found: benchmark_results.json.

The file alone redraws every picture and the report: `read_results(write_results(r, d))`
equals `r`. It holds no single latency, but each round's exact figures and histogram
(`statistics.Latencies`). Each load also carries its `summary.Summary` for other
programs; that is derived, and ignored when the file is read, as are keys not known here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from zmqinfer.errors import ConfigError
from zmqinfer.load.results import Batching, BenchResult, LoadResult
from zmqinfer.load.summary import summarize

__all__ = ["RESULTS_FILE", "SCHEMA", "read_results", "write_atomically", "write_results"]

SCHEMA = 1
RESULTS_FILE = "benchmark_results.json"


def write_results(result: BenchResult, directory: Path) -> Path:
    """Writes benchmark_results.json into `directory`, which is made if it is missing; all or nothing.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = directory / RESULTS_FILE
    document = _laid_out({"schema": SCHEMA, **_encoded(result)})
    write_atomically(path, f"{document}\n".encode())
    return path


def read_results(path: Path) -> BenchResult:
    """Reads the results in a directory, or those in the file itself.

    Raises:
        ConfigError: there is no such file, or it is not what `write_results` writes.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        document = json.loads(file.read_bytes())
    except FileNotFoundError as e:
        raise ConfigError(f"no results at {file}; make some with: zmqinfer bench --out {path}") from e
    except OSError as e:
        raise ConfigError(f"cannot read {file}: {e.strerror}; name the directory of a benchmark") from e
    except (ValueError, RecursionError) as e:
        raise ConfigError(f"{file} is not JSON: {e}; repeat the benchmark") from e
    schema = document.get("schema") if isinstance(document, dict) else None
    if type(schema) is not int or schema != SCHEMA:
        hint = "read it with the zmqinfer that wrote it, or repeat the benchmark"
        raise ConfigError(f"{file} has schema {schema!r:.60}, expected {SCHEMA}; {hint}")
    try:
        result: BenchResult = _decoded(BenchResult, document, "")
    except (ValueError, OverflowError) as e:
        raise ConfigError(f"{file}: {e}; repeat the benchmark") from e
    return result


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces the file as a whole, so that a reader never sees half of it.

    Raises:
        ConfigError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            draft.write_bytes(content)
            draft.replace(path)
        finally:
            draft.unlink(missing_ok=True)
    except OSError as e:
        raise ConfigError(f"cannot write {path}: {e.strerror}; choose another place with --out") from e


def _encoded(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = {f.name: _encoded(getattr(value, f.name)) for f in dataclasses.fields(value)}
        return {**fields, "summary": _encoded(summarize(value))} if isinstance(value, LoadResult) else fields
    if isinstance(value, Mapping):
        return {name: _encoded(content) for name, content in value.items()}
    if isinstance(value, tuple):
        return [_encoded(element) for element in value]
    return value


def _laid_out(value: object, indent: str = "\n") -> str:
    """JSON that a person can read: what contains others takes a line each, a list of numbers one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        lines = (f"{json.dumps(name)}: {_laid_out(content, deeper)}" for name, content in value.items())
        return "{" + deeper + f",{deeper}".join(lines) + indent + "}"
    if isinstance(value, list) and any(isinstance(element, dict | list) for element in value):
        return "[" + deeper + f",{deeper}".join(_laid_out(e, deeper) for e in value) + indent + "]"
    return json.dumps(value, allow_nan=False, separators=(",", ":"))


def _decoded(kind: Any, value: Any, where: str) -> Any:
    """Builds what the type annotation `kind` says, or raises `ValueError` naming the place."""
    origin, arguments = get_origin(kind) or kind, get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(value, dict):
        return _decoded_dataclass(kind, value, where)
    if origin is types.UnionType:
        for member in arguments:
            with contextlib.suppress(ValueError):
                return _decoded(member, value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_decoded(arguments[0], element, f"{where}[{i}]") for i, element in enumerate(value))
    if origin is Mapping and isinstance(value, dict):
        return {name: _decoded(arguments[1], content, f"{where}.{name}") for name, content in value.items()}
    if origin is Batching and value in tuple(Batching):
        return Batching(value)
    if origin is float and type(value) in {int, float} and math.isfinite(value):
        return float(value)
    if type(value) is kind and kind is not float:
        return value
    raise ValueError(f"{where} is {value!r:.60}, expected {_named(kind)}")


def _named(kind: Any) -> str:
    """The JSON word for a kind, as far as there is one."""
    words = {types.NoneType: "null", tuple: "list", Mapping: "object", float: "number"}
    members = get_args(kind) if get_origin(kind) is types.UnionType else (get_origin(kind) or kind,)
    return " or ".join(words.get(member) or member.__name__ for member in members)


def _decoded_dataclass(kind: Any, value: dict[str, Any], where: str) -> Any:
    known = get_type_hints(kind)
    prefix = f"{where}." if where else ""
    for name in known:
        if name not in value:
            raise ValueError(f"{prefix}{name} is missing, expected {_named(known[name])}")
    arguments = {name: _decoded(known[name], value[name], prefix + name) for name in known}
    try:
        return kind(**arguments)
    except ValueError as e:
        raise ValueError(f"{where or 'the result'}: {e}") from e
