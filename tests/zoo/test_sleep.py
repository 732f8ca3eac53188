"""The model whose batches take a known time; no test really waits."""

from __future__ import annotations

import time

import numpy as np
import pytest

from zmqinfer.zoo.sleep.sleep import Sleep


@pytest.mark.parametrize(("a_ms", "b_ms", "rows", "seconds"), [(10, 0, 32, 0.01), (2, 0.5, 4, 0.004)])
def test_a_batch_takes_a_plus_b_for_each_row(
    monkeypatch: pytest.MonkeyPatch, a_ms: float, b_ms: float, rows: int, seconds: float
) -> None:
    """Once for the whole batch, which comes back as it was."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    x = np.zeros((rows, 3), np.float32)

    answer = Sleep(a_ms=a_ms, b_ms=b_ms).infer({"x": x})

    assert answer["y"] is x
    assert slept == [pytest.approx(seconds)]


def test_some_batches_stall(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in four or so, by as much."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    model = Sleep(a_ms=10, stall_every=4, stall_ms=50)

    for _ in range(400):
        model.infer({"x": np.zeros((1, 3), np.float32)})

    assert {round(seconds, 3) for seconds in slept} == {0.01, 0.06}
    assert 50 < sum(seconds > 0.02 for seconds in slept) < 150


def test_times_vary_by_as_much_as_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """To either side."""
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    model = Sleep(a_ms=10, noise=0.2)

    for _ in range(400):
        model.infer({"x": np.zeros((1, 3), np.float32)})

    assert 0.008 <= min(slept) < 0.0085
    assert 0.0115 < max(slept) <= 0.012


@pytest.mark.parametrize("parameters", [{"a_ms": -1}, {"b_ms": float("nan")}, {"a_ms": 1e9}])
def test_a_time_that_cannot_be_slept_is_refused(parameters: dict[str, float]) -> None:
    """Before the first batch."""
    with pytest.raises(ValueError, match=r"_ms is .*, expected 0 to 3,600,000 ms"):
        Sleep(**parameters)
