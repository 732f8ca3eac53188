"""A TCP proxy that is as bad as networks are: it delays, throttles, cuts, and lets nothing through one way or both."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

__all__ = ["Link", "Proxies"]

_CHUNK = 65_536
_LOOK_S = 0.01


@dataclass
class Link:
    """One address to dial instead of another, and what is done to what passes.

    Attributes:
        port: where it listens.
        target: the port that it leads to.
        delay_s: so much later everything arrives.
        bytes_per_s: no more than this passes each way; 0: anything.
        is_up_blocked: whether nothing passes from those who dial; it waits, as in a network without a route.
        is_down_blocked: the same the other way.
        cut_after: so many bytes later, up and down together, its connections are reset; None: they are not.
        cuts: how often that happened.
    """

    port: int
    target: int
    delay_s: float = 0.0
    bytes_per_s: float = 0.0
    is_up_blocked: bool = False
    is_down_blocked: bool = False
    cut_after: int | None = None
    cuts: int = 0

    def heal(self) -> None:
        """Lets everything pass again, as it comes."""
        self.delay_s = self.bytes_per_s = 0.0
        self.is_up_blocked = self.is_down_blocked = False
        self.cut_after = None

    def is_blocked(self, *, up: bool) -> bool:
        """Whether nothing passes in a direction now."""
        return self.is_up_blocked if up else self.is_down_blocked

    def counts_out(self, size: int) -> bool:
        """Notes that so many bytes passed; whether the connections are to be reset for it."""
        if self.cut_after is None:
            return False
        self.cut_after -= size
        if self.cut_after > 0:
            return False
        self.cut_after = None
        self.cuts += 1
        return True


class Proxies:
    """Links of one event loop in a thread of its own; their settings may be changed from any thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxies", daemon=True)
        self._writers: dict[int, set[asyncio.StreamWriter]] = {}
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _close(self) -> None:
        for server in self._servers:
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def add(self, target: int) -> Link:
        """Begins to lead from a new port of loopback to another one."""
        return asyncio.run_coroutine_threadsafe(self._listen(target), self._loop).result(10)

    async def _listen(self, target: int) -> Link:
        link = Link(0, target)
        server = await asyncio.start_server(lambda *ends: self._on_dial(link, *ends), "127.0.0.1", 0)
        link.port = server.sockets[0].getsockname()[1]
        self._servers.append(server)
        self._writers[link.port] = set()
        return link

    def reset(self, link: Link) -> None:
        """Ends all connections of a link at once, whatever is on its way."""
        asyncio.run_coroutine_threadsafe(self._reset(link), self._loop).result(10)

    async def _reset(self, link: Link) -> None:
        for writer in list(self._writers[link.port]):
            writer.transport.abort()

    async def _on_dial(self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", link.target)
        except OSError:
            writer.transport.abort()
            return
        ends = {writer, far_writer}
        self._writers[link.port] |= ends
        try:
            await asyncio.gather(
                self._pass_on(link, reader, far_writer, up=True), self._pass_on(link, far_reader, writer, up=False)
            )
        finally:
            self._writers[link.port] -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on(
        self, link: Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        # Its own queue, so that a delay holds back what comes and does not slow it down.
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        sender = asyncio.create_task(self._send(link, late, writer, up=up))
        with contextlib.suppress(OSError):
            while data := await reader.read(_CHUNK):
                late.put_nowait((self._loop.time() + link.delay_s, data))
        late.put_nowait((self._loop.time() + link.delay_s, b""))
        with contextlib.suppress(OSError):
            await sender
        writer.transport.abort()

    async def _send(
        self, link: Link, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        while True:
            at, data = await late.get()
            await asyncio.sleep(max(0.0, at - self._loop.time()))
            while link.is_blocked(up=up):
                await asyncio.sleep(_LOOK_S)
            if not data:
                return
            if link.bytes_per_s:
                await asyncio.sleep(len(data) / link.bytes_per_s)
            if link.cut_after is not None:
                # In the middle of whatever this is.
                data = data[: max(1, link.cut_after)]
            writer.write(data)
            if link.counts_out(len(data)):
                await self._reset(link)
                return
            await writer.drain()
