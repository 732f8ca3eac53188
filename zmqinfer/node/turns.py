"""Who waits at the sockets of a client that many threads use.

A turn sends, receives and ends the waits; whoever holds the lock may do one. A thread that has
called does one to send at once, and then waits at the descriptors itself, as the *leader*, if nobody
does: its answer so reaches it without a hand-over to another thread. Those who call
meanwhile are *followers*, whom the leader's turns serve; when it has its own answer it passes the
lead on. The client's own thread, the *keeper*, leads while nobody waits but something is pending.

A signal handler may raise anywhere in the main thread, as Ctrl-C does. While the main thread waits
that is a call taken back like any other; in the middle of a turn it leaves sockets and machine in a
state that nobody knows. Then these turns are over: the keeper, which no handler interrupts, fails
what is pending, and the client makes new ones.
"""

from __future__ import annotations

import contextlib
import queue
import select
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from zmqinfer.errors import Cancelled, Executed, UsageError, ZmqInferError
from zmqinfer.machine.client.call import SharedBody
from zmqinfer.node.connection import UNCLOSED, Connection
from zmqinfer.node.waits import Promise, Waiter
from zmqinfer.node.waker import Waker

__all__ = ["Turns"]

T = TypeVar("T")

_INTERRUPTED = "the client was interrupted in the middle of a turn, and began anew"


