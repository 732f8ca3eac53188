"""The processes of a soak test: `zmqinfer up`, what it says, and what it takes."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from trials.soak.verdict import Sample

__all__ = ["GATEWAYS", "WORKERS", "SoakError", "Up", "look_at"]

GATEWAYS, WORKERS = 2, 3
START_S = 40.0
GRACE_S = 10
STOP_S = 3.0 * GRACE_S
MB = 1e6

_ROOT = Path(__file__).resolve().parents[2]


class SoakError(Exception):
    """The trial itself cannot go on; the sentence is for whoever runs it."""


class Up:
    """A running `zmqinfer up`, and the processes that it looks after."""

    def __init__(self, folder: Path) -> None:
        """Starts it with its sockets and its log in this folder."""
        clients = f"ipc://{folder}/clients"
        self.addresses = [clients, *(f"{clients}-{number}" for number in range(1, GATEWAYS))]
        self._log = folder / "up.log"
        command = [
            sys.executable, "-m", "zmqinfer", "up", "--gateways", str(GATEWAYS), "--workers", str(WORKERS),
            "--clients", clients, "--workers-at", f"ipc://{folder}/workers", "--drain-grace-s", str(GRACE_S),
            "--log-level", "warning",
        ]  # fmt: skip
        # Settings of whoever runs this would make it another trial.
        own = {name: value for name, value in os.environ.items() if not name.startswith("ZMQINFER_")}
        with self._log.open("wb") as log:
            # A group of its own: Ctrl-C is for us to pass on.
            self.process = subprocess.Popen(
                command, cwd=_ROOT, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    @property
    def log(self) -> str:
        """What all its processes have said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        """Returns when all workers are there.

        Raises:
            SoakError: they are not, in time.
        """
        give_up_at = time.monotonic() + START_S
        while "ready: " not in self.log:
            self.check()
            if time.monotonic() > give_up_at:
                raise SoakError(f"`zmqinfer up` was not ready within {START_S:g} s; it said: {self._last_words()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises `SoakError` if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise SoakError(f"`zmqinfer up` ended with {code}; it said: {self._last_words()}")

    def _last_words(self) -> str:
        return " / ".join(self.log.strip().splitlines()[-5:]) or "nothing"

    def children(self) -> dict[str, int]:
        """Returns the ids of the gateways and workers that run now, by name."""
        found = {}
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in path.read_text().split():
                    if name := self._name_of(int(pid)):
                        found[name] = int(pid)
        return found

    def _name_of(self, pid: int) -> str:
        """What `up` calls a child; nothing for one that has ended or has yet to become what it will be."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            return ""
        if words[3:4] == ["worker"] and "--name" in words:
            return words[words.index("--name") + 1]
        if words[3:4] == ["gateway"] and "--clients" in words:
            return f"gateway_{self.addresses.index(words[words.index('--clients') + 1])}"
        return ""

    def stop(self) -> str:
        """Ends it as Ctrl-C does; returns a sentence if that did not go well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in (*self.children().values(), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            return f"`zmqinfer up` did not end within {STOP_S:g} s after SIGINT"
        return "" if code == 0 else f"`zmqinfer up` ended with {code}, expected 0; it said: {self._last_words()}"


def look_at(pid: int, at_s: float) -> Sample | None:
    """Returns what a process has now; None if there is no such process any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    words = {name: value for name, _, value in (line.partition(":") for line in lines)}
    if "VmRSS" not in words:  # it has ended, and nobody has asked for its exit code yet
        return None
    return Sample(at_s, int(words["VmRSS"].split()[0]) * 1_024 / MB, descriptors, int(words["Threads"]))
