"""`status`, `models`, `ring` and `drain` against a running cluster: what they print, and how they end."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Cluster, said
from tests.processes import Processes, free_addresses, here, parsed, run, saved, wait_until
from zmqinfer.machine.gateway.intake import NOT_FOUND_AFTER_S

pytestmark = pytest.mark.slow

COMMANDS = ("up", "gateway", "worker", "infer", "status", "models", "ring", "drain", "bench", "report")
ASKING = ("status", "models", "ring")


# The exact surface of `status --json`. Keys may be added, so these must be there, with these types.
GATEWAY = {
    "address": str,
    "version": str,
    "pid": int,
    "uptime_s": float,
    "ring_version": str,
    "clients": int,
    "requests": dict,
    "queued": dict,
    "protocol_errors": int,
    "late_replies": int,
    "workers": list,
}
REQUESTS = {"received": int, "refused": int, "accepted": int, "answered": int, "pending": int, "outcomes": dict}
WORKER = {
    "name": str,
    "session": str,
    "state": str,
    "weight": float,
    "share": float,
    "credits": int,
    "in_flight": int,
    "answered": int,
    "batches": int,
    "mean_batch_size": float,
    "models": list,
}


def uptime_s(cluster: Cluster) -> float:
    """How long the gateway runs: a young one does not know yet who is missing, and says UNAVAILABLE."""
    return float(parsed(here("status", "-g", cluster.clients, "--json"))["gateways"][0]["uptime_s"])


def keeps(value: dict[str, Any], schema: dict[str, type]) -> bool:
    return {name: type(value.get(name)) for name in schema} == schema


def test_status_json_keeps_its_schema(cluster: Cluster, tmp_path: Path) -> None:
    """Every documented key is there with its type, and the books balance."""
    x = saved(tmp_path / "x.npy", np.ones(3, np.float32))
    assert here("infer", "echo", x, "-g", cluster.clients).returncode == 0
    wait_until(lambda: uptime_s(cluster) > NOT_FOUND_AFTER_S)
    assert "'missing'" in said(here("infer", "missing", x, "-g", cluster.clients), 3)

    answer = parsed(here("status", "-g", cluster.clients, "--json"))

    assert answer["schema"] == 1
    (one,) = answer["gateways"]
    assert keeps(one, GATEWAY), one
    assert one["address"] == cluster.clients
    assert one["pid"] == cluster.gateway.pid
    requests = one["requests"]
    assert keeps(requests, REQUESTS), requests
    assert requests["received"] == requests["refused"] + requests["accepted"]
    assert requests["accepted"] == requests["answered"] + requests["pending"]
    assert requests["answered"] + requests["refused"] == sum(requests["outcomes"].values())
    assert requests["outcomes"]["OK"] >= 1
    assert requests["outcomes"]["NOT_FOUND"] >= 1
    assert keeps(one["queued"], {"requests": int, "bytes": int})
    assert [worker["name"] for worker in one["workers"]] in (["w1", "w2"], ["w2", "w1"])
    for worker in one["workers"]:
        assert keeps(worker, WORKER), worker
        assert worker["state"] == "ready"
        assert all(keeps(model, {"name": str, "version": int, "standing": str}) for model in worker["models"])
    assert sum(worker["share"] for worker in one["workers"]) == pytest.approx(1)


def test_status_shows_a_table(cluster: Cluster) -> None:
    """For people: the gateway, its counters, a line for each worker."""
    done = here("status", "-g", cluster.clients)

    assert done.returncode == 0
    assert f"gateway {cluster.clients}\n  process   pid {cluster.gateway.pid}" in done.stdout
    assert all(word in done.stdout for word in ("requests", "outcomes", "digits:1", "w1", "w2", "50.0%"))


def test_waiting_for_workers_that_do_not_come_ends_with_3(cluster: Cluster) -> None:
    """It says what it waits for, and how many there were."""
    done = here("status", "-g", cluster.clients, "--wait-workers", "9", "--timeout-s", "0.3")

    assert done.returncode == 3
    assert "waiting for 9 ready workers, at most 0.3 s" in done.stderr
    assert "2 of 9 workers" in done.stderr


def test_no_gateway_ends_with_3_and_says_where_it_looked(tmp_path: Path) -> None:
    """Every command that is a client. All at once, for two of them have no option to wait less than 5 s."""
    saved(tmp_path / "x.npy", np.ones(3, np.float32))
    nobody = free_addresses(2)
    brief = ["--timeout-s", "0.3"]
    commands = [
        *([name, *brief] for name in ASKING),
        ["drain", "x", *brief],
        ["infer", "echo", "x.npy"],
        ["bench", "--no-compare"],
    ]

    with ThreadPoolExecutor(len(commands)) as pool:
        ends = list(pool.map(lambda words: run(*words, "-g", ",".join(nobody), cwd=tmp_path), commands))

    for done in ends:
        text = said(done, 3)
        assert all(address in text for address in nobody)
        assert "zmqinfer up" in text


def test_models_shows_inputs_and_outputs(cluster: Cluster) -> None:
    """For people and for programs."""
    table = here("models", "-g", cluster.clients)
    listed = parsed(here("models", "-g", cluster.clients, "--json"))

    assert "digits version 1: pixels FP32 [64] -> logits FP32 [10]" in table.stdout
    assert "batches up to 32, on w1\n" in table.stdout
    assert listed["schema"] == 1
    assert {one["name"]: one["workers"] for one in listed["models"]} == {
        "digits": ["w1"],
        "echo": ["w1"],
        "sleep": ["w1"],
        "pair": ["w2"],
    }


def test_ring_says_homes_and_what_would_move(cluster: Cluster) -> None:
    """Shares, peak to mean, a key's home and successors, and the share that a change moves."""
    arguments = ("ring", "-g", cluster.clients, "--explain", "user-42", "--without", "w2", "--with", "w3")
    table = here(*arguments)
    answer = parsed(here(*arguments, "--json"))

    assert sum(answer["shares"].values()) == pytest.approx(1)
    assert sorted(answer["key"]["order"]) == ["w1", "w2"]
    assert answer["moved_without"] == pytest.approx(answer["shares"]["w2"], abs=1e-3)
    assert 0 < answer["moved_with"] <= 1.5 / 3
    home, other = answer["key"]["order"]
    assert f"key 'user-42': home {home}, then {other}" in table.stdout
    assert "without w2:" in table.stdout
    assert "with w3:" in table.stdout


