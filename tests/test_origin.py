"""Where in a user's code an error came from."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import zmqinfer
from zmqinfer.errors import ConfigError
from zmqinfer.origin import origin
from zmqinfer.wire import decode


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise KeyError("deep")


def origin_of(error: type[BaseException], *call: object) -> str:
    function, *arguments = call
    try:
        function(*arguments)  # type: ignore[operator]
    except error as caught:
        return origin(caught)
    raise AssertionError("it raised nothing")


def test_the_innermost_places_are_named() -> None:
    """Eight of them, and no more than a line of a log has room for."""
    found = origin_of(KeyError, deep, 20)

    assert re.fullmatch(r"(test_origin\.py:\d+ deep(, )?){8}", found)
    name = "f" * 90
    long = written("/home/me/m.py", f"def {name}(n): {name}(n - 1) if n else 1 // n")
    assert origin_of(ZeroDivisionError, long, 9) == ", ".join([f"m.py:1 {name}"] * 2)


def written(file: str, code: str) -> Callable[..., object]:
    """The last function of some code, as if it lay in a file."""
    scope: dict[str, Any] = {}
    exec(compile(code, file, "exec"), scope)
    return [value for name, value in scope.items() if callable(value)][-1]  # type: ignore[no-any-return]


def test_libraries_are_not_a_users_code() -> None:
    """An error shows there, and can be mended where they are called."""
    library = written("/x/lib/python3/site-packages/torch/nn.py", "def forward(f): f()")
    system = written("/usr/lib/python3/dist-packages/scipy/fft.py", "def fft(f, x): f(x)")

    assert re.fullmatch(r"test_origin\.py:\d+ origin_of", origin_of(ValueError, json.loads, "["))
    assert re.fullmatch(
        r"test_origin\.py:\d+ origin_of, test_origin\.py:\d+ <lambda>, test_origin\.py:\d+ deep",
        origin_of(KeyError, library, lambda: system(deep, 0)),
    )


def test_a_model_that_is_a_library_itself_has_places_too() -> None:
    """Those of its own folder; what it calls is elsewhere."""
    folder = "/x/lib/python3/site-packages"
    target = written(f"{folder}/scorer/model.py", "def infer(f): f()")
    called = written(f"{folder}/torch/nn.py", "def forward(): 1 / 0")

    with pytest.raises(ZeroDivisionError) as caught:
        target(called)
    # Without the frame of this test.
    places = caught.tb.tb_next

    assert origin(caught.value.with_traceback(places)) == "model.py:1 infer"


def test_our_own_code_and_the_interpreters_is_none() -> None:
    """A user cannot mend it there."""
    assert re.fullmatch(r"test_origin\.py:\d+ origin_of", origin_of(Exception, decode, b"", []))
    assert re.fullmatch(
        r"test_origin\.py:\d+ origin_of", origin_of(ImportError, importlib.import_module, "no_such_module")
    )


def test_a_neighbour_of_ours_is_a_users() -> None:
    """Folders begin alike."""
    folder = Path(zmqinfer.__file__).parent

    assert origin_of(ZeroDivisionError, written(f"{folder}_models/m.py", "def f(): 1 / 0")).endswith("m.py:1 f")


def test_an_error_that_was_never_raised_has_none() -> None:
    """There is nothing to say."""
    assert origin(ConfigError("made, and not raised")) == ""
