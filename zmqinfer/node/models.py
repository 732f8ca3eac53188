"""Finds the models on a disk, reads their model.toml, and loads them.

A model repository is a folder of model folders; a model folder holds model.toml and, if it
likes, numbered folders, of which the highest is served. Folders without a model.toml, or what
looks like one with a slip in its name, are passed over: they may hold anything. `--models` may
also name one model folder itself.

Whatever is wrong with a model's files, or raised by its own code while it is loaded, is a `ConfigError`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from importlib.machinery import PathFinder
from pathlib import Path

from zmqinfer.backends import make_backend
from zmqinfer.backends.base import Backend, loading
from zmqinfer.backends.python_callable import BareFunction, find_target, no_module, parts_of
from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import FILE_NAME, ModelConfig, parse_model_toml
from zmqinfer.node.crew import EngineThread
from zmqinfer.node.engine import Engine
from zmqinfer.node.isolation import IsolatedModel

__all__ = ["check_target", "find_models", "function_model", "load_engine", "load_here", "load_model", "target_config"]

_VERSION = re.compile(r"[1-9][0-9]{0,8}")


def find_models(folders: Sequence[Path], on_mistake: Callable[[ConfigError], None] | None = None) -> list[ModelConfig]:
    """Reads every model.toml below the model repositories `folders`, sorted by model name.

    Args:
        on_mistake: gets what is wrong with a model folder, which is left out then; if None that is raised, as is
            always that a repository is missing or holds no model, or that two models have one name.
    """
    found: dict[str, ModelConfig] = {}
    for repository in folders:
        for folder in _model_folders(repository):
            try:
                config = _read(folder)
            except ConfigError as mistake:
                if on_mistake is None:
                    raise
                on_mistake(mistake)
                continue
            if config.name in found:
                raise ConfigError(
                    f"model {config.name!r} is in {found[config.name].source} and in {config.source},"
                    " expected one of each name; rename one folder"
                )
            found[config.name] = config
    return [found[name] for name in sorted(found)]


def load_model(config: ModelConfig) -> EngineThread:
    """Loads one model on a thread of its own, or in a process of its own if it says so. May take long."""
    isolates = config.settings.isolation != "thread"
    return EngineThread(IsolatedModel(config).load if isolates else partial(load_engine, config))


def function_model(
    function: object, settings: ModelSettings | None = None, *, has_tracebacks: bool = False
) -> EngineThread:
    """Makes a model, named after it, of a function from one array of n rows to one of n rows, or of such a class.

    Args:
        has_tracebacks: whether the log has those of its errors in full.
    """
    config = ModelConfig("", settings or ModelSettings(), source="the function or class")
    return EngineThread(lambda: _function(config, function, has_tracebacks=has_tracebacks))


def target_config(target: str, settings: ModelSettings) -> ModelConfig:
    """Returns what is known of the model of a "module:callable" before that is imported, where the model runs."""
    return ModelConfig("", dataclasses.replace(settings, target=target), source=f"target {target!r}")


def load_here(config: ModelConfig) -> Backend:
    """Makes and loads the backend of one model on this thread."""
    backend = make_backend(config)
    backend.load()
    return backend


def load_engine(config: ModelConfig, worker: int = 0) -> tuple[ModelConfig, Engine]:
    """Loads one model on this thread, whatever it says of where; this thread is to run and close it as well.

    Args:
        worker: the process id of its worker, if that is another one.

    Returns:
        what is known of it then, and what runs it.
    """
    if not config.folders:
        # The current directory is searched first.
        here = str(Path.cwd())
        if sys.path[:1] not in ([""], [here]):
            sys.path.insert(0, here)
        return _function(config, find_target(config.settings.target), worker)
    with loading(f"{config.source}: backend {config.settings.backend!r}"):
        return config, _engine(config, load_here(config), worker)


def _function(
    config: ModelConfig, function: object, worker: int = 0, *, has_tracebacks: bool = False
) -> tuple[ModelConfig, Engine]:
    with loading(config.source):
        backend = BareFunction(function, config.settings.target)
        backend.load()
    config = ModelConfig(backend.name, config.settings, backend.signature, source=f"function {backend.name!r}")
    return config, _engine(config, backend, worker, has_tracebacks=has_tracebacks)


def _engine(config: ModelConfig, backend: Backend, worker: int, *, has_tracebacks: bool = False) -> Engine:
    own = config.settings
    return Engine(
        backend,
        idempotent=own.idempotent,
        borrows_inputs=own.borrows_inputs,
        name=f"{config.name}:{config.version}",
        worker=worker,
        has_tracebacks=has_tracebacks,
    )


def check_target(target: str) -> None:
    """Raises `ConfigError` for what is wrong with "module:callable", without running anything of the user's."""
    top = parts_of(target)[0].partition(".")[0]
    is_missing = False
    # Others' finders may raise anything; and of a module that is loaded without a spec the question itself does.
    with contextlib.suppress(Exception):
        is_missing = PathFinder.find_spec(top, [str(Path.cwd())]) is None and importlib.util.find_spec(top) is None
    if is_missing:
        raise no_module(target)


