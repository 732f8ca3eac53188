"""Child processes that are restarted when they die.

For `zmqinfer up`. Restarting is owned by exactly one party: here it is this one. A child that exits
with 0 was drained and stays down; one that dies comes back after a back-off of 0.5 to 30 s. Five deaths
within a minute, before it was ever ready, are a crash loop, and the supervisor gives up on all rather than
hide it. One that was ready dies of what it is asked, and nobody's input shall end the others.
A child that gives no sign of life for a while hangs, and is killed. Children that are to be renewed are
drained and started again one after another, each when the one before is ready.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

from zmqinfer.launch.pulse import DESCRIPTOR, Ear
from zmqinfer.node.report import Report
from zmqinfer.node.spawn import spawn

__all__ = ["Child", "Supervisor"]

MAX_DEATHS = 5
DEATHS_WITHIN_S = 60.0
BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
HANG_S = 10.0
_LOOK_S = 0.05
# A supervisor that did not look for so long was stopped itself.
_AWAY_S = 1.0
# Exit codes, a child's or ours.
_USAGE = 2
_CRASH_LOOP = 4


@dataclass
class Child:
    """One process that should run.

    Attributes:
        name: for people.
        command: arguments of `zmqinfer`.
        environment: what is added to ours.
        ear: for the signs of life of the present process.
    """

    name: str
    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    ear: Ear | None = None
    deaths: deque[float] = field(default_factory=deque)
    was_ever_ready: bool = False
    restart_at: float | None = None
    is_done: bool = False

    def start(self) -> None:
        """Starts the process. Ctrl-C at our terminal is for us to pass on, in our order."""
        self.forget()
        ear = self.ear = Ear()
        self.process = self.spawn(
            ear.descriptor,
            # What a model prints is for whoever looks for a mistake; standard output is for what `up` says itself.
            stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
            process_group=0,
        )
        ear.began()
        self.restart_at = None

    def spawn(self, pulse: int, **options: Any) -> subprocess.Popen[bytes]:
        """Starts a process that has this descriptor for its pulse."""
        title = f"zmqinfer {self.command[0]} {self.name}"
        environment = {**self.environment, DESCRIPTOR: str(pulse)}
        return spawn(title, "zmqinfer.cli", self.command, environment, pass_fds=[pulse], **options)

    def forget(self) -> None:
        """Lets go of what is left of a process that has ended."""
        if self.ear is not None:
            self.ear.close()
            self.ear = None

    @property
    def is_ready(self) -> bool:
        """Whether the present process does what it is for."""
        return self.pid != 0 and self.ear is not None and self.ear.is_ready

    @property
    def pid(self) -> int:
        """The process's id, 0 while it is down."""
        return self.process.pid if self.process is not None and self.process.poll() is None else 0


class Supervisor:
    """Keeps children running until it is told to stop, or gives up.

    Args:
        hang_s: a child that was silent for so long is killed, in seconds; 0: none is.

    Attributes:
        gave_up: why, or empty.
        exit_code: of a process that ends for that reason.
    """

    def __init__(self, children: Sequence[Child], hang_s: float = HANG_S) -> None:
        self.children = list(children)
        self.gave_up = ""
        self.exit_code = 0
        self._hang_s = hang_s or float("inf")
        self._looked_at = 0.0
        self._to_renew: deque[Child] = deque()
        # The first of those while it is drained or started, and the process that it had.
        self._renewed: Child | None = None
        self._earlier: subprocess.Popen[bytes] | None = None
        self._report = Report("up")

    def renew(self, children: Iterable[Child]) -> None:
        """Drains children and starts them again, one after another, in the course of the next looks."""
        self._to_renew = deque(child for child in children if not child.is_done)
        self._report.info("restarting one after another", children=len(self._to_renew))

    def tend(self, now: float) -> None:
        """Looks after every child once: notices deaths and silence, restarts what is due."""
        was_away = now - self._looked_at > _AWAY_S
        self._looked_at = now
        for child in self.children:
            if child.ear is not None:
                child.ear.listen(now)
                if was_away:
                    child.ear.forgive(now)
        self._go_on_renewing()
        for child in self.children:
            if child.is_done:
                continue
            if child.restart_at is not None:
                if now >= child.restart_at:
                    child.start()
                    self._report.info("restarted", child=child.name, pid=child.pid)
                continue
            assert child.process is not None
            code = child.process.poll()
            if code is not None:
                self._on_exit(child, code, now)
        self._kill_hanging(self.children, now)

    def _kill_hanging(self, children: Iterable[Child], now: float) -> None:
        for child in children:
            if child.ear is None or child.process is None or not child.pid:
                continue
            child.ear.listen(now)
            silent_s = child.ear.silent_for(now)
            if silent_s > self._hang_s:
                self._report.warning("hangs, killed", child=child.name, silent_s=round(silent_s, 1))
                child.process.kill()
                child.ear.forgive(now)

    def _go_on_renewing(self) -> None:
        child = self._renewed
        if child is not None and (child.is_done or (child.process is not self._earlier and child.is_ready)):
            child = self._renewed = None
            if not self._to_renew:
                self._report.info("restarted all")
        if child is None and self._to_renew:
            child = self._renewed = self._to_renew.popleft()
            self._earlier = child.process
            if child.process is not None and child.pid:
                child.process.send_signal(signal.SIGTERM)

    def _on_exit(self, child: Child, code: int, now: float) -> None:
        if child is self._renewed and code == 0:
            # What it was ready with may be another thing by now.
            child.was_ever_ready = False
            child.start()
            self._report.info("restarted", child=child.name, pid=child.pid)
            return
        if code == 0:
            child.is_done = True
            self._report.info("drained, not restarted", child=child.name)
            return
        assert child.ear is not None
        child.ear.listen(now)
        child.was_ever_ready |= child.ear.is_ready
        child.deaths.append(now)
        while child.deaths and now - child.deaths[0] > DEATHS_WITHIN_S:
            child.deaths.popleft()
        if code == _USAGE:
            # Wrong configuration does not mend itself.
            self.gave_up = f"{child.name} cannot start: {child.ear.told or 'exit code 2'}"
            self.exit_code = _USAGE
            return
        if len(child.deaths) >= MAX_DEATHS and not child.was_ever_ready:
            self.exit_code = _CRASH_LOOP
            self.gave_up = (
                f"{child.name} died {len(child.deaths)} times within {DEATHS_WITHIN_S:g} s,"
                f" the last time with {_described(code)}; mend the cause and start again"
            )
            return
        wait_s = min(BACKOFF_S * 2 ** (len(child.deaths) - 1), MAX_BACKOFF_S)
        child.restart_at = now + wait_s
        self._report.warning("died", child=child.name, how=_described(code), restart_in_s=wait_s)

    def stop(self, children: Sequence[Child], grace_s: float, hurry: threading.Event | None = None) -> None:
        """Ends children with SIGTERM and, after `grace_s` or in a hurry, with SIGKILL; returns when none is left."""
        running = [child.process for child in children if child.process is not None]
        for process in running:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
        give_up_at = time.monotonic() + grace_s
        for process in running:
            while process.poll() is None and time.monotonic() < give_up_at and not (hurry and hurry.is_set()):
                # One that hangs will not end for its grace either.
                self._kill_hanging(children, time.monotonic())
                time.sleep(_LOOK_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        for child in children:
            child.is_done = True
            child.forget()


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