class Turns:
    """A connection and its lock, and whose turn it is to wait for it.

    Attributes:
        kept: how promised calls ended; whoever finds any there tells it by `fulfil`.
        is_broken: an exception out of a signal handler ended a turn in its middle.
    """

    def __init__(self, connection: Connection) -> None:
        self._lock = threading.Lock()
        self.connection = connection
        self.machine = connection.machine
        self._waker = Waker()
        self._woken = self._waker.fileno()
        self._polls = self._poll(), self._poll()
        self._keeper = Waiter()
        self._leader: Waiter | None = self._keeper
        self._followers: dict[Waiter, None] = {}
        # Until when the leader waits at the descriptors; -inf while it does not wait.
        self._wakes_at = float("-inf")
        self._is_closed = False
        self.is_broken = False
        self._heartbeat_s = connection.heartbeat_s
        self._due: float | None = 0.0
        self._promises: dict[Promise, None] = {}
        self._unwanted: deque[int] = deque()
        self.kept: deque[tuple[Promise, Any, BaseException | None]] = deque()
        # One thread at a time tells; what hangs on a future may make it tell the next one.
        self._telling = threading.RLock()
        # A finaliser may put something there wherever this thread is, as into no lock of Python's own.
        self._duty: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._is_watching = False
        self._thread = threading.Thread(target=self._keep, name="zmqinfer-client", daemon=True)
        self._thread.start()

    def locked(self, work: Callable[[], T]) -> T:
        """Does `work` under the lock; what it raises, and is no error of ours, breaks these turns."""
        # No context manager of our own: an interrupt between its lines would keep the lock.
        with self._lock:
            try:
                return work()
            except (ZmqInferError, UsageError):
                raise
            except BaseException:
                self.is_broken = True
                self.rouse()
                raise

    def rouse(self) -> None:
        """Wakes the keeper, as to find that these turns are broken. Needs no lock."""
        self._duty.put(None)
        self._waker.wake()

    def forsake(self) -> None:
        """Ends turns whose client nobody has any more; for its finaliser."""
        if not (self._is_closed or self.connection.is_forked):
            self.is_broken = True
            self.rouse()
            warnings.warn(UNCLOSED, ResourceWarning, stacklevel=2)

    def promise(self) -> Promise:
        """Makes what submits a call for a future. Needs the lock."""
        promise = Promise(self)
        self._promises[promise] = None
        return promise

    def keep_promise(self, promise: Promise, result: Any, error: BaseException | None) -> None:
        """Notes how a promised call ended; `fulfil` tells. Needs the lock."""
        self.drop_promise(promise)
        self.kept.append((promise, result, error))

    def drop_promise(self, promise: Promise) -> None:
        """Forgets a promise whose call was taken back. Needs the lock."""
        self._promises.pop(promise, None)

    def drop(self, tags: Iterable[int]) -> None:
        """Takes calls back with the next turn. Needs no lock: a finaliser may call this in a thread that has it."""
        self._unwanted.extend(tags)
        self._waker.wake()

    def drop_bodies(self, bodies: Iterable[object]) -> None:
        """Gives back with the next turn where bodies lie that will not be submitted. Must not have the lock."""
        places = [body[1].place for body in bodies if isinstance(body, tuple) and isinstance(body[1], SharedBody)]
        if places:
            self.locked(lambda: self.machine.released.extend(places))
            self._waker.wake()

    def _turn(self, now: float) -> float | None:
        """Does turns until there is nothing to read; returns when the next is due. Needs the lock."""
        while self._unwanted:
            self.machine.cancel(self._unwanted.popleft())
        turn = self.connection.turn
        due = turn(now)
        while due is not None and due <= now:
            now = time.monotonic()
            due = turn(now)
        self._due = due
        return due

    def send(self, now: float) -> None:
        """Does a turn for a caller, who need not be the leader. Needs the lock."""
        due = self._turn(now)
        leader = self._leader
        if leader is not None and (leader.done() or (due is not None and due < self._wakes_at)):
            self._waker.wake()

    def keep(self) -> None:
        """Lets the keeper lead if nobody does. Needs the lock."""
        if self._leader is None:
            self._leader = self._keeper
            self._duty.put(None)

    def watch(self) -> None:
        """Lets the keeper look now and then whether somebody leads, as long as anything is pending."""
        if not self._is_watching:
            self._duty.put(None)

    def wait(self, waiter: Waiter) -> None:
        """Returns when `waiter` is done. Must not have the lock."""
        try:
            gate = self.locked(lambda: self._enter(waiter))
            if gate is not None:
                gate.acquire()
            if not waiter.done():
                self._lead(waiter)
            if not waiter.done():
                # The turns broke in another thread, and whoever ends them has not come to this one yet.
                raise Cancelled(_INTERRUPTED, executed=Executed.MAYBE)
        finally:
            self.leave(waiter)

    def _enter(self, waiter: Waiter) -> threading.Lock | None:
        """Makes a waiter the leader, or a follower, who waits at the gate that is returned."""
        if waiter.done():
            return None
        if self._is_closed:
            raise Cancelled(_INTERRUPTED, executed=Executed.MAYBE)
        if self._leader is None or self._leader is self._keeper:
            # A keeper notices when it wakes; until then both wait.
            self._appoint(waiter)
            return None
        self._followers[waiter] = None
        return waiter.close()

    def _appoint(self, waiter: Waiter) -> None:
        """Makes a waiter the leader. It goes to the descriptors at once, for the last turn has left nothing to read."""
        self._leader = waiter
        self._wakes_at = float("inf") if self._due is None else self._due

    def leave(self, waiter: Waiter) -> None:
        """Ends a thread's part in the waiting; twice is the same as once. Must not have the lock."""
        if waiter is self._leader or waiter in self._followers:
            self.locked(lambda: self._pass_on(waiter))
        if self.kept:
            self.fulfil()

    def _lead(self, waiter: Waiter) -> None:
        # Of callers one leads at a time; a keeper that was relieved may still wait at the poll of its own.
        poll = self._polls[waiter is self._keeper]
        while not waiter.done():
            due = self._due
            ready = poll.poll(None if due is None else max(0.0, (due - time.monotonic()) * 1e3 + 0.5))
            is_leading = self.locked(lambda: self._lead_on(waiter, ready))  # noqa: B023 - called at once
            if self.kept:
                self.fulfil()
            if not is_leading:
                return

    def _lead_on(self, waiter: Waiter, ready: list[tuple[int, int]]) -> bool:
        """Does a turn for the leader; False if it is to leave."""
        if self._is_closed or self.is_broken or self._leader is not waiter:
            return False
        # While this thread is awake nobody needs to wake it.
        self._wakes_at = float("-inf")
        for descriptor, _ in ready:
            if descriptor == self._woken:
                self._waker.clear()
        due = self._turn(time.monotonic())
        self._wakes_at = float("inf") if due is None else due
        if waiter.done():
            self._pass_on(waiter)
            return False
        return waiter is not self._keeper or not self.machine.is_at_rest()

    def _poll(self) -> select.poll:
        poll = select.poll()
        for descriptor in self.connection.dialler.descriptors():
            poll.register(descriptor, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        return poll

    def _pass_on(self, waiter: Waiter) -> None:
        """Lets somebody else lead, if it was this one who did."""
        self._followers.pop(waiter, None)
        if self._leader is not waiter:
            return
        self._wakes_at = float("-inf")
        for follower in self._followers:
            if not follower.done():
                del self._followers[follower]
                self._appoint(follower)
                follower.open()
                return
        self._leader = None
        if not self._is_closed and (self._promises or self.machine.is_greeting()):
            self.keep()

    def _keep(self) -> None:
        """What the keeper does: it leads when it is asked to, or finds that nobody does though something is pending."""
        try:
            while not (self._is_closed or self.is_broken):
                if self._leader is not self._keeper:
                    # Who takes results one by one may be long at each: then nobody leads though calls are pending.
                    # Cleared before it looks: who submits after that finds it so, and wakes it.
                    self._is_watching = False
                    self._is_watching = self.machine.pending > 0
                    with contextlib.suppress(queue.Empty):
                        self._duty.get(timeout=self._heartbeat_s if self._is_watching else None)
                with self._lock:
                    if self._leader is None and not self.machine.is_at_rest():
                        self._leader = self._keeper
                    is_mine = self._leader is self._keeper and not self._is_closed
                if is_mine:
                    self._lead(self._keeper)
                    self.leave(self._keeper)
        finally:
            if self.is_broken:
                self.abandon()

    def abandon(self) -> None:
        """Ends broken turns: every wait ends as CANCELLED. Twice is the same as once."""
        with self._lock:
            if self._is_closed:
                return
            self._is_closed = True
            with contextlib.suppress(Exception):  # nobody knows what state the machine is in
                self.machine.fail_all(_INTERRUPTED)
                self.connection.give_out()
            for waiter in [self._leader, *self._followers]:
                if waiter is not None and waiter is not self._keeper and not waiter.done():
                    waiter.set_exception(Cancelled(_INTERRUPTED, executed=Executed.MAYBE))
            for promise in list(self._promises):
                promise.set_exception(Cancelled(_INTERRUPTED, executed=Executed.MAYBE))
            self.connection.shut(_INTERRUPTED)
            self._waker.wake()
        self.fulfil()
        self.connection.close()
        self._waker.close()

    def fulfil(self) -> None:
        """Ends the futures whose calls ended. Must not have the lock."""
        # Whoever tells looks again after that, so who finds somebody telling may leave it to him.
        while self.kept and self._telling.acquire(blocking=False):
            try:
                while self.kept:
                    kept = self.kept[0]
                    self._tell(*kept)
                    # Not before: an interrupt would lose it. What hung on it may have made us tell it already.
                    if self.kept and self.kept[0] is kept:
                        self.kept.popleft()
            finally:
                self._telling.release()

    @staticmethod
    def _tell(promise: Promise, result: Any, error: BaseException | None) -> None:
        future = promise.future
        if future.done() and not future.cancelled():
            return
        if not (future.running() or future.set_running_or_notify_cancel()):
            return
        if error is None:
            future.set_result(result)
        else:
            future.set_exception(error)

    def close(self, detail: str) -> None:
        """Ends all that is pending, says goodbye, and lets every thread go."""
        if self.is_broken:
            self.abandon()
            return
        self.locked(lambda: self._close(detail))
        self.fulfil()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout=1.0)
        self.connection.close()
        self._waker.close()

    def _close(self, detail: str) -> None:
        self.machine.fail_all(detail)
        self._turn(time.monotonic())
        self.connection.shut()
        self._is_closed = True
        self._waker.wake()
        self._duty.put(None)
