"""Waiting for sockets and descriptors together."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from zmqinfer.node.poller import Poller

WAIT_MS = 5_000


@pytest.fixture
def context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    """Ends all its sockets."""
    own = zmq.Context()
    yield own
    own.destroy(linger=0)


def test_a_connection_that_closes_wakes_who_waits_for_the_monitor(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """Of a monitor that was never read before, and again after everything was read."""
    router = context.socket(zmq.ROUTER)
    port = router.bind_to_random_port("tcp://127.0.0.1")
    monitor = router.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    poller = Poller([router], [monitor])

    for word in (b"one", b"two"):
        dealer = context.socket(zmq.DEALER)
        dealer.connect(f"tcp://127.0.0.1:{port}")
        dealer.send(word)
        assert poller.poll(WAIT_MS) == [router]
        assert router.recv_multipart()[1] == word
        dealer.close(0)
        began = time.monotonic()
        while monitor not in poller.poll(WAIT_MS):
            assert time.monotonic() - began < WAIT_MS / 1_000, "nobody told of the close"
        assert time.monotonic() - began < WAIT_MS / 2_000
        while monitor.poll(0):
            monitor.recv_multipart()
    router.disable_monitor()
    for socket in (monitor, router):
        socket.close(0)


def test_a_descriptor_wakes_it_too(context: zmq.Context[zmq.Socket[bytes]]) -> None:
    """And nothing does when there is nothing."""
    reader, writer = os.pipe()
    dealer = context.socket(zmq.DEALER)
    poller = Poller([dealer], [reader])
    assert poller.poll(0) == []
    timer = threading.Timer(0.05, os.write, (writer, b"."))
    timer.start()

    assert poller.poll(WAIT_MS) == [reader]
    timer.join()
    dealer.close(0)
    os.close(reader)
    os.close(writer)
