"""What is compared: how each system is started and loaded, and which of its processes does what.

Each serves one model at a time on two worker processes, or as many as are best for it on two cores. Client,
gateway and workers of all are processes of this machine, and so share its cores.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.children import ONE_THREAD
from bench.compare import cpu
from bench.compare.environment import PEERS, interpreter, prepare, wrk
from bench.compare.figures import Figures
from bench.compare.promises import BARE
from bench.floors import bundle_asyncio, bundle_sync, large, message
from zmqinfer.launch.processes import ProcessCluster

__all__ = ["SYSTEMS", "Driver", "Serving", "System"]

ROOT = Path(__file__).resolve().parents[2]
WORKERS = 2
LEVELS = (1, 50, 200)
# Before the measured window, in the clients; what servers use meanwhile is charged to more requests than are counted.
WARM_UP_S = 0.5
READY_S = 40.0
STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Serving:
    """A system that serves one model: where, and the process ids by role."""

    address: str
    pids: dict[str, list[int]]


# Loads a serving system with one model at one number in flight, for so many seconds.
Drive = Callable[[Serving, str, int, float], Figures]


@dataclass(frozen=True, slots=True)
class Driver:
    """A client of a system.

    Attributes:
        levels: the numbers in flight that it is measured at.
        models: that it is measured with.
    """

    name: str
    drive: Drive
    levels: Sequence[int] = LEVELS
    models: Sequence[str] = ("echo", "mlp", "big")


@dataclass(frozen=True, slots=True)
class System:
    """A server to be measured.

    Attributes:
        prepare: makes what it needs; raises `packages.Missing`.
        serve: a context in which it serves a model.
        about: how it is set up, for the table's notes.
    """

    name: str
    prepare: Callable[[], object]
    serve: Callable[[str], Any]
    drivers: Sequence[Driver]
    about: str = ""
    models: Sequence[str] = field(default=("echo", "mlp", "big"))


# Clients ---------------------------------------------------------------------------------------


def _told(command: Sequence[str | Path], serving: Serving, seconds: float) -> Figures:
    """Runs a client that prints a line of JSON."""
    before_s = {role: cpu.used_s(pids) for role, pids in serving.pids.items()} if cpu.is_known() else {}
    gateway = cpu.Memory(serving.pids["gateway"][0]) if before_s and serving.pids["gateway"] else None
    done = subprocess.run(
        [str(word) for word in command],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        timeout=seconds + READY_S + 20,
        check=True,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    answered = max(1, said["answered"])
    in_all = answered * (1 + WARM_UP_S / said["seconds"])
    cpu_us: dict[str, float | None] = {"client": said["cpu_s"] / answered * 1e6}
    for role, used_s in before_s.items():
        cpu_us[role] = (cpu.used_s(serving.pids[role]) - used_s) / in_all * 1e6
    right = max(0, said["answered"] - said["wrong"])
    return Figures(
        right / said["seconds"],
        said["p50_ms"],
        said["p99_ms"],
        int(said["failures"]),
        int(said["wrong"]),
        cpu_us,
        gateway.grown_bytes() if gateway else None,
    )


def _ours(kind: str, *options: str) -> Drive:
    def drive(serving: Serving, model: str, in_flight: int, seconds: float) -> Figures:
        command = [sys.executable, "-m", "bench.compare.zmq_client", kind, "--address", serving.address, *options]
        return _told([*command, *_load(model, in_flight, seconds)], serving, seconds)

    return drive


def _python(peer: str, script: str, *options: str) -> Drive:
    def drive(serving: Serving, model: str, in_flight: int, seconds: float) -> Figures:
        command: list[str | Path] = [interpreter(peer), PEERS / script, "--port", serving.address, *options]
        return _told([*command, *_load(model, in_flight, seconds)], serving, seconds)

    return drive


def _load(model: str, in_flight: int, seconds: float) -> list[str]:
    return ["--model", model, "--in-flight", str(in_flight), "--seconds", str(seconds)]


def _wrk(peer: str, encoding: str) -> Drive:
    """Loads by wrk, which checks statuses but not answers: one answer is checked before by the Python client."""
    check = _python(peer, "http_client.py", "--encoding", encoding)

    def drive(serving: Serving, model: str, in_flight: int, seconds: float) -> Figures:
        checked = check(serving, model, 1, 0.1)
        with tempfile.TemporaryDirectory() as folder:
            body = Path(folder, f"body.{encoding}")
            bodies = [str(interpreter(peer)), "-m", "bench.peers.bodies", model, encoding, str(body)]
            subprocess.run(bodies, cwd=ROOT, check=True, stdin=subprocess.DEVNULL, timeout=READY_S)
            if in_flight == LEVELS[0]:
                _wrk_once(serving, body, in_flight, 1)
            before_s = {role: cpu.used_s(pids) for role, pids in serving.pids.items()} if cpu.is_known() else {}
            mine_s = sum(os.times()[2:4])
            said = _wrk_once(serving, body, in_flight, max(1, round(seconds)))
            used_s = sum(os.times()[2:4]) - mine_s
        answered = max(1, said["requests"])
        cpu_us: dict[str, float | None] = {"client": used_s / answered * 1e6}
        for role, was_s in before_s.items():
            cpu_us[role] = (cpu.used_s(serving.pids[role]) - was_s) / answered * 1e6
        wall_s = said["duration_us"] / 1e6
        right = said["requests"] - said["errors"]
        p50_ms, p99_ms = said["p50_us"] / 1e3, said["p99_us"] / 1e3
        return Figures(right / wall_s, p50_ms, p99_ms, int(said["errors"]), checked.wrong, cpu_us)

    return drive


def _wrk_once(serving: Serving, body: Path, in_flight: int, seconds: int) -> dict[str, float]:
    command = [wrk(), "-t1", f"-c{in_flight}", f"-d{seconds}s", "--latency", "-s", str(PEERS / "wrk.lua")]
    url = f"http://127.0.0.1:{serving.address}"
    done = subprocess.run(
        [*command, url, "--", str(body)],
        check=True,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    said: dict[str, float] = json.loads(next(line for line in done.stdout.splitlines() if line.startswith("{")))
    return said


def _floor(run: Callable[..., dict[str, Any]]) -> Drive:
    """A floor starts its own processes for each measurement; its clients check that answers match."""

    def drive(_serving: Serving, model: str, in_flight: int, seconds: float) -> Figures:
        line = run(in_flight, seconds, workers=WORKERS, model=model)
        return Figures(line["requests_per_s"], line["p50_ms"], line["p99_ms"], 0, 0, line["cpu_us_per_request"])

    return drive


# Servers ---------------------------------------------------------------------------------------


@contextmanager
def _cluster(_model: str, addresses: tuple[str, str] | None = None) -> Iterator[Serving]:
    models = [ROOT / "bench" / "models"]
    with ProcessCluster(WORKERS, models=models, addresses=addresses) as cluster:
        gateway, workers = cluster.pids
        yield Serving(cluster.clients_address, {"gateway": [gateway], "workers": workers})


@contextmanager
def _ipc_cluster(model: str) -> Iterator[Serving]:
    with (
        tempfile.TemporaryDirectory() as folder,
        _cluster(model, (f"ipc://{folder}/clients", f"ipc://{folder}/workers")) as serving,
    ):
        yield serving


@contextmanager
def _nothing(_model: str) -> Iterator[Serving]:
    yield Serving("", {})


def _peer(name: str, is_worker: Callable[[str], bool]) -> Callable[[str], Any]:
    @contextmanager
    def serve(model: str) -> Iterator[Serving]:
        with _listening(name, "server.py", "--model", model) as (port, process):
            everyone = [process.pid, *cpu.children_of(process.pid)]
            workers = [pid for pid in everyone if is_worker(cpu.command_of(pid))]
            rest = [pid for pid in everyone if pid not in workers]
            yield Serving(str(port), {"gateway": rest, "workers": workers})

    return serve


@contextmanager
def _two_hops(model: str) -> Iterator[Serving]:
    with (
        _listening("fastapi", "server.py", "--model", model) as (inner, server),
        _listening("fastapi", "front.py", "--model", model, "--inner", str(inner)) as (port, front),
    ):
        servers = [server.pid, *cpu.children_of(server.pid)]
        yield Serving(str(port), {"gateway": [front.pid], "workers": servers})


@contextmanager
def _listening(peer: str, script: str, *options: str) -> Iterator[tuple[int, subprocess.Popen[bytes]]]:
    """Runs a script of a peer's with a free port, until the block ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [str(interpreter(peer)), str(PEERS / peer / script), "--port", str(port), *options],
        cwd=ROOT,
        env={**os.environ, **ONE_THREAD},
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr.fileno(),
        process_group=0,
    )
    try:
        _wait_ready(port, process)
        yield port, process
    finally:
        _end(process)


