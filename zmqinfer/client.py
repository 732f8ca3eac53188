"""The thread-safe client.

A call encodes its input, hands it to the client's own thread (node/io_thread.py), and waits for what that
brings. No lock is held meanwhile, so signal handlers and finalisers may call too.
"""

from __future__ import annotations

import time
import weakref
from collections.abc import Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Literal, NoReturn, Self, Unpack, overload

from zmqinfer.config import DEFAULT_CLIENTS
from zmqinfer.errors import Unavailable, UsageError, ZmqInferError
from zmqinfer.machine.client.call import Body
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.answers import Answer, CallInfo
from zmqinfer.node.arguments import Options, many_of, options_of, seconds
from zmqinfer.node.connection import DEFAULTS, NOT_COPIED, Connection
from zmqinfer.node.io_thread import IoThread
from zmqinfer.node.many import Many
from zmqinfer.node.questions import drain_answer, drain_words, read_answer, those_who_answered
from zmqinfer.node.rows import join, pieces_of, tell_of_all
from zmqinfer.node.stream import Stream
from zmqinfer.node.waits import CallFuture, InfoWaiter, Waiter
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import Buffer

__all__ = ["Client"]


class Client:
    """Calls models from any thread.

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
        connection = self._connection = Connection(
            endpoints,
            connect_timeout_s=connect_timeout_s,
            deadline_s=deadline_s,
            fail_fast_s=fail_fast_s,
            heartbeat_ms=heartbeat_ms,
            shared_memory_mb=shared_memory_mb,
        )
        self._machine = connection.machine
        io = self._io = IoThread(connection)
        # The thread keeps connection and itself alive, whoever else has gone.
        weakref.finalize(self, io.forsake).atexit = False
        io.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise UsageError(NOT_COPIED)

    # Calls ---------------------------------------------------------------------------------------

    @overload
    def infer(
        self, model: str, x: Input, *, with_info: Literal[False] = False, **options: Unpack[Options]
    ) -> Output: ...

    @overload
    def infer(
        self, model: str, x: Input, *, with_info: Literal[True], **options: Unpack[Options]
    ) -> tuple[Output, CallInfo]: ...

    def infer(
        self, model: str, x: Input, *, with_info: bool = False, **options: Unpack[Options]
    ) -> Output | tuple[Output, CallInfo]:
        """Runs one input through a model and waits for the result.

        Args:
            model: its name.
            x: an array without a batch axis, or a dict of them by input name. Nothing is cast.
            with_info: also return how it was served.
            options: what else may be said of it, the keywords of `Options`.

        Returns:
            the output, a read-only array; a dict of them if the model has several. With info a pair of both.

        Raises:
            ZmqInferError: one class for each way to fail; see `zmqinfer.errors`.
            UsageError: the client is closed, or was made before a fork.
        """
        connection = self._connection
        if not connection.is_usable:
            connection.check_open()
        said = options_of(connection.plain, options)
        body: Body = self._machine.codec.encode(model, said.version, x, None)
        if type(body[1]) is not bytes:
            body = connection.share(model, said.version, body)
        io = self._io
        waiter = InfoWaiter() if with_info else Waiter()
        io.do(partial(io.begin, waiter, model, body, None, said))
        io.wait((waiter,), said.deadline_s)
        output: Output = waiter.result()
        return (output, waiter.call_info()) if isinstance(waiter, InfoWaiter) else output

    def infer_body(
        self,
        model: str,
        layout: bytes,
        payload: bytes | list[Buffer],
        *,
        rows: int | None = None,
        **options: Unpack[Options],
    ) -> Answer:
        """Runs an input that is a body already, and waits for the body of the result: for programs that pass on bytes.

        It is checked against the model's signature as arrays are, and not copied: do not change it before the call has
        ended.

        Args:
            model: its name.
            layout: what one row looks like, in msgpack: a list of [name, dtype, shape]; name '' for the only input.
            payload: the values in C order and little-endian, tensor by tensor: bytes, or a buffer for each tensor.
            rows: how many there are, as the leading axis of each tensor; None for one without that axis.
            options: as those of `infer`.
        """
        connection, io = self._connection, self._io
        connection.check_open()
        said = options_of(connection.plain, options)
        body: Body = self._machine.codec.check_body(model, said.version, layout, payload, rows)
        waiter = InfoWaiter()
        io.do(partial(io.begin, waiter, model, connection.share(model, said.version, body), rows, said))
        io.wait((waiter,), said.deadline_s)
        waiter.result()
        return waiter.answer()

    def submit(
        self,
        model: str,
        x: Input,
        **options: Unpack[Options],
    ) -> CallFuture:
        """Begins a call and returns its future, a `concurrent.futures.Future`.

        `cancel()` takes the call back, `info()` waits for it and tells how it was served.

        `x` is taken as it is now and may be changed afterwards. What hangs on the future runs on the client's own
        thread: it may begin other calls, and must not be long, for nothing is sent or received meanwhile. To wait for
        another call there is a `UsageError`. See `infer` for the rest.
        """
        connection, io = self._connection, self._io
        connection.check_open()
        said = options_of(connection.plain, options)
        body: Body = self._machine.codec.encode(model, said.version, x, None)
        if type(body[1]) is not bytes:
            body = connection.own(model, said.version, body)
        future = CallFuture(connection, io.do)
        io.do(partial(io.begin, future, model, body, None, said))
        return future

    def infer_batch(
        self,
        model: str,
        x: Input,
        **options: Unpack[Options],
    ) -> Output:
        """Runs n rows as one call: the leading axis of `x` and of the result is the row.

        More rows than the model's largest batch are split, and the results joined.
        See `infer` for the rest.
        """
        connection, io = self._connection, self._io
        connection.check_open()
        said = options_of(connection.plain, options)
        ends_at = time.monotonic() + said.deadline_s
        results: list[Output] = []
        done = sent = 0
        while pieces := pieces_of(self._machine.codec, model, said.version, x, done):
            left = said._replace(deadline_s=ends_at - time.monotonic())
            try:
                bodies = [
                    (self._machine.codec.encode(model, said.version, piece, rows), rows) for piece, rows in pieces
                ]
                waits = []
                for body, rows in bodies:
                    waits.append(Waiter())
                    shared = connection.share(model, said.version, body)
                    io.do(partial(io.begin, waits[-1], model, shared, rows, left))
                sent = len(waits)
                io.wait(waits, left.deadline_s)
                results += [waiter.result() for waiter in waits]
            except ZmqInferError as error:
                tell_of_all(error, has_others=done > 0 or sent > 1)
                raise
            done += sum(rows for _, rows in pieces)
        return join(results)

    def infer_many(
        self,
        model: str,
        xs: Iterable[Input],
        *,
        in_flight: int = 1_024,
        return_errors: bool = False,
        keys: Iterable[str | bytes | None] | None = None,
        **options: Unpack[Options],
    ) -> Iterator[Output | ZmqInferError]:
        """Runs many inputs, at most `in_flight` at a time; a lazy iterator of the results in order.

        Nothing is sent before the first result is asked for. Of inputs above 32 KiB at most 64 MiB are in flight.
        An input is taken as it is when `xs` gives it, so a generator may use one buffer for all.
        The first error is raised at its place, or takes its place with `return_errors`.
        `keys` has a routing key for each input, or None; one is taken from it with each input.
        Inputs that are refused because so many are in flight are sent again, and fewer are in flight then.
        One thread at a time may ask for results.
        If the client is closed meanwhile, what is in flight ends as `Cancelled`, and so does the iterator.
        See `infer` for the rest.
        """
        self._connection.check_open()
        own_keys = many_of(xs, in_flight, keys, options)
        said = options_of(self._connection.plain, options)
        stream = Stream(self._connection, model, in_flight, said, own_keys)
        many = Many(self, self._io, stream, iter(xs), said.deadline_s)
        return many.results(return_errors=return_errors)

    # Questions -----------------------------------------------------------------------------------

    def status(self, *, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Returns what each gateway that answers tells of itself; raises `Unavailable` or worse if none does.

        The entries are those of `zmqinfer status --json`.
        """
        return [read_answer(reply) for reply in self._ask(Kind.STATS, ["status", None, 0, 1], timeout_s)]

    def models(self, *, timeout_s: float = 5.0) -> list[list[dict[str, Any]]]:
        """Returns for each gateway that answers the models that can be called now."""
        return [read_answer(reply) for reply in self._ask(Kind.STATS, ["models", None, 0, 1], timeout_s)]

    def drain(self, worker: str, *, timeout_s: float = 5.0) -> str:
        """Asks a worker to finish what it holds and to leave; returns the gateway's words.

        Raises:
            InvalidArgument: no worker can have this name.
            NotFound: no gateway knows a worker of this name.
        """
        return drain_answer(self._ask(Kind.ADMIN, drain_words(worker), timeout_s), self._machine.codec)

    def _ask(self, kind: Kind, words: Record, timeout_s: float) -> list[Record]:
        seconds("timeout_s", timeout_s)
        connection, io = self._connection, self._io
        connection.check_open()
        waiters = {number: Waiter() for number in list(self._machine.links)}

        def ask(now: float) -> None:
            for number, waiter in waiters.items():
                try:
                    connection.check_goes_on()
                    if number not in self._machine.links:
                        raise Unavailable("the client left this gateway")
                    self._machine.ask(waiter, kind, words, number, now + timeout_s, now)
                except ZmqInferError as error:
                    waiter.set_exception(error)

        io.do(ask)
        io.wait([*waiters.values()], timeout_s)
        return those_who_answered([waiter.outcome for waiter in waiters.values()])

    def close(self) -> None:
        """Fails what is pending with `Cancelled`, says goodbye, and closes. Twice is the same as once."""
        if self._connection.is_forked:
            self._connection.close()
        else:
            self._io.close("the client was closed")