@pytest.mark.parametrize(("option", "name"), [("--without", "w9"), ("--with", "w1")])
def test_ring_refuses_a_change_that_is_none(cluster: Cluster, option: str, name: str) -> None:
    """Leaving without being there, joining twice."""
    text = said(here("ring", "-g", cluster.clients, option, name), 2)

    assert option in text
    assert name in text


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["infer", "digits", "nowhere.npy"], "nowhere.npy"),
        (["infer", "digits", "."], "."),
        (["status", "-g", "http://localhost"], "http://localhost"),
        (["status", "-g", "tcp://127.0.0.1"], "tcp://127.0.0.1"),
        (["status", "-g", ","], "no gateway address"),
        (["status", "-g", "tcp://no.such.host.invalid:1"], "no.such.host.invalid"),
        (["status", "--timeout-s", "soon"], "soon"),
        (["status", "--wait-workers", "-1"], "-1"),
        (["gateway", "--heartbeat-ms", "0"], "--heartbeat-ms is 0"),
        (["gateway", "--heartbeat-ms", "x"], "x"),
        (
            ["worker"],
            "nothing was given to serve, expected one of --models DIR, --function MODULE:CALLABLE, and --demo",
        ),
        (["worker", "--demo", "--models", "."], "--demo and something else was given to serve, expected one of"),
        (["worker", "--name", "a b"], "a b"),
        (["worker", "--weight", "0"], "--weight is 0"),
        (["worker", "--function", "nonsense"], "nonsense"),
        (["worker", "--function", "a:b", "--models", "."], "both --function and --models"),
        (["up", "a:b", "--models", "."], "both MODULE:CALLABLE and --models"),
        (["up", ""], "target is ''"),
        (["up", "--hang-s", "0.3"], "--hang-s is 0.3, expected 2 or more"),
        (["up", "--workers", "0"], "--workers"),
        (["up", "--clients", "tcp://127.0.0.1:99999"], "99999"),
        (["bench", "--preset", "enormous"], "enormous"),
        (["bench", "--preset", "light", "--rate", "5"], "exclude each other"),
        (["report", "nowhere"], "nowhere"),
        (["launch"], "launch"),
        (["infer", "digits"], "FILE"),
        (["drain", "\udcff"], "udcff"),
        (["ring", "--explain", "\udcff"], "UTF-8"),
        (["ring", "--with", "a b"], "--with is 'a b', expected 1 to 128"),
    ],
)
def test_wrong_usage_ends_with_2(cluster: Cluster, tmp_path: Path, arguments: list[str], word: str) -> None:
    """What was given is in the message, and there is no traceback."""
    asks = arguments[0] in {"infer", "drain", "ring"}
    environment = {f"ZMQINFER_{arguments[0].upper()}_GATEWAY": cluster.clients} if asks else {}

    done = here(*arguments, cwd=tmp_path, environment=environment)

    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    assert word in done.stderr


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_of_every_command(command: str) -> None:
    """It works without a cluster and names the command."""
    done = here(*command.split(), "--help")

    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: zmqinfer {command}".rstrip())
    assert done.stderr == ""


