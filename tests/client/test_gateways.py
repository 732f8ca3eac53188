"""No gateway, a late one, several, and one that is lost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.client.served import Running, X, gateway_here
from tests.processes import PATIENCE_S, free_addresses, wait_until
from zmqinfer import Client, LocalCluster
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import (
    Executed,
    InvalidArgument,
    NotFound,
    TooLarge,
    Unavailable,
)
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.models import find_models, load_model
from zmqinfer.node.worker import WorkerNode


@pytest.mark.slow
def test_no_gateway_is_an_error_within_the_connect_timeout() -> None:
    """It names where it looked; making the client is none."""
    addresses = free_addresses(2)
    with Client(addresses, connect_timeout_s=0.3) as client, pytest.raises(Unavailable) as caught:
        client.infer("model", X)

    assert all(address in str(caught.value) for address in addresses)
    assert isinstance(caught.value, ConnectionError)
    assert caught.value.executed is Executed.NO


@pytest.mark.slow
def test_gateway_that_comes_late_is_found(client: Client) -> None:
    """A call made before there is a gateway is answered as soon as there is one with a worker."""
    clients, workers = free_addresses(2)
    with Client(clients, connect_timeout_s=10) as early:
        future = early.submit("echo", X)
        gateway = GatewayNode(clients, workers)
        with Running(gateway, _echo_worker(workers)):
            assert np.array_equal(future.result(10), X)


def _echo_worker(*gateways: str) -> WorkerNode:
    from zmqinfer.zoo import ZOO

    return WorkerNode("w1", [load_model(one) for one in find_models([ZOO]) if one.name == "echo"], gateways)


def test_two_gateways_share_the_calls() -> None:
    """One client, one worker, two gateways: both carry requests, and both tell of themselves."""
    gateways = [gateway_here(), gateway_here()]
    worker = _echo_worker(*[one.workers_address for one in gateways])
    with Running(*gateways, worker), Client([one.clients_address for one in gateways]) as client:
        wait_until(lambda: all(one["workers"] for one in client.status()))

        got = list(client.infer_many("echo", [X + n for n in range(100)]))
        answered = [one["requests"]["answered"] for one in client.status()]

    assert all(np.array_equal(y, X + n) for n, y in enumerate(got))
    assert sum(answered) == 100
    assert min(answered) > 20


def answered(ask: Callable[..., list[Any]]) -> list[Any]:
    """The answers that came within 0.3 s; none on a machine that is too busy."""
    try:
        return ask(timeout_s=0.3)
    except Unavailable:
        return []


@pytest.mark.slow
def test_gateway_that_is_not_there_does_not_hide_the_others(cluster: LocalCluster) -> None:
    """Questions are answered by those who can; only if nobody does is that an error."""
    (nowhere,) = free_addresses(1)
    with Client([nowhere, cluster.address]) as client:
        client.infer("model", X)

        # Each asks for so long as it may, for one of them never answers.
        (one,) = wait_until(lambda: answered(client.status))
        (cards,) = wait_until(lambda: answered(client.models))

    assert one["address"] == cluster.address
    assert [card["name"] for card in cards] == ["model"]
    with Client(nowhere, connect_timeout_s=0.3) as client, pytest.raises(Unavailable, match="no gateway answered"):
        client.status(timeout_s=0.3)


@pytest.mark.slow
def test_lost_gateway_is_ridden_out_by_the_other() -> None:
    """As soon as its silence is noticed, new calls go to the one that is left."""
    gateways = [gateway_here(), gateway_here()]
    worker = _echo_worker(*[one.workers_address for one in gateways])
    addresses = [one.clients_address for one in gateways]
    with Running(*gateways, worker) as nodes, Client(addresses, heartbeat_ms=50, deadline_s=10) as client:
        wait_until(lambda: all(one["workers"] for one in client.status()))

        nodes.end(gateways[1])
        # Its silence is noticed by those who wait for it.
        waiting = [client.submit("echo", X + n) for n in range(20)]
        wait_until(lambda: client._machine.links[1].state.value != "up")
        later = [client.infer("echo", X + n) for n in range(20)]

    assert all(np.array_equal(y, X + n) for n, y in enumerate(later))
    assert len(waiting) == 20


def test_status_and_models_tell_of_the_cluster(cluster: LocalCluster, client: Client) -> None:
    """And the books balance."""
    (one,) = client.status()
    (cards,) = client.models()

    assert one["address"] == cluster.address
    requests = one["requests"]
    assert requests["accepted"] == requests["answered"] + requests["pending"]
    assert [card["name"] for card in cards] == ["model"]
    with pytest.raises(NotFound, match="ghost"):
        client.drain("ghost")
    with pytest.raises(InvalidArgument, match="udcff"):
        client.drain("\udcff")


def test_idle_client_lets_a_draining_gateway_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads what the gateway says though it asks for nothing, and says goodbye."""
    monkeypatch.setattr("zmqinfer.machine.gateway.machine._GOODBYE_S", 10 * PATIENCE_S)
    gateway = gateway_here()
    with Running(gateway) as nodes, Client(gateway.clients_address) as client:
        client.status()

        gateway.drain()
        nodes.awaits(gateway)


@pytest.mark.slow
def test_call_fails_fast_when_nobody_is_there() -> None:
    """The first after `fail_fast_s`, the next ones at once."""
    (nowhere,) = free_addresses(1)
    with Client(nowhere, fail_fast_s=0.3) as client:
        with pytest.raises(Unavailable, match="fail_fast_s"):
            client.infer("model", X)
        with pytest.raises(Unavailable, match="fail_fast_s"):
            list(client.infer_many("model", [X] * 100))


@pytest.mark.slow
def test_result_that_is_too_large_costs_nobody_else_anything() -> None:
    """It is refused with both numbers, after one run, and the connection stays."""
    runs = []

    def grows(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        runs.append(len(x))
        return np.zeros((len(x), 3 * 2**20 if x.reshape(len(x), -1).max() > 1 else 1), np.uint8)

    with (
        LocalCluster(grows, workers=1, gateway=GatewaySettings(max_body_bytes=2**20)) as small,
        small.client() as client,
    ):
        with pytest.raises(TooLarge, match=r"the result has 3,145,728 bytes, gateway .* takes 2,097,152") as refused:
            client.infer("grows", np.full(1, 2.0))

        assert refused.value.executed is Executed.YES
        assert np.array_equal(client.infer("grows", np.ones(1)), [0])
    assert runs == [1, 1]
