"""`zmqinfer bench` and `report`: the five files, and the exit code that carries the verdict."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import Cluster
from tests.processes import Processes, free_addresses, here, run, saved

pytestmark = pytest.mark.slow

FILES = (
    "benchmark_results.json",
    "performance_report.txt",
    "latency_distribution.png",
    "node_distribution.png",
    "performance_comparison.png",
)
PNG = b"\x89PNG\r\n\x1a\n"

# Right at first; then it raises for half of the made-up inputs, and gives another answer for the others.
FAULTY = """
import numpy as np

_rows = [0]

def faulty(x):
    # By rows, for a slow machine makes fewer and larger batches of them; the right answers are asked for first.
    _rows[0] += len(x)
    if _rows[0] <= 500:
        return x
    if (x[:, 0] > 0.5).any():
        raise ValueError("more than half")
    return x + np.float32(1)
"""


def written(folder: Path) -> dict[str, bytes]:
    """The five files, each of which must be there and be what its name says."""
    found = {name: (folder / name).read_bytes() for name in FILES}
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    for name, content in found.items():
        assert content.startswith(PNG) is name.endswith(".png"), name
        assert len(content) > 200, name
    return found


def served(processes: Processes, folder: Path, function: str) -> str:
    """Serves one function; returns where clients dial."""
    clients, workers = free_addresses(2)
    processes.start("gateway", "--clients", clients, "--workers", workers)
    processes.start(
        "worker", "--name", "w1", "-g", workers, "--function", function, "--max-batch-size", "4", cwd=folder
    )
    assert run("status", "-g", clients, "--wait-workers", "1", "--timeout-s", "30").returncode == 0
    return clients


def test_closed_loop_writes_the_five_files_and_report_draws_them_again(cluster: Cluster, tmp_path: Path) -> None:
    """Exit code 0, a headline with successes and failures; `report` needs nothing but the JSON."""
    out = tmp_path / "results"
    words = ("--requests", "200", "--concurrency", "5", "--no-compare", "--out", out)

    done = run("bench", "-g", cluster.clients, *words, timeout_s=60)

    assert done.returncode == 0, done.stderr
    first = written(out)
    results = json.loads(first["benchmark_results.json"])
    text = first["performance_report.txt"].decode()
    assert "0 failures" in done.stdout, done.stdout
    assert done.stdout.splitlines()[0] in text
    assert "w1" in text
    (scenario,) = results["scenarios"]
    assert scenario["model"] == "digits"
    assert {one["sent"] for one in scenario["rounds"]} == {200}
    assert sum(scenario["worker_requests"].values()) == 200 * len(scenario["rounds"])

    for name in FILES[1:]:
        (out / name).unlink()
    again = run("report", out, timeout_s=60)

    assert again.returncode == 0, again.stderr
    assert again.stdout.splitlines()[0] == done.stdout.splitlines()[0]
    assert written(out)["performance_report.txt"] == first["performance_report.txt"]


def test_failures_and_wrong_answers_end_with_1(processes: Processes, tmp_path: Path) -> None:
    """The files are written all the same; the headline carries the failures, and no throughput counts them."""
    (tmp_path / "wrong.py").write_text(FAULTY)
    clients = served(processes, tmp_path, "wrong:faulty")
    words = ("--model", "faulty", "--rate", "400", "--duration-s", "1", "--no-compare", "--out", tmp_path / "results")

    done = run("bench", "-g", clients, *words, timeout_s=60)

    assert done.returncode == 1, (done.stdout, done.stderr)
    (scenario,) = json.loads(written(tmp_path / "results")["benchmark_results.json"])["scenarios"]
    (one,) = scenario["rounds"]
    assert one["sent"] == 400
    failed, wrong = one["failures"]["MODEL_ERROR"], one["wrong_answers"]
    assert min(failed, wrong) > 0
    assert one["latencies"]["count"] == 400 - failed - wrong


@pytest.mark.parametrize("file", [None, "pair.npz"])
def test_any_model_can_be_loaded(cluster: Cluster, tmp_path: Path, file: str | None) -> None:
    """By an open loop, with what is made up from its signature, or with rows of a file; one input is a number."""
    x, scale = np.arange(6, dtype=np.float32).reshape(3, 2), np.arange(3, dtype=np.float32)
    np.savez(tmp_path / "pair.npz", x=x, scale=scale)
    words = ("--model", "pair", *(("--input", file) if file else ()), "--rate", "100", "--duration-s", "0.3")

    done = run("bench", "-g", cluster.clients, *words, "--no-compare", "--out", "results", cwd=tmp_path, timeout_s=60)

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (scenario,) = json.loads(written(tmp_path / "results")["benchmark_results.json"])["scenarios"]
    assert scenario["model"] == "pair"
    assert scenario["load"] == {"rate_per_s": 100.0, "duration_s": 0.3} | scenario["load"]
    assert [one["sent"] for one in scenario["rounds"]] == [30]


def test_a_model_may_want_real_inputs_and_never_answer_alike(processes: Processes, tmp_path: Path) -> None:
    """It is said how to give some, and how its answers are judged; the only model need not be named."""
    (tmp_path / "dice.py").write_text(
        "import numpy as np\ndef dice(x):\n    return np.random.random(x.reshape(-1, 5).shape)"
    )
    clients = served(processes, tmp_path, "dice:dice")
    words = ("bench", "-g", clients, "--rate", "100", "--duration-s", "0.3", "--no-compare", "--out", "results")

    refused = run(*words, cwd=tmp_path, timeout_s=60)
    done = run(*words, "--input", saved(tmp_path / "x.npy", np.zeros(5)), cwd=tmp_path, timeout_s=60)

    assert refused.returncode == 2
    assert "model 'dice' does not take a made-up input: " in refused.stderr
    assert refused.stderr.endswith("; give real ones with --input FILE\n")
    assert done.returncode == 0, done.stderr
    assert "model 'dice' answers the same input differently" in done.stderr


SCENARIO = """
name = "two of each"
duration_s = 1.5
warm_up_s = 0.5
gateways = 2
workers = 2
clients = 2
rate = 200
burst = 4
cancelled = 0.1
patient = 1.0
[gateway]
max_queued = 500
[[models]]
name = "one"
a_ms = 2
[[models]]
name = "other"
a_ms = 3.0
policy = "timed"
hedge = true
"""


def test_one_scenario_is_run_live_and_simulated(tmp_path: Path) -> None:
    """The same calls are made in both, all are answered right, and the same files are written."""
    scenario = tmp_path / "scenario.toml"
    scenario.write_text(SCENARIO)

    live = run("bench", scenario, "--seed", "3", "--out", tmp_path / "live", timeout_s=60)
    simulated = run("simulate", scenario, "--seed", "3", "--out", tmp_path / "simulated", timeout_s=60)

    assert live.returncode == simulated.returncode == 0, live.stderr + simulated.stderr
    made = []
    for name, one in (("two of each", "live"), ("two of each, simulated", "simulated")):
        results = json.loads(written(tmp_path / one)["benchmark_results.json"])
        assert [(found["name"], found["model"]) for found in results["scenarios"]] == [(name, "one"), (name, "other")]
        made.append([found["rounds"][0]["sent"] for found in results["scenarios"]])
        assert results["configuration"]["settings"]["seed"] == 3
    assert made[0] == made[1]
    assert sum(made[0]) > 100
    for done in (live, simulated):
        assert " calls were drawn to be taken back: they are in no figure\n" in done.stdout


def test_a_closed_loop_of_a_scenario(tmp_path: Path) -> None:
    """Each worker takes its part; and that faults are left out is said."""
    scenario = tmp_path / "scenario.toml"
    load = "duration_s = 1\nin_flight = 8\nworkers = 2\nclients = 2\ngateways = 1\npatient = 1.0\ncancelled = 0\n"
    scenario.write_text(load + '[[models]]\nname = "m"\na_ms = 10\n[faults]\ncrash_worker = 1\n')

    live = run("bench", scenario, "--out", tmp_path / "live", timeout_s=60)
    simulated = run("simulate", scenario, "--out", tmp_path / "simulated", "--faults", "-", timeout_s=60)

    assert live.returncode == simulated.returncode == 0, live.stderr + simulated.stderr
    assert "faults of this scenario are left out" in live.stderr
    # Eight in flight, two workers, 10 ms: 400 to 800 a second by how they are divided; real ones may be slow.
    for one, least in (("live", 8), ("simulated", 200)):
        (found,) = json.loads(written(tmp_path / one)["benchmark_results.json"])["scenarios"]
        assert found["load"]["concurrency"] == 8
        assert found["rounds"][0]["sent"] > least
        assert sorted(found["worker_requests"]) == ["worker_1", "worker_2"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "echo"], "leave out --model"),
        (["--no-compare"], "leave out --compare"),
        (["--rate", "5"], "leave out --rate"),
        ([], "few.toml: workers is 0, expected 1 to"),
    ],
)
def test_a_scenario_says_itself_what_is_asked(tmp_path: Path, words: list[str], sentence: str) -> None:
    """Exit code 2 before anything is started."""
    (tmp_path / "few.toml").write_text("workers = 0\n")
    done = here("bench", tmp_path / "few.toml", *words, "--out", tmp_path / "results")

    assert done.returncode == 2
    assert sentence in done.stderr
    assert not (tmp_path / "results").exists()


def test_model_that_is_not_served_ends_with_2(cluster: Cluster, tmp_path: Path) -> None:
    """With the names of those that are; nothing is written."""
    done = here("bench", "-g", cluster.clients, "--model", "missing", "--out", tmp_path / "results")

    assert done.returncode == 2
    assert "'missing'" in done.stderr
    assert "digits" in done.stderr
    assert not (tmp_path / "results").exists()


def test_file_in_the_place_of_the_results_ends_with_2(cluster: Cluster, tmp_path: Path) -> None:
    """Before any load is made: a benchmark of minutes must not end so."""
    (tmp_path / "results").write_text("mine")
    words = ("--requests", "10", "--no-compare", "--out", tmp_path / "results")

    done = here("bench", "-g", cluster.clients, *words)

    assert done.returncode == 2, (done.returncode, done.stderr)
    assert "results" in done.stderr


def test_report_of_a_broken_file_ends_with_2(tmp_path: Path) -> None:
    """The file is named."""
    (tmp_path / "benchmark_results.json").write_text("{")

    done = here("report", tmp_path)

    assert done.returncode == 2
    assert "benchmark_results.json" in done.stderr
