"""What the peers need: an environment each, and wrk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["PEERS", "Missing", "interpreter", "prepare", "wrk"]

PEERS = Path(__file__).resolve().parents[1] / "peers"
_STAMP = ".requirements"


class Missing(Exception):
    """A peer or a tool cannot be had here; says which and why."""


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
    """Returns the path of wrk; where we are root on Debian it is installed if need be.

    Raises:
        Missing: it is not there.
    """
    found = shutil.which("wrk")
    if found is None and shutil.which("apt-get") is not None:
        print("installing wrk (once)", flush=True)
        for words in (("update", "-qq"), ("install", "-y", "-qq", "wrk")):
            subprocess.run(["apt-get", *words], check=False, capture_output=True, timeout=300)
        found = shutil.which("wrk")
    if found is None:
        raise Missing("wrk, the compiled load generator, is not installed; on Debian: apt-get install wrk")
    return found


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
