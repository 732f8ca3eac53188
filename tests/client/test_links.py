"""Gateways that come and go, on real sockets, while a worker serves and both clients call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import numpy as np
import pytest

from tests.client.served import Running, X, gateway_here, model
from tests.processes import free_addresses, wait_until
from zmqinfer import AsyncClient, Client
from zmqinfer.config import WorkerSettings
from zmqinfer.errors import ConfigError, UsageError
from zmqinfer.node.models import function_model
from zmqinfer.node.worker import WorkerNode


class Caller:
    """Calls until it is told to stop, and counts what was right."""

    def __init__(self, calls: Callable[[Caller], None]) -> None:
        self.right = 0
        self.is_over = False
        self.error: BaseException | None = None
        self._calls = calls
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._calls(self)
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.error = error

    def goes_on(self, calls: int = 20) -> None:
        """Returns when so many more have been answered."""
        enough = self.right + calls
        wait_until(lambda: self.error or self.right >= enough, what="calls are answered")
        assert self.error is None, self.error

    def ends(self) -> None:
        self.is_over = True
        self._thread.join(20)
        assert not self._thread.is_alive()
        assert self.error is None, self.error


def calls_of(client: Client) -> Callable[[Caller], None]:
    def calls(caller: Caller) -> None:
        number = 0
        while not caller.is_over:
            futures = [client.submit("model", X + number + place, key=b"%d" % place) for place in range(4)]
            for place, future in enumerate(futures):
                assert np.array_equal(future.result(), (X + number + place) * 2)
            number = (number + 1) % 100
            caller.right += 1

    return calls


def async_calls(address: str, loops: list[tuple[asyncio.AbstractEventLoop, AsyncClient]]) -> Callable[[Caller], None]:
    async def one(client: AsyncClient, caller: Caller, place: int) -> None:
        number = 0
        while not caller.is_over:
            y = await client.infer("model", X + number, key=b"%d" % place)
            assert np.array_equal(y, (X + number) * 2)
            number = (number + 1) % 100
            caller.right += 1

    async def tell(caller: Caller) -> None:
        async with AsyncClient(address) as client:
            loops.append((asyncio.get_running_loop(), client))
            await asyncio.gather(*(one(client, caller, place) for place in range(4)))

    return lambda caller: asyncio.run(tell(caller))


@pytest.mark.slow
def test_gateway_is_replaced_by_another_without_a_lost_call() -> None:
    """Sockets, registrations and descriptors of the one that was left are gone."""
    first, second = gateway_here(), gateway_here()
    worker = WorkerNode("w1", [function_model(model)], [first.workers_address], WorkerSettings(heartbeat_ms=100))
    loops: list[tuple[asyncio.AbstractEventLoop, AsyncClient]] = []
    with Running(first, second, worker) as nodes, Client(first.clients_address) as client:
        callers = [Caller(calls_of(client)), Caller(async_calls(first.clients_address, loops))]
        for caller in callers:
            caller.goes_on()
        ((loop, other),) = loops
        diallers = (client._connection.dialler, other._connection.dialler, worker._dialler)
        left = [dialler.ports[0] for dialler in diallers]

        for _ in range(2):  # a second time it is there already
            worker.add_gateway(second.workers_address)
            client._io.add_gateway(second.clients_address)
            loop.call_soon_threadsafe(other._add_gateway, second.clients_address)
        wait_until(lambda: second.machine.ledger.answered > 100, what="the second gateway answers")
        clients = (client._machine, other._machine)
        assert all(len(machine.links) == 2 for machine in clients)

        client._io.remove_gateway(first.clients_address)
        loop.call_soon_threadsafe(other._remove_gateway, first.clients_address)
        wait_until(lambda: all(list(machine.links) == [1] for machine in clients), what="the clients leave")
        worker.remove_gateway(first.workers_address)
        wait_until(lambda: list(worker.machine.links) == [1], what="the worker leaves")
        assert len(first.machine.clients) == 0
        nodes.end(first)

        for caller in callers:
            caller.goes_on()
        wait_until(lambda: all(port.socket.closed for port in left), what="the sockets are closed")
        assert [len(dialler.ports) for dialler in diallers] == [1, 1, 1]
        assert [len(one) for one in (worker._poller._busy, worker._poller._on_signal)] == [1, 2]
        for caller in callers:
            caller.ends()
    assert second.machine.ledger.accepted == second.machine.ledger.answered


@pytest.mark.slow
def test_last_gateway_that_is_removed_serves_until_there_is_another() -> None:
    """A client has to ask somebody; questions are answered by those that are there."""
    first, second = gateway_here(), gateway_here()
    worker = WorkerNode("w1", [function_model(model)], [first.workers_address, second.workers_address])
    (nowhere,) = free_addresses(1)
    with Running(first, second, worker), Client(first.clients_address) as client:
        client._io.remove_gateway(first.clients_address)
        assert np.array_equal(client.infer("model", X), X * 2)
        client._io.add_gateway(nowhere)
        assert np.array_equal(client.infer("model", X), X * 2)

        client._io.add_gateway(second.clients_address)
        wait_until(lambda: 0 not in client._machine.links)

        assert np.array_equal(client.infer("model", X), X * 2)
        (status,) = client.status(timeout_s=0.3)
        assert status["address"] == second.clients_address


def test_gateway_that_cannot_be_dialled_is_refused_where_it_is_named() -> None:
    """By who adds it; and after its end a node takes none, nor keeps a socket of one that came too late."""
    gateway = gateway_here()
    worker = WorkerNode("w1", [function_model(model)], [gateway.workers_address])
    with Running(gateway, worker), Client(gateway.clients_address) as client:
        client.infer("model", X)
        for adds in (worker.add_gateway, client._io.add_gateway):
            with pytest.raises(ConfigError, match="cannot dial"):
                adds("tcp://127.0.0.1:no")
        client.infer("model", X)

    with pytest.raises(UsageError, match="closed"):
        client._io.add_gateway(gateway.clients_address)
    with pytest.raises(UsageError, match="ended"):
        worker.add_gateway(gateway.workers_address)
    worker.remove_gateway(gateway.workers_address)
