"""Closing, interrupting, forking and letting go."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import os
import pickle
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.client.served import X, held
from tests.processes import PATIENCE_S, wait_until
from zmqinfer import AsyncClient, Client, LocalCluster
from zmqinfer.errors import (
    Cancelled,
    InvalidArgument,
    UsageError,
    ZmqInferError,
)


def test_closing_fails_what_is_pending(cluster: LocalCluster) -> None:
    """With Cancelled and while the model still runs, waiting callers included; closing twice is closing once."""
    client = cluster.client()
    client.infer("model", X)
    ends: list[object] = []

    def wait() -> None:
        try:
            client.infer("model", x)
        except ZmqInferError as error:
            ends.append(error)

    with held() as x:
        waiting = threading.Thread(target=wait)
        waiting.start()
        future = client.submit("model", x)
        wait_until(lambda: client._machine.pending == 2)

        client.close()
        client.close()

        waiting.join(PATIENCE_S)
        assert isinstance(future.exception(0), Cancelled)
        assert [type(end) for end in ends] == [Cancelled]


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("return_errors", [False, True])
def test_closing_ends_many_as_it_ends_other_calls(cluster: LocalCluster, size: int, return_errors: bool) -> None:
    """What has come is given out, what is pending is Cancelled, and so is the next that would have been sent."""
    client = cluster.client()
    endless = (np.full(size, 3, np.float32) for _ in itertools.count())
    results = client.infer_many("model", endless, in_flight=8, return_errors=return_errors)
    got = [next(results) for _ in range(20)]

    threading.Thread(target=client.close).start()
    with contextlib.nullcontext() if return_errors else pytest.raises(Cancelled):
        got.extend(itertools.islice(results, 100_000))

    assert len(got) < 100_000
    assert {type(one) for one in got} <= {np.ndarray, Cancelled}
    assert isinstance(got[-1], Cancelled if return_errors else np.ndarray)
    with pytest.raises(UsageError, match="closed"):
        next(client.infer_many("model", [X]))


@pytest.mark.parametrize("call", ["infer", "submit", "infer_batch", "infer_many", "status", "models", "drain"])
def test_closed_client_is_of_no_use(cluster: LocalCluster, call: str) -> None:
    """UsageError, at once."""
    client = cluster.client()
    client.close()
    arguments: dict[str, tuple[Any, ...]] = {"status": (), "models": (), "drain": ("w",), "infer_many": ("model", [X])}

    with pytest.raises(UsageError, match="closed"):
        getattr(client, call)(*arguments.get(call, ("model", X)))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_forked_child_may_not_use_its_parents_client(client: Client) -> None:
    """Nobody answers it: UsageError there at once, its end leaves the sockets alone, and the parent goes on."""
    done = client.submit("model", X)
    done.result()
    with held() as x:
        pending = client.submit("model", x)
        # What is no input has its result as soon as the others are sent.
        inputs = [None, *[x] * 20]
        stream = client.infer_many("model", inputs, return_errors=True, deadline_s=60)  # type: ignore[arg-type]
        assert isinstance(next(stream), InvalidArgument)
        pid = os.fork()
        if pid == 0:
            code = 1
            began = time.monotonic()
            try:
                uses: list[Callable[[], object]] = [lambda: client.infer("model", X), lambda: list(stream)]
                for use in [*uses, pending.result, pending.exception]:
                    with pytest.raises(UsageError, match="fork"):
                        use()
                assert np.array_equal(done.result(), X * 2)
                client.close()
                assert time.monotonic() - began < 30
                code = 0
            finally:
                os._exit(code)

        _, status = os.waitpid(pid, 0)

    assert os.waitstatus_to_exitcode(status) == 0
    assert all(np.array_equal(y, x * 2) for y in stream)
    assert np.array_equal(pending.result(), x * 2)
    assert np.array_equal(client.infer("model", X), X * 2)


def test_idle_client_rests(cluster: LocalCluster) -> None:
    """Between calls its thread does nothing: a client at rest costs no CPU."""
    with cluster.client() as client:
        client.infer("model", X)
        wait_until(lambda: client._io._is_polling)

        assert client._machine.wake_at() is None


def test_thread_that_fails_ends_what_is_pending(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for ever, and the client says that it is of no use any more."""
    client = cluster.client()
    client.infer("model", X)
    seen: list[object] = []
    monkeypatch.setattr(threading, "excepthook", lambda hung: seen.append(hung.exc_type))
    with held() as x:
        pending = client.submit("model", x)

        client._io.do(lambda now: 1 / 0)

        assert "thread failed" in str(pending.exception(PATIENCE_S))
    wait_until(lambda: seen == [ZeroDivisionError])
    with pytest.raises(UsageError, match="closed"):
        client.infer("model", X)
    client.close()


@pytest.mark.parametrize("kind", [Client, AsyncClient])
@pytest.mark.parametrize("way", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_client_cannot_be_copied(
    cluster: LocalCluster, kind: type[Client | AsyncClient], way: Callable[[object], object]
) -> None:
    """As by a pool of processes: one sentence says what to do instead."""
    one = kind(cluster.address)
    with pytest.raises(UsageError, match="cannot be copied or sent to another process; make one there"):
        way(one)
    closed = one.close()
    if closed is not None:
        asyncio.run(closed)
