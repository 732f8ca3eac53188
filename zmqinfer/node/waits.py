"""What waits for a call of a sync client: a thread, or a future."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from zmqinfer.node.connection import Connection

if TYPE_CHECKING:
    from zmqinfer.node.turns import Turns

__all__ = ["Promise", "Waiter"]


class Waiter:
    """A thread's wait for one call; a future without its locks, for all that happens under the lock of the turns."""

    __slots__ = ("_error", "_gate", "_is_done", "_result")

    def __init__(self) -> None:
        self._is_done = False
        self._result: Any = None
        self._error: BaseException | None = None
        self._gate: threading.Lock | None = None

    def done(self) -> bool:
        """Whether there is an outcome."""
        return self._is_done

    def set_result(self, result: Any, /) -> None:
        """Ends the wait."""
        self._result = result
        self._is_done = True
        self.open()

    def set_exception(self, error: BaseException, /) -> None:
        """Ends the wait."""
        self._error = error
        self._is_done = True
        self.open()

    def result(self) -> Any:
        """Returns the output, or raises the error, of a call that is done."""
        if self._error is not None:
            raise self._error
        return self._result

    def outcome(self) -> Any:
        """Returns the output or the error of a call that is done."""
        return self._result if self._error is None else self._error

    def close(self) -> threading.Lock:
        """Returns a gate to wait at until `open`."""
        # A bare lock, not an Event: 0.2 us against 2.3.
        self._gate = gate = threading.Lock()
        gate.acquire()
        return gate

    def open(self) -> None:
        """Lets the thread at the gate go on, if there is one."""
        gate, self._gate = self._gate, None
        if gate is not None:
            gate.release()


class _CallFuture(Future[Any]):
    """A future that says in a forked child that nobody will tell it anything there."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def result(self, timeout: float | None = None) -> Any:
        """Returns the output; raises the call's error, and `UsageError` for one that a fork left pending."""
        self._check()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Returns the error, or None; raises `UsageError` as `result` does."""
        self._check()
        return super().exception(timeout)

    def _check(self) -> None:
        if self._connection.is_forked and not self.done():
            self._connection.check_open()


class Promise:
    """What is to be told to a `concurrent.futures.Future`, without the lock: what hangs on it may call the client."""

    __slots__ = ("_turns", "future")

    def __init__(self, turns: Turns) -> None:
        self.future = _CallFuture(turns.connection)
        self._turns = turns

    def done(self) -> bool:
        """Never: a cancelled future is found out when it is told."""
        return False

    def set_result(self, result: Any, /) -> None:
        """Notes what to tell."""
        self._turns.keep_promise(self, result, None)

    def set_exception(self, error: BaseException, /) -> None:
        """Notes what to tell."""
        self._turns.keep_promise(self, None, error)
