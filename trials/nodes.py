"""Nodes of zmqinfer in processes of their own, started through its command line and ended by their ids."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from zmqinfer.launch.pulse import DESCRIPTOR, Ear

__all__ = ["Node", "address", "free_port"]

_ROOT = Path(__file__).resolve().parents[1]
_END_S = 15.0


def free_port() -> int:
    """Returns a port of loopback at which nobody listens now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def address(port: int) -> str:
    """Returns where to dial a port of loopback."""
    return f"tcp://127.0.0.1:{port}"


@dataclass
class Node:
    """One process of zmqinfer that is started again and again under the same command.

    Attributes:
        there: what its parent enters to start it, if that is to be in another network than its own.
    """

    name: str
    command: list[str]
    folder: Path
    there: Callable[[], AbstractContextManager[object]] = nullcontext
    process: subprocess.Popen[bytes] | None = None
    # It ends when this end of its pipe does, if we are killed.
    _ear: Ear | None = None

    @property
    def pid(self) -> int:
        """The id of its present process."""
        assert self.process is not None
        return self.process.pid

    @property
    def is_running(self) -> bool:
        """Whether its present process has not ended."""
        return self.process is not None and self.process.poll() is None

    @property
    def log(self) -> str:
        """What all its lives have said so far."""
        return (self.folder / f"{self.name}.log").read_text(encoding="utf-8", errors="replace")

    def start(self) -> None:
        """Starts it, with its log behind that of its earlier lives."""
        # Settings of whoever runs this would make it another trial.
        own = {name: value for name, value in os.environ.items() if not name.startswith("ZMQINFER_")}
        self._forget()
        ear = self._ear = Ear()
        with (self.folder / f"{self.name}.log").open("ab") as log, self.there():
            self.process = subprocess.Popen(
                [sys.executable, "-m", "zmqinfer", *self.command],
                pass_fds=[ear.descriptor],
                cwd=_ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**own, DESCRIPTOR: str(ear.descriptor), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        ear.began()

    def _forget(self) -> None:
        if self._ear is not None:
            self._ear.listen(0.0)
            if self._ear.told:
                with (self.folder / f"{self.name}.log").open("a") as log:
                    log.write(f"zmqinfer: {self._ear.told}\n")
            self._ear.close()
            self._ear = None

    def send(self, number: signal.Signals) -> None:
        """Gives it a signal."""
        assert self.process is not None
        self.process.send_signal(number)

    async def ended(self, within_s: float = 40.0) -> int:
        """Waits for its end, and returns its exit code."""
        assert self.process is not None
        return await asyncio.to_thread(self.process.wait, within_s)

    def finish(self) -> None:
        """Ends it, politely first."""
        if self.is_running:
            self._end()
        self._forget()

    def _end(self) -> None:
        assert self.process is not None
        for number in (signal.SIGCONT, signal.SIGTERM):
            self.process.send_signal(number)
        try:
            self.process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
