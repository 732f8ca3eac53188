"""Attackers of a living gateway: with ZeroMQ's own sockets, and at the bare port."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Any

import msgpack
import zmq

from trials.fuzz_wire import changed
from zmqinfer.records import Kind, Record
from zmqinfer.wire import VERSION, decode

__all__ = ["BARE", "DIALLED", "KINDS_TO_CLIENTS", "KINDS_TO_WORKERS", "Dialler", "Knocker"]

HELD_OPEN = 64
# An attacker that is never cut off makes room for another one after so many messages.
MESSAGES_EACH = 40
_LINGER_MS = 200
_SEND_MS = 2_000
KINDS_TO_CLIENTS = (Kind.HELLO, Kind.REQUEST, Kind.CANCEL, Kind.HEARTBEAT, Kind.DISCONNECT, Kind.STATS, Kind.ADMIN)
KINDS_TO_WORKERS = (Kind.READY, Kind.MODELS, Kind.REPLY, Kind.HEARTBEAT, Kind.DISCONNECT)
_LAYOUT = msgpack.packb([["", "FP32", [2]]])
_SIGNATURE: Record = [[["", "FP32", [2]]], [["", "FP32", [2]]]]
# What a field may never be, or only just.
_ODD: tuple[Any, ...] = (
    None, True, 0, -1, 31, 255, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, 1.5, float("nan"), "", "x", "x" * 129,
    "\0", b"", b"x", bytes(129), bytes(5_000), [], [0], [0, 1], [[]], [[[[[[[[[[]]]]]]]]]], [[1, 0], 0, 4],
    [[os.getpid(), 0], 0, 8], [[1, 2, 3]],
)  # fmt: skip
# The greeting of ZMTP 3.0 with the mechanism NULL, and the command that follows it.
_GREETING = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16) + bytes(32)
_READY_BODY = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
_READY = bytes((4, len(_READY_BODY))) + _READY_BODY


# Attackers that speak ZMTP -----------------------------------------------------------------------


def _valid(kind: Kind, chance: random.Random) -> Record:
    """Returns a record that is right by itself; names are such that nobody else has them."""
    tag = chance.randrange(2**20) * 32
    mine = f"hostile_{chance.randrange(50)}"
    payload = struct.pack("<2f", 1.0, 2.0)
    records: dict[Kind, Record] = {
        Kind.HELLO: [chance.randbytes(16), mine, None, None],
        Kind.WELCOME: [chance.randbytes(16), mine, 500, 2**20, []],
        Kind.REQUEST: [
            tag, 1, chance.randbytes(8), chance.choice(("echo", "hostile", "nobody")), None, None,
            chance.choice((0, 50_000, 1_000_000)), 4, 1, chance.choice((None, True, False)), 1, _LAYOUT, payload,
        ],
        Kind.REPLY: [tag, 1, 0, _LAYOUT, payload, mine, 1, 1, 1, None, 1, 10, 20],
        Kind.CANCEL: [tag, 1],
        Kind.READY: [chance.randbytes(16), mine, "", 1_000, None],
        Kind.MODELS: [chance.randrange(3), chance.choice((None, ["hostile", 1, _SIGNATURE, 32, 64, True]))],
        Kind.HEARTBEAT: [0, 64, 0, None, [tag]],
        Kind.DISCONNECT: [chance.choice(("closing", "draining", "no session", "what")), ""],
        Kind.STATS: [tag, chance.choice(("status", "models", "what")), None, 0, 1],
        Kind.ADMIN: [tag, "drain", "nobody", None, ""],
    }  # fmt: skip
    return records[kind]


def _packed(kind: Kind, records: list[Record]) -> bytes:
    head: bytes = msgpack.packb([VERSION, kind, records])
    return head


Frames = list[bytes]


def _changed_bytes(kind: Kind, chance: random.Random) -> Frames:
    head = _packed(kind, [_valid(kind, chance)] * chance.randrange(1, 3))
    return [changed(head, [head, _packed(Kind.REQUEST, [_valid(Kind.REQUEST, chance)])], chance)]


def _changed_fields(kind: Kind, chance: random.Random) -> Frames:
    record = _valid(kind, chance)
    for _ in range(chance.randrange(1, 3)):
        # Behind the last one too: those are passed on.
        at = chance.randrange(len(record) + 2)
        record[at : at + 1] = [chance.choice(_ODD)]
    return [_packed(kind, [record])]


def _right_but_out_of_place(_: Kind, chance: random.Random) -> Frames:
    kind = chance.choice(list(Kind))
    return [_packed(kind, [_valid(kind, chance) for _ in range(chance.choice((1, 1, 2, 20)))])]


def _odd_frames(kind: Kind, chance: random.Random) -> Frames:
    head = _packed(kind, [_valid(kind, chance)])
    parts = [chance.randbytes(chance.choice((0, 1, 8, 500))) for _ in range(chance.choice((1, 2, 3, 65, 200)))]
    large = bytes(chance.choice((2**16, 2**20 + 1)))
    return chance.choice(([head, *parts], [b""], [b"", head], parts, [large], [head + large[: 2**16]], [b"", b"", b""]))


DIALLED: dict[str, tuple[int, Callable[[Kind, random.Random], Frames]]] = {
    "changed bytes": (40, _changed_bytes),
    "changed fields": (25, _changed_fields),
    "right but out of place": (10, _right_but_out_of_place),
    "odd frames": (8, _odd_frames),
}


class Dialler:
    """One attacker's connection to one of the two addresses; half of them greet first."""

    def __init__(self, context: zmq.Context[Any], address: str, kinds: tuple[Kind, ...], chance: random.Random) -> None:
        self.kinds = kinds
        self.left = chance.randrange(1, MESSAGES_EACH)
        self.offences = 0
        self._socket = context.socket(zmq.DEALER)
        self._socket.set(zmq.LINGER, _LINGER_MS)
        self._socket.set(zmq.SNDTIMEO, _SEND_MS)
        self._socket.connect(address)
        if chance.random() < 0.5:
            self._socket.send(_packed(kinds[0], [_valid(kinds[0], chance)]))

    def send(self, frames: Frames) -> None:
        """Sends one message, and hears what there is to hear.

        Raises:
            ProtocolError: the gateway itself sent what is no message.
        """
        self.left -= 1
        # Cut off just now: what it did not take is lost, as with any other peer that is gone.
        with contextlib.suppress(zmq.Again):
            self._socket.send_multipart(frames)
        while True:
            try:
                head, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            kind, records = decode(head, parts)
            self.offences += kind is Kind.DISCONNECT and records[0][0] == "protocol"

    @property
    def is_spent(self) -> bool:
        """Whether it was cut off, or has had its turn.

        Each connection is told of its first offence alone. ZeroMQ dials again when it was cut off, so who is told a
        second time has lost a connection, and its session with it.
        """
        return self.left <= 0 or self.offences > 1

    def close(self) -> None:
        """Leaves; what was sent has a moment to arrive."""
        self._socket.close()