def test_variables_stand_in_for_options(cluster: Cluster) -> None:
    """Every option also reads ZMQINFER_<COMMAND>_<OPTION>; a wrong value is refused just the same."""
    answer = run("status", environment={"ZMQINFER_STATUS_GATEWAY": cluster.clients})
    as_json = run("status", "-g", cluster.clients, environment={"ZMQINFER_STATUS_JSON": "1"})
    wrong = run("gateway", environment={"ZMQINFER_GATEWAY_HEARTBEAT_MS": "1"})

    assert cluster.clients in answer.stdout
    assert parsed(as_json)["schema"] == 1
    assert wrong.returncode == 2
    assert "heartbeat" in wrong.stderr


def test_each_kind_of_address_is_told_from_the_other(cluster: Cluster) -> None:
    """A client at the workers' door, a worker at the clients': the sentence names the right one."""
    client = run("status", "-g", cluster.workers, "--timeout-s", "5")
    worker = run("worker", "--demo", "--name", "lost", "-g", cluster.clients)

    assert client.returncode != 0
    assert cluster.clients in client.stderr
    assert worker.returncode == 2, worker.stderr
    assert cluster.workers in worker.stderr


def test_draining_from_outside_is_what_sigterm_does(cluster: Cluster) -> None:
    """The worker ends with 0; of an unknown one the known are named."""
    guest = cluster.processes.worker("guest", cluster.workers)
    cluster.wait_workers(3)

    drained = run("drain", "guest", "-g", cluster.clients)
    unknown = run("drain", "ghost", "-g", cluster.clients)

    assert drained.returncode == 0
    assert "guest" in drained.stdout
    assert guest.ends() == 0
    text = said(unknown, 2)
    assert "ghost" in text
    assert "w1, w2" in text


def test_second_worker_of_a_name_takes_over(cluster: Cluster) -> None:
    """The later one serves; the earlier is told so and exits with a sentence."""
    earlier = cluster.processes.worker("twin", cluster.workers)
    cluster.wait_workers(3)

    later = cluster.processes.worker("twin", cluster.workers)

    assert earlier.ends() == 1
    assert "twin" in earlier.log
    assert "--name" in earlier.log
    cluster.wait_workers(3)
    assert here("drain", "twin", "-g", cluster.clients).returncode == 0
    assert later.ends() == 0


def test_model_without_a_worker_says_how_to_start_one(processes: Processes, tmp_path: Path) -> None:
    """After its patience, UNAVAILABLE: exit code 3, with what is missing."""
    clients, workers = free_addresses(2)
    processes.start("gateway", "--clients", clients, "--workers", workers, "--queue-wait-ms", "100")
    x = saved(tmp_path / "x.npy", np.ones(3, np.float32))

    text = said(here("infer", "echo", x, "-g", clients), 3)
    empty = here("models", "-g", clients)
    ring = here("ring", "-g", clients)

    assert "'echo'" in text
    assert "zmqinfer worker" in text
    assert "no model is served" in empty.stdout
    assert ring.returncode == 3
    assert "no worker is ready" in ring.stderr


def test_output_that_nobody_reads_is_no_traceback(cluster: Cluster) -> None:
    """`zmqinfer status | head -n 1` and the like."""
    wait_until(lambda: run("models", "-g", cluster.clients).returncode == 0)

    done = subprocess.run(
        ["bash", "-c", f'"$1" -m zmqinfer status -g {cluster.clients} --json | true', "bash", sys.executable],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr
