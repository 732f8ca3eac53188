"""Whose turn it is to wait for a client's sockets, and what an interrupt may do to it."""

from __future__ import annotations

import signal
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from zmqinfer import LocalCluster
from zmqinfer.errors import Cancelled
from zmqinfer.node.waits import Promise, Waiter

X = np.arange(4, dtype=np.float32)


def slowly(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Doubles; a value over 1,000 sleeps so many milliseconds more."""
    time.sleep(max(0.0, float(x.max()) - 1_000) / 1_000)
    return x * 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(slowly) as one:
        yield one


def test_a_wait_in_turns_that_broke_is_cancelled(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is no result: the turns may break in another thread before anybody could end this wait."""
    with cluster.client() as one:
        one.infer("slowly", X)
        turns = one._turns
        with monkeypatch.context() as patched:
            patched.setattr(turns, "abandon", lambda: None)  # the keeper comes late
            turns.is_broken = True
            turns.rouse()
            with pytest.raises(Cancelled):
                turns.wait(Waiter())


def test_somebody_looks_after_a_stream_whose_consumer_is_slow(cluster: LocalCluster) -> None:
    """Though another call was pending when it began, so that nobody had to be woken."""
    with cluster.client(heartbeat_ms=50) as one:
        one.infer("slowly", X)
        time.sleep(0.2)  # the keeper has looked since, and found nothing pending
        other = threading.Thread(target=one.infer, args=("slowly", np.full(4, 1_100, np.float32)))
        other.start()
        time.sleep(0.05)
        # Of another shape, so that the first shares no batch with those that last.
        stream = one.infer_many("slowly", [X[:3], *[np.full(4, 1_300, np.float32)] * 4])
        next(stream)
        other.join()
        give_up_at = time.monotonic() + 5
        while one._connection.machine.pending and time.monotonic() < give_up_at:
            time.sleep(0.01)
        assert one._connection.machine.pending == 0
        assert sum(1 for _ in stream) == 4


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs setitimer")
def test_an_interrupted_wait_takes_its_call_back_by_itself(cluster: LocalCluster) -> None:
    """Nobody has to call again for that."""
    before = signal.signal(signal.SIGALRM, _interrupt)
    try:
        with cluster.client(heartbeat_ms=50) as one:
            one.infer("slowly", X)
            time.sleep(0.2)  # the keeper has found nothing pending, and sleeps
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                one.infer("slowly", np.full(4, 1_900, np.float32))
            give_up_at = time.monotonic() + 0.5
            while one._connection.machine.pending and time.monotonic() < give_up_at:
                time.sleep(0.01)
            assert not one._connection.machine.pending
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupt_loses_no_promise(cluster: LocalCluster) -> None:
    """What was to be told is told by who comes next."""
    with cluster.client() as one:
        one.infer("slowly", X)
        turns = one._turns
        promise = Promise(turns)

        class Interrupted(deque[Any]):
            def popleft(self) -> Any:
                super().popleft()
                turns.kept = deque(self)
                raise KeyboardInterrupt

        turns.kept = Interrupted([(promise, 5, None)])
        with pytest.raises(KeyboardInterrupt):
            turns.fulfil()
        turns.fulfil()
        assert promise.future.result(0) == 5
        assert not turns.kept
