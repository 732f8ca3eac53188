"""The asyncio client.

One await a call. The calls of one turn of the event loop leave as one message, and the replies that
came with one message are given out together, so 200 tasks cost little more than one. ZeroMQ's
descriptor is edge-triggered: it is drained by hand, where `zmq.asyncio` takes 2.3 times as long.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, Unpack, overload

from zmqinfer.config import DEFAULT_CLIENTS
from zmqinfer.errors import UsageError, ZmqInferError
from zmqinfer.machine.client.call import Body, CallOptions
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.answers import Answer, CallInfo, KeepsReply
from zmqinfer.node.arguments import Options, many_of, options_of, seconds
from zmqinfer.node.async_many import AsyncMany
from zmqinfer.node.connection import DEFAULTS, NOT_COPIED, Connection
from zmqinfer.node.questions import drain_answer, drain_words, read_answer, those_who_answered
from zmqinfer.node.rows import join, pieces_of, tell_of_all
from zmqinfer.node.stream import Stream
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import Buffer

__all__ = ["AsyncClient"]


class AsyncClient:
    """Calls models from asyncio. Belongs to the event loop in which it is first used.

    Args:
        endpoints: addresses of gateways for clients, several in a list or separated by commas.
        connect_timeout_s: how long the first call waits for a first gateway.
        deadline_s: time limit of a call that names none of its own, at most 300.
        fail_fast_s: when no gateway could be reached for so long, calls end as `Unavailable` at once, before their
            deadlines; 0: they wait for one. Of a gateway that falls silent that is known after three heartbeats.
        heartbeat_ms: how often a silent gateway is spoken to while calls are pending.
        shared_memory_mb: most memory for large inputs that workers of this host may read there, 0 for none.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_CLIENTS,
        *,
        connect_timeout_s: float = DEFAULTS.connect_timeout_s,
        deadline_s: float = DEFAULTS.deadline_s,
        fail_fast_s: float = DEFAULTS.fail_fast_s,
        heartbeat_ms: int = DEFAULTS.heartbeat_ms,
        shared_memory_mb: int = DEFAULTS.shared_memory_mb,
    ) -> None:
        self._connection = Connection(
            endpoints,
            connect_timeout_s=connect_timeout_s,
            deadline_s=deadline_s,
            fail_fast_s=fail_fast_s,
            heartbeat_ms=heartbeat_ms,
            shared_memory_mb=shared_memory_mb,
        )
        self._machine = self._connection.machine
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = 0
        self._is_scheduled = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = float("inf")

    async def __aenter__(self) -> Self:
        self._attach()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def __reduce__(self) -> NoReturn:
        raise UsageError(NOT_COPIED)

    def _attach(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop is None:
            self._connection.check_open()
            self._loop = loop
            self._thread = threading.get_ident()
            self._schedule()
        elif self._loop is not loop:
            raise UsageError("this client belongs to another event loop; make one client for each loop")
        return loop

    def _schedule(self) -> None:
        if not self._is_scheduled:
            self._is_scheduled = True
            assert self._loop is not None
            self._loop.call_soon(self._on_scheduled)

    # Calls ---------------------------------------------------------------------------------------

    @overload
    async def infer(
        self, model: str, x: Input, *, with_info: Literal[False] = False, **options: Unpack[Options]
    ) -> Output: ...

    @overload
    async def infer(
        self, model: str, x: Input, *, with_info: Literal[True], **options: Unpack[Options]
    ) -> tuple[Output, CallInfo]: ...

    async def infer(
        self, model: str, x: Input, *, with_info: bool = False, **options: Unpack[Options]
    ) -> Output | tuple[Output, CallInfo]:
        """Runs one input through a model.

        Args:
            model: its name.
            x: an array without a batch axis, or a dict of them by input name. Nothing is cast. Do not change it
                before the call has ended: a large one may be sent from where it lies. One that goes through shared
                memory is copied there by this call, in the event loop: some 0.1 ms for 600 KB, 80 ms for 100 MiB.
            with_info: also return how it was served.
            options: what else may be said of it, the keywords of `Options`.

        Returns:
            the output, a read-only array; a dict of them if the model has several. With info a pair of both.

        Raises:
            ZmqInferError: one class for each way to fail; see `zmqinfer.errors`.
            UsageError: the client is closed, or was made before a fork.
        """
        loop = self._loop
        # In a thread one loop runs at a time. 0.1 us, where `get_running_loop` asks for the process too, and takes 0.2.
        if loop is None or self._thread != threading.get_ident() or not loop.is_running():
            loop = self._attach()
        connection, machine = self._connection, self._machine
        # Nothing said, nothing to check: 0.02 us, where the call takes 0.1.
        said = options_of(connection.plain, options) if options else connection.plain
        if not connection.is_usable:
            connection.check_open()
        body: Body = machine.codec.encode(model, said.version, x, None)
        if type(body[1]) is not bytes:
            body = connection.share(model, said.version, body)
        if with_info:
            asked = _InfoFuture(loop=loop)
            return await self._result(asked, model, body, None, said), asked.call_info()
        future: asyncio.Future[Output] = loop.create_future()
        now = time.monotonic()
        tag = machine.submit(future, model, body, None, said, now)
        if not self._is_scheduled:
            self._is_scheduled = True
            loop.call_soon(self._on_scheduled)
        if machine.full_blocks:
            connection.loop.push(now)
        try:
            return await future
        except asyncio.CancelledError:
            self._drop(tag, future)
            raise

    async def _result(
        self, future: asyncio.Future[Output], model: str, body: Body, rows: int | None, said: CallOptions
    ) -> Output:
        """Makes one call and returns its result."""
        tag = self._submit(future, model, body, rows, said)
        try:
            return await future
        except asyncio.CancelledError:
            self._drop(tag, future)
            raise

    def _submit(
        self, future: asyncio.Future[Output], model: str, body: Body, rows: int | None, said: CallOptions
    ) -> int:
        tag = self._machine.submit(future, model, body, rows, said, time.monotonic())
        self._schedule()
        return tag

    async def infer_body(
        self,
        model: str,
        layout: bytes,
        payload: bytes | list[Buffer],
        *,
        rows: int | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Runs an input that is a body already, as `zmqinfer.Client.infer_body` does."""
        future = _InfoFuture(loop=self._attach())
        connection = self._connection
        connection.check_open()
        said = options_of(connection.plain, options)
        body: Body = self._machine.codec.check_body(model, said.version, layout, payload, rows)
        await self._result(future, model, connection.share(model, said.version, body), rows, said)
        return future.answer()

    async def infer_batch(
        self,
        model: str,
        x: Input,
        **options: Unpack[Options],
    ) -> Output:
        """Runs n rows as one call: the leading axis of `x` and of the result is the row.

        More rows than the model's largest batch are split, and the results joined.
        See `infer` for the rest.
        """
        loop, connection, codec = self._attach(), self._connection, self._machine.codec
        connection.check_open()
        said = options_of(connection.plain, options)
        ends_at = time.monotonic() + said.deadline_s
        results: list[Output] = []
        done = sent = 0
        while pieces := pieces_of(codec, model, said.version, x, done):
            left = said._replace(deadline_s=ends_at - time.monotonic())
            calls: list[tuple[int, asyncio.Future[Output]]] = []
            try:
                for piece, rows in pieces:
                    body: Body = connection.share(model, said.version, codec.encode(model, said.version, piece, rows))
                    future: asyncio.Future[Output] = loop.create_future()
                    calls.append((self._submit(future, model, body, rows, left), future))
                sent = len(calls)
                results += [await future for _, future in calls]
            except BaseException as error:
                for call in calls:
                    self._drop(*call)
                if isinstance(error, ZmqInferError):
                    tell_of_all(error, has_others=done > 0 or sent > 1)
                raise
            done += sum(rows for _, rows in pieces)
        return join(results)

    def infer_many(
        self,
        model: str,
        xs: Iterable[Input] | AsyncIterable[Input],
        *,
        in_flight: int = 1_024,
        return_errors: bool = False,
        keys: Iterable[str | bytes | None] | None = None,
        **options: Unpack[Options],
    ) -> AsyncIterator[Output | ZmqInferError]:
        """Runs many inputs, at most `in_flight` at a time; an asynchronous iterator of the results in order.

        Nothing is sent before the first result is asked for. Of inputs above 32 KiB at most 64 MiB are in flight.
        An input is taken as it is when `xs` gives it, so a generator may use one buffer for all.
        The first error is raised at its place, or takes its place with `return_errors`; one of the source's own is
        raised at its place. `keys` has a routing key for each input, or None; one is taken from it with each input.
        Inputs that are refused because so many are in flight are sent again, and fewer are in flight then.
        One task of its own runs an asynchronous source, and closes it when the results are closed.
        See `infer` for the rest.
        """
        own_keys = many_of(xs, in_flight, keys, options)
        said = options_of(self._connection.plain, options)
        stream = Stream(self._connection, model, in_flight, said, own_keys)
        many = AsyncMany(self._connection, self._attach, self._schedule, stream, xs)
        return many.results(return_errors=return_errors)

    def _drop(self, tag: int, future: asyncio.Future[Output]) -> None:
        """Takes a call back that nobody waits for any more."""
        if self._machine.cancel(tag):
            self._schedule()
        elif future.done() and not future.cancelled():
            # asyncio complains of errors that nobody looked at.
            future.exception()

    # Questions -----------------------------------------------------------------------------------

    async def status(self, *, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Returns what each gateway that answers tells of itself, as `zmqinfer.Client.status` does."""
        return [read_answer(reply) for reply in await self._ask(Kind.STATS, ["status", None, 0, 1], timeout_s)]

    async def models(self, *, timeout_s: float = 5.0) -> list[list[dict[str, Any]]]:
        """Returns for each gateway that answers the models that can be called now."""
        return [read_answer(reply) for reply in await self._ask(Kind.STATS, ["models", None, 0, 1], timeout_s)]

    async def drain(self, worker: str, *, timeout_s: float = 5.0) -> str:
        """Asks a worker to finish what it holds and to leave, as `zmqinfer.Client.drain` does."""
        return drain_answer(await self._ask(Kind.ADMIN, drain_words(worker), timeout_s), self._machine.codec)

    async def _ask(self, kind: Kind, words: Record, timeout_s: float) -> list[Record]:
        seconds("timeout_s", timeout_s)
        loop = self._attach()
        self._connection.check_open()
        now = time.monotonic()
        futures: list[asyncio.Future[Record]] = []
        for number in self._machine.links:
            future: asyncio.Future[Record] = loop.create_future()
            self._machine.ask(future, kind, words, number, now + timeout_s, now)
            futures.append(future)
        self._schedule()
        return those_who_answered(await asyncio.gather(*futures, return_exceptions=True))

    # Gateways that come and go, for discovery -----------------------------------------------------

    def _add_gateway(self, address: str) -> None:
        """Begins to use one more gateway, unless it is there already; raises as `Dialler.dial` does."""
        self._attach()
        self._connection.check_open()
        self._connection.dialler.dial(address)(time.monotonic())
        self._schedule()

    def _remove_gateway(self, address: str) -> None:
        """Leaves a gateway once another one is there, and when it has answered all that it has."""
        self._attach()
        self._connection.dialler.remove(address, time.monotonic())
        self._schedule()

    # The loop ------------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Sends, receives, and ends the waits of tasks."""
        self._is_scheduled = False
        if not self._connection.is_usable:  # closed since this turn was scheduled
            return
        loop = self._loop
        assert loop is not None
        now = time.monotonic()
        due = self._connection.loop.turn(now)
        self._connection.dialler.settle(lambda port: loop.add_reader(port, self._turn), loop.remove_reader)
        if due is None:
            return
        if due <= now:
            self._schedule()
        elif due < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = due
            self._timer = loop.call_later(due - now, self._on_timer)

    def _on_scheduled(self) -> None:
        # Unless what it was for has left meanwhile, with a turn that an answer began.
        if self._is_scheduled:
            self._turn()

    def _on_timer(self) -> None:
        self._timer = None
        self._timer_at = float("inf")
        self._turn()

    async def close(self) -> None:
        """Fails what is pending with `Cancelled`, says goodbye, and closes. Twice is the same as once."""
        if not self._connection.is_open:
            return
        if self._connection.is_forked:  # loop and sockets are the parent's
            self._connection.close()
            return
        self._machine.fail_all("the client was closed")
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):
                self._turn()
                for port in self._connection.dialler.ports.values():
                    self._loop.remove_reader(port)
            if self._timer is not None:
                self._timer.cancel()
        self._connection.close()


class _InfoFuture(KeepsReply, asyncio.Future[Output]):
    """A future of a call's output and all that its reply tells."""