def _wait_ready(port: int, process: subprocess.Popen[bytes]) -> None:
    give_up_at = time.monotonic() + READY_S
    while time.monotonic() < give_up_at:
        if process.poll() is not None:
            raise ChildProcessError(f"the peer ended with {process.returncode} before it listened; see above")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                # It may listen before its workers have loaded the model.
                time.sleep(1.0)
                return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"the peer did not listen at port {port} within {READY_S:g} s")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends a peer by its id; it ends its own children, and what it leaves is ended by theirs."""
    left = cpu.children_of(process.pid)
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pid in left:
        if cpu.command_of(pid):
            os.kill(pid, signal.SIGKILL)


# The table -------------------------------------------------------------------------------------


SMALL = ("echo", "mlp")


def _http(peer: str, encoding: str) -> list[Driver]:
    return [
        Driver("wrk", _wrk(peer, encoding)),
        Driver(BARE, _python(peer, "http_client.py", "--encoding", encoding)),
    ]


def _aiohttp(peer: str, encoding: str) -> Driver:
    return Driver("aiohttp", _python(peer, "aiohttp_client.py", "--encoding", encoding), models=SMALL)


def _anything(_command: str) -> bool:
    """All processes are workers: there is no front of its own, or it is forked and looks the same."""
    return True


def _is_spawned(command: str) -> bool:
    return "spawn_main" in command


def _nothing_to_prepare() -> None:
    """What comes with zmqinfer's own environment."""


