"""The thread-safe client.

A call encodes its input and sends it under one lock; who then waits at the sockets for the answers of
all threads is the affair of node/turns.py.
"""

from __future__ import annotations

import functools
import threading
import time
import weakref
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from zmqinfer.config import DEFAULT_CLIENTS
from zmqinfer.errors import ZmqInferError
from zmqinfer.machine.client.call import Body, CallOptions
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.arguments import check_many, check_timeout, options_of
from zmqinfer.node.connection import (
    DEFAULTS,
    Connection,
)
from zmqinfer.node.many import Many
from zmqinfer.node.questions import drain_answer, drain_words, read_answer, those_who_answered
from zmqinfer.node.rows import join, pieces_of, tell_of_all
from zmqinfer.node.turns import Turns
from zmqinfer.node.waits import Promise, Waiter
from zmqinfer.records import Kind, Record

__all__ = ["Client"]


class Client:
    """Calls models from any thread.

    Args:
        endpoints: addresses of gateways for clients, several in a list or separated by commas.
        connect_timeout_s: how long the first call waits for a first gateway.
        deadline_s: time limit of a call that names none of its own, at most 300.
        heartbeat_ms: how often a silent gateway is spoken to while calls are pending.
        shared_memory_mb: most memory for large inputs that workers of this host may read there, 0 for none.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_CLIENTS,
        *,
        connect_timeout_s: float = DEFAULTS.connect_timeout_s,
        deadline_s: float = DEFAULTS.deadline_s,
        heartbeat_ms: int = DEFAULTS.heartbeat_ms,
        shared_memory_mb: int = DEFAULTS.shared_memory_mb,
    ) -> None:
        # Once: they are dialled again after an interrupt, and an iterator is empty then.
        endpoints = addresses_of(endpoints)
        self._connect = functools.partial(
            Connection, endpoints, connect_timeout_s, deadline_s, heartbeat_ms, shared_memory_mb
        )
        self._renewal = threading.Lock()
        self._is_closed = False
        self._begin(self._connect())

    def _begin(self, connection: Connection) -> None:
        self._connection = connection
        self._machine = connection.machine
        turns = self._turns = Turns(connection)
        # Its own thread keeps them, whoever else has gone.
        weakref.finalize(self, turns.forsake).atexit = False

    def _ready(self) -> Turns:
        """Returns the turns to call in; new ones if an interrupt broke them."""
        if self._turns.is_broken and not self._is_closed:
            with self._renewal:
                if self._turns.is_broken and not self._is_closed:
                    # Once more: the interrupt may have been followed by another one.
                    self._turns.rouse()
                    self._begin(self._connect())
        if not self._connection.is_usable:
            self._connection.check_open()
        return self._turns

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # Calls ---------------------------------------------------------------------------------------

    def infer(
        self,
        model: str,
        x: Input,
        *,
        deadline_s: float | None = None,
        key: str | bytes | None = None,
        priority: int = 4,
        version: int | None = None,
        idempotent: bool | None = None,
        hedge: bool | None = None,
    ) -> Output:
        """Runs one input through a model and waits for the result.

        Args:
            model: its name.
            x: an array without a batch axis, or a dict of them by input name. Nothing is cast.
            deadline_s: time limit of this call.
            key: calls with one key go to one worker while it can take them.
            priority: 1 is the most urgent, 8 the least.
            version: of the model; without one the gateway takes the latest.
            idempotent: whether it may be run again if its worker is lost; as the model says if None.
            hedge: whether a second worker is asked if the first takes long; as the model says if None.

        Returns:
            the output, a read-only array; a dict of them if the model has several.

        Raises:
            ZmqInferError: one class for each way to fail; see `zmqinfer.errors`.
            UsageError: the client is closed, or was made before a fork.
        """
        waiter = Waiter()
        options = options_of(self._connection.plain, deadline_s, key, priority, version, idempotent, hedge)
        self._call([(waiter, x, None)], model, options)
        return waiter.result()  # type: ignore[no-any-return]

    def submit(
        self,
        model: str,
        x: Input,
        *,
        deadline_s: float | None = None,
        key: str | bytes | None = None,
        priority: int = 4,
        version: int | None = None,
        idempotent: bool | None = None,
        hedge: bool | None = None,
    ) -> Future[Output]:
        """Begins a call and returns its future, whose `cancel()` takes the call back.

        `x` is taken as it is now and may be changed afterwards. What hangs on the future may begin other calls, but
        must not wait for them: it may run on the thread that takes their replies. See `infer` for the rest.
        """
        options = options_of(self._connection.plain, deadline_s, key, priority, version, idempotent, hedge)
        turns = self._ready()
        # Without the lock, for what its caller gave may raise anything.
        body: Body = turns.machine.codec.encode(model, options.version, x, None)
        promise, tag = turns.locked(lambda: self._promise(turns, model, body, options))
        turns.fulfil()
        promise.future.add_done_callback(lambda future: self._on_done(turns, promise, future, tag))
        return promise.future

    @staticmethod
    def _promise(turns: Turns, model: str, body: Body, options: CallOptions) -> tuple[Promise, int]:
        turns.connection.check_open()
        if type(body[1]) is not bytes:
            body = turns.connection.own(model, options.version, body)
        now = time.monotonic()
        promise = turns.promise()
        try:
            tag = turns.machine.submit(promise, model, body, None, options, now)
        except ZmqInferError:
            turns.drop_promise(promise)
            raise
        turns.send(now)
        turns.keep()
        return promise, tag

    @staticmethod
    def _on_done(turns: Turns, promise: Promise, future: Future[Output], tag: int) -> None:
        if not future.cancelled() or not turns.connection.is_usable or turns.is_broken:
            return

        def cancel() -> bool:
            is_cancelled = turns.connection.is_usable and turns.machine.cancel(tag)
            if is_cancelled:
                turns.drop_promise(promise)
                turns.send(time.monotonic())
            return is_cancelled

        # A call that could still be taken back gets no reply, so nobody else tells those who `wait` for the future.
        if turns.locked(cancel):
            future.set_running_or_notify_cancel()
        turns.fulfil()

    def infer_batch(
        self,
        model: str,
        x: Input,
        *,
        deadline_s: float | None = None,
        key: str | bytes | None = None,
        priority: int = 4,
        version: int | None = None,
        idempotent: bool | None = None,
        hedge: bool | None = None,
    ) -> Output:
        """Runs n rows as one call: the leading axis of `x` and of the result is the row.

        More rows than the model's largest batch are split, and the results joined.
        See `infer` for the rest.
        """
        options = options_of(self._connection.plain, deadline_s, key, priority, version, idempotent, hedge)
        self._ready()
        ends_at = time.monotonic() + options.deadline_s
        results: list[Output] = []
        done = sent = 0
        while pieces := pieces_of(self._machine.codec, model, version, x, done):
            waits = [(Waiter(), piece, rows) for piece, rows in pieces]
            try:
                self._call(waits, model, options._replace(deadline_s=ends_at - time.monotonic()))
                sent = len(waits)
                results += [waiter.result() for waiter, _, _ in waits]
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
        deadline_s: float | None = None,
        key: str | bytes | None = None,
        priority: int = 4,
        version: int | None = None,
        idempotent: bool | None = None,
        hedge: bool | None = None,
    ) -> Iterator[Output | ZmqInferError]:
        """Runs many inputs, at most `in_flight` at a time; a lazy iterator of the results in order.

        Nothing is sent before the first result is asked for. Of inputs above 32 KiB at most 64 MiB are in flight.
        An input is taken as it is when `xs` gives it, so a generator may use one buffer for all.
        The first error is raised at its place, or takes its place with `return_errors`.
        If the client is closed meanwhile, what is in flight ends as `Cancelled`, and so does the iterator.
        See `infer` for the rest.
        """
        check_many(xs, in_flight)
        options = options_of(self._connection.plain, deadline_s, key, priority, version, idempotent, hedge)
        many = Many(self, self._ready(), model, iter(xs), in_flight, options)
        return many.results(return_errors=return_errors)

    def _call(self, waits: Sequence[tuple[Waiter, Input, int | None]], model: str, options: CallOptions) -> None:
        """Sends calls at once and waits for all of them; takes them back if the wait is interrupted."""
        turns = self._ready()
        connection, machine = turns.connection, turns.machine
        tags: list[int] = []
        # Without the lock, for what its caller gave may raise anything.
        bodies: list[Body] = [machine.codec.encode(model, options.version, x, rows) for _, x, rows in waits]

        def send() -> None:
            if not connection.is_usable:
                connection.check_open()
            now = time.monotonic()
            try:
                for (waiter, _, rows), body in zip(waits, bodies, strict=True):
                    sent = body if type(body[1]) is bytes else connection.share(model, options.version, body)
                    tags.append(machine.submit(waiter, model, sent, rows, options, now))
            except ZmqInferError:
                for tag in tags:
                    machine.cancel(tag)
                raise
            turns.send(now)

        turns.locked(send)
        if turns.kept:
            turns.fulfil()
        try:
            for waiter, _, _ in waits:
                turns.wait(waiter)
        except BaseException:  # an interrupt: nobody will look at these answers
            for waiter, _, _ in waits:
                turns.leave(waiter)
            turns.drop(tags)
            # Nobody may call again, and nobody else may wait.
            turns.watch()
            raise

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
        check_timeout(timeout_s)
        turns = self._ready()
        waiters = [Waiter() for _ in turns.machine.links]

        def ask() -> None:
            turns.connection.check_open()
            now = time.monotonic()
            for number, waiter in enumerate(waiters):
                turns.machine.ask(waiter, kind, words, number, now + timeout_s, now)
            turns.send(now)

        turns.locked(ask)
        turns.fulfil()
        for waiter in waiters:
            turns.wait(waiter)
        return those_who_answered([waiter.outcome() for waiter in waiters])

    def close(self) -> None:
        """Fails what is pending with `Cancelled`, says goodbye, and closes. Twice is the same as once."""
        with self._renewal:
            if self._is_closed:
                return
            self._is_closed = True
        if self._connection.is_forked:
            self._connection.close()
            return
        self._turns.close("the client was closed")
