"""A model in a process of its own, which may crash, hang or grow without its worker.

The worker's engine thread sends a batch through a socket pair and waits. When the process ends, is silent beyond the
last deadline of its batch, or has more memory than it may, it is killed, the model is loaded again in a new one, and
what was in the batch runs again, each call alone: the one with which the process ends a second time is guilty.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgpack

from zmqinfer.errors import ConfigError, Status
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.model_config import ModelConfig
from zmqinfer.node.engine import Part, bodies, parts_of
from zmqinfer.node.report import Report, level
from zmqinfer.node.spawn import spawn
from zmqinfer.signature import Signature

__all__ = ["IsolatedModel"]

# What runs there; by name, for it loads models of any kind, and this one is among those that models.py makes.
_PROCESS = "zmqinfer.node.model_process"
_LOOK_S = 0.1
# What is read at a time: 602 KB take 0.21 ms so, and 0.29 with msgpack's own 16 KiB.
READ_BYTES = 2**18
# Beyond the last deadline of a batch: by then nobody waits for it.
_GRACE_S = 0.25
_LEAST_S = 0.001
_TOO_LATE = "the time was up before it ran, while others of its batch ran alone or their process was loaded again"
_TOO_LONG = "the model's process ran beyond the deadlines of all that it had, and was killed"


class _Failed(Exception):
    """The process does not answer.

    Args:
        status: how a call ends that had the process to itself, or shared its end with all others.
    """

    def __init__(self, words: str, status: Status = Status.POISONED) -> None:
        super().__init__(f"{words} while this ran alone" if status is Status.POISONED else words)
        self.words = words
        self.status = status


class IsolatedModel:
    """Loads, runs and closes one model as a backend and its engine together do.

    Args:
        config: what its model.toml says; without folders it is for the function or class that `target` names.

    Attributes:
        config: the same, and from `load` on with the model's name, which that of a function tells.
    """

    def __init__(self, config: ModelConfig) -> None:
        self.config = config
        self._limit_bytes = config.settings.memory_mb * 2**20
        self._signature: Signature | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._socket: socket.socket | None = None
        self._is_killed = False

    @property
    def signature(self) -> Signature:
        """What the model takes and gives."""
        assert self._signature is not None, "load() comes first"
        return self._signature

    def load(self) -> tuple[ModelConfig, IsolatedModel]:
        """Starts the process and waits until it has loaded the model; raises `ConfigError` if it cannot.

        Returns:
            what is known of it then, and what runs it.
        """
        try:
            self._start()
        except OSError as cause:
            self._end()
            source = self.config.source
            raise ConfigError(f"{source}: the model's process cannot be started ({cause.strerror})") from cause
        try:
            mistake, name, signature = self._receive(float("inf"))
        except _Failed as failed:
            self._end()
            raise ConfigError(f"{self.config.source}: {failed.words} while the model was loaded") from failed
        if mistake:
            self._end()
            raise ConfigError(mistake)
        self.config = dataclasses.replace(self.config, name=name)
        self._signature = Signature.from_wire(signature)
        self._report = Report("model", model=f"{name}:{self.config.version}", worker_pid=os.getpid())
        return self.config, self

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._socket = ours
        target = "" if self.config.folders else self.config.settings.target
        what = target or str(Path(self.config.source).parent)
        arguments = [str(theirs.fileno()), "function" if target else "folder", what, str(os.getpid()), level()]
        with theirs:
            self._process = spawn(
                f"zmqinfer model {self.config.name or target}",
                _PROCESS,
                arguments,
                pass_fds=[theirs.fileno()],
                stdout=subprocess.DEVNULL if sys.stderr is None else 2,
            )

    def close(self) -> None:
        """Lets the process close its model, and waits until it has ended, however long that takes."""
        process, connection = self._process, self._socket
        if process is None or connection is None:
            return
        with contextlib.suppress(OSError):  # it has gone
            connection.shutdown(socket.SHUT_WR)
        process.wait()
        self._end()

    def kill(self) -> None:
        """Ends the process at once and for good, from any thread; who waits for it goes on."""
        self._is_killed = True
        if (process := self._process) is not None:
            process.kill()

    def _end(self) -> None:
        """Ends the process at once: it has nothing to finish."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def run(self, batch: Batch) -> list[Outcome]:
        """Returns one outcome or more for each task, in the order of the calls."""
        parts = parts_of(batch, self.config.settings.idempotent)
        until = max(task.deadline for task in batch.tasks) + _GRACE_S
        try:
            return self._ask(batch, parts, batch.rows, until)
        except _Failed as failed:
            if failed.status is Status.POISONED and sum(task.calls for task in batch.tasks) > 1:
                return self._each_alone(batch, parts, failed.words, until)
            return [(calls, failed.status, str(failed)) for calls, *_ in parts]

    def _each_alone(self, batch: Batch, parts: list[Part], how: str, until: float) -> list[Outcome]:
        """Runs the calls of a batch that ended the process one by one; the guilty ones end it again."""
        outcomes: list[Outcome] = []
        broken: _Failed | None = None
        for task, (calls, rows, payload, again) in zip(batch.tasks, parts, strict=True):
            if not again:
                outcomes.append((calls, Status.WORKER_LOST, f"{how}, and the request may not be run twice"))
                continue
            for body in bodies(calls, payload):
                try:
                    if broken is not None:
                        raise broken
                    self._be_there(task.deadline)
                    part = (1, rows // calls, body, again)
                    # Nobody else's time is lost while it runs, so the batch's own limit holds.
                    outcomes += self._ask(batch, [part], rows // calls, until)
                except _Failed as failed:
                    outcomes.append((1, failed.status, str(failed)))
                    # What cannot be loaded for one call cannot be for the next.
                    broken = failed if failed.status is Status.WORKER_LOST else None
        return outcomes

    def _ask(self, batch: Batch, parts: list[Part], rows: int, until: float) -> list[Outcome]:
        """Lets the process run something; raises `_Failed`."""
        self._be_there(until)
        layout = batch.bound.layout.raw
        try:
            self._send([rows, layout, batch.bound.order, parts], until)
            answers = self._receive(until)
        except BaseException as error:
            self._end()
            if isinstance(error, _Failed) and not self._is_killed:
                self._report.warning("process ended", why=error.words)
            raise
        return [
            (calls, first, second) if type(first) is bytes else (calls, Status(first), second)
            for calls, first, second in answers
        ]

    def _be_there(self, until: float) -> None:
        """Loads the model again if its process has ended; raises `_Failed` if it cannot, or when the time is up."""
        if self._is_killed:
            raise _Failed("the model's process was killed")
        if time.monotonic() > until:
            raise _Failed(_TOO_LATE, Status.DEADLINE_EXCEEDED)
        if self._process is not None and self._process.poll() is not None:
            self._report.warning("process ended", why=self._ended().words)
            self._end()
        if self._process is None:
            try:
                self.load()
            except ConfigError as error:
                self._report.error("cannot be loaded again", why=error)
                words = f"the model's process cannot be started again: {error}"
                raise _Failed(words, Status.WORKER_LOST) from None
        if time.monotonic() > until:
            raise _Failed(_TOO_LATE, Status.DEADLINE_EXCEEDED)

    def _send(self, message: Any, until: float) -> None:
        assert self._socket is not None
        self._socket.settimeout(max(_LEAST_S, until - time.monotonic()))
        try:
            self._socket.sendall(msgpack.packb(message))
        except TimeoutError:
            raise _Failed(_TOO_LONG, Status.DEADLINE_EXCEEDED) from None
        except OSError:
            raise self._ended() from None

    def _receive(self, until: float) -> Any:
        """Returns what the process says; raises if that takes too long, or the process too much memory."""
        assert self._socket is not None
        self._socket.settimeout(_LOOK_S)
        answers = msgpack.Unpacker(max_buffer_size=0)
        while True:
            try:
                received = self._socket.recv(READ_BYTES)
            except TimeoutError:
                if time.monotonic() > until:
                    raise _Failed(_TOO_LONG, Status.DEADLINE_EXCEEDED) from None
                if self._limit_bytes and self._memory() > self._limit_bytes:
                    most = self.config.settings.memory_mb
                    raise _Failed(f"the model's process had more than {most} MiB and was killed") from None
                continue
            except OSError:
                received = b""
            if not received:
                raise self._ended()
            answers.feed(received)
            for message in answers:
                return message

    def _memory(self) -> int:
        assert self._process is not None
        try:
            pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):  # gone, or a system without /proc
            return 0
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _ended(self) -> _Failed:
        assert self._process is not None
        try:
            code = self._process.wait(1.0)
        except subprocess.TimeoutExpired:
            return _Failed("the model's process closed its connection")
        # Those that are only numbers have no name.
        named = {int(one): one.name for one in signal.Signals}
        how = f"with exit code {code}" if code >= 0 else f"by signal {named.get(-code, -code)}"
        return _Failed(f"the model's process ended {how}")