def _with_wrk(peer: str) -> Callable[[], None]:
    def prepared() -> None:
        prepare(peer)
        wrk()

    return prepared


SYSTEMS = (
    System(
        "zmqinfer",
        _nothing_to_prepare,
        _cluster,
        [
            Driver("async", _ours("async"), (*LEVELS, 1_000), SMALL),
            Driver("many", _ours("many"), (*LEVELS, 1_000), SMALL),
            Driver("sync", _ours("sync"), (1,)),
            Driver("async", _ours("async"), models=("big",)),
            Driver("async, frames", _ours("async", "--frames"), models=("big",)),
        ],
        "a gateway and two workers, the shipped defaults.",
    ),
    System(
        "floor: bundles",
        _nothing_to_prepare,
        _nothing,
        [
            Driver("async", _floor(bundle_asyncio.run), (*LEVELS, 1_000)),
            Driver("sync", _floor(bundle_sync.run), (*LEVELS, 1_000)),
        ],
        models=SMALL,
    ),
    System("floor: message", _nothing_to_prepare, _nothing, [Driver("sync", _floor(message.run))], models=SMALL),
    System("floor: large", _nothing_to_prepare, _nothing, [Driver("sync", _floor(large.run))], models=("big",)),
    System(
        "zmqinfer, ipc",
        _nothing_to_prepare,
        _ipc_cluster,
        [
            Driver("async", _ours("async"), models=("echo",)),
            Driver("async, frames", _ours("async", "--frames"), models=("big",)),
            Driver("sync", _ours("sync"), (1,), ("echo",)),
        ],
        "the same over ipc:// addresses.",
        ("echo", "big"),
    ),
    System(
        "mosec",
        _with_wrk("mosec"),
        _peer("mosec", _is_spawned),
        [*_http("mosec", "msgpack"), _aiohttp("mosec", "msgpack")],
        "one worker, `max_batch_size=32`, `max_wait_time=1` ms, the least that it takes: its documentation wants it"
        " below the time of a batch.",
    ),
    System(
        "litserve",
        _with_wrk("litserve"),
        _peer("litserve", _anything),
        _http("litserve", "raw"),
        "two workers and two HTTP servers, `fast_queue`, `max_batch_size=32`, `batch_timeout` 1 ms.",
    ),
    System(
        "fastapi",
        _with_wrk("fastapi"),
        _peer("fastapi", _anything),
        [*_http("fastapi", "raw"), _aiohttp("fastapi", "raw")],
        "two processes of uvicorn with uvloop and httptools; no batches, no second hop.",
    ),
    System(
        "fastapi, two hops",
        lambda: prepare("fastapi"),
        _two_hops,
        [Driver(BARE, _python("fastapi", "http_client.py", "--encoding", "raw"), (1,))],
        "a FastAPI front before them, for the same two hops as client, gateway and worker.",
        ("echo",),
    ),
    System(
        "grpc",
        lambda: prepare("grpc"),
        _peer("grpc", _anything),
        [Driver("grpc.aio", _python("grpc", "grpc/client.py"))],
        "two processes that share the port, generic handlers, raw bytes, 8 channels; no batches, no second hop.",
    ),
)
