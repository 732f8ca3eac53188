"""A cluster of one model for all tests of a file, and a client of it for each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.client.served import model
from zmqinfer import Client, LocalCluster
from zmqinfer.config import ModelSettings


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    # A window of 20 ms for all that comes, so that neighbours do share a batch.
    settings = ModelSettings(policy="timed", max_wait_ms=20, max_batch_size=8)
    with LocalCluster(model, settings=settings) as one:
        yield one


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as one:
        yield one
