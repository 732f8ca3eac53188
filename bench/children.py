"""Processes that measure, and what they tell their parent.

A role of a benchmark runs as a process of its own, so that it shares no interpreter with another. It tells
its parent what it has to say in lines of JSON on its standard output, and ends when its parent does.
"""

import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["ONE_THREAD", "START_S", "Child", "Children", "follow_the_parent", "say"]

START_S = 20.0  # a child imports numpy: 0.1 s on a quiet machine
STOP_S = 2.0
# The linear algebra of each process: several that take all cores each run ten times slower.
ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}

_ROOT = Path(__file__).resolve().parents[1]


def say(**words: object) -> None:
    """Tell the parent something, and how much CPU time this process has used."""
    print(json.dumps({**words, "cpu_s": time.process_time()}), flush=True)


@dataclass(slots=True)
class Child:
    """A role and its process."""

    role: str
    process: subprocess.Popen[bytes]
    used_at_start_s: float = 0.0


class Children:
    """The processes of a module that has roles; leaving the block ends each by its process id."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._living: list[Child] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, role: str, **settings: object) -> Child:
        """Starts `python -m MODULE role ROLE SETTINGS`."""
        command = [sys.executable, "-m", self._module, "role", role, json.dumps(settings)]
        pipe = subprocess.PIPE
        # A group of its own: Ctrl-C reaches the parent alone, which then ends its children one by one.
        process = subprocess.Popen(
            command, cwd=_ROOT, env={**os.environ, **ONE_THREAD}, stdin=pipe, stdout=pipe, process_group=0
        )
        child = Child(role, process)
        self._living.append(child)
        return child

    def hear(self, child: Child, within_s: float = START_S) -> dict[str, Any]:
        """Return the child's next line; what CPU time it used until then is charged to its start."""
        assert child.process.stdout is not None
        who = f"{child.role} {child.process.pid} of {self._module}"
        if not select.select([child.process.stdout], [], [], within_s)[0]:
            raise TimeoutError(f"{who} was silent for {within_s:g} s, expected a line; is the machine busy?")
        line = child.process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{who} ended before it had spoken; its own words are above")
        said: dict[str, Any] = json.loads(line)
        child.used_at_start_s = said["cpu_s"]
        return said

    def stop(self) -> dict[str, float]:
        """End all children; returns the CPU seconds that each role has used since its last line."""
        used_s: defaultdict[str, float] = defaultdict(float)
        while self._living:
            child = self._living[-1]
            before_s = _cpu_of_the_reaped_s()
            _end(child.process)
            used_s[child.role] += _cpu_of_the_reaped_s() - before_s - child.used_at_start_s
            self._living.pop()
        return used_s


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()


def _cpu_of_the_reaped_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def follow_the_parent() -> None:
    """End when the parent does, even if it was killed."""

    def wait_for_the_parent() -> None:
        os.read(0, 1)  # nobody writes: this returns when the parent's end of the pipe is gone
        os._exit(1)

    threading.Thread(target=wait_for_the_parent, daemon=True).start()
