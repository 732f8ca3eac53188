"""What people see of a cluster fits 80 columns, whatever it has done."""

from __future__ import annotations

from typing import Any

import pytest

from zmqinfer.cli.shown import model_lines, ring_lines, status_lines


def worker(name: str, *models: str, standing: str = "in", **other: object) -> dict[str, Any]:
    """A worker of `status --json` that has done much."""
    return {
        "name": name,
        "state": "draining",
        "share": 1.0,
        "in_flight": 1_024,
        "credits": 65_536,
        "answered": 123_456_789,
        "batches": 1_234_567,
        "mean_batch_size": 100.0,
        "models": [{"name": model, "version": 1, "standing": standing} for model in models],
        **other,
    }


def gateway(*workers: dict[str, Any], **other: object) -> dict[str, Any]:
    """A gateway of `status --json`."""
    names = ("received", "refused", "accepted", "answered", "pending")
    return {
        "address": "tcp://127.0.0.1:5555",
        "pid": 4_194_304,
        "uptime_s": 93_784.2,
        "version": "0.1.0",
        "ring_version": "0f12ab34cd56ef78",
        "clients": 4_000,
        "requests": {**dict.fromkeys(names, 10**9), "outcomes": {"OK": 10**9, "DEADLINE_EXCEEDED": 10**8, "LOST": 1}},
        "queued": {"requests": 10_000},
        "workers": list(workers),
        **other,
    }


def test_status_fits_80_columns() -> None:
    """With large counts too; a name for which there is no room has a line of its own, and is whole."""
    name = "a-host-with-quite-a-long-name-1234567"

    lines = list(status_lines(gateway(worker("worker_1", "echo"), worker(name, *(f"model_{n}" for n in range(9))))))

    assert max(map(len, lines)) <= 80
    assert f"  {name}" in lines
    assert any(line.endswith("pending 1,000,000,000, queued 10,000") for line in lines)


def test_status_is_sorted_by_name() -> None:
    """As people count: 2 stands before 10."""
    lines = list(status_lines(gateway(*(worker(f"worker_{n}", "m_10", "m_9") for n in (10, 9, 1)))))

    named = [line.split()[0] for line in lines[lines.index("") :] if "_" in line]
    assert named == ["worker_1", "worker_9", "worker_10", "m_9:1", "m_10:1"]


def test_status_says_where_each_model_is() -> None:
    """And of those who do not get its calls as the others do, why."""
    lines = list(
        status_lines(gateway(worker("w1", "echo", "both"), worker("w2", "both"), worker("w3", "both", standing="out")))
    )

    assert lines[-2:] == ["  both:1  w1, w2, w3 (out)", "  echo:1  w1"]
    assert list(status_lines(gateway(worker("w1", "echo"), worker("w2", "echo"))))[-1] == "  echo:1  all"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "0 s"), (59.6, "1 min 0 s"), (10_000, "2 h 46 min"), (93_784.2, "1 d 2 h")]
)
def test_status_says_how_long_it_runs(seconds: float, text: str) -> None:
    """In two units."""
    assert f", up {text}, " in list(status_lines(gateway(uptime_s=seconds)))[1]


def test_other_answers_fit_too() -> None:
    """Models with many inputs on many workers, and a ring of them."""
    workers = [f"worker_{n}" for n in range(1, 31)]
    tensors = [[f"input_{n}", "FP32", [-1, 224, 224, 3]] for n in range(6)]
    model = {"name": "m", "version": 1, "signature": [tensors, tensors], "max_batch_size": 8, "workers": workers}

    lines = [
        *model_lines([model]),
        *ring_lines("0f12", 1.1, dict.fromkeys(workers, 1.0), dict.fromkeys(workers, 1 / 30)),
    ]

    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines[-2:]] == ["worker_29", "worker_30"]