def _model_folders(repository: Path) -> list[Path]:
    if not repository.is_dir():
        what = "is no folder" if repository.exists() else "does not exist"
        raise ConfigError(
            f"model repository {repository} {what}, expected a folder of model folders; each needs a {FILE_NAME}"
        )
    if (repository / FILE_NAME).is_file():
        return [repository]
    folders = sorted(folder for folder in _entries(repository) if (folder / FILE_NAME).is_file() or _misspelt(folder))
    if not folders and _misspelt(repository):
        return [repository]
    if not folders:
        raise ConfigError(
            f"model repository {repository} holds no model, expected at least one"
            f" {repository / 'NAME' / FILE_NAME}; write one or name another folder"
        )
    return folders


def _misspelt(folder: Path) -> str:
    """Returns a file of a folder that is perhaps meant to be its model.toml; empty if there is none."""
    with contextlib.suppress(OSError):
        names = [
            path.name
            for path in folder.iterdir()
            if len(path.name) < 20 and path.name[0] != "." and path.name[-1] != "~"
        ]
        # What was renamed to put it aside, as model.toml.off, is no slip; .txt is one of editors that hide it.
        close = difflib.get_close_matches(FILE_NAME, {name.lower().removesuffix(".txt") for name in names}, 1, 0.9)
        return next((name for name in names if name.lower().removesuffix(".txt") in close), "")
    return ""


def _read(folder: Path) -> ModelConfig:
    path = folder / FILE_NAME
    if not path.is_file():
        name = _misspelt(folder)
        raise ConfigError(
            f"{folder} has {name} and no {FILE_NAME}, expected that; rename the file, or put it elsewhere"
        )
    try:
        # Some editors begin a file with a mark of its encoding.
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as cause:
        raise ConfigError(f"{path} cannot be read ({cause}), expected text in UTF-8") from cause
    # A folder given as "." or ".." has no name of its own; a link keeps the name of the link.
    name = folder.name if folder.name not in {"", ".."} else folder.resolve().name
    config = parse_model_toml(text, path, name)
    versions = sorted(_versions(folder))
    if not versions:
        return config
    highest = versions[-1]
    return dataclasses.replace(config, version=highest, folders=(folder / str(highest), *config.folders))


def _versions(folder: Path) -> Iterator[int]:
    for entry in _entries(folder):
        if entry.name.isdecimal() and entry.is_dir():
            if not _VERSION.fullmatch(entry.name):
                raise ConfigError(
                    f"version folder {entry} is no number from 1 to 999999999, written without leading zeros; rename it"
                )
            yield int(entry.name)


def _entries(folder: Path) -> Iterator[Path]:
    try:
        yield from folder.iterdir()
    except OSError as cause:
        raise ConfigError(f"{folder} cannot be read ({cause}), expected a folder that this user may list") from cause
