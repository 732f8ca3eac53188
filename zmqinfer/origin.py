"""Where in a user's code an error came from: the error itself reaches the caller, who does not have that code."""

from __future__ import annotations

import importlib
import os
from collections import deque
from pathlib import Path
from types import CodeType

__all__ = ["origin", "told"]

_HERE = Path(__file__).parent
_OURS = f"{_HERE}{os.sep}"
_ZOO = f"{_HERE / 'zoo'}{os.sep}"
_IMPORTLIB = f"{Path(importlib.__file__).parent}{os.sep}"
# The innermost frames say most.
_FRAMES = 3


def told(error: BaseException) -> str:
    """Returns what an error says, its type first; its text is made by the user's code too, which may fail at that."""
    try:
        text = str(error)
    except BaseException as cause:  # noqa: BLE001 - as it may raise anything
        text = f"its message cannot be shown, for that raises {type(cause).__name__}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def origin(error: BaseException) -> str:
    """Returns the innermost frames of a traceback, without ours, as `file:line function`; empty if there are none."""
    frames: deque[tuple[CodeType, int]] = deque(maxlen=_FRAMES)
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        file = code.co_filename
        if not file.startswith((_OURS, _IMPORTLIB, "<frozen")) or file.startswith(_ZOO):
            frames.append((code, place.tb_lineno))
        place = place.tb_next
    return ", ".join(f"{Path(code.co_filename).name}:{line} {code.co_name}" for code, line in frames)
