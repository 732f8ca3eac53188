"""Large payloads through shared memory: the owner's side, and that of those who read.

The memory is an anonymous file (memfd) of its owner, sealed so that nobody can make it smaller under a
reader. It has no name in any file system: others open it through /proc/PID/fd, which the kernel allows to
processes of the same user, and it goes when its owner and the last reader have gone, however they end. So
there is nothing to sweep. What proves that a peer owns what it names is the file's own name, which holds
the owner's session: the gateway puts in that of the client from whose connection the request came.

Linux only; elsewhere nobody offers it, and large payloads travel as frames.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from zmqinfer.policy.arena import Arena
from zmqinfer.tensor import Buffer, SharedPayload

__all__ = ["SHARED_ABOVE_BYTES", "SharedMemory", "SharedReader", "host_token"]

# From here on: with 64 KiB 1.9 times the requests of frames a second at 50 in flight, and as many at 1, by
# `python -m bench.shared`; with 1 MiB 3.7 and 1.3 times.
SHARED_ABOVE_BYTES = 64 * 1024
# Tensors begin at cache lines.
_ALIGNMENT = 64
# Files kept open by a reader, and how long one of a vanished owner may stay.
_MAX_OPEN = 256
_LOOK_S = 5.0

_SEALS = getattr(fcntl, "F_SEAL_SHRINK", 2) | getattr(fcntl, "F_SEAL_GROW", 4)
_ADD_SEALS, _GET_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033), getattr(fcntl, "F_GET_SEALS", 1034)


def host_token() -> bytes | None:
    """Returns what two processes have in common that can share memory: kernel, process ids, user. None: cannot."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_bytes().strip()
        # Those of another process namespace have other numbers, or none, for our processes.
        space = Path("/proc/self/ns/pid").stat().st_ino
    except OSError:
        return None
    return b"%s %d %d" % (boot, space, os.geteuid())


def _name_of(session: bytes) -> str:
    return f"zmqinfer-{session.hex()}"


def _path_of(pid: int, number: int) -> Path:
    return Path(f"/proc/{pid}/fd/{number}")


def _is_of(path: Path, session: bytes) -> bool:
    """Whether a descriptor is the memory of this session, and so its process alive."""
    try:
        return str(path.readlink()) == f"/memfd:{_name_of(session)} (deleted)"
    except OSError:
        return False


class SharedMemory:
    """The memory in which a client lays large payloads for workers of its host to read."""

    def __init__(self, session: bytes, size: int) -> None:
        """Makes no file yet; that comes with the first payload.

        Args:
            size: what may be taken at once, in bytes; pages that were never used take no memory.
        """
        self._session = session
        self._file = -1
        self._memory: memoryview | None = None
        self._arena = Arena(size)
        # What was given back; whoever lays next takes it up.
        self._freed: deque[int] = deque()
        self._lock = threading.Lock()
        self._is_closed = False

    def lay(self, parts: Sequence[Buffer]) -> SharedPayload | None:
        """Copies the parts of a payload into the memory and says where they are; None if there is no room.

        Any thread may ask, also a signal handler or a finaliser that interrupts another `lay`: nobody waits, and while
        one looks for room there is none for others. If an exception ends its looking there never is again.
        """
        spans: list[int] = []
        end = 0
        for part in parts:
            at = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = at + len(part)
            spans += [at, len(part)]
        if not self._lock.acquire(blocking=False):
            return None
        start = None if self._is_closed else self._room(max(1, end))
        memory, file = self._memory, self._file
        self._lock.release()
        if start is None or memory is None:
            return None
        for number, part in enumerate(parts):
            at = start + spans[2 * number]
            spans[2 * number] = at
            memory[at : at + len(part)] = memoryview(part)
        return ([os.getpid(), file], *spans)

    def _room(self, size: int) -> int | None:
        while self._freed:
            self._arena.give_back(self._freed.popleft())
        start = self._arena.take(size)
        if start is not None and self._memory is None:
            try:
                self._make()
            except OSError:
                self._is_closed = True  # no descriptors, or no memfd here: frames from now on
        return start

    def _make(self) -> None:
        file = os.memfd_create(_name_of(self._session), os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.fchmod(file, 0o600)
            os.ftruncate(file, self._arena.size)
            fcntl.fcntl(file, _ADD_SEALS, _SEALS)
            self._memory = memoryview(mmap.mmap(file, self._arena.size))
        except BaseException:
            os.close(file)
            raise
        self._file = file

    def parts(self, payload: SharedPayload) -> list[Buffer]:
        """Returns the parts of a payload where they lie; none if the memory was closed meanwhile."""
        memory, spans = self._memory, payload[1:]
        if memory is None:
            return []
        return [memory[at : at + size] for at, size in zip(spans[::2], spans[1::2], strict=True)]

    def free(self, payload: SharedPayload) -> None:
        """Gives back where a payload lay; nobody reads it any more, or what they read counts for nothing."""
        self._freed.append(payload[1])

    def close(self) -> None:
        """Gives everything back."""
        self._is_closed = True
        # Nobody shall make the file after this. Whoever was interrupted while it looked for room is not waited for.
        is_quiet = self._lock.acquire(timeout=0.1)
        if self._memory is not None:
            # It is unmapped when nobody has a part of it any more.
            self._memory = None
            os.close(self._file)
        if is_quiet:
            self._lock.release()


class SharedReader:
    """The files of others that a worker reads from."""

    def __init__(self) -> None:
        self._open: dict[tuple[int, int, bytes], memoryview] = {}
        self._look_at = 0.0

    def view(self, payload: SharedPayload) -> list[Buffer]:
        """Returns the parts of a payload where they lie; read-only.

        Raises:
            OSError: the file is not there, or not its owner's.
            ValueError: it is not sealed, or ends before a part does.
        """
        (pid, number, session), *spans = payload
        key = (pid, number, session)
        memory = self._open.get(key)
        if memory is None:
            memory = self._map(pid, number, session)
            if len(self._open) >= _MAX_OPEN:
                del self._open[next(iter(self._open))]
            self._open[key] = memory
        parts: list[Buffer] = []
        for at, size in zip(spans[::2], spans[1::2], strict=True):
            if at + size > len(memory):
                raise ValueError(f"a part ends at {at + size}, its memory at {len(memory)}")
            parts.append(memory[at : at + size])
        return parts

    def read(self, payload: SharedPayload) -> list[Buffer] | None:
        """Does the same; returns None if the parts cannot be had."""
        try:
            return self.view(payload)
        except (OSError, ValueError):
            return None

    @staticmethod
    def _map(pid: int, number: int, session: bytes) -> memoryview:
        path = _path_of(pid, number)
        # Its owner may put another file there at any time, so what was opened is looked at; to open a pipe would wait.
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            if not _is_of(_path_of(os.getpid(), file), session):
                raise FileNotFoundError(f"{path} is no memory of this session")
            if fcntl.fcntl(file, _GET_SEALS) & _SEALS != _SEALS:
                # Its owner could cut it off under us, and the next look would end this process.
                raise ValueError(f"{path} is not sealed")
            return memoryview(mmap.mmap(file, os.fstat(file).st_size, prot=mmap.PROT_READ))
        finally:
            os.close(file)

    def tidy(self, now: float) -> None:
        """Lets go, every few seconds, of files whose owners have gone; they take memory as long as we have them."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        for pid, number, session in list(self._open):
            if not _is_of(_path_of(pid, number), session):
                del self._open[pid, number, session]

    def close(self) -> None:
        """Lets go of everything."""
        self._open.clear()
