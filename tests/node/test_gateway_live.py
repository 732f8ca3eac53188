"""A gateway on real sockets among strangers: garbage, other versions, liars, and honest callers beside them."""

from __future__ import annotations

import socket as socket_module
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import msgpack
import numpy as np
import pytest
import zmq

from tests.client.served import Running
from tests.processes import wait_until
from zmqinfer.client import Client
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status, TooLarge
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.models import function_model
from zmqinfer.node.worker import WorkerNode
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import layout_of
from zmqinfer.wire import VERSION, decode

X = np.arange(4, dtype=np.float32)


def double(x: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """The model."""
    return x * 2


@dataclass
class Open:
    """A gateway that runs beside a worker, and a context for strangers."""

    gateway: GatewayNode
    context: zmq.Context[zmq.Socket[bytes]]

    @contextmanager
    def stranger(self, address: str) -> Iterator[zmq.Socket[bytes]]:
        """A bare DEALER."""
        socket = self.context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(address)
        try:
            yield socket
        finally:
            socket.close()


@contextmanager
def running(clients: str, workers: str, settings: GatewaySettings | None = None) -> Iterator[Open]:
    gateway = GatewayNode(clients, workers, settings)
    worker = WorkerNode("w1", [function_model(double)], [gateway.workers_address])
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with Running(gateway, worker):
        try:
            with Client(gateway.clients_address) as client:
                wait_until(lambda: client.status()[0]["workers"])
            yield Open(gateway, context)
        finally:
            context.destroy(linger=0)


@pytest.fixture(params=["tcp", "ipc"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Open]:
    if request.param == "tcp":
        addresses = ("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    else:
        addresses = (f"ipc://{tmp_path}/c", f"ipc://{tmp_path}/w")
    with running(*addresses) as one:
        yield one


def hears(socket: zmq.Socket[bytes], timeout_ms: int = 2_000) -> tuple[Kind, list[Record]] | None:
    """The next message, or None if there is none for so long."""
    if not socket.poll(timeout_ms):
        return None
    head, *parts = socket.recv_multipart()
    return decode(head, list(parts))


def message(kind: Kind, *records: Record, version: int = VERSION) -> bytes:
    packed = msgpack.packb([version, kind, list(records)])
    assert isinstance(packed, bytes)
    return packed


GARBAGE = (
    b"",
    b"\x00",
    b"GET / HTTP/1.1\r\n\r\n",
    b"\xc1" * 100,
    b"\x93" * 5_000,
    b"\xdd\xff\xff\xff\xff",
    message(Kind.HELLO),
    message(Kind.HELLO, [b"short", "a", None, None]),
    message(Kind.REQUEST, [1, 1, b"id", "double", None, None, -1, 4, 1, None, 1, b"", b""]),
    message(Kind.REPLY, [2**64 - 1] * 13),
    msgpack.packb([VERSION, 99, [[]]]),
)


@pytest.mark.slow
@pytest.mark.parametrize("door", ["clients", "workers"])
def test_garbage_is_counted_answered_once_and_cut_off_after_three(node: Open, door: str) -> None:
    """While honest calls run, whose answers stay right; the gateway lives."""
    address = node.gateway.clients_address if door == "clients" else node.gateway.workers_address
    with Client(node.gateway.clients_address) as client:
        honest = client.infer_many("double", (np.full(4, n, np.float32) for n in range(3_000)), in_flight=16)
        got = [next(honest)]
        for rubbish in GARBAGE:
            with node.stranger(address) as socket:
                events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
                # Twice is forgiven: the connection is kept, and the first one alone is answered.
                for _ in range(2):
                    socket.send(rubbish)
                answer = hears(socket)
                assert answer is not None
                kind, records = answer
                assert kind is Kind.DISCONNECT
                assert records[0][0] == "protocol"
                assert hears(socket, 20) is None
                assert not events.poll(0)
                socket.send(rubbish)
                assert events.poll(2_000), f"still connected after the third {rubbish[:20]!r}"
                socket.disable_monitor()
                events.close()
            got += [next(honest) for _ in range(20)]
        got += list(honest)
        (one,) = client.status()

    assert all(np.array_equal(y, np.full(4, 2 * n)) for n, y in enumerate(got))
    assert len(got) == 3_000
    assert one["protocol_errors"] == 3 * len(GARBAGE)
    assert [worker["state"] for worker in one["workers"]] == ["ready"]
    assert one["requests"]["outcomes"] == {"OK": 3_000}


def test_other_version_is_told_both_versions(node: Open) -> None:
    """An old peer learns what it speaks, what is spoken here, and what to do."""
    for address in (node.gateway.clients_address, node.gateway.workers_address):
        with node.stranger(address) as socket:
            socket.send(message(Kind.HELLO, [b"s" * 16, "old", None, None], version=0))

            answer = hears(socket)

        assert answer is not None
        kind, ((reason, detail, *_),) = answer
        assert kind is Kind.DISCONNECT
        assert reason == "protocol"
        assert "version 0 came" in detail
        assert f"speaks {VERSION}" in detail
        assert "same release" in detail


@pytest.mark.parametrize("door", ["clients", "workers"])
def test_peer_of_an_early_zmtp_is_a_stranger_like_others(door: str) -> None:
    """Its messages have no properties, not even a descriptor; so has HTTP whose bytes look like its greeting."""
    with running("tcp://127.0.0.1:0", "tcp://127.0.0.1:0") as node:
        address = getattr(node.gateway, f"{door}_address")
        host, port = address.removeprefix("tcp://").split(":")
        with socket_module.create_connection((host, int(port))) as raw:
            raw.sendall(b"\x01\x00\x02\x00X" + b"\x02\x00Y" * 5)
            wait_until(lambda: node.gateway.machine.clients.door.offences + node.gateway.machine.workers.door.offences)

        with Client(node.gateway.clients_address) as client:
            assert np.array_equal(client.infer("double", X), X * 2)


def test_stranger_without_a_session_is_not_executed(node: Open) -> None:
    """It is asked for its greeting, as often as it comes; that is no offence."""
    request = [1, 1, b"id", "double", None, None, 1_000_000, 4, 1, None, 1, b"", b""]
    with node.stranger(node.gateway.clients_address) as socket:
        for _ in range(4):
            socket.send(message(Kind.REQUEST, request))
            answer = hears(socket)
            assert answer is not None
            assert answer[0] is Kind.DISCONNECT
            assert answer[1][0][0] == "no session"

    with Client(node.gateway.clients_address) as client:
        (one,) = client.status()
    assert one["requests"]["received"] == 0
    assert one["protocol_errors"] == 0


def test_broken_input_of_a_session_fails_that_request_alone(node: Open) -> None:
    """A layout that is none reaches the worker, which says INVALID_ARGUMENT; the session goes on."""
    with node.stranger(node.gateway.clients_address) as socket:
        socket.send(message(Kind.HELLO, [b"s" * 16, "raw", None, None]))
        requests = [
            [tag, 1, b"id%d" % tag, "double", None, None, 5_000_000, 4, 1, None, 1, layout, b"\x00" * 16]
            for tag, layout in ((1, b"\xff\xff"), (2, b""), (3, msgpack.packb([["", "FP32", [2**62, 2**62]]])))
        ]
        socket.send(message(Kind.REQUEST, *requests))
        statuses: dict[int, str] = {}
        while len(statuses) < 3:
            answer = hears(socket)
            assert answer is not None
            if answer[0] is Kind.REPLY:
                statuses |= {record[0]: record[2] for record in answer[1]}

    assert set(statuses.values()) <= {1, 2}  # INVALID_ARGUMENT, TOO_LARGE
    with Client(node.gateway.clients_address) as client:
        assert np.array_equal(client.infer("double", X), X * 2)


def test_body_over_the_limit_is_too_large_and_over_twice_ends_the_connection() -> None:
    """The first is refused with a sentence; the second never enters the process, and honest calls go on."""
    settings = GatewaySettings(max_body_bytes=100_000)
    with (
        running("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", settings) as node,
        Client(node.gateway.clients_address) as client,
    ):
        with node.stranger(node.gateway.clients_address) as socket:
            # zmqinfer's own client knows the limit from WELCOME, and does not send this.
            body = [layout_of({"": np.zeros(30_000, np.float32)}, None).raw, bytes(120_000)]
            socket.send(message(Kind.HELLO, [b"s" * 16, "raw", None, None]))
            socket.send(message(Kind.REQUEST, [1, 1, b"id", "double", None, None, 5_000_000, 4, 1, None, 1, *body]))
            heard = [hears(socket), hears(socket)]
            (reply,) = (records[0] for kind, records in heard if kind is Kind.REPLY)
            assert reply[2] == Status.TOO_LARGE
            assert "100,000" in reply[3]
        with pytest.raises(TooLarge, match="100,000"):
            client.infer("double", np.zeros(30_000, np.float32))
        with node.stranger(node.gateway.clients_address) as socket:
            events = socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
            # Or over 1 MiB, which a head may have.
            socket.send(b"\x00" * 1_100_000)
            assert events.poll(2_000)
            socket.disable_monitor()
            events.close()

        assert np.array_equal(client.infer("double", X), X * 2)


def ready(name: str, session: bytes) -> bytes:
    return message(Kind.READY, [session, name, "raw", 1_000, None])


@pytest.mark.slow
def test_reply_after_its_worker_was_given_up_is_late() -> None:
    """A worker that falls silent with a request loses it to another; what it says later is counted and dropped."""
    settings = GatewaySettings(heartbeat_ms=50)
    with (
        running("tcp://127.0.0.1:0", "tcp://127.0.0.1:0", settings) as node,
        Client(node.gateway.clients_address, heartbeat_ms=50) as client,
        node.stranger(node.gateway.workers_address) as slow,
    ):
        (listed,) = client.models()[0]
        card = [listed["name"], 1, listed["signature"], 32, 64, True]
        slow.send(ready("slow", b"a" * 16))
        slow.send(message(Kind.MODELS, [0, card]))
        asked: list[Record] = []
        futures = []
        while not asked:
            futures.append(client.submit("double", X))
            heard = hears(slow, 20)
            if heard is not None and heard[0] is Kind.REQUEST:
                asked = heard[1]
        # It says nothing for three heartbeats, and others are asked.
        answers = [future.result(10) for future in futures]

        slow.send(ready("slow", b"a" * 16))
        slow.send(message(Kind.MODELS, [0, card]))
        wrong: Record = [
            asked[0][0],
            1,
            0,
            asked[0][11],
            np.full(4, 99, np.float32).tobytes(),
            "slow",
            1,
            1,
            1,
            None,
            1,
            0,
            0,
        ]
        slow.send(message(Kind.REPLY, wrong))

        wait_until(lambda: client.status()[0]["late_replies"] == 1, 5)
        assert all(np.array_equal(y, X * 2) for y in answers)
        (one,) = client.status()
        assert one["requests"]["moved"] >= 1
        assert one["requests"]["outcomes"] == {"OK": len(futures)}
