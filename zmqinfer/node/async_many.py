"""One `infer_many` of an asyncio client.

The inputs of a plain source are asked for by whoever takes the results. An asynchronous source may need
an answer for its next input, so both are waited for at once: a task of its own drives it, the same one
from its first input to its end. ContextVars, `asyncio.timeout` and cancel scopes, which belong to a task,
so work in a source as they do anywhere.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Iterator

from zmqinfer.errors import ZmqInferError
from zmqinfer.machine.client.codec import Input
from zmqinfer.node.connection import Connection
from zmqinfer.node.stream import GATHER_S, Result, Stream

__all__ = ["AsyncMany"]


class AsyncMany:
    """Inputs under way to a model; `attach` binds the client to the event loop, `schedule` lets it do a turn."""

    def __init__(
        self,
        connection: Connection,
        attach: Callable[[], object],
        schedule: Callable[[], None],
        stream: Stream,
        xs: Iterable[Input] | AsyncIterable[Input],
    ) -> None:
        self._connection = connection
        self._attach = attach
        self._schedule = schedule
        self._stream = stream
        self._xs = xs
        self._is_over = False
        self._error: BaseException | None = None
        self._feeder: asyncio.Task[None] | None = None
        # What who takes the results waits for: an input.
        self._wanted: asyncio.Future[None] | None = None
        # What the feeder waits for: that all results that are there have been taken, and that there is room.
        self._lull: asyncio.Future[None] | None = None
        self._room: asyncio.Future[None] | None = None
        self._gathers_until: float | None = None

    async def results(self, *, return_errors: bool) -> AsyncIterator[Result]:
        """Yields the results; the first error is raised at its place, or takes its place."""
        stream = self._stream
        tags, parcels, results = stream.tags, stream.parcels, stream.results
        self._attach()
        self._connection.check_open()
        plain: Iterator[Input] = iter(())
        if isinstance(self._xs, AsyncIterable):
            self._feeder = asyncio.create_task(self._feed(aiter(self._xs)))
        else:
            plain = iter(self._xs)
        try:
            while True:
                if self._feeder is None and not self._is_over and stream.wants_more():
                    self._gather(plain)
                if self._is_over and not tags:
                    break
                if not stream.is_ready():
                    await self._wait()
                # Everything that is there by now is given out before new inputs are asked for.
                while tags and (result := results.pop(tags[0], None)) is not None:
                    if isinstance(result, ZmqInferError):
                        if stream.goes_again(result):
                            stream.send_again(time.monotonic())
                            self._schedule()
                            continue
                        if not return_errors:
                            raise result
                    tags.popleft()
                    parcel = parcels.popleft()
                    if stream.held:
                        stream.give_back(parcel)
                    if self._room is not None and stream.wants_more():
                        _open(self._room)
                    yield result
            if self._error is not None:
                raise self._error
        finally:
            if self._feeder is not None and not self._feeder.done():
                await self._end(self._feeder)
            self._drop()

    # Taking --------------------------------------------------------------------------------------

    async def _wait(self) -> None:
        """Returns when the first call has ended; without one, when there is one or the source has ended."""
        if self._lull is not None:
            _open(self._lull)
        gate = asyncio.get_running_loop().create_future()
        if self._stream.tags:
            self._stream.on_ready = lambda: _open(gate)
        else:
            self._wanted = gate
        await gate

    def _drop(self) -> None:
        """Takes back what nobody will ask for any more."""
        if not self._connection.is_usable:
            return
        for tag in self._stream.tags:
            if self._connection.machine.cancel(tag):
                self._schedule()

    # Asking --------------------------------------------------------------------------------------

    def _gather(self, plain: Iterator[Input]) -> None:
        """Asks a plain source for inputs, for a while or until there are enough, and sends them."""
        until = time.monotonic() + GATHER_S
        while not self._is_over and self._stream.room() > 0:
            try:
                self._send(next(plain))
            except StopIteration:
                self._is_over = True
                return
            except Exception as error:  # noqa: BLE001 - of its caller's own code: raised at its place
                self._error, self._is_over = error, True
                return
            if time.monotonic() > until:
                return

    async def _feed(self, source: AsyncIterator[Input]) -> None:
        """Sends what an asynchronous source gives, and ends it; the whole life of a source is in this one task."""
        try:
            try:
                await self._drive(source)
            finally:
                if hasattr(source, "aclose"):
                    await source.aclose()
        except StopAsyncIteration:
            pass
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - as that of a plain source
            self._error = error
        finally:
            self._is_over = True
            self._on_more()

    async def _drive(self, source: AsyncIterator[Input]) -> None:
        step: Awaitable[Input] = anext(source)
        while not self._is_over:
            self._send(await step)
            try:
                if self._has_gathered_enough():
                    self._lull = asyncio.get_running_loop().create_future()
                    await self._lull
                if self._stream.room() <= 0:
                    self._room = asyncio.get_running_loop().create_future()
                    await self._room
            except asyncio.CancelledError as cancelled:
                if self._is_over or not hasattr(source, "athrow"):
                    raise
                # A timeout, or a cancel scope, that is open in the source, and for which it stands at its `yield`.
                step = source.athrow(cancelled)
            else:
                step = anext(source)
            finally:
                self._lull = self._room = None

    def _has_gathered_enough(self) -> bool:
        """Whether a source gave inputs for a while without letting the event loop do anything else."""
        if self._gathers_until is None:
            self._gathers_until = time.monotonic() + GATHER_S
            asyncio.get_running_loop().call_soon(self._on_pause)
            return False
        return time.monotonic() > self._gathers_until

    def _on_pause(self) -> None:
        self._gathers_until = None

    async def _end(self, feeder: asyncio.Task[None]) -> None:
        """Ends a source where it stands, and returns when it has ended."""
        self._is_over = True
        feeder.cancel()
        await asyncio.wait([feeder])
        if isinstance(self._error, Exception):
            raise self._error

    def _send(self, x: Input) -> None:
        """Sends one input with the next turn."""
        connection, stream = self._connection, self._stream
        stream.send((stream.encode(x),), time.monotonic())
        self._is_over = self._is_over or not connection.is_open
        self._schedule()
        if self._wanted is not None:
            self._on_more()

    def _on_more(self) -> None:
        wanted, self._wanted = self._wanted, None
        if wanted is not None:
            _open(wanted)


def _open(gate: asyncio.Future[None]) -> None:
    """Lets go on who waits for it, if anybody still does."""
    if not gate.done():
        gate.set_result(None)
