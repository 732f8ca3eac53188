"""Messages through the socket pair between a worker and the process of one of its models."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from typing import Any, TypeAlias

import msgpack

__all__ = ["Look", "receive", "send"]

# Called while nothing comes; it raises to give up.
Look: TypeAlias = Callable[[], None]

_LENGTH = struct.Struct("<Q")


def send(connection: socket.socket, message: Any, look: Look | None = None) -> None:
    """Sends one message; calls `look` each time that the socket's timeout, if it has one, is over."""
    packed = msgpack.packb(message)
    for part in (_LENGTH.pack(len(packed)), packed):
        view = memoryview(part)
        while view:
            try:
                view = view[connection.send(view) :]
            except TimeoutError:
                assert look is not None
                look()


def receive(connection: socket.socket, look: Look | None = None) -> Any | None:
    """Returns one message, None at the other side's end; calls `look` as `send` does."""
    try:
        length = _exactly(connection, _LENGTH.size, look)
        packed = None if length is None else _exactly(connection, _LENGTH.unpack(length)[0], look)
    except TimeoutError:
        raise
    except OSError:
        return None
    return None if packed is None else msgpack.unpackb(packed)


def _exactly(connection: socket.socket, size: int, look: Look | None) -> bytearray | None:
    buffer = bytearray(size)
    view = memoryview(buffer)
    while view:
        try:
            got = connection.recv_into(view)
        except TimeoutError:
            assert look is not None
            look()
            continue
        if not got:
            return None
        view = view[got:]
    return buffer
