"""The thread that owns the sockets of a sync client, and its machine.

Nobody else touches either. Whoever wants something of them puts it into the inbox, wakes the thread, and
waits for what comes of it. So a caller holds no lock at any time, and a signal handler or a finaliser may call
the client wherever it interrupts one: what it wants waits in the inbox as that of any other caller. Only what
runs on this very thread (a finaliser, or what hangs on a future) cannot wait for it, and gets a UsageError.

Each call is handed over twice, to this thread and back. One call at a time so took 1.04 to 1.26 times as long as when
its caller waited at the sockets itself, as fast or slow as the machine wakes a thread; 16 threads made 1.4 to 2.0 times
the calls a second, for what they ask for meanwhile leaves together; a stream gave 0.7 to 1.0 of the results a second
(`python -m bench.clients`).
"""

from __future__ import annotations

import select
import threading
import time
import warnings
from collections.abc import Iterable, Sequence
from functools import partial

from zmqinfer.errors import DeadlineExceeded, Executed, UsageError, ZmqInferError
from zmqinfer.loop.inbox import Inbox, Work
from zmqinfer.machine.client.call import Body, CallOptions
from zmqinfer.node.connection import UNCLOSED, Connection
from zmqinfer.node.poller import Waker
from zmqinfer.node.waits import CallFuture, Waiter

__all__ = ["IoThread"]

# So much longer than its deadline a call waits for this thread to end it.
_SLACK_S = 0.5
# Most of what `close` waits for: sockets linger for half a second.
_CLOSE_S = 2.0

_HELD_UP = "the client's own thread was held up, and kept no deadline; let nothing that hangs on a future wait"
_HERE = (
    "this would wait for the thread of this client in that very thread, where a future's callback or a finaliser"
    " runs; use submit, or call from another thread"
)


class IoThread:
    """Turns one connection until it is closed."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._inbox = Inbox()
        self._waker = Waker()
        self._poll = select.poll()
        self._poll.register(self._waker.fileno(), select.POLLIN)
        # Whether it has to be woken. Nobody else writes this: a caller may be interrupted between any two steps.
        self._is_polling = False
        self._is_over = False
        self._why = ""
        self._ident = 0
        self._thread = threading.Thread(target=self._run, name="zmqinfer-client", daemon=True)

    def start(self) -> None:
        """Begins to turn."""
        self._thread.start()

    # For callers, finalisers and signal handlers, in any thread --------------------------------------

    def do(self, work: Work) -> None:
        """Has something done on the thread, soon and in this order; behind its end here, with a closed connection."""
        self._inbox.put(work)
        if self._is_polling:
            self._waker.wake()
        elif self._is_over:
            self._join()
            self._inbox.empty(time.monotonic())

    def begin(
        self, owner: Waiter | CallFuture, model: str, body: Body, rows: int | None, options: CallOptions, now: float
    ) -> None:
        """Sends a call, as work for the thread; its owner gets what is wrong with it."""
        connection = self.connection
        try:
            if not connection.is_open:
                connection.check_goes_on()
            owner.tag = connection.machine.submit(owner, model, body, rows, options, now)
        except ZmqInferError as error:
            owner.set_exception(error)

    def add_gateway(self, address: str) -> None:
        """Begins to use one more gateway, unless it is there already; raises as `Dialler.dial` does."""
        self.connection.check_open()
        self.do(self.connection.dialler.dial(address))

    def remove_gateway(self, address: str) -> None:
        """Leaves a gateway once another one is there, and when it has answered all that it has."""
        self.do(partial(self.connection.dialler.remove, address))

    def wait(self, waiters: Sequence[Waiter], seconds: float) -> None:
        """Returns when all have ended, as they should in so many seconds; takes their calls back if interrupted.

        Raises:
            DeadlineExceeded: something holds the thread up, so that no deadline is kept.
            UsageError: this is the thread itself, or a fork left it behind.
        """
        connection, until = self.connection, time.monotonic() + seconds + _SLACK_S
        is_over = False
        try:
            if threading.get_ident() == self._ident:
                raise UsageError(_HERE)
            if connection.is_forked:
                connection.check_open()
            for waiter in waiters:
                if not waiter.wait(until - time.monotonic()):
                    connection.check_open()  # a signal handler that was run meanwhile may have forked
                    raise DeadlineExceeded(_HELD_UP, executed=Executed.MAYBE)
            is_over = True
        finally:
            if not is_over:
                self.drop(waiter.tag for waiter in waiters)

    def _join(self) -> None:
        if threading.get_ident() != self._ident:
            self._thread.join(_CLOSE_S)

    def drop(self, tags: Iterable[int]) -> None:
        """Takes calls back; not before those that were begun earlier have their tags."""
        if self.connection.is_usable:
            self.do(partial(self._cancel, tags))

    def close(self, why: str) -> None:
        """Ends all that is pending, says goodbye and closes; waits for that, unless this is the thread itself."""
        self._close_soon(why)
        self._join()

    def _close_soon(self, why: str) -> None:
        self._why = self._why or why
        self.do(lambda _: self.connection.shut())

    def forsake(self) -> None:
        """Closes for a client that nobody has any more, without waiting: its finaliser may run anywhere."""
        if self.connection.is_usable:
            self._close_soon("its client was never closed, and nobody has it any more")
            warnings.warn(UNCLOSED, ResourceWarning, stacklevel=2)

    # The thread --------------------------------------------------------------------------------------

    def _run(self) -> None:
        self._ident = threading.get_ident()
        try:
            while self.connection.is_open:
                self._step()
        finally:
            self._end()

    def _step(self) -> None:
        """Does a turn, and waits for the next one."""
        now = time.monotonic()
        self._inbox.empty(now)
        due = self.connection.loop.turn(now) if self.connection.is_open else now
        if due is not None and due <= now:
            return
        poll = self._poll
        self.connection.dialler.settle(lambda port: poll.register(port, select.POLLIN), poll.unregister)
        self._is_polling = True
        # Whoever put something there before that did not wake this thread.
        if not self._inbox:
            wait_ms = None if due is None else max(0.0, (due - time.monotonic()) * 1e3 + 0.5)
            if (self._waker.fileno(), select.POLLIN) in poll.poll(wait_ms):
                self._waker.clear()
        self._is_polling = False

    def _cancel(self, tags: Iterable[int], _now: float) -> None:
        if self.connection.is_open:
            for tag in tags:
                self.connection.machine.cancel(tag)

    def _end(self) -> None:
        connection = self.connection
        connection.shut()
        # From here on a caller does its own work, which finds the connection closed.
        self._is_over = True
        now = time.monotonic()
        try:
            self._inbox.empty(now)
            connection.machine.fail_all(self._why or "the client's own thread failed")
            connection.loop.turn(now)
        finally:
            connection.close()
            self._waker.close()
