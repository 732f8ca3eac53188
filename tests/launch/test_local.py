"""A cluster in this process, as its user sees it."""

from __future__ import annotations

import numpy as np
import pytest

from zmqinfer import LocalCluster
from zmqinfer.errors import UsageError


def double(x: np.ndarray) -> np.ndarray:
    return x * 2


def test_cluster_that_does_not_run_has_no_clients() -> None:
    """Before `with` and after it, in one sentence."""
    cluster = LocalCluster(double)

    with pytest.raises(UsageError, match="enter it first"):
        cluster.client()
    with cluster:
        pass
    with pytest.raises(UsageError, match="enter it first"):
        cluster.client()


def test_cluster_is_entered_once_at_a_time() -> None:
    """The second time is refused at once and changes nothing; after its end it may run again."""
    cluster = LocalCluster(double, workers=1)

    with cluster, cluster.client() as client:
        with pytest.raises(UsageError, match="runs already"), cluster:
            pass
        assert client.infer("double", np.ones(1)) == 2
    with cluster, cluster.client() as client:
        assert client.infer("double", np.ones(1)) == 2


def größe(x: np.ndarray) -> np.ndarray:  # noqa: PLC2401 - no name for a model
    return x


@pytest.mark.parametrize("function", [lambda x: x, größe])
def test_function_without_a_name_for_a_model_is_predict(function: object) -> None:
    """As the class says."""
    with LocalCluster(function, workers=1) as cluster, cluster.client() as client:  # type: ignore[arg-type]
        assert client.infer("predict", np.ones(1)) == 1
