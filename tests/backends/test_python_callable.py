"""Functions and classes of the user's own."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any

import numpy as np
import pytest

from zmqinfer.backends.base import BadAnswer
from zmqinfer.backends.python_callable import BareFunction, PythonCallable, find_target
from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.signature import ANY, Signature, TensorSpec
from zmqinfer.tensor import Array

ECHO = Signature((TensorSpec("x", "FP32", (-1,)),), (TensorSpec("y", "FP32", (-1,)),))
X = np.arange(6, dtype=np.float32).reshape(2, 3)


@pytest.fixture(autouse=True)
def _clean_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test imports is forgotten behind it."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write(path: Path, source: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(source))
    return path


def model(*folders: Path, target: str = "model:predict", **parameters: object) -> PythonCallable:
    settings = ModelSettings(target=target)
    return PythonCallable(
        ModelConfig("scorer", settings, ECHO, parameters, source="scorer/model.toml", folders=folders)
    )


def loaded(*folders: Path, target: str = "model:predict", **parameters: object) -> PythonCallable:
    backend = model(*folders, target=target, **parameters)
    backend.load()
    return backend


def refused(*folders: Path, target: str = "model:predict", **parameters: object) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(*folders, target=target, **parameters)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("scorer/model.toml: ")
    return str(caught.value).removeprefix("scorer/model.toml: ")


def test_a_function_gets_the_batch_and_its_answer_is_the_answer(tmp_path: Path) -> None:
    """Arrays by name both ways."""
    write(tmp_path / "model.py", "def predict(batch): return {'y': batch['x'] * 2}")

    backend = loaded(tmp_path)

    assert backend.signature is ECHO
    assert backend.infer({"x": X})["y"].tolist() == (X * 2).tolist()
    assert (backend.before, backend.after) == (None, None)
    backend.close()


SCALE = """
class Scale:
    calls = []
    def __init__(self, factor=1, shift=0): self.factor, self.shift = factor, shift
    def load(self): self.calls.append("load")
    def infer(self, batch): return {"y": batch["x"] * self.factor + self.shift}
    def close(self): self.calls.append("close")
    def before(self, item): return item
    def after(self, item): return item
