"""CPU time and memory of processes, from /proc."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["Memory", "children_of", "command_of", "is_known", "used_s"]

_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def is_known() -> bool:
    """Whether this system tells; elsewhere than on Linux the columns stay empty."""
    return Path("/proc/self/stat").exists()


def used_s(pids: list[int]) -> float:
    """Returns the CPU seconds that processes have used in all of their threads, in steps of 10 ms."""
    return sum(sum(int(ticks) for ticks in _stat(pid)[11:13]) for pid in pids) / _TICKS_PER_S


def children_of(pid: int) -> list[int]:
    """Returns the ids of all descendants of a process."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents.setdefault(int(_stat(int(folder.name))[1]), []).append(int(folder.name))
        except (OSError, IndexError):  # it ended meanwhile
            continue
    found: list[int] = []
    asked = [pid]
    while asked:
        mine = parents.get(asked.pop(), [])
        found += mine
        asked += mine
    return found


def command_of(pid: int) -> str:
    """Returns a process's command line, empty for one that ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class Memory:
    """How much more memory a process has at most than when this was made."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._idle_bytes = self._read("VmRSS")
        Path(f"/proc/{pid}/clear_refs").write_text("5")  # forgets the peak so far

    def grown_bytes(self) -> int:
        """Returns the peak since then, less what it had then."""
        return self._read("VmHWM") - self._idle_bytes

    def _read(self, name: str) -> int:
        for line in Path(f"/proc/{self._pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
        return 0


def _stat(pid: int) -> list[str]:
    """Returns the fields of /proc/PID/stat behind the command's name: state, parent, ..."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
