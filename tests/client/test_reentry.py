"""The client is called where it may be least expected: in signal handlers, finalisers, callbacks and sources."""

from __future__ import annotations

import contextlib
import gc
import itertools
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

import greenlet
import numpy as np
import pytest

from tests.client.served import X, held, sleepy
from tests.processes import PATIENCE_S, wait_until
from zmqinfer import Client, LocalCluster
from zmqinfer.errors import Cancelled, DeadlineExceeded, UsageError, ZmqInferError
from zmqinfer.launch.processes import ProcessCluster

Calls = Callable[[Client], object]

has_timer = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")

# Each kind of use, with what it gives.
USES: dict[str, Calls] = {
    "infer": lambda client: np.array_equal(client.infer("model", X), X * 2),
    "submit": lambda client: np.array_equal(client.submit("model", X).result(5), X * 2),
    "infer_batch": lambda client: len(client.infer_batch("model", np.ones((20, 4), np.float32))) == 20,
    "infer_many": lambda client: sum(1 for _ in client.infer_many("model", itertools.repeat(X, 50), in_flight=7)) == 50,
    "large": lambda client: len(client.infer("model", np.ones(100_000, np.float32))) == 100_000,
    "status": lambda client: len(client.status()) == 1,
}


@contextlib.contextmanager
def on_alarm(handler: Callable[[], object]) -> Iterator[Callable[[float], None]]:
    """Lets a signal's handler do something; what is given sets the time at which it comes, and every second later."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    try:
        yield lambda after_s: signal.setitimer(signal.ITIMER_REAL, after_s, 1.0 if after_s else 0.0) and None
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def on_signal_while_pending(client: Client, handler: Callable[[], object]) -> Iterator[None]:
    """Lets a signal's handler do something once a call of this thread is pending, so while it waits, and only once."""
    thread = threading.get_ident()

    def give() -> None:
        wait_until(lambda: client._machine.pending)
        signal.pthread_kill(thread, signal.SIGALRM)

    with on_alarm(handler):
        giver = threading.Thread(target=give)
        giver.start()
        yield
        giver.join()


def interrupt() -> None:
    raise KeyboardInterrupt


# Signals -----------------------------------------------------------------------------------------


@has_timer
@pytest.mark.parametrize("use", USES)
def test_signal_handler_calls_while_the_same_thread_waits(client: Client, use: str) -> None:
    """Both are answered."""
    ends: list[object] = []
    client.infer("model", X)
    with on_signal_while_pending(client, lambda: ends.append(USES[use](client))):
        y = client.infer("model", sleepy(50))

    assert ends == [True]
    assert np.array_equal(y, sleepy(50) * 2)


@has_timer
def test_signal_handler_may_close_the_client(cluster: LocalCluster) -> None:
    """Whoever waits then is told."""
    client = cluster.client()
    client.infer("model", X)
    with held() as x, on_signal_while_pending(client, client.close), pytest.raises(Cancelled, match="closed"):
        client.infer("model", x)


@pytest.mark.slow
@has_timer
def test_signal_handler_calls_at_any_instant(cluster: LocalCluster) -> None:
    """Whatever the thread is in the middle of."""
    dice = random.Random(1)
    uses = list(USES.values())
    ends: list[object] = []
    with cluster.client(deadline_s=5) as client:

        def handle() -> None:
            alarm(0)
            ends.append(dice.choice(uses)(client))
            alarm(dice.uniform(0.000_5, 0.01))

        with on_alarm(handle) as alarm:
            alarm(0.001)
            give_up_at = time.monotonic() + PATIENCE_S
            while len(ends) < 30 and time.monotonic() < give_up_at:
                assert dice.choice(uses)(client)
            alarm(0)

    assert len(ends) >= 30
    assert all(ends)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@has_timer