# Attackers that do not ---------------------------------------------------------------------------


def _random_bytes(chance: random.Random) -> bytes:
    return chance.randbytes(chance.choice((1, 10, 64, 500, 5_000)))


def _broken_greeting(chance: random.Random) -> bytes:
    greeting = bytearray(_GREETING)
    for _ in range(chance.randrange(1, 4)):
        greeting[chance.choice((0, 8, 9, 10, 11, 12, 13, 14, 15, 16, 32, 40))] = chance.randrange(256)
    return bytes(greeting[: chance.choice((1, 9, 10, 11, 12, 33, 64, 64, 64))]) + chance.choice((b"", _READY))


def _http(chance: random.Random) -> bytes:
    line = chance.choice((b"GET / HTTP/1.1", b"POST /v2/models/echo/infer HTTP/1.1", b"PRI * HTTP/2.0"))
    return line + b"\r\nHost: x\r\nContent-Length: 100\r\n\r\n" + chance.choice((b"", b"{}", bytes(100)))


def _half_message(chance: random.Random) -> bytes:
    head = _packed(Kind.HELLO, [_valid(Kind.HELLO, chance)])
    frames = (
        bytes((0, len(head))) + head[: chance.randrange(len(head))],
        bytes((1, len(head))) + head,  # more is to come, and never does
        b"\x02" + struct.pack(">Q", chance.choice((100_000, 2**31, 2**62, 2**64 - 1))) + head,
        b"\x03" + bytes(chance.randrange(8)),
        bytes((4, 200)) + head,
        bytes((chance.randrange(256),)) + head,
    )
    return _GREETING + chance.choice((b"", _READY, _READY, _READY[:-3], b"\x04\x00")) + chance.choice(frames)


BARE: dict[str, tuple[int, Callable[[random.Random], bytes]]] = {
    "random bytes": (4, _random_bytes),
    "broken greetings": (5, _broken_greeting),
    "HTTP": (3, _http),
    "half messages": (5, _half_message),
}
_NO_LINGER = struct.pack("ii", 1, 0)


class Knocker:
    """Connects to the bare ports; keeps some of the connections open and silent for a while."""

    def __init__(self, addresses: tuple[str, str], chance: random.Random) -> None:
        self._doors = [("127.0.0.1", int(address.rpartition(":")[2])) for address in addresses]
        self._chance = chance
        self._open: deque[socket.socket] = deque()

    def send(self, data: bytes) -> None:
        """Says it on a new connection."""
        one = socket.create_connection(self._chance.choice(self._doors), timeout=10.0)
        # The gateway may close before it has read everything, which is its good right.
        with contextlib.suppress(ConnectionError):
            one.sendall(data)
        if self._chance.random() < 0.5:
            # A reset where others say goodbye.
            with contextlib.suppress(OSError):
                one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
        self._open.append(one)
        while len(self._open) > HELD_OPEN or (self._open and self._chance.random() < 0.5):
            self._open.popleft().close()

    def close(self) -> None:
        """Leaves."""
        while self._open:
            self._open.pop().close()
