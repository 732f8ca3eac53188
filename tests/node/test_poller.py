"""Waiting for ports and for who wakes it."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from zmqinfer.loop.ports import SENT
from zmqinfer.node.poller import Poller
from zmqinfer.node.ports import Dealer, Router
from zmqinfer.node.report import Report

WAIT_S = 0.9


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Ends all its sockets."""
    own = zmq.Context()
    yield own
    own.destroy(linger=0)


def wait(poller: Poller) -> float:
    """Waits for a while; how long that was."""
    began = time.monotonic()
    now, _ = poller.wait(began + WAIT_S, began)
    return now - began


def test_a_connection_that_closes_wakes_who_waits_for_the_monitor(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Of a monitor that was never read before, and again after everything was read."""
    address = "tcp://127.0.0.1:0"
    router = Router(context, address, door="clients", max_frame_bytes=99, left=0.0, report=Report("gateway"))
    poller = Poller([router])

    for word in (b"one", b"two"):
        dealer = Dealer(context, router.address)
        while dealer.send([word]) != SENT:
            time.sleep(0.001)
        while (message := router.receive()) is None:
            assert wait(poller) < WAIT_S, "nobody told of the message"
        assert message[1:] == (word, [])
        assert router.closed() == []
        dealer.close(0)
        while not (closed := router.closed()):
            assert wait(poller) < WAIT_S, "nobody told of the close"
        assert closed == [message[0]]
    poller.close()
    router.close()
    router.socket.close(0)


def test_who_wakes_it_is_heard_once(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """And nothing wakes it when there is nothing; a port that was removed no longer counts."""
    poller = Poller()
    dealer = Dealer(context, "tcp://127.0.0.1:1")
    poller.add(dealer)
    poller.remove(dealer)
    timer = threading.Timer(0.05, poller.wake)
    timer.start()

    assert wait(poller) < WAIT_S
    timer.join()
    began = time.monotonic()
    now, away_s = poller.wait(began + 0.02, began)
    assert now - began >= 0.02
    assert away_s < WAIT_S
    assert not dealer.is_signalled
    poller.close()
    dealer.close(0)
