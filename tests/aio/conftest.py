"""A cluster of one model for all tests of a file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.aio.served import model
from zmqinfer import LocalCluster
from zmqinfer.config import ModelSettings


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(model, settings=ModelSettings(max_batch_size=8)) as one:
        yield one
