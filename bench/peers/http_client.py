"""The Python client of the HTTP peers: as little HTTP/1.1 as they speak, by hand.

    python bench/peers/http_client.py --model echo --port 8001 --in-flight 50 --seconds 3 --encoding raw

One keep-alive connection per task, one future per call, nothing but asyncio below: a general client such as
aiohttp would cost more than some of the servers do, and the comparison would be one of clients. Understood
are replies with a content-length; anything else is a failure, after which the connection is opened anew.
"""

import asyncio
import sys
from pathlib import Path
from typing import cast

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bench.peers.bodies import CONTENT_TYPES, prefix
from bench.peers.load import CallFailed, measure, parser, report
from bench.peers.models import MODELS, Floats

__all__ = ["HttpCaller"]

HOST = "127.0.0.1"
FLOAT32 = np.dtype(np.float32)
END_OF_HEAD = b"\r\n\r\n"
# Up to here head and body leave as one string, which saves a system call for a small copy.
JOINED_BYTES = 16 << 10
# What asyncio could not send at once it copies; given slice by slice, it copies little of a large body.
SLICE_BYTES = 128 << 10
HEADS_REMEMBERED = 64
# One for all connections: what arrives is taken out before the loop reads again. For a plain Protocol asyncio
# makes room of 256 KiB at each read: 3 us or 18 us a read, as malloc pleases that day.
RECEIVED = memoryview(bytearray(64 << 10))


class HttpCaller:
    """One task's connection, and the next one when that breaks."""

    def __init__(self, model: str, port: int, encoding: str) -> None:
        self._port = port
        self._shape = _Shape(model, port, encoding)
        self._connection = _Connection(self._shape)

    def infer(self, x: Floats) -> asyncio.Future[Floats]:
        """Return the future answer to one row."""
        return self._connection.infer(x)

    async def reopen(self) -> None:
        """Drop the connection, if there is one, and connect."""
        self._connection.drop()
        self._connection = connection = _Connection(self._shape)
        await asyncio.get_running_loop().create_connection(lambda: connection, HOST, self._port)


class _Shape:
    """What all requests and replies of a model have in common."""

    def __init__(self, model: str, port: int, encoding: str) -> None:
        _, values_in, values_out = MODELS[model]
        before = prefix(encoding, values_in)
        self.request_bytes = len(before) + 4 * values_in
        # The head of the request, and what stands before the row in its body.
        self.head = (
            f"POST /infer HTTP/1.1\r\nHost: {HOST}:{port}\r\nContent-Type: {CONTENT_TYPES[encoding]}\r\n"
            f"Content-Length: {self.request_bytes}\r\n\r\n"
        ).encode() + before
        self.before_reply = prefix(encoding, values_out)
        self.reply_bytes = len(self.before_reply) + 4 * values_out


class _Connection(asyncio.BufferedProtocol):
    """A connection with one call on its way at most."""

    def __init__(self, shape: _Shape) -> None:
        self._shape = shape
        self._head = shape.head
        self._before_reply = shape.before_reply
        self._is_small = shape.request_bytes <= JOINED_BYTES
        self._loop = asyncio.get_running_loop()
        self._answer: asyncio.Future[Floats] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._received = b""
        self._unsent = memoryview(b"")
        self._may_write = True

    def infer(self, x: Floats) -> asyncio.Future[Floats]:
        self._answer = answer = self._loop.create_future()
        if self._transport is None:
            answer.set_exception(CallFailed("the connection is gone"))
        elif self._is_small:
            self._transport.write(self._head + x.tobytes())
        else:
            self._transport.write(self._head)
            self._unsent = x.data.cast("B")
            self._send_on()
        return answer

    def drop(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # Pause at the first byte that the kernel does not take: see SLICE_BYTES.
        self._transport.set_write_buffer_limits(0)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._fail(f"the connection was lost: {exc}")

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._send_on()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        return RECEIVED

    def buffer_updated(self, nbytes: int) -> None:
        data = self._received + bytes(RECEIVED[:nbytes])
        end = data.find(END_OF_HEAD)
        if end < 0:
            self._received = data
            return
        head = data[:end]
        is_ok, body_bytes, is_last = _heads.get(head) or _read_head(head)
        at = end + 4
        if len(data) < at + body_bytes:
            self._received = data
            return
        self._received = b""
        if is_ok and body_bytes == self._shape.reply_bytes and data.startswith(self._before_reply, at):
            if not self._answer.done():
                self._answer.set_result(np.frombuffer(data, FLOAT32, offset=at + len(self._before_reply)))
        else:
            self._fail(f"the peer said {head[:40]!r} {data[at : at + 80]!r}")
        if is_last or not is_ok:
            self.drop()

    def _send_on(self) -> None:
        while self._unsent and self._may_write and self._transport is not None:
            self._transport.write(self._unsent[:SLICE_BYTES])
            self._unsent = self._unsent[SLICE_BYTES:]

    def _fail(self, why: str) -> None:
        if not self._answer.done():
            self._answer.set_exception(CallFailed(why))
            # A caller that is no longer there has nobody to tell.
            self._answer.exception()


# What a head says, by its bytes: the heads of a server differ by their date alone, once a second, and looking
# one up takes 0.1 us.
_heads: dict[bytes, tuple[bool, int, bool]] = {}


def _read_head(head: bytes) -> tuple[bool, int, bool]:
    """Return whether the status is 200, the bytes of the body, and whether the connection ends after it."""
    status, *lines = head.lower().split(b"\r\n")
    fields = {name.strip(): value.strip() for name, _, value in (line.partition(b":") for line in lines)}
    length = fields.get(b"content-length")
    # Without a length (chunked) the end is unknown: the call fails, and the connection with it.
    is_ok = status.split()[1:2] == [b"200"] and length is not None
    read = is_ok, int(length or 0), fields.get(b"connection") == b"close"
    if len(_heads) >= HEADS_REMEMBERED:
        _heads.clear()
    _heads[head] = read
    return read


def _main() -> None:
    options = parser(__doc__)
    options.add_argument("--encoding", choices=CONTENT_TYPES, default="raw", help="of the bodies (%(default)s)")
    asked = options.parse_args()

    def open_caller() -> HttpCaller:
        return HttpCaller(asked.model, asked.port, asked.encoding)

    report(asyncio.run(measure(open_caller, asked.model, asked.in_flight, asked.seconds)))


if __name__ == "__main__":
    _main()