"""


def test_a_class_is_made_with_the_parameters_loaded_and_closed(tmp_path: Path) -> None:
    """load() once before the first batch, close() once after the last."""
    write(tmp_path / "model.py", SCALE)

    backend = loaded(tmp_path, target="model:Scale", factor=3, shift=1)
    calls = backend.before.__self__.calls  # type: ignore[union-attr]

    assert backend.infer({"x": X})["y"].tolist() == (X * 3 + 1).tolist()
    assert calls == ["load"]
    assert backend.before is not None
    assert backend.after is not None
    assert backend.after({"y": X}) == {"y": X}
    backend.close()
    backend.close()
    assert calls == ["load", "close"]


def test_a_class_needs_nothing_but_infer(tmp_path: Path) -> None:
    """load, close and the hooks are optional, and may be None."""
    write(
        tmp_path / "model.py",
        """
        class Bare:
            after = None
            def infer(self, batch): return {"y": batch["x"]}
        """,
    )

    backend = loaded(tmp_path, target="model:Bare")

    assert (backend.before, backend.after) == (None, None)
    assert backend.infer({"x": X})["y"] is X
    backend.close()


def test_an_object_serves_as_it_is(tmp_path: Path) -> None:
    """With infer() like one of a class, else by being called; a bound method is a function."""
    write(
        tmp_path / "model.py",
        SCALE
        + dedent(
            """
            class Call:
                def __call__(self, batch): return {"y": -batch["x"]}
            scale, call = Scale(5), Call()
            """
        ),
    )

    for target, factor in (("scale", 5), ("scale.infer", 5), ("call", -1)):
        backend = loaded(tmp_path, target=f"model:{target}")
        assert backend.infer({"x": X})["y"].tolist() == (X * factor).tolist()


def test_the_version_comes_before_the_model_and_both_before_the_path(tmp_path: Path) -> None:
    """The nearest file wins, even over a module that everybody knows."""
    version, folder, path = tmp_path / "m" / "2", tmp_path / "m", tmp_path / "site"
    sys.path.insert(0, str(path))
    for place in (path, folder, version):
        write(place / "json.py", f"def predict(batch): return {{'y': {str(place)!r}}}")
    write(path / "only_here.py", "def predict(batch): return {'y': 'path'}")

    def answer(target: str, *folders: Path) -> object:
        return loaded(*folders, target=target).infer({"x": X})["y"]

    assert answer("json:predict", version, folder) == str(version)
    (version / "json.py").unlink()
    assert answer("json:predict", version, folder) == str(folder)
    assert answer("only_here:predict", version, folder) == "path"
    assert sys.modules["only_here"].__file__ == str(path / "only_here.py")


def test_two_models_may_both_have_a_model_py_with_helpers_of_one_name(tmp_path: Path) -> None:
    """Each gets its own, by a relative import, in a package of its own."""
    for name in ("a", "b"):
        write(
            tmp_path / name / "model.py",
            "from . import helper\ndef predict(batch): return {'y': helper.NAME}",
        )
        write(tmp_path / name / "helper.py", f"NAME = {name!r}")

    a, b = loaded(tmp_path / "a"), loaded(tmp_path / "b")

    assert (a.infer({}), b.infer({})) == ({"y": "a"}, {"y": "b"})
    assert "model" not in sys.modules
    assert "helper" not in sys.modules


def test_a_model_loaded_twice_shares_nothing(tmp_path: Path) -> None:
    """As in two workers of one process."""
    write(tmp_path / "model.py", "seen = []\ndef predict(batch): seen.append(1); return {'y': len(seen)}")

    first, second = loaded(tmp_path), loaded(tmp_path)

    assert [first.infer({}), first.infer({}), second.infer({})] == [{"y": 1}, {"y": 2}, {"y": 1}]


def test_a_target_may_lie_in_a_package(tmp_path: Path) -> None:
    """With or without __init__.py, and dotted on both sides."""
    write(
        tmp_path / "deep" / "inner" / "net.py",
        "class Box:\n    @staticmethod\n    def run(batch): return {'y': 1}",
    )
    write(tmp_path / "pack" / "__init__.py", "from .part import predict")
    write(tmp_path / "pack" / "part.py", "def predict(batch): return {'y': 2}")

    assert loaded(tmp_path, target="deep.inner.net:Box.run").infer({}) == {"y": 1}
    assert loaded(tmp_path, target="pack:predict").infer({}) == {"y": 2}


def test_a_dataclass_in_a_model_works(tmp_path: Path) -> None:
    """It looks its own module up by name."""
    write(
        tmp_path / "model.py",
        """
        from __future__ import annotations
        import dataclasses
        @dataclasses.dataclass(slots=True)
        class Add:
            by: float = 1
            kind: dataclasses.KW_ONLY = None
            def infer(self, batch): return {"y": batch["x"] + self.by}
        """,
    )

    assert loaded(tmp_path, target="model:Add", by=2).infer({"x": X})["y"].tolist() == (X + 2).tolist()


@pytest.mark.parametrize(
    ("source", "target", "sentence"),
    [
        ("", "model", "target is 'model', expected module:callable; write for example 'scorer:predict'"),
        ("", "../model:predict", "expected module:callable"),
        ("", "model:", "expected module:callable"),
        ("", "model:predict()", "expected module:callable"),
        (
            "",
            "model.py:predict",
            "but no module 'model.py' is in {folder}, sys.path; write 'model:predict', without .py",
        ),
        ("", "./a/model.py:predict", "expected module:callable; write 'a.model:predict', without .py"),
        ("", "/a/model.py:predict", "expected module:callable; write for example 'scorer:predict'"),
        ("", "modle:predict", "but no module 'modle' is in {folder}, sys.path; put modle.py there"),
        ("", "a.b.c:predict", "but no module 'a.b.c' is in {folder}, sys.path; put a/b/c.py there"),
        ("", "model:predict", "but {folder}/model.py has no 'predict'; define it or correct the name"),
        ("class A: pass", "model:A.b", "has no 'A.b'"),
        ("predict = 3", "model:predict", "is a int, expected a function or a class with infer(batch)"),
        ("class P: pass", "model:P", "P, expected a function or a class with infer(batch)"),
        ("class P: infer = 3", "model:P", "is a int, expected a function"),
        (
            "class P:\n  load = 3\n  def infer(self, b): pass",
            "model:P",
            "load of target 'model:P' is 3, expected a",
        ),
        (
            "async def predict(b): pass",
            "model:predict",
            "is a coroutine or a generator, expected a plain function",
        ),
        ("def predict(b): yield 1", "model:predict", "is a coroutine or a generator"),
        ("1 / 0", "model:predict", "raised while loading: ZeroDivisionError: division by zero"),
        ("def f(:", "model:predict", "raised while loading: SyntaxError: "),
        ("import sys; sys.exit(3)", "model:predict", "raised while loading: SystemExit: 3"),
        (
            "raise KeyboardInterrupt",
            "model:predict",
            "target 'model:predict' raised while loading: KeyboardInterrupt (",
        ),
        ("def __getattr__(name): raise GeneratorExit", "model:predict", "raised while loading: GeneratorExit"),
        ("class E(Exception):\n  def __str__(self): 1 / 0\nraise E", "model:predict", "E: its message cannot be shown"),
        ("class P:\n  @property\n  def infer(self): 1 / 0", "model:P", "raised while loading: ZeroDivisionError"),
        ("raise ValueError", "model:predict", "target 'model:predict' raised while loading: ValueError"),
        ("raise ValueError('two\\nlines')", "model:predict", "ValueError: two lines"),
        ("import no_such_thing", "model:predict", "ModuleNotFoundError: No module named 'no_such_thing'"),
        ("import side", "model:predict", "; it lies beside the target, so write: from . import side"),
        ("from . import gone", "model:predict", "ImportError: cannot import name 'gone'"),
        ("class P:\n  def __init__(self): 1 / 0", "model:P", "raised while loading: ZeroDivisionError"),
        ("class P:\n  def __init__(self):\n    1 / 0", "model:P", "division by zero (model.py:3 __init__)"),
        (
            "class P:\n  def load(self): 1 / 0\n  def infer(self, b): pass",
            "model:P",
            "loading: ZeroDivisionError",
        ),
    ],
)
def test_a_target_that_cannot_be_loaded_is_one_sentence(
    tmp_path: Path, source: str, target: str, sentence: str
) -> None:
    """The file that names it, the target, and what is wrong with it."""
    write(tmp_path / "model.py", source)
    write(tmp_path / "side.py", "")

    assert sentence.format(folder=tmp_path) in refused(tmp_path, target=target)


def test_parameters_must_fit_the_class(tmp_path: Path) -> None:
    """A keyword that it does not know, or parameters for a function, are mistakes."""
    write(tmp_path / "model.py", SCALE + "def predict(batch): return batch")

    assert "TypeError" in refused(tmp_path, target="model:Scale", scale=2)
    assert "unexpected keyword argument 'scale'" in refused(tmp_path, target="model:Scale", scale=2)
    assert "[parameters] go as keywords to a class" in refused(tmp_path, factor=2)


def test_what_a_target_raises_reaches_the_engine(tmp_path: Path) -> None:
    """The engine answers for it, and bisects."""
    write(tmp_path / "model.py", "def predict(batch): raise KeyError('crop')")

    with pytest.raises(KeyError):
        loaded(tmp_path).infer({"x": X})


@pytest.mark.parametrize(("answer", "came"), [("batch['x']", "numpy.ndarray"), ("None", "NoneType"), ("[1]", "list")])
def test_an_answer_that_is_no_dict_is_a_model_error(tmp_path: Path, answer: str, came: str) -> None:
    """It says what came and which outputs were declared; the model did run."""
    write(tmp_path / "model.py", f"def predict(batch): return {answer}")

    with pytest.raises(BadAnswer, match=rf"model 'scorer' gave a {came}, expected a dict .* \(y\)"):
        loaded(tmp_path).infer({"x": X})


def predict(x: Array) -> Array:
    return x + 1


def test_a_bare_function_takes_and_gives_one_array() -> None:
    """Any dtype and shape, named x and y inside."""
    backend = BareFunction(predict)
    backend.load()

    assert backend.infer({"x": X})["y"].tolist() == (X + 1).tolist()
    assert backend.signature == Signature((TensorSpec("x", ANY, None),), (TensorSpec("y", ANY, None),))
    assert (backend.before, backend.after) == (None, None)
    backend.close()


class Adder:
    def __call__(self, x: Array) -> Array:
        return x

    def score(self, x: Array) -> Array:
        return x


def _renamed(name: object) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        return x

    function.__dict__.update(vars(predict))
    if isinstance(name, str):
        function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (predict, "predict"),
        (Adder().score, "score"),
        (np.negative, "negative"),
        (functools.partial(functools.partial(Adder().score)), "score"),
        (lambda x: x, "predict"),
        (Adder(), "predict"),
        (functools.partial(lambda x: x), "predict"),
        (_renamed("über"), "predict"),
        (_renamed("scorer-2"), "scorer-2"),
    ],
)
def test_a_bare_functions_model_is_named_after_it(function: Callable[[Array], Array], name: str) -> None:
    """And 'predict' where it has no name that may travel."""
    assert BareFunction(function).name == name


@pytest.mark.parametrize("answer", [None, [1.0], 3, {"y": X}, np.float32(1)])
def test_a_bare_functions_answer_must_be_an_array(answer: object) -> None:
    """Nothing is converted: a list of lists may mean many things."""
    backend = BareFunction(_giving(answer))
    backend.load()

    with pytest.raises(BadAnswer, match=r"function 'function' gave a .*, expected a numpy\.ndarray .* 2 it got"):
        backend.infer({"x": X})


def _giving(answer: Any) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        return answer  # type: ignore[no-any-return]

    return function


async def _coroutine(x: Array) -> Array:
    return x


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        (3, "target 'predict' is a int, expected a function or a class with infer(batch)"),
        (_coroutine, "target '_coroutine' is a coroutine or a generator"),
    ],
)
def test_what_is_no_plain_function_is_refused(value: Any, sentence: str) -> None:
    """At once, not at the first batch."""
    with pytest.raises(ConfigError) as caught:
        BareFunction(value)
    assert str(caught.value).startswith(sentence)


class Shifted:
    """A model as people write it: what is opened belongs to one object, and is closed."""

    def __init__(self, by: float = 0.5) -> None:
        self.by = by
        self.lives: list[str] = []

    def load(self) -> None:
        self.lives.append("load")

    def infer(self, x: Array) -> Array:
        return x + self.by

    def close(self) -> None:
        self.lives.append("close")


@pytest.mark.parametrize(("given", "name"), [(Shifted, "Shifted"), (Shifted(), "predict")])
def test_a_class_may_stand_for_a_bare_function(given: Any, name: str) -> None:
    """Made without arguments, loaded, and closed once; or an object of it, as it is."""
    backend = BareFunction(given)

    backend.load()
    answer = backend.infer({"x": X})["y"]
    owner = backend._infer.__self__  # type: ignore[attr-defined]
    backend.close()
    backend.close()

    assert (backend.name, answer.tolist()) == (name, (X + 0.5).tolist())
    assert isinstance(owner, Shifted)
    assert owner.lives == ["load", "close"]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (int, "target 'int' is a int, expected a function or a class with infer(batch)"),
        (type("P", (), {"infer": 3}), "target 'P' is a int, expected a function or a class with infer(batch)"),
        (type("P", (), {"infer": predict, "load": 3}), "load of target 'P' is 3, expected a method"),
        (type("P", (), {"infer": predict, "after": predict}), "target 'P' has after(item), expected infer, load and"),
    ],
)
def test_a_class_that_cannot_stand_for_one_is_refused_when_it_is_made(given: Any, sentence: str) -> None:
    """In the words that a model folder's class gets."""
    backend = BareFunction(given)

    with pytest.raises(ConfigError) as caught:
        backend.load()
    assert str(caught.value).startswith(sentence)


def test_a_target_is_found_without_a_model_folder(tmp_path: Path) -> None:
    """For `zmqinfer up scorer:predict`: on sys.path alone, and no file is named that is not there."""
    sys.path.insert(0, str(tmp_path))
    write(tmp_path / "my_scorer.py", "def predict(x): return x")

    assert callable(find_target("my_scorer:predict"))
    with pytest.raises(ConfigError, match=r"^target is 'my_scorre:predict', but no module 'my_scorre' is in sys\.path"):
        find_target("my_scorre:predict")
