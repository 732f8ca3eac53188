"""Before a listening socket: who is let in while descriptors are short."""

from __future__ import annotations

import logging
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from tests.processes import free_addresses, wait_until
from zmqinfer.client import Client
from zmqinfer.node import descriptors
from zmqinfer.node.gate import Gate
from zmqinfer.node.report import Report


class Door:
    """A listening socket with its gate, and a limit of 100 descriptors of which some are open."""

    def __init__(self, listening: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listening = listening
        self.taken = 10
        monkeypatch.setattr(descriptors, "limit", lambda: 100)
        monkeypatch.setattr(descriptors, "lowest_free", lambda: self.taken)
        monkeypatch.setattr(descriptors, "open_now", lambda: self.taken)
        self.gate = Gate("clients", listening.fileno(), 0.25, Report("gateway"))

    def connect(self) -> socket.socket:
        """A connection; an `OSError` if none comes about."""
        one = socket.socket(self.listening.family)
        one.settimeout(0.05)
        try:
            one.connect(self.listening.getsockname())
        except OSError:
            one.close()
            raise
        return one


@pytest.fixture(params=["tcp", "ipc"])
def door(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Door]:
    is_tcp = request.param == "tcp"
    with socket.socket(socket.AF_INET if is_tcp else socket.AF_UNIX) as listening:
        listening.bind(("127.0.0.1", 0) if is_tcp else str(tmp_path / "door"))
        listening.listen()
        yield Door(listening, monkeypatch)


def test_nobody_new_comes_through_a_shut_gate(door: Door, caplog: pytest.LogCaptureFixture) -> None:
    """Who was there goes on; when enough have left it opens again. Each is said once."""
    caplog.set_level(logging.INFO)
    door.gate.tend(0.0)
    with door.connect() as before, door.listening.accept()[0] as accepted:
        door.taken = 75
        door.gate.tend(0.9)
        door.connect().close()  # it was not yet time to look
        door.listening.accept()[0].close()
        for now in (1.0, 2.0):
            door.gate.tend(now)
            if sys.platform == "linux":
                with pytest.raises(OSError, match=r"timed out|No such file"):
                    door.connect()
        before.sendall(b"still here")
        assert accepted.recv(20) == b"still here"

        door.taken = 72
        door.gate.tend(4.0)
        door.taken = 71
        door.gate.tend(5.0)
        door.connect().close()

    assert [record.getMessage() for record in caplog.records] == [
        "few descriptors are left, nobody else may connect door=clients open=75 limit=100",
        "others may connect again door=clients open=71 limit=100",
    ]


def test_who_slips_in_is_cut_off(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number says that there are too many; another door's connection is left alone, whatever its number."""
    with door.connect() as first, door.listening.accept()[0] as low, socket.create_server(("127.0.0.1", 0)) as other:
        monkeypatch.setattr(descriptors, "limit", lambda: 100 * low.fileno())
        door.gate.on_accepted(low.fileno())
        monkeypatch.setattr(descriptors, "limit", low.fileno)
        with socket.create_connection(other.getsockname()) as stranger, other.accept()[0] as not_ours:
            door.gate.on_accepted(not_ours.fileno())
            not_ours.sendall(b"not cut")
            assert stranger.recv(20) == b"not cut"
        first.sendall(b"before")
        assert low.recv(20) == b"before"

        door.gate.on_accepted(low.fileno())

        assert first.recv(20) == b""
    door.gate.open()


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["tcp", "ipc"])
def test_a_gateway_goes_on_with_those_it_has(scheme: str, tmp_path: Path) -> None:
    """Far more want in than there are descriptors, and it keeps some; when they have gone it takes others."""
    clients, workers = free_addresses(2) if scheme == "tcp" else (f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/w")
    limit = 400

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, limit))

    with (tmp_path / "log").open("wb") as log:
        gateway = subprocess.Popen(
            [sys.executable, "-m", "zmqinfer", "gateway", "--clients", clients, "--workers", workers],
            stderr=log,
            preexec_fn=lower,
        )
    context = zmq.Context()
    strangers = [context.socket(zmq.DEALER) for _ in range(2 * limit)]
    try:
        with Client(clients, connect_timeout_s=30) as before:
            assert before.status()[0]["clients"] == 1
            for number, stranger in enumerate(strangers):
                stranger.connect(clients)
                if not number % 8:  # not all at once, for the gateway has to see them come
                    before.status()
            wait_until(lambda: "nobody else may connect" in (tmp_path / "log").read_text())
            # There are some left, so that it need not try for ever to accept who wants in.
            wait_until(lambda: len(list(Path(f"/proc/{gateway.pid}/fd").iterdir())) <= limit * 3 // 4)
            assert before.status()[0]["clients"] == 1

            context.destroy(linger=0)
            wait_until(lambda: "others may connect again" in (tmp_path / "log").read_text())
            with Client(clients, connect_timeout_s=30) as after:
                assert after.status()[0]["clients"] == 2
    finally:
        context.destroy(linger=0)
        gateway.send_signal(signal.SIGTERM)
        assert gateway.wait(30) == 0
    said = (tmp_path / "log").read_text()
    assert f"too few descriptors for max_clients max_clients=4000 room=268 limit={limit}" in said
    assert said.count("nobody else may connect") == 1
