"""The floors of the house: imports point downward only, and below the shells everything is pure."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "zmqinfer"

# Modules and packages by floor; docs/ARCHITECTURE.md has the picture. A new one must be given its floor here.
VOCABULARY = (
    "errors",
    "config",
    "records",
    "checks",
    "wire",
    "tensor",
    "signature",
    "model_config",
    "origin",
    "scenario",
)
FLOORS = {
    **dict.fromkeys(VOCABULARY, 0),
    "policy": 1,
    "machine": 2,
    "loop": 3,
    **dict.fromkeys(("node", "client", "aio"), 4),
    **dict.fromkeys(("cli", "load", "launch", "edge", "__main__"), 5),
}
# Beside the floors: what each may import of the house. The models in zoo/ are loaded by path, as a user's are.
SIDE_ROOMS = {"sim": {*VOCABULARY, "policy", "machine", "loop"}, "backends": {*VOCABULARY}, "zoo": {*VOCABULARY}}
# The only imports between two packages of one floor.
NEIGHBOURS = {("client", "node"), ("aio", "node"), ("__main__", "cli")} | {
    ("cli", room) for room in ("load", "launch", "edge")
}
# The floor from which the package itself may be imported, for its `__version__`, and the side rooms may.
SHELLS = 4

BASIC = {"msgpack", "numpy"}
THIRD_PARTY = {
    **dict.fromkeys((*VOCABULARY, "machine", "loop", "zoo"), BASIC),
    **dict.fromkeys(("policy", "sim"), BASIC | {"xxhash"}),
    "backends": {"numpy"},
    **dict.fromkeys(("node", "client", "aio"), BASIC | {"zmq"}),
}
PURE = {*VOCABULARY, "policy", "machine", "loop", "sim", "backends"}
# Rooms that draw from sources with a seed.
SEEDED = {"sim", "scenario"}
IMPURE = {"asyncio", "datetime", "logging", "random", "secrets", "select", "socket", "threading", "time", "uuid", "zmq"}
UNSAFE = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}
# What runs through a set in its order, which differs from process to process.
ITERATING = {"enumerate", "iter", "list", "map", "tuple", "zip"}


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(node: ast.AST) -> Iterator[str]:
    """The absolute names that an import statement brings in."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        assert not node.level, "imports are absolute"
        for alias in node.names:
            yield f"{node.module}.{alias.name}" if node.module in {"zmqinfer", "os", "random"} else str(node.module)


def may_import(room: str, other: str) -> bool:
    """Whether a module of `room` may import one of `other`, both being rooms of the house."""
    if room == other:
        return True
    if room in SIDE_ROOMS:
        return other in SIDE_ROOMS[room]
    floor = FLOORS[room]
    if other in FLOORS and floor != FLOORS[other]:
        return FLOORS[other] < floor
    return (room, other) in NEIGHBOURS or floor == 0 == FLOORS.get(other) or (floor >= SHELLS and other not in FLOORS)


def wrong_imports(room: str, tree: ast.Module) -> Iterator[str]:
    top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        for name in imports(node):
            package, _, rest = name.partition(".")
            if package == "zmqinfer":
                other = rest.partition(".")[0] or "__version__"
                if other not in FLOORS | SIDE_ROOMS and other != "__version__":
                    yield f"{name}, which is in no room of the house"
                elif not may_import(room, other):
                    yield f"{name}, which is not below {room}"
            elif package in IMPURE or name == "os.urandom":
                if room in PURE and not (room in SEEDED and name == "random.Random"):
                    yield f"{name}, which is not pure"
            elif package in sys.stdlib_module_names or (room == "backends" and id(node) not in top):
                continue  # a backend's own library is imported inside its functions
            elif package not in THIRD_PARTY.get(room, {package}):
                yield f"{name}, which {room} may not use"


def impurities(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            if (node.value.id, node.attr) in {("os", "urandom"), ("np", "random"), ("numpy", "random")}:
                yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.For | ast.comprehension) and is_set(node.iter):
            yield "iteration over a set"
        elif isinstance(node, ast.Starred) and is_set(node.value):
            yield "a set spread out"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "hash":
                yield "hash()"
            if node.func.id in ITERATING and any(map(is_set, node.args)):
                yield f"{node.func.id}() of a set"


def is_set(node: ast.expr) -> bool:
    is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"set", "frozenset"}
    return is_call or isinstance(node, ast.Set | ast.SetComp)


