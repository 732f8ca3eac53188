"""Starts another Python that imports from where this one does, and has one end with its parent.

Launchers (pex, Bazel, zip files, test runners) make up `sys.path` in the running program: a child that began with
`python -m zmqinfer` would find neither zmqinfer nor the user's modules.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

__all__ = ["end_with", "spawn"]

_PR_SET_PDEATHSIG = 1

# The environment has room for hundreds of long paths. The child takes it out again: its own children may be other
# Pythons. It imports nothing before its path is right: `os` and `sys` are there from the beginning.
_PATH = "ZMQINFER_SYS_PATH"
# The title comes first for `ps`, which may show eighty characters.
_PROGRAM = (
    "{title!r}; import os, sys; sys.path[:] = os.environ.pop({variable!r}).split('\\n');"
    " from {module} import main; main()"
)


def spawn(
    title: str,
    module: str,
    arguments: Sequence[str],
    environment: Mapping[str, str] = MappingProxyType({}),
    **options: Any,
) -> subprocess.Popen[bytes]:
    """Starts a process that calls `main()` of a module.

    Args:
        title: what the process is, for people who list processes.
        arguments: behind the first one of its `sys.argv`.
        environment: what is added to ours.
        options: further ones of `subprocess.Popen`.
    """
    program = _PROGRAM.format(title=title, variable=_PATH, module=module)
    return subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env={**os.environ, _PATH: "\n".join(map(str, sys.path)), **environment},
        stdin=subprocess.DEVNULL,
        **options,
    )


def end_with(parent: int) -> None:
    """Has this process end when its parent does, even if that is killed, and at once if it is gone; on Linux alone."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
