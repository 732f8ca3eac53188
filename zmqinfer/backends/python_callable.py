"""The python backend: a function or a class of the user's own; and both without a model.toml.

`target = "module:attr"` names either a callable `f(batch) -> answers`, both dicts of arrays
over the batch axis, or a class with `infer(batch)` and, where wanted, `load()`, `close()`,
`before(item)` and `after(item)`; [parameters] of model.toml are the keywords of the class.

The module is looked for in the version's folder, then beside model.toml, then on sys.path.
One that lies in a model's folder is loaded by its path into a package of its own, made up
for this one model: two models may both have a `model.py`, and either may say
`from . import helper` and gets the helper that lies beside it.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import itertools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from zmqinfer.backends.base import BadAnswer, ItemHook, loading
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.origin import told
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import NAME, Array, Arrays

__all__ = ["BareFunction", "PythonCallable", "find_target", "no_module", "parts_of"]

_DOTTED = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"
_TARGET = re.compile(rf"({_DOTTED}):({_DOTTED})", re.ASCII)
_OPTIONAL = ("load", "close", "before", "after")
_packages = itertools.count(1)


class PythonCallable:
    """Runs the target of a model.toml."""

    def __init__(self, config: ModelConfig) -> None:
        assert config.signature is not None, config.source  # model_config insists on it
        self._config = config
        self._signature = config.signature
        self._infer: Callable[[Arrays], Any] | None = None
        self._own: dict[str, Callable[..., Any]] = {}

    @property
    def signature(self) -> Signature:
        """What model.toml declares."""
        return self._signature

    @property
    def before(self) -> ItemHook | None:
        """The method `before` of the user's class, if it has one."""
        return self._own.get("before")

    @property
    def after(self) -> ItemHook | None:
        """The method `after` of the user's class, if it has one."""
        return self._own.get("after")

    def load(self) -> None:
        """Imports the target, makes the object if it is a class, and calls its `load()`."""
        target, where = self._config.settings.target, f"{self._config.source}: "
        found = find_target(target, self._config.folders, where)
        with loading(f"{where}target {target!r}"):
            self._prepare(found, target, where)

    def _prepare(self, found: Any, target: str, where: str) -> None:
        if self._config.parameters and not inspect.isclass(found):
            raise ConfigError(
                f"{where}[parameters] go as keywords to a class, but target {target!r} is none;"
                " make it a class with infer(batch), or remove the table"
            )
        self._infer, self._own = _made(found, self._config.parameters, target, where)
        if "load" in self._own:
            self._own["load"]()

    def infer(self, batch: Arrays) -> Mapping[str, Array]:
        """Calls the target, which may raise what it likes.

        Raises:
            BadAnswer: it is no dict.
        """
        assert self._infer is not None, "load() comes first"
        answers = self._infer(batch)
        if type(answers) is not dict and not isinstance(answers, Mapping):
            outputs = ", ".join(spec.name for spec in self._signature.outputs)
            raise BadAnswer(
                f"model {self._config.name!r} gave {_described(answers)}, expected a dict of arrays by name"
                f" ({outputs}); correct {self._config.settings.target!r}"
            )
        return answers

    def close(self) -> None:
        """Calls the target's own `close()`, if it has one and was loaded."""
        if "close" in self._own:
            self._own.pop("close")()


class BareFunction:
    """Runs a function that takes one array of n rows and gives one array of n rows, or a class with such an `infer`.

    The class may have `load()` and `close()`, and is made without arguments. It takes any dtype and shape, each batch
    being of one kind. Its model is named after it; what has no name of its own (a lambda, a callable object) is called
    'predict', and a functools.partial is called as what it wraps.

    Args:
        function: the function, the class or an object of it.
        target: what messages call it, its name if empty.
    """

    before: None = None
    after: None = None

    def __init__(self, function: Any, target: str = "") -> None:
        self.name = _name_of(function)
        self._function = function
        self._target = target or self.name
        self._own: dict[str, Callable[..., Any]] = {}
        self._signature = Signature((TensorSpec("x"),), (TensorSpec("y"),))
        if not inspect.isclass(function):
            # At once; what a class is good for shows when it is made, on the model's thread.
            _made(function, {}, self._target)

    @property
    def signature(self) -> Signature:
        """`x` to `y`, of any dtype and shape."""
        return self._signature

    def load(self) -> None:
        """Makes the object if it is a class, and calls its `load()`."""
        self._infer, self._own = _made(self._function, {}, self._target)
        for name in ("before", "after"):
            if name in self._own:
                raise ConfigError(
                    f"target {self._target!r} has {name}(item), expected infer, load and close only, for nothing says"
                    " what an item is; serve it from a model folder, or drop the method"
                )
        if "load" in self._own:
            self._own["load"]()

    def infer(self, batch: Arrays) -> Arrays:
        """Calls the function, which may raise what it likes.

        Raises:
            BadAnswer: it is no array.
        """
        answer = self._infer(batch["x"])
        if not isinstance(answer, np.ndarray):
            raise BadAnswer(
                f"function {self.name!r} gave {_described(answer)}, expected a numpy.ndarray with a row"
                f" for each of the {len(batch['x'])} it got"
            )
        return {"y": answer}

    def close(self) -> None:
        """Calls its own `close()`, if it has one and was loaded."""
        if "close" in self._own:
            self._own.pop("close")()