def unsafe(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        yield from (name for name in imports(node) if name.partition(".")[0] in UNSAFE)
        if isinstance(node, ast.Attribute) and node.attr in {"recv_pyobj", "send_pyobj"}:
            yield node.attr
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in {"eval", "exec"}:
            yield f"{node.func.id}()"
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle" and ast.unparse(node.value) != "False":
            yield "allow_pickle other than False"


def faults(room: str, tree: ast.Module) -> list[str]:
    found = [*wrong_imports(room, tree), *unsafe(tree)]
    return [*found, *impurities(tree)] if room in PURE else found


MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_module_keeps_to_its_floor(path: Path) -> None:
    """It imports what lies below it, is pure below the shells, and never unpickles or evaluates."""
    room = room_of(path)
    assert room in FLOORS or room in SIDE_ROOMS, f"{room} has no floor; give it one in FLOORS or SIDE_ROOMS"

    assert not faults(room, ast.parse(path.read_text(encoding="utf-8")))


def module_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def circles(graph: Mapping[str, Iterable[str]]) -> list[tuple[str, ...]]:
    """The groups of modules that import each other, directly or around a corner."""
    found: list[tuple[str, ...]] = []

    def reach(start: str) -> dict[str, None]:
        seen: dict[str, None] = {}
        todo = [start]
        while todo:
            for other in graph.get(todo.pop(), ()):
                if other not in seen:
                    seen[other] = None
                    todo.append(other)
        return seen

    reached = {name: reach(name) for name in graph}
    for name in graph:
        circle = tuple(sorted(other for other in reached[name] if name in reached.get(other, {})))
        if circle and circle not in found:
            found.append(circle)
    return found


def test_no_modules_import_each_other() -> None:
    """Not for type checking either: who needs the other's type has its parts at the wrong place.

    The package itself gives away its `__version__`, and imports what users want of it only when they do.
    """
    modules = {module_of(path): path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"}
    graph = {
        name: sorted(
            {
                imported if imported in modules else imported.rpartition(".")[0]
                for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
                for imported in imports(node)
            }
            & modules.keys() - {name}
        )
        for name, path in modules.items()
    }
    assert graph["zmqinfer.machine.gateway.machine"]

    assert not circles(graph)


def test_circle_around_a_corner_is_seen() -> None:
    """A tree has none."""
    assert circles({"a": ["b", "d"], "b": ["c"], "c": ["a"], "d": []}) == [("a", "b", "c")]
    assert circles({"a": ["b", "c"], "b": ["c"], "c": []}) == []


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("wire", "from zmqinfer.policy.ring import Ring"),
        ("policy", "if TYPE_CHECKING:\n    from zmqinfer.machine.gateway.machine import GatewayMachine"),
        ("machine", "import zmqinfer.node.sockets"),
        ("machine", "from zmqinfer import __version__"),
        ("machine", "from zmqinfer.backends import base"),
        ("node", "from zmqinfer.client import Client"),
        ("launch", "from zmqinfer.cli import main"),
        ("backends", "from zmqinfer.policy.ring import Ring"),
        ("backends", "import torch"),
        ("node", "from zmqinfer.attic import box"),
        ("tensor", "import xxhash"),
        ("machine", "import time"),
        ("machine", "from os import urandom"),
        ("policy", "import os\nos.urandom(8)"),
        ("policy", "np.random.rand()"),
        ("policy", "from random import Random"),
        ("sim", "from random import random"),
        ("policy", "hash(key)"),
        ("policy", "for name in {first, second}: pass"),
        ("policy", "[name for name in set(names)]"),
        ("policy", "tuple({name for name in names})"),
        ("node", "def load():\n    import pickle"),
        ("cli", "eval(text)"),
        ("cli", "np.load(file, allow_pickle=True)"),
        ("cli", "np.load(file, allow_pickle=wanted)"),
        ("node", "socket.recv_pyobj()"),
    ],
)
def test_rule_sees_what_it_forbids(room: str, source: str) -> None:
    """One fault in each of these."""
    assert len(faults(room, ast.parse(source))) == 1


@pytest.mark.parametrize(
    ("room", "source"),
    [
        ("checks", "from zmqinfer.tensor import NAME"),
        ("machine", "from zmqinfer.policy.ring import Ring"),
        ("node", "from zmqinfer import __version__\nfrom zmqinfer.backends import make_backend\nimport zmq, time"),
        ("aio", "from zmqinfer.node.connection import Connection"),
        ("cli", "from zmqinfer.launch.supervisor import Supervisor\nfrom zmqinfer.zoo import ZOO"),
        ("backends", "def load():\n    import torch"),
        ("policy", "for name in sorted({first, second}): pass"),
        ("sim", "from random import Random"),
    ],
)
def test_rule_lets_pass_what_is_allowed(room: str, source: str) -> None:
    """Downward, within one room, between the named neighbours, and into the side rooms from the shells on."""
    assert not faults(room, ast.parse(source))
