"""The thread-safe client.

Whoever holds the lock does a turn: it drains the sockets, gives out what completed and sends
what is to be sent. A caller does so itself to send its request at once; between calls a thread of
the client's own waits at the descriptors and does the turns. The sockets are never used without
the lock, so they pass from thread to thread as ZeroMQ allows.
"""

from __future__ import annotations

import json
import select
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from zmqinfer.config import DEFAULT_CLIENTS
from zmqinfer.errors import InvalidArgument, Status, Unavailable, ZmqInferError
from zmqinfer.machine.client import Call
from zmqinfer.machine.codec import Input, Output
from zmqinfer.node.connection import DEFAULTS, Connection, check_call, key_bytes
from zmqinfer.node.waker import Waker
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import NAME

__all__ = ["Client"]

_RETRY_S = 0.010


class _Waiter:
    """A thread that waits for one reply. A bare lock, not an Event: 0.2 us against 2.3."""

    __slots__ = ("_lock", "reply")

    def __init__(self) -> None:
        self.reply: Record = []
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self) -> Record:
        self._lock.acquire()
        return self.reply

    def complete(self, reply: Record) -> None:
        self.reply = reply
        self._lock.release()


class _Window:
    """The replies of `infer_many`, in the order of their inputs."""

    def __init__(self) -> None:
        self.slots: deque[_Slot] = deque()
        self.lock = threading.Condition(threading.Lock())


class _Slot:
    """One input's place in a window."""

    __slots__ = ("call", "error", "reply", "window")

    def __init__(self, window: _Window) -> None:
        self.window = window
        self.reply: Record | None = None
        # An input that was refused here never left; its error waits for its turn.
        self.error: ZmqInferError | None = None
        self.call: Call | None = None

    def complete(self, reply: Record) -> None:
        self.reply = reply
        slots = self.window.slots
        # Only who waits for the first one is waked: the others are not looked at before it.
        if slots and slots[0] is self:
            with self.window.lock:
                self.window.lock.notify()


class _Promise:
    """A `concurrent.futures.Future` and what it takes to keep it."""

    __slots__ = ("call", "client", "future", "rows")

    def __init__(self, client: Client, future: Future[Output], rows: int | None) -> None:
        self.client = client
        self.future = future
        self.rows = rows
        self.call: Call | None = None

    def complete(self, reply: Record) -> None:
        self.client._promised.append((self, reply))  # noqa: SLF001 - one idea, two classes

    def fulfil(self, reply: Record) -> None:
        """Ends the future, without the lock: what hangs on it may call the client."""
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            self.future.set_result(self.client._decode(reply, self.rows))  # noqa: SLF001 - one idea, two classes
        except ZmqInferError as error:
            self.future.set_exception(error)

    def on_done(self, future: Future[Output]) -> None:
        # A call that could still be taken back gets no reply, so nobody else tells those who `wait` for the future.
        if future.cancelled() and self.call is not None and self.client._cancel(self.call):  # noqa: SLF001
            future.set_running_or_notify_cancel()


