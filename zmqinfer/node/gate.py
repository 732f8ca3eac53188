"""Lets connections in while there are file descriptors for them.

With none left libzmq tries for ever to accept those who wait, at a whole processor and without a word, or, at an ipc
socket, ends the process; and `unbind`, which stops it, would end the connections that it has. So a gate shuts
before that: the kernel drops whatever would connect to a TCP socket, an ipc socket's path gets another ending, and
those are cut off who had slipped in or cannot be kept out. Who came before notices nothing.
"""

from __future__ import annotations

import contextlib
import ctypes
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from socket import SHUT_RDWR, SOL_SOCKET, socket
from typing import Final

from zmqinfer.node import descriptors
from zmqinfer.node.report import Report

__all__ = ["Gate"]

# How often an open gate is asked, for files and other connections take descriptors too, and a shut one is tried.
_LOOK_S: Final = 1.0
# The part of its room that may be taken when it opens again, so that the next one does not shut it.
_OPENS_AT: Final = 0.95
_SHUT: Final = ".shut"
# Linux's options, and a program of one instruction that lets no packet pass.
_ATTACH_FILTER: Final = 26
_DETACH_FILTER: Final = 27
_NOTHING_PASSES: Final = ctypes.create_string_buffer(struct.pack("HBBI", 0x06, 0, 0, 0))


class Gate:
    """What stands before one listening socket of ZeroMQ's.

    Args:
        door: which one, for people.
        listening: the socket's descriptor.
        left: the part of all descriptors that is left to others.
    """

    def __init__(self, door: str, listening: int, left: float, report: Report) -> None:
        self._door = door
        self._listening = listening
        self._left = left
        self._report = report
        self._is_shut = False
        self._look_at = 0.0

    def room(self) -> int:
        """Returns how many descriptors may be open before it shuts."""
        return int((1 - self._left) * descriptors.limit())

    def on_accepted(self, descriptor: int) -> None:
        """Takes the number of a new connection: all below it are in use."""
        if descriptor >= self.room():
            self._turn(is_shut=True)
            self._cut(descriptor)

    def tend(self, now: float) -> None:
        """Looks, now and then, whether it has to be shut or may be opened."""
        if now < self._look_at:
            return
        self._look_at = now + _LOOK_S
        if not self._is_shut:
            if descriptors.lowest_free() >= self.room():
                self._turn(is_shut=True)
        elif descriptors.open_now() < _OPENS_AT * self.room():
            self.open()
            self._report.info("others may connect again", **self._values())

    def open(self) -> None:
        """Opens it, if it is shut."""
        self._turn(is_shut=False)

    def _turn(self, *, is_shut: bool) -> None:
        if self._is_shut is not is_shut:
            self._is_shut = is_shut
            with _borrowed(self._listening) as listening:
                _bar(listening, is_shut=is_shut)
            if is_shut:
                self._report.warning("few descriptors are left, nobody else may connect", **self._values())

    def _cut(self, descriptor: int) -> None:
        """Ends a connection of this door, if that is still what has the number."""
        with _borrowed(self._listening) as listening, contextlib.suppress(OSError), _borrowed(descriptor) as one:
            if _place(one) == _place(listening):
                one.shutdown(SHUT_RDWR)

    def _values(self) -> dict[str, object]:
        return {"door": self._door, "open": descriptors.open_now(), "limit": descriptors.limit()}


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket]:
    """Gives libzmq's own socket; a duplicate would take a descriptor."""
    borrowed = socket(fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


def _place(one: socket) -> int | str | bytes:
    """Returns the port or the path at which a socket listens or was accepted."""
    name: int | str | bytes | tuple[str, int] = one.getsockname()
    return name[1] if isinstance(name, tuple) else name


def _bar(listening: socket, *, is_shut: bool) -> None:
    """Keeps out who would connect, or lets them in again."""
    place = _place(listening)
    if isinstance(place, str):
        open_path, shut_path = Path(place), Path(place + _SHUT)
        here, there = (open_path, shut_path) if is_shut else (shut_path, open_path)
        # Somebody else may listen there by now, or may have removed it.
        if not there.exists():
            with contextlib.suppress(FileNotFoundError):
                here.rename(there)
    elif isinstance(place, int) and sys.platform == "linux":
        if is_shut:
            program = struct.pack("HP", 1, ctypes.addressof(_NOTHING_PASSES))
            listening.setsockopt(SOL_SOCKET, _ATTACH_FILTER, program)
        else:
            listening.setsockopt(SOL_SOCKET, _DETACH_FILTER, 0)
