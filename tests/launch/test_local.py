"""A cluster in this process, as its user sees it."""

from __future__ import annotations

import json
import re
import threading
from typing import Any

import numpy as np
import pytest

from zmqinfer import LocalCluster
from zmqinfer.errors import ConfigError, ModelError, TooLarge, UsageError


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


def test_settings_may_be_dicts() -> None:
    """As well as the classes of zmqinfer.config; what is not said keeps its default."""
    sizes = []

    def note(x: np.ndarray) -> np.ndarray:
        sizes.append(len(x))
        return x

    settings = {"max_batch_size": 2, "policy": "timed"}
    with (
        LocalCluster(note, workers=1, settings=settings, gateway={"max_body_bytes": 1_024}, worker={}) as cluster,
        cluster.client() as client,
    ):
        assert len(list(client.infer_many("note", np.ones((7, 2))))) == 7
        with pytest.raises(TooLarge):
            client.infer("note", np.ones(1_000))
    assert max(sizes) == 2


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ({"settings": {"max_batchsize": 2}}, "settings: key 'max_batchsize' is unknown"),
        ({"gateway": 3}, "gateway is a int, expected a GatewaySettings or a dict"),
        ({"worker": {"weight": 0}}, "worker: weight is 0, expected 0.01 to 100"),
        ({"settings": {"isolation": "process"}}, "isolation is 'process', but a LocalCluster .*; serve it with"),
        ({"settings": {"backend": "numpy"}}, "backend and target are for model folders, .*; leave them out"),
    ],
)
def test_wrong_settings_are_refused_at_once(words: dict[str, Any], sentence: str) -> None:
    """In the constructor, in one sentence."""
    with pytest.raises(ConfigError, match=sentence):
        LocalCluster(double, **words)


def test_a_class_is_served_by_an_object_for_each_worker() -> None:
    """Made, loaded and closed each time that the cluster runs, on the thread that calls it."""
    lives: list[tuple[str, object, int]] = []

    class Model:
        def note(self, what: str) -> None:
            lives.append((what, self, threading.get_ident()))

        def load(self) -> None:
            self.note("load")

        def infer(self, x: np.ndarray) -> np.ndarray:
            self.note("infer")
            return x + 1

        def close(self) -> None:
            self.note("close")

    cluster = LocalCluster(Model, workers=2)
    for _ in range(2):
        with cluster, cluster.client() as client:
            assert client.infer("Model", np.ones(1)) == 2

    assert [sum(what == step for what, *_ in lives) for step in ("load", "infer", "close")] == [4, 2, 4]
    pairs = {(owner, thread) for _, owner, thread in lives}
    assert len(pairs) == len({owner for owner, _ in pairs}) == 4


def test_a_class_that_cannot_be_made_is_said_where_the_cluster_begins() -> None:
    """And nothing of it is left running."""

    class Model:
        def __init__(self, path: str) -> None: ...

    cluster = LocalCluster(Model)
    with pytest.raises(ConfigError, match=r"raised while loading: TypeError: .*path"), cluster:
        pass
    with pytest.raises(UsageError, match="enter it first"):
        cluster.client()


def test_what_a_function_raises_is_logged_with_its_whole_traceback(caplog: pytest.LogCaptureFixture) -> None:
    """Here the model is being written."""

    def parse(x: np.ndarray) -> np.ndarray:
        json.loads("[")
        return x

    with LocalCluster(parse, workers=1) as cluster, cluster.client() as client, pytest.raises(ModelError):
        client.infer("parse", np.ones(1))

    (said,) = caplog.messages
    assert re.match(r'raised error=JSONDecodeError at="test_local\.py:\d+ parse" ', said)
    assert re.search(r'test_local\.py", line \d+, in parse\n    json\.loads\("\["\)\n', said)
    assert re.search(r'decoder\.py", line \d+, in raw_decode', said)