class Client:
    """Calls models from any thread.

    Args:
        endpoints: addresses of gateways for clients, several in a list or separated by commas.
        connect_timeout_s: how long the first call waits for a first gateway.
        deadline_s: time limit of a call that names none of its own, at most 300.
        heartbeat_ms: how often a silent gateway is spoken to while calls are pending.
    """

    def __init__(
        self,
        endpoints: str | Iterable[str] = DEFAULT_CLIENTS,
        *,
        connect_timeout_s: float = DEFAULTS.connect_timeout_s,
        deadline_s: float = DEFAULTS.deadline_s,
        heartbeat_ms: int = DEFAULTS.heartbeat_ms,
    ) -> None:
        self._connection = Connection(endpoints, connect_timeout_s, deadline_s, heartbeat_ms)
        self._machine = self._connection.machine
        self._decode = self._machine.codec.decode
        self._deadline_s = deadline_s
        self._lock = threading.Lock()
        self._promised: deque[tuple[_Promise, Record]] = deque()
        self._waker = Waker()
        self._is_closing = False
        self._wakes_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="zmqinfer-client", daemon=True)
        self._thread.start()

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

        Returns:
            the output, a read-only array; a dict of them if the model has several.

        Raises:
            ZmqInferError: one class for each way to fail; see `zmqinfer.errors`.
            UsageError: the client is closed, or was made before a fork.
        """
        waiter = _Waiter()
        limit_s = check_call(deadline_s, priority, self._deadline_s)
        self._send([(waiter, x, None)], model, version, limit_s, key_bytes(key), priority, idempotent)
        return self._decode(waiter.wait(), None)

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
    ) -> Future[Output]:
        """Begins a call and returns its future, whose `cancel()` takes the call back.

        Do not change `x` before the future is done. What hangs on the future may begin other calls, but
        must not wait for them: it may run on the thread that takes their replies. See `infer` for the rest.
        """
        future: Future[Output] = Future()
        promise = _Promise(self, future, None)
        limit_s = check_call(deadline_s, priority, self._deadline_s)
        (promise.call,) = self._send(
            [(promise, x, None)], model, version, limit_s, key_bytes(key), priority, idempotent
        )
        future.add_done_callback(promise.on_done)
        return future

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
    ) -> Output:
        """Runs n rows as one call: the leading axis of `x` and of the result is the row.

        More rows than the model's largest batch are split, and the results joined.
        See `infer` for the rest.
        """
        limit_s = check_call(deadline_s, priority, self._deadline_s)
        self._connection.check_open()
        ends_at = time.monotonic() + limit_s
        results: list[Output] = []
        done = 0
        while pieces := self._connection.pieces(model, version, x, done):
            inputs = [(_Waiter(), piece, rows) for piece, rows in pieces]
            left_s = ends_at - time.monotonic()
            self._send(inputs, model, version, left_s, key_bytes(key), priority, idempotent)
            replies = [(waiter.wait(), rows) for waiter, _, rows in inputs]
            results += [self._decode(reply, rows) for reply, rows in replies]
            done += sum(rows for _, rows in pieces)
        return self._connection.join(results)

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
    ) -> Iterator[Output | ZmqInferError]:
        """Runs many inputs, at most `in_flight` at a time; a lazy iterator of the results in order.

        The first error is raised at its place, or takes its place with `return_errors`.
        See `infer` for the rest.
        """
        if in_flight < 1:
            raise InvalidArgument(f"in_flight is {in_flight}, expected 1 or more")
        limit_s = check_call(deadline_s, priority, self._deadline_s)
        self._connection.check_open()
        return self._stream(
            model, version, iter(xs), in_flight, limit_s, key_bytes(key), priority, idempotent, return_errors
        )

    def _stream(
        self,
        model: str,
        version: int | None,
        xs: Iterator[Input],
        in_flight: int,
        limit_s: float,
        key: bytes | None,
        priority: int,
        idempotent: bool | None,
        return_errors: bool,
    ) -> Iterator[Output | ZmqInferError]:
        window = _Window()
        slots = window.slots
        # Refilled by a part at a time, so that inputs leave in bundles.
        step = max(1, in_flight // 4)
        is_over = False
        try:
            while True:
                if not is_over and len(slots) <= in_flight - step:
                    fresh: list[tuple[object, Input, int | None]] = []
                    for x in xs:
                        fresh.append((_Slot(window), x, None))
                        if len(fresh) + len(slots) >= in_flight:
                            break
                    else:
                        is_over = True
                    self._send(fresh, model, version, limit_s, key, priority, idempotent, slots)
                if not slots:
                    return
                first = slots[0]
                if first.reply is None and first.error is None:
                    with window.lock:
                        while first.reply is None:
                            window.lock.wait()
                slots.popleft()
                try:
                    if first.reply is None:
                        assert first.error is not None
                        raise first.error
                    result: Output | ZmqInferError = self._decode(first.reply, None)
                except ZmqInferError as error:
                    if not return_errors:
                        raise
                    result = error
                yield result
        finally:
            for slot in slots:
                if slot.call is not None and slot.reply is None:
                    self._cancel(slot.call)

    def _send(
        self,
        inputs: Sequence[tuple[Any, Input, int | None]],
        model: str,
        version: int | None,
        limit_s: float,
        key: bytes | None,
        priority: int,
        idempotent: bool | None,
        slots: deque[_Slot] | None = None,
    ) -> list[Call]:
        """Submits calls for owners and sends them at once."""
        machine = self._machine
        encode, submit = machine.codec.encode, machine.submit
        self._connection.check_open()
        calls = []
        with self._lock:
            self._connection.check_open()
            now = time.monotonic()
            for owner, x, rows in inputs:
                try:
                    body = encode(model, version, x, rows)
                    call = submit(owner, model, version, body, rows or 1, now + limit_s, now, key, priority, idempotent)
                except ZmqInferError as error:
                    if slots is None:
                        raise
                    owner.error = error
                    slots.append(owner)
                    continue
                if slots is not None:
                    owner.call = call
                    slots.append(owner)
                calls.append(call)
            self._turn(now)
        if self._promised:
            self._fulfil()
        return calls

    def _cancel(self, call: Call) -> bool:
        """Takes a call back; False if it had ended already."""
        with self._lock:
            is_cancelled = self._connection.is_open and self._machine.cancel(call)
            if is_cancelled:
                self._turn(time.monotonic())
        self._fulfil()
        return is_cancelled

    # Questions -----------------------------------------------------------------------------------

    def status(self, *, timeout_s: float = 5.0) -> list[dict[str, Any]]:
        """Returns what each gateway tells of itself: the entries of `zmqinfer status --json`."""
        return [self._read(reply) for reply in self._ask(Kind.STATS, ["status", None], timeout_s)]

    def models(self, *, timeout_s: float = 5.0) -> list[list[dict[str, Any]]]:
        """Returns for each gateway the models that can be called now."""
        return [self._read(reply) for reply in self._ask(Kind.STATS, ["models", None], timeout_s)]

    def drain(self, worker: str, *, timeout_s: float = 5.0) -> str:
        """Asks a worker to finish what it holds and to leave; returns the gateway's words.

        Raises:
            InvalidArgument: no worker can have this name.
            NotFound: no gateway knows a worker of this name.
        """
        if not isinstance(worker, str) or not NAME.fullmatch(worker):
            raise InvalidArgument(f"worker is {worker!r}, expected a name of letters, digits and . _ : -")
        replies = self._ask(Kind.ADMIN, ["drain", worker, None, ""], timeout_s)
        for reply in replies:
            if reply[3] == Status.OK:
                return str(reply[4])
        raise self._machine.codec.error([0, replies[0][3], replies[0][4], None, "", 0, 1, 0, None, 0, 0, 0])

    @staticmethod
    def _read(reply: Record) -> Any:
        if reply[2] is None:
            raise Unavailable(f"the gateway does not know the question {reply[1]!r}; run the same release at both ends")
        return json.loads(reply[2])

    def _ask(self, kind: Kind, words: Record, timeout_s: float) -> list[Record]:
        waiters = [_Waiter() for _ in self._machine.links]
        self._connection.check_open()
        with self._lock:
            now = time.monotonic()
            for number, waiter in enumerate(waiters):
                self._machine.ask(waiter, kind, words, number, now + timeout_s, now)
            self._turn(now)
        self._fulfil()
        replies = [waiter.wait() for waiter in waiters]
        for reply in replies:
            if len(reply) > 8:  # a REPLY made here: nobody answered
                raise self._machine.codec.error(reply)
        return replies

    # Turns ---------------------------------------------------------------------------------------

    def _turn(self, now: float) -> None:
        """Drains, does what is due, gives out what completed, sends what is to be sent. Needs the lock."""
        machine, dialler = self._machine, self._connection.dialler
        if machine.dirty:
            self._flush(now)
        while True:
            dialler.drain(machine.on_message, now)
            due = machine.wake_at()
            if due is not None and due <= now:
                machine.on_timer(now)
            completed = machine.completed
            if completed:
                machine.completed = []
                for owner, reply in completed:
                    owner.complete(reply)  # type: ignore[attr-defined]
            if machine.dirty:
                self._flush(now)
            # The descriptors are edge-triggered: whoever had the lock leaves nothing to read.
            if not dialler.is_readable():
                break
        due = machine.wake_at()
        if due is not None and due < self._wakes_at:
            self._wakes_at = due
            self._waker.wake()

    def _fulfil(self) -> None:
        """Ends the futures whose replies came. Must not have the lock."""
        while self._promised:
            try:
                promise, reply = self._promised.popleft()
            except IndexError:  # another thread took the last one
                return
            promise.fulfil(reply)

    def _flush(self, now: float) -> None:
        if self._connection.dialler.flush(self._machine.dirty, now):
            retry_at = now + _RETRY_S
            if retry_at < self._wakes_at:
                self._wakes_at = retry_at
                self._waker.wake()

    def _run(self) -> None:
        poll = select.poll()
        for descriptor in self._connection.dialler.descriptors():
            poll.register(descriptor, select.POLLIN)
        poll.register(self._waker.fileno(), select.POLLIN)
        wait_ms: float | None = 0.0
        while not self._is_closing:
            poll.poll(wait_ms)
            with self._lock:
                if self._is_closing:
                    return
                self._waker.clear()
                now = time.monotonic()
                # While this thread is awake nobody needs to wake it.
                self._wakes_at = float("-inf")
                self._turn(now)
                due = self._machine.wake_at()
                if self._machine.dirty:
                    due = min(due or float("inf"), now + _RETRY_S)
                self._wakes_at = float("inf") if due is None else due
                wait_ms = None if due is None else max(0.0, (due - now) * 1e3 + 0.5)
            self._fulfil()

    def close(self) -> None:
        """Fails what is pending with `Cancelled`, says goodbye, and closes. Twice is the same as once."""
        if not self._connection.is_open:
            return
        if self._connection.is_forked:
            self._connection.close()
            return
        with self._lock:
            self._is_closing = True
            self._machine.fail_all("the client was closed")
            self._turn(time.monotonic())
            self._connection.is_open = False
        self._fulfil()
        self._waker.wake()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
        self._connection.close()
        self._waker.close()
