"""What the peers need: an environment each, and wrk."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from bench.packages import Missing, program

__all__ = ["PEERS", "interpreter", "prepare", "wrk"]

PEERS = Path(__file__).resolve().parents[1] / "peers"
_STAMP = ".requirements"


def interpreter(peer: str) -> Path:
    """Returns the interpreter of a peer's environment."""
    return PEERS / peer / ".venv" / "bin" / "python"


def prepare(peer: str) -> None:
    """Makes a peer's environment, unless it is there and of the same requirements.

    Raises:
        Missing: it cannot be made, as without a package index.
    """
    folder = PEERS / peer
    wanted = f"{sys.version}\n{(folder / 'requirements.txt').read_text()}"
    stamp = folder / ".venv" / _STAMP
    if stamp.exists() and stamp.read_text() == wanted:
        return
    print(f"making the environment of {peer} (once)", flush=True)
    try:
        _run(sys.executable, "-m", "venv", "--clear", str(folder / ".venv"))
        pip = [str(interpreter(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run(*pip, "-r", str(folder / "requirements.txt"))
    except subprocess.CalledProcessError as error:
        last = (error.stderr or error.stdout or "no words").strip().splitlines()[-1]
        raise Missing(f"{peer}: its environment could not be made ({last})") from error
    stamp.write_text(wanted)


def wrk() -> str:
    """Returns the path of wrk, the compiled load generator; raises `Missing` if it cannot be had."""
    return program("wrk", "wrk")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
