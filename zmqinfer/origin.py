"""Where in a user's code an error came from: the error itself reaches the caller, who does not have that code."""

from __future__ import annotations

from pathlib import Path

__all__ = ["origin"]

_OURS = str(Path(__file__).parent)
_ZOO = str(Path(__file__).parent / "zoo")
# The innermost frames say most.
_FRAMES = 3


def origin(error: BaseException) -> str:
    """Returns the innermost frames of a traceback, without ours, as `file:line function`; empty if there are none."""
    frames: list[str] = []
    place = error.__traceback__
    while place is not None:
        code = place.tb_frame.f_code
        file = code.co_filename
        if not file.startswith((_OURS, "<frozen")) or file.startswith(_ZOO):
            frames.append(f"{Path(file).name}:{place.tb_lineno} {code.co_name}")
        place = place.tb_next
    return ", ".join(frames[-_FRAMES:])
