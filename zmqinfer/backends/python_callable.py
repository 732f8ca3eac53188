"""The python backend: a function or a class of the user's own.

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
from typing import Any, TypeAlias

import numpy as np

from zmqinfer.backends.base import BadAnswer, ItemHook
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.origin import origin
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import NAME, Array, Arrays

__all__ = ["BareFunction", "Function", "PythonCallable", "find_target", "plain_callable"]

# Takes one array of n rows, gives one array of n rows.
Function: TypeAlias = Callable[[Array], Array]

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
        if inspect.isclass(found):
            found = _answered(functools.partial(found, **self._config.parameters), target, where)
        elif self._config.parameters:
            raise ConfigError(
                f"{where}[parameters] go as keywords to a class, but target {target!r} is none;"
                " make it a class with infer(batch), or remove the table"
            )
        method = getattr(found, "infer", None)
        if method is not None:
            self._own = {name: hook for name in _OPTIONAL if (hook := getattr(found, name, None)) is not None}
        self._infer = plain_callable(found if method is None else method, target, where)
        for name, hook in self._own.items():
            if not callable(hook):
                raise ConfigError(f"{where}{name} of target {target!r} is {hook!r}, expected a method")
        if "load" in self._own:
            _answered(self._own["load"], target, where)

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
    """Runs a function that takes one array of n rows and gives one array of n rows.

    It takes any dtype and shape, each batch being of one kind. Its model is named after it; what
    has no name of its own (a lambda, a callable object) is called 'predict', and a
    functools.partial is called as what it wraps.
    """

    before: None = None
    after: None = None

    def __init__(self, function: Function) -> None:
        self.name = _name_of(function)
        self.function: Function = plain_callable(function, self.name)
        self._signature = Signature((TensorSpec("x"),), (TensorSpec("y"),))

    @property
    def signature(self) -> Signature:
        """`x` to `y`, of any dtype and shape."""
        return self._signature

    def load(self) -> None:
        """Does nothing: the caller has the function in hand."""

    def infer(self, batch: Arrays) -> Arrays:
        """Calls the function, which may raise what it likes.

        Raises:
            BadAnswer: it is no array.
        """
        answer = self.function(batch["x"])
        if not isinstance(answer, np.ndarray):
            raise BadAnswer(
                f"function {self.name!r} gave {_described(answer)}, expected a numpy.ndarray with a row"
                f" for each of the {len(batch['x'])} it got"
            )
        return {"y": answer}

    def close(self) -> None:
        """Does nothing."""


def find_target(target: str, folders: Sequence[Path] = (), where: str = "") -> object:
    """Returns what "module:attr" names.

    Args:
        target: attr may be dotted; module may be, for one inside a package.
        folders: looked through in this order, before sys.path.
        where: put before every message: the file that the target is written in.

    Raises:
        ConfigError: there is no such module or attribute, or the module raised while it was loaded.
    """
    parts = _TARGET.fullmatch(target)
    if parts is None:
        todo = _meant(target) or "write for example 'scorer:predict'"
        raise ConfigError(f"{where}target is {target!r}, expected module:callable; {todo}")
    module = _module(parts[1], folders, target, where)
    found: object = module
    for name in parts[2].split("."):
        if not hasattr(found, name):
            place = getattr(module, "__file__", None) or f"module {parts[1]}"
            raise ConfigError(
                f"{where}target is {target!r}, but {place} has no {parts[2]!r}; define it or correct the name"
            )
        found = getattr(found, name)
    return found


def plain_callable(found: object, target: str, where: str = "") -> Callable[..., Any]:
    """Returns `found` if it can be called for one batch after the other.

    Raises:
        ConfigError: it is a class, a coroutine or generator function, or cannot be called at all.
    """
    if inspect.isclass(found):
        raise ConfigError(
            f"{where}target {target!r} is a class, expected a function; serve a class from a model folder"
        )
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
            raise ConfigError(f"{where}{_failure(target, cause)}{_advice(cause.name, folders)}") from cause
        searched = ", ".join([*(str(folder) for folder in folders), "sys.path"])
        todo = _meant(target) or f"put {name.replace('.', '/')}.py there or correct the name"
        raise ConfigError(f"{where}target is {target!r}, but no module {name!r} is in {searched}; {todo}") from cause
    # A user's module may raise anything, and one without a `__main__` guard may call sys.exit().
    except (Exception, SystemExit) as cause:
        raise ConfigError(f"{where}{_failure(target, cause)}") from cause


def _meant(target: str) -> str:
    """Returns what to write instead of the name of a file; empty for other mistakes."""
    file, _, attribute = target.rpartition(":")
    meant = f"{file.removeprefix('./').removesuffix('.py').replace('/', '.')}:{attribute}"
    return f"write {meant!r}, without .py" if file.endswith(".py") and _TARGET.fullmatch(meant) else ""


def _is_in(folder: Path, name: str) -> bool:
    place = folder.joinpath(*name.split("."))
    return place.with_name(f"{place.name}.py").is_file() or (place / "__init__.py").is_file()


def _advice(missing: str | None, folders: Sequence[Path]) -> str:
    if missing is not None and any(_is_in(folder, missing) for folder in folders):
        return f"; it lies beside the target, so write: from . import {missing}"
    return ""


def _answered(call: Callable[[], object], target: str, where: str) -> object:
    try:
        return call()
    except (Exception, SystemExit) as cause:  # the user's own code, see _module
        raise ConfigError(f"{where}{_failure(target, cause)}") from cause


def _failure(target: str, cause: BaseException) -> str:
    """Says in one line what the user's code raised; a worker logs the chained traceback when asked."""
    detail = " ".join(str(cause).split())
    at = origin(cause)
    told = f"{type(cause).__name__}{': ' if detail else ''}{detail}{f' ({at})' if at else ''}"
    return f"target {target!r} raised while loading: {told}"


def _name_of(function: object) -> str:
    while isinstance(function, functools.partial):
        function = function.func
    name = getattr(function, "__name__", "")
    return name if isinstance(name, str) and NAME.fullmatch(name) else "predict"


def _described(value: object) -> str:
    return f"a {type(value).__module__}.{type(value).__qualname__}".replace("a builtins.", "a ")