def test_client_survives_interrupts_at_any_instant(cluster: LocalCluster) -> None:
    """A signal handler may raise anywhere, as Ctrl-C does; nothing is lost by that, and the next call works."""
    dice = random.Random(1)
    with cluster.client() as client, on_alarm(interrupt) as alarm:
        for use in [*USES.values()] * 6:
            kept = client.submit("model", sleepy(30))
            with pytest.raises(KeyboardInterrupt):
                _again_and_again(use, client, alarm, dice.uniform(0.000_5, 0.01))
            alarm(0)

            assert np.array_equal(client.infer("model", X, deadline_s=10), X * 2)
            assert np.array_equal(kept.result(10), sleepy(30) * 2)


def _again_and_again(use: Calls, client: Client, alarm: Callable[[float], None], after_s: float) -> None:
    # And again a second later: the interpreter swallows what is raised while it ends a generator.
    alarm(after_s)
    try:
        while True:
            use(client)
    finally:
        alarm(0)


@has_timer
def test_interrupted_wait_takes_its_call_back(client: Client) -> None:
    """Nobody has to call again for that."""
    client.infer("model", X)
    with held() as x:
        with on_signal_while_pending(client, interrupt), pytest.raises(KeyboardInterrupt):
            client.infer("model", x, deadline_s=2 * PATIENCE_S)

        wait_until(lambda: not client._machine.pending)


@has_timer
@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_fork_in_a_signal_handler_leaves_no_child_waiting(client: Client) -> None:
    """Nobody answers the child: UsageError within the deadline; its parent goes on."""
    parent, codes = os.getpid(), []

    def fork() -> None:
        pid = os.fork()
        if pid:
            codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    client.infer("model", X)
    with on_signal_while_pending(client, fork):
        try:
            y = client.infer("model", sleepy(150), deadline_s=1)
        except UsageError:
            if os.getpid() != parent:
                os._exit(0)
            raise
        finally:
            if os.getpid() != parent:
                os._exit(1)

    assert codes == [0]
    assert np.array_equal(y, sleepy(150) * 2)


# The garbage collector ----------------------------------------------------------------------------


class Holder:
    """In a cycle; calls one client when it is collected, and closes another."""

    def __init__(self, client: Client, own: Client, ends: list[object]) -> None:
        self.client = client
        self.own = own
        self.itself = self
        self.ends = ends

    def __del__(self) -> None:
        self.ends.append(self.client.submit("echo", X))
        try:
            self.ends.append(np.array_equal(self.client.infer("echo", X, deadline_s=5), X))
        except UsageError as error:
            self.ends.append("thread of this client" in str(error))
        self.own.close()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:a zmqinfer client was never closed")
def test_finaliser_calls_and_closes_wherever_it_runs() -> None:
    """In the client's own thread too, where it cannot wait and is told so; what is pending ends in time.

    The nodes are in other processes: else it may run, and wait, in their threads.
    """
    ends: list[object] = []
    threshold = gc.get_threshold()
    with ProcessCluster(1) as cluster, Client(cluster.clients_address) as client:
        gc.set_threshold(1, 1, 1)
        try:
            for _ in range(20):
                holder = Holder(client, Client(cluster.clients_address), ends)
                futures = [one.submit("echo", X, deadline_s=5) for one in (client, holder.own) * 3]
                del holder
                assert not wait(futures, timeout=8).not_done
            wait_until(lambda: gc.collect() or len(ends) == 40)
        finally:
            gc.set_threshold(*threshold)

        assert all(np.array_equal(end.result(5), X) if isinstance(end, Future) else end for end in ends)


@pytest.mark.slow
def test_abandoned_stream_in_a_cycle_is_collected_anywhere(client: Client) -> None:
    """Also by the client's own thread."""
    for _ in range(40):
        holder: list[object] = []
        holder.append(holder)
        stream = client.infer_many("model", itertools.repeat(X, 1_000), in_flight=64)
        next(stream)
        holder.append(stream)
        del stream, holder
        for _ in range(20):
            client.submit("model", X)

    assert np.array_equal(client.infer("model", X, deadline_s=5), X * 2)
    gc.collect()
    assert wait_until(lambda: client.status()[0]["requests"]["pending"] == 0)


# What hangs on a future ---------------------------------------------------------------------------


# A future of its own says that nobody ends it only when its time is up.
IN_VAIN: dict[str, Calls] = {**USES, "submit": lambda client: client.submit("model", X).result(0.1)}


@pytest.mark.parametrize("use", IN_VAIN)
def test_callback_that_would_wait_is_refused(client: Client, use: str) -> None:
    """It runs on the thread that it would wait for; others go on."""
    errors: Future[Exception] = Future()

    def call(_: object) -> None:
        try:
            errors.set_result(AssertionError(f"got {IN_VAIN[use](client)}"))
        except (UsageError, TimeoutError) as error:
            errors.set_exception(error)

    client.submit("model", X).add_done_callback(call)

    with pytest.raises(TimeoutError if use == "submit" else UsageError):
        errors.result(10)
    assert np.array_equal(client.infer("model", X), X * 2)


def test_callback_may_begin_and_take_back_calls(client: Client) -> None:
    """Nothing of that waits."""
    ended: Future[Any] = Future()
    others: list[Future[Any]] = []

    def go_on(first: Future[Any]) -> None:
        others.append(client.submit("model", sleepy(300)))
        others[0].cancel()
        client.submit("model", first.result()).add_done_callback(lambda second: ended.set_result(second.result()))

    client.submit("model", X).add_done_callback(go_on)

    assert np.array_equal(ended.result(5), X * 4)
    assert others[0].cancelled()


def test_callback_may_close_the_client(cluster: LocalCluster) -> None:
    """The rest is Cancelled, and closing again waits for the end."""
    client = cluster.client()
    pending: list[Future[Any]] = []

    def close(_: object) -> None:
        pending.append(client.submit("model", X))
        client.close()

    client.submit("model", X).add_done_callback(close)

    assert isinstance(wait_until(lambda: pending)[0].exception(5), Cancelled)
    client.close()
    with pytest.raises(UsageError, match="closed"):
        client.infer("model", X)


def test_callback_that_raises_hurts_nobody(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even what a future lets through."""
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda hung: seen.append(hung.exc_type))
    future = client.submit("model", X)
    future.add_done_callback(lambda _: interrupt())

    assert np.array_equal(future.result(5), X * 2)
    assert np.array_equal(client.infer("model", X), X * 2)
    assert seen == [KeyboardInterrupt]


@pytest.mark.slow
def test_callback_that_lasts_keeps_nobody_beyond_the_deadline(client: Client) -> None:
    """Who waits meanwhile is told why."""
    has_begun, is_over = threading.Event(), threading.Event()
    client.submit("model", X).add_done_callback(lambda _: has_begun.set() or is_over.wait(PATIENCE_S))
    assert has_begun.wait(PATIENCE_S)
    try:
        with pytest.raises(DeadlineExceeded, match="held up"):
            client.infer("model", X, deadline_s=0.1)
    finally:
        is_over.set()
    assert np.array_equal(client.infer("model", X), X * 2)


# Sources, and other ways to leave a call in its middle -----------------------------------------------


@pytest.mark.parametrize("use", USES)
def test_source_may_call_the_client(client: Client, use: str) -> None:
    """While it is asked for an input."""

    def inputs() -> Iterator[Any]:
        for n in range(3):
            assert USES[use](client)
            yield X + n

    assert [float(y[0]) for y in client.infer_many("model", inputs())] == [0, 2, 4]


def test_source_may_close_the_client(cluster: LocalCluster) -> None:
    """Then what it gives is Cancelled."""
    client = cluster.client()

    def inputs() -> Iterator[Any]:
        yield X
        client.close()
        yield X

    with pytest.raises(ZmqInferError):
        list(client.infer_many("model", inputs()))


def test_greenlets_share_a_client(client: Client) -> None:
    """One may be left in the middle of its stream, and another one calls."""
    got: list[float] = []

    def stream() -> None:
        def inputs() -> Iterator[Any]:
            for n in range(4):
                other.switch()
                yield X + n

        got.extend(float(y[0]) for y in client.infer_many("model", inputs(), in_flight=2))

    def single() -> None:
        while True:
            assert np.array_equal(client.infer("model", X), X * 2)
            first.switch()

    first, other = greenlet.greenlet(stream), greenlet.greenlet(single)
    first.switch()

    assert got == [0, 2, 4, 6]
