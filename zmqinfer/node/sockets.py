"""The only module that makes ZeroMQ sockets, and the moves that every port makes with them.

Frame by frame, never `*_multipart`: 1.5 us against 6 for three small frames. Sends never block.
The head is copied (it is small and read at once); further parts are kept as frames and sent
again without a copy.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket as stdlib_socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeAlias

import zmq
import zmq.backend
from zmq.utils.garbage import gc

from zmqinfer.errors import ConfigError
from zmqinfer.node.descriptors import check_room, has_room
from zmqinfer.tensor import Buffer

__all__ = [
    "MORE",
    "NOBLOCK",
    "FarEnd",
    "dealer",
    "drop",
    "endpoint",
    "far_end",
    "is_readable",
    "monitored",
    "new_context",
    "rest",
    "router",
    "send",
    "send_frame",
]

# Address and port of a connection's other end, or "ipc" and its process.
FarEnd: TypeAlias = tuple[str, int]

_LEAST_LIBZMQ = (4, 3, 5)
HANDSHAKE_MS = 3_000
LINGER_MS = 500
ZMTP_HEARTBEAT_MS = 500
ZMTP_TIMEOUT_MS = 1_500

# Without the layer of pyzmq that takes options for sockets of other types: 0.3 us a frame, where it takes 0.7.
send_frame: Callable[..., object] = zmq.backend.Socket.send

# As libzmq lays an event out: its number and its value, in the order of this machine.
_EVENT: Final = struct.Struct("=HI")

# As ints: pyzmq's enums cost 0.5 us in each operation.
_READABLE: Final = int(zmq.POLLIN)
NOBLOCK: Final = int(zmq.NOBLOCK)
MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)
_MONITORED = zmq.EVENT_LISTENING | zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED


def new_context(links: int = 0) -> zmq.Context[zmq.Socket[bytes]]:
    """Makes a context of one I/O thread, for a node that dials so many gateways.

    Raises:
        ConfigError: libzmq is too old, or there are too few file descriptors.
    """
    if zmq.zmq_version_info() < _LEAST_LIBZMQ:
        raise ConfigError(f"libzmq is {zmq.zmq_version()}, expected 4.3.5 or newer; upgrade pyzmq")
    check_room(links)
    if sys.platform == "linux":
        # libzmq draws the first routing id of a ROUTER from the C library's generator, which nobody seeds; a clash of
        # such ids has ended processes (libzmq 4503).
        ctypes.CDLL(None).srand(int.from_bytes(os.urandom(4), "little"))
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(io_threads=1)
    return context


def router(
    context: zmq.Context[zmq.Socket[bytes]], address: str, max_frame_bytes: int = 0
) -> tuple[zmq.Socket[bytes], zmq.Socket[bytes]]:
    """Makes a ROUTER that listens, and its monitor; `address` may end in `:0`, then `endpoint` has the port.

    Args:
        max_frame_bytes: a larger frame ends its connection.

    Raises:
        ConfigError: the address is taken or cannot be bound.
    """
    _check_path(address)
    socket, where = _socket(context, zmq.ROUTER, address)
    socket.set(zmq.MAXMSGSIZE, max_frame_bytes)
    socket.router_mandatory = True
    socket.set(zmq.ROUTER_HANDOVER, 0)
    socket.rcvhwm = 1_000
    # Who comes through a path tries again soon, and too many at once would end this process: see gate.py.
    socket.set(zmq.BACKLOG, 64 if address.startswith("ipc://") else 1_024)
    monitor = socket.get_monitor_socket(_MONITORED)
    try:
        socket.bind(where)
    except zmq.ZMQError as cause:
        socket.close(0)
        raise ConfigError(
            f"cannot listen at {address} ({cause}); stop whatever holds it, or choose another address"
        ) from cause
    return socket, monitor


def endpoint(socket: zmq.Socket[bytes]) -> str:
    """Returns the address that a socket is bound to, with its real port."""
    return bytes(socket.get(zmq.LAST_ENDPOINT)).rstrip(b"\0").decode()


def dealer(context: zmq.Context[zmq.Socket[bytes]], address: str) -> zmq.Socket[bytes]:
    """Connects a DEALER without an identity of its own: the ROUTER names each connection afresh.

    Raises:
        ConfigError: the address is none that ZeroMQ can dial, or its host has no address.
    """
    socket, where = _socket(context, zmq.DEALER, address)
    # Nothing is queued into the void: what is pending lives in our own tables.
    socket.set(zmq.IMMEDIATE, 1)
    socket.set(zmq.RECONNECT_IVL, 50)
    socket.set(zmq.RECONNECT_IVL_MAX, 1_000)
    try:
        socket.connect(where)
    except zmq.ZMQError as cause:
        socket.close(0)
        raise ConfigError(f"cannot dial {address} ({cause}), expected tcp://HOST:PORT or ipc://PATH") from cause
    return socket


def _socket(context: zmq.Context[zmq.Socket[bytes]], kind: int, address: str) -> tuple[zmq.Socket[bytes], str]:
    """Makes a socket for an address, and returns that as libzmq is to have it."""
    where = _numeric(address)
    socket = context.socket(kind)
    socket.linger = LINGER_MS
    socket.sndhwm = socket.rcvhwm = 256
    socket.set(zmq.IPV6, int("[" in address))
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.HEARTBEAT_IVL, ZMTP_HEARTBEAT_MS)
    socket.set(zmq.HEARTBEAT_TIMEOUT, ZMTP_TIMEOUT_MS)
    socket.set(zmq.HEARTBEAT_TTL, ZMTP_TIMEOUT_MS)
    return socket, where


def remove_path(address: str) -> None:
    """Removes what a listening socket leaves in the file system, while it is still ours; libzmq does not."""
    if address.startswith("ipc://") and not address.startswith("ipc://@"):
        Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def _check_path(address: str) -> None:
    """Refuses the path of a file, or of a socket that somebody listens at: libzmq would remove either."""
    path = Path(address.removeprefix("ipc://"))
    if not address.startswith("ipc://") or address.startswith("ipc://@") or not path.exists():
        return
    if not path.is_socket():
        raise ConfigError(f"cannot listen at {address}: there is a file, and no socket; choose another path")
    with stdlib_socket.socket(stdlib_socket.AF_UNIX) as one:
        one.settimeout(1.0)
        try:
            one.connect(str(path))
        except ConnectionRefusedError:
            return  # somebody who has gone left it behind
        except OSError as cause:
            raise ConfigError(f"cannot listen at {address} ({cause}); choose another path") from cause
    raise ConfigError(f"cannot listen at {address} (in use); stop whatever holds it, or choose another path")


def _numeric(address: str) -> str:
    """Resolves a host name here: libzmq would do it on its I/O thread, which serves all sockets."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme != "tcp" or not host or host == "*" or host[0] == "[" or host.replace(".", "").isdigit():
        return address
    try:
        found = stdlib_socket.getaddrinfo(host, None, stdlib_socket.AF_INET, stdlib_socket.SOCK_STREAM)
    except OSError as cause:
        raise ConfigError(f"host {host!r} of {address} has no address ({cause}); check the name") from cause
    return f"tcp://{found[0][4][0]}:{port}"


def rest(socket: zmq.Socket[bytes], frame: zmq.Frame) -> list[Buffer]:
    """Returns the frames that follow one of the same message."""
    # A frame knows whether it was the last: 0.3 us less than to ask the socket.
    parts: list[Buffer] = []
    while frame.more:
        frame = socket.recv(NOBLOCK, copy=False)
        parts.append(frame)  # type: ignore[arg-type]
    return parts


def monitored(monitor: zmq.Socket[bytes]) -> tuple[int, int]:
    """Returns the next event of a monitor, and its value: in those that we ask for, a descriptor."""
    # 3 us, where pyzmq's `parse_monitor_message` takes 20, and what comes in thousands is urgent.
    event, value = _EVENT.unpack(monitor.recv())
    monitor.recv()
    return event, value


def is_readable(socket: zmq.Socket[bytes]) -> bool:
    """Whether a message is there; asking also takes ZeroMQ's signal, and so arms the descriptor again."""
    # 1.2 us; 1.4 through the option EVENTS, 3.3 for the exception of a `recv` that finds nothing.
    return bool(zmq.zmq_poll([(socket, _READABLE)], 0))


def send(socket: zmq.Socket[bytes], frames: list[Buffer]) -> None:
    """Sends one message without blocking; raises `zmq.Again` or, at a ROUTER, EHOSTUNREACH before anything left."""
    last = len(frames) - 1
    if not last:
        send_frame(socket, frames[0], NOBLOCK)
        return
    for number, frame in enumerate(frames):
        # Copied up to pyzmq's own threshold: below it the bookkeeping of a shared buffer costs more. For the first
        # buffer that is lent to ZeroMQ pyzmq makes a context of its own.
        may_lend = isinstance(frame, zmq.Frame) or (len(frame) >= 65_536 and (gc.is_alive() or has_room()))
        send_frame(socket, frame, NOBLOCK if number == last else MORE, not may_lend)


def far_end(descriptor: int) -> FarEnd | None:
    """Returns what tells a descriptor's connection from the next one that gets the number, None if there is none."""
    try:
        with stdlib_socket.socket(fileno=os.dup(descriptor)) as duplicate:
            name = duplicate.getpeername()
            if isinstance(name, tuple):
                return str(name[0]), int(name[1])
            if sys.platform != "linux":
                return "ipc", 0
            # A Unix socket's peer has no name, but a process.
            found = duplicate.getsockopt(stdlib_socket.SOL_SOCKET, stdlib_socket.SO_PEERCRED, 12)
            return "ipc", int(struct.unpack("iII", found)[0])
    except OSError:
        return None


def drop(descriptor: int, end: FarEnd) -> bool:
    """Cuts the connection behind a descriptor, which ROUTER itself cannot do; True if it was done.

    Only if it still leads to the same far end: the number may have been given to another connection.
    """
    with contextlib.suppress(OSError), stdlib_socket.socket(fileno=os.dup(descriptor)) as duplicate:
        if far_end(duplicate.fileno()) == end:
            duplicate.shutdown(stdlib_socket.SHUT_RDWR)
            return True
    return False
