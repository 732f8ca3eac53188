"""Where in a user's code an error came from: the error itself reaches the caller, who does not have that code."""

from __future__ import annotations

import os
from pathlib import Path
from types import CodeType

__all__ = ["origin", "told"]

_HERE = Path(__file__).parent
_OURS = f"{_HERE}{os.sep}"
_ZOO = f"{_HERE / 'zoo'}{os.sep}"
_STDLIB = f"{Path(os.__file__).parent}{os.sep}"
_INSTALLED = tuple(f"{os.sep}{name}{os.sep}" for name in ("site-packages", "dist-packages"))
# The innermost frames say most, and a value of a log line has room for 256 characters.
_MAX_FRAMES, _MAX_CHARACTERS = 8, 250


def told(error: BaseException) -> str:
    """Returns what an error says, its type first; its text is made by the user's code too, which may fail at that."""
    try:
        text = str(error)
    except BaseException as cause:  # noqa: BLE001 - as it may raise anything
        text = f"its message cannot be shown, for that raises {type(cause).__name__}"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def origin(error: BaseException) -> str:
    """Returns the innermost frames of the user's own code, as `file:line function`; empty if there are none.

    Code of libraries is not, unless the model is one itself: then it is the code of the folder that was entered first.
    """
    own: list[str] = []
    installed: list[tuple[Path, str]] = []
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        if _is_own(code):
            own.append(_shown(code, place.tb_lineno))
        elif any(part in code.co_filename for part in _INSTALLED) and not code.co_filename.startswith(_OURS):
            installed.append((Path(code.co_filename).parent, _shown(code, place.tb_lineno)))
        place = place.tb_next
    places = own or [text for folder, text in installed if folder == installed[0][0]]
    found = ", ".join(places[-_MAX_FRAMES:])
    while len(found) > _MAX_CHARACTERS:
        found = found.partition(", ")[2]
    return found


def _is_own(code: CodeType) -> bool:
    file = code.co_filename
    if file.startswith(_ZOO):
        return True
    return not file.startswith((_OURS, _STDLIB, "<frozen", "<__array")) and not any(part in file for part in _INSTALLED)


def _shown(code: CodeType, line: int) -> str:
    return f"{Path(code.co_filename).name}:{line} {code.co_name}"