def _made(
    found: Any, parameters: Mapping[str, object], target: str, where: str = ""
) -> tuple[Callable[..., Any], dict[str, Callable[..., Any]]]:
    """Returns what runs a batch, and the hooks beside it; makes the object first if it is a class."""
    if inspect.isclass(found):
        found = found(**parameters)
    method = getattr(found, "infer", None)
    own = {}
    if method is not None:
        own = {name: hook for name in _OPTIONAL if (hook := getattr(found, name, None)) is not None}
    for name, hook in own.items():
        if not callable(hook):
            raise ConfigError(f"{where}{name} of target {target!r} is {hook!r}, expected a method")
    return _plain_callable(found if method is None else method, target, where), own


def find_target(target: str, folders: Sequence[Path] = (), where: str = "") -> object:
    """Returns what "module:attr" names.

    Args:
        target: attr may be dotted; module may be, for one inside a package.
        folders: looked through in this order, before sys.path.
        where: put before every message: the file that the target is written in.

    Raises:
        ConfigError: there is no such module or attribute, or the module raised while it was loaded.
    """
    name, attribute = parts_of(target, where)
    with loading(f"{where}target {target!r}"):
        module = _module(name, folders, target, where)
        found: object = module
        for part in attribute.split("."):
            if not hasattr(found, part):
                place = getattr(module, "__file__", None) or f"module {name}"
                raise ConfigError(
                    f"{where}target is {target!r}, but {place} has no {attribute!r}; define it or correct the name"
                )
            found = getattr(found, part)
    return found


def parts_of(target: str, where: str = "") -> tuple[str, str]:
    """Returns the module and the attribute that "module:attr" names; raises `ConfigError` if it is written wrongly."""
    parts = _TARGET.fullmatch(target)
    if parts is None:
        todo = _meant(target) or "write for example 'scorer:predict'"
        raise ConfigError(f"{where}target is {target!r}, expected module:callable; {todo}")
    return parts[1], parts[2]


def no_module(target: str, folders: Sequence[Path] = (), where: str = "") -> ConfigError:
    """Says that the module of a target is in none of the folders, and not on sys.path."""
    name, _ = parts_of(target, where)
    searched = ", ".join([*(str(folder) for folder in folders), "sys.path"])
    todo = _meant(target) or f"put {name.replace('.', '/')}.py there or correct the name"
    return ConfigError(f"{where}target is {target!r}, but no module {name!r} is in {searched}; {todo}")


def _plain_callable(found: object, target: str, where: str) -> Callable[..., Any]:
    if not callable(found):
        raise ConfigError(
            f"{where}target {target!r} is {_described(found)}, expected a function or a class with infer(batch)"
        )
    if inspect.iscoroutinefunction(found) or inspect.isgeneratorfunction(found):
        raise ConfigError(
            f"{where}target {target!r} is a coroutine or a generator, expected a plain function;"
            " batches run on a thread of their own and need no await"
        )
    callee: Callable[..., Any] = found
    return callee


def _module(name: str, folders: Sequence[Path], target: str, where: str) -> ModuleType:
    full_name = name
    for folder in folders:
        if _is_in(folder, name):
            # Without a number two loads of one model, as by two workers in one process, would share globals.
            package = ModuleType(f"zmqinfer_model_{next(_packages)}")
            package.__path__ = [str(folder.absolute())]
            sys.modules[package.__name__] = package
            full_name = f"{package.__name__}.{name}"
            break
    importlib.invalidate_caches()  # the cached listing of a folder may be older than its newest file
    try:
        return importlib.import_module(full_name)
    except ModuleNotFoundError as cause:
        if cause.name is None or not f"{full_name}.".startswith(f"{cause.name}."):
            if cause.name is None or not any(_is_in(folder, cause.name) for folder in folders):
                raise
            raise ConfigError(
                f"{where}target {target!r} raised while loading: {told(cause)};"
                f" it lies beside the target, so write: from . import {cause.name}"
            ) from cause
        raise no_module(target, folders, where) from cause


def _meant(target: str) -> str:
    """Returns what to write instead of the name of a file; empty for other mistakes."""
    file, _, attribute = target.rpartition(":")
    meant = f"{file.removeprefix('./').removesuffix('.py').replace('/', '.')}:{attribute}"
    return f"write {meant!r}, without .py" if file.endswith(".py") and _TARGET.fullmatch(meant) else ""


def _is_in(folder: Path, name: str) -> bool:
    place = folder.joinpath(*name.split("."))
    return place.with_name(f"{place.name}.py").is_file() or (place / "__init__.py").is_file()


def _name_of(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", "")
    return name if isinstance(name, str) and NAME.fullmatch(name) else "predict"


def _described(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")
