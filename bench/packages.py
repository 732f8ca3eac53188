"""Programs of Debian's packages that a measurement or a trial needs."""

from __future__ import annotations

import os
import shutil
import subprocess

__all__ = ["Missing", "installed", "program"]


class Missing(Exception):
    """Something cannot be had here; says which and why, and what to do."""


def program(name: str, package: str) -> str:
    """Returns the path of a program; where we are root on Debian its package is installed if need be.

    Raises:
        Missing: it is not there.
    """
    if _found(name) is None and os.geteuid() == 0 and shutil.which("apt-get") is not None:
        print(f"installing {package} (once)", flush=True)
        for words in (("update", "-qq"), ("install", "-y", "-qq", package)):
            subprocess.run(["apt-get", *words], check=False, capture_output=True, timeout=300)
    return installed(name, package)


def installed(name: str, package: str) -> str:
    """Returns the path of a program; raises `Missing` if it is not there."""
    found = _found(name)
    if found is None:
        raise Missing(f"{name} is not installed; on Debian: apt-get install {package}")
    return found


def _found(name: str) -> str | None:
    # Those of administrators are not on the path of everybody.
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
