"""Where in a user's code an error came from."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

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
    """Three of them, as people look them up."""
    found = origin_of(KeyError, deep, 9)

    assert re.fullmatch(r"(test_origin\.py:\d+ deep(, )?){3}", found)


def test_libraries_are_places_too() -> None:
    """What the user's code called."""
    assert origin_of(ValueError, json.loads, "[").split(", ")[-1].startswith("decoder.py:")


def test_our_own_code_and_the_interpreters_is_none() -> None:
    """A user cannot mend it there."""
    assert re.fullmatch(r"test_origin\.py:\d+ origin_of", origin_of(Exception, decode, b"", []))
    assert re.fullmatch(
        r"test_origin\.py:\d+ origin_of", origin_of(ImportError, importlib.import_module, "no_such_module")
    )


def test_a_neighbour_of_ours_is_a_users() -> None:
    """Folders begin alike."""
    scope: dict[str, object] = {}
    folder = Path(zmqinfer.__file__).parent
    exec(compile("def f(): 1 / 0", f"{folder}_models/m.py", "exec"), scope)

    assert origin_of(ZeroDivisionError, scope["f"]).endswith("m.py:1 f")


def test_an_error_that_was_never_raised_has_none() -> None:
    """There is nothing to say."""
    assert origin(ConfigError("made, and not raised")) == ""
