"""One process that another looks after: started, listened to, and ended by its id."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from zmqinfer.launch.pulse import DESCRIPTOR, Ear
from zmqinfer.node.spawn import spawn

__all__ = ["Child"]

_FAILED = 1


@dataclass
class Child:
    """What should run: one process, and after its end another one.

    Attributes:
        name: for people.
        command: arguments of `zmqinfer`.
        environment: what is added to ours.
        process: the present process, or the last.
        ear: what it says.
        refusal: why the system refused the last one; empty if it did not.
        deaths: when its processes died of late; this and what follows is for its supervisor.
        was_ready: whether one of its processes has ever done what it is for.
        is_whole: whether the last one that did could do all of that.
        complaint: why it has not been ready since; empty if it has.
        restart_at: when the next process is due, while there is none.
        is_done: whether there is to be none any more.
    """

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ear: Ear | None = None
    refusal: str = ""
    deaths: deque[float] = field(default_factory=deque)
    was_ready: bool = False
    is_whole: bool = True
    complaint: str = ""
    restart_at: float | None = None
    is_done: bool = False

    def start(self) -> None:
        """Starts a process; one that the system refuses, as for want of memory, counts as one that has failed."""
        self.forget()
        self.process = self.restart_at = None
        self.refusal = ""
        try:
            ear = Ear()
        except OSError as error:
            self.refusal = str(error.strerror)
            return
        self.ear = ear
        try:
            self.process = self.spawn(
                ear.descriptor,
                # What a model prints is for whoever looks for a mistake; standard output is for what `up` says itself.
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
                # Ctrl-C at our terminal is for us to pass on, in our order.
                process_group=0,
            )
        except OSError as error:
            self.refusal = str(error.strerror)
        ear.began()

    def spawn(self, pulse: int, **options: Any) -> subprocess.Popen[bytes]:
        """Starts a process that has this descriptor for its pulse."""
        title = f"zmqinfer {self.command[0]} {self.name}"
        environment = {**self.environment, DESCRIPTOR: str(pulse)}
        return spawn(title, "zmqinfer.__main__", self.command, environment, pass_fds=[pulse], **options)

    def listen(self, now: float) -> None:
        """Takes what the present process has said."""
        if self.ear is not None:
            self.ear.listen(now)
            if self.ear.is_ready:
                self.was_ready = True
                self.is_whole = self.ear.is_whole
                self.complaint = ""

    def forget(self) -> None:
        """Lets go of what is left of a process that has ended."""
        if self.ear is not None:
            self.ear.close()
            self.ear = None

    def end(self) -> None:
        """Asks the present process to finish what it holds, and to end."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)

    @property
    def pid(self) -> int:
        """The present process's id, 0 while there is none."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0

    @property
    def code(self) -> int | None:
        """With what the last process ended; None while it runs."""
        return self.process.poll() if self.process is not None else _FAILED

    @property
    def is_ready(self) -> bool:
        """Whether the present process does what it is for."""
        return self.pid != 0 and self.ear is not None and self.ear.is_ready

    @property
    def why(self) -> str:
        """Why the last process ended: in its own words, if it had any."""
        if self.process is None:
            return f"the system refuses another process: {self.refusal}"
        return (self.ear.told if self.ear is not None else "") or _described(self.process.returncode)


def _has_descriptor(stream: TextIO | None) -> bool:
    if stream is None:  # it was closed before we began
        return False
    try:
        return stream.fileno() >= 0
    except (OSError, ValueError):  # replaced by one that keeps what it gets
        return False


def _described(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"
