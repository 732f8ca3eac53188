"""Where each microsecond of CPU goes: client, gateway and workers apart, split by step.

Run from the repository's root, on a quiet machine (about a minute):

    .venv/bin/python -m bench.cost_table

Tasks await `AsyncClient.infer` on echo with 64 float32, at 1, 50, 200 and 1,000 in flight, through a
gateway and two workers, each in a process of its own. A process samples itself at the ticks of its CPU
time, and charges the step that its loop is in with what the loop's thread has used since the last sample.
So the split costs the measured code next to nothing, where two readings of the clock around each step would
cost a client as much as the step. What the other threads used is told apart: ZeroMQ has one that does the
system calls for all sockets of a process.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Callable
from types import FrameType

import numpy as np

from bench.children import Child, Children, follow_the_parent, say
from bench.command import Command, within
from zmqinfer import AsyncClient
from zmqinfer.node.gateway import GatewayNode
from zmqinfer.node.models import find_models, load_model
from zmqinfer.node.worker import WorkerNode
from zmqinfer.zoo import ZOO

WORKERS = 2
VALUES = 64
LEVELS = (1, 50, 200, 1_000)
WARM_UP_S = 1.0
TICK_S = 0.001
COLUMNS = ("socket", "decode", "decide", "encode", "arrays", "model", "loop", "other threads")

# The step of a file; wire.py has two. A sample belongs to the innermost file that is named here.
_STEPS = {
    "zmqinfer/checks.py": "decode",
    "zmqinfer/machine/outbox.py": "encode",
    "zmqinfer/machine/client/codec.py": "arrays",
    "zmqinfer/machine/": "decide",
    "zmqinfer/policy/": "decide",
    "zmqinfer/node/sockets.py": "socket",
    "zmqinfer/node/ports.py": "socket",
    "zmqinfer/node/gateway.py": "socket",
    "zmqinfer/node/poller.py": "socket",
    "zmqinfer/node/engine.py": "model",
    "zmqinfer/backends/": "model",
    "zmqinfer/zoo/": "model",
    "/zmq/": "socket",
}


class Sampler:
    """Charges the CPU time of the main thread to the steps that it is in."""

    def __init__(self) -> None:
        self._used_s: dict[str, float] = {}
        self._began_s = self._last_s = self._process_s = 0.0
        signal.signal(signal.SIGPROF, self._on_tick)

    def start(self) -> None:
        """Begins anew."""
        self._used_s = dict.fromkeys(COLUMNS, 0.0)
        self._process_s = time.process_time()
        self._began_s = self._last_s = time.thread_time()
        signal.setitimer(signal.ITIMER_PROF, TICK_S, TICK_S)

    def stop(self) -> dict[str, float]:
        """Returns the CPU seconds of each step."""
        signal.setitimer(signal.ITIMER_PROF, 0)
        process_s = time.process_time() - self._process_s
        self._used_s["other threads"] = process_s - (time.thread_time() - self._began_s)
        return self._used_s

    def _on_tick(self, _number: int, frame: FrameType | None) -> None:
        now_s = time.thread_time()
        self._used_s[_step_of(frame)] += now_s - self._last_s
        self._last_s = now_s


def _step_of(frame: FrameType | None) -> str:
    while frame is not None:
        path = frame.f_code.co_filename
        if path.endswith("zmqinfer/wire.py"):
            return "decode" if frame.f_code.co_name in {"decode", "_attach"} else "encode"
        for part, step in _STEPS.items():
            if part in path:
                return step
        frame = frame.f_back
    return "loop"


def _sample_between_signals() -> None:
    sampler = Sampler()
    signal.signal(signal.SIGUSR1, lambda *_: sampler.start())
    signal.signal(signal.SIGUSR2, lambda *_: say(used_s=sampler.stop()))


def gateway() -> None:
    """Serves until its parent ends it."""
    node = GatewayNode("tcp://127.0.0.1:0", "tcp://127.0.0.1:0")
    _sample_between_signals()
    say(clients=node.clients_address, workers=node.workers_address)
    node.run()


def worker(name: str, gateway: str) -> None:
    """Serves the shipped models until its parent ends it."""
    models = [load_model(config) for config in find_models([ZOO])]
    # A signal's handler runs on the main thread and sees its frames: so what the models' threads do is done there.
    for model in models:
        model.do = lambda job: job()  # type: ignore[method-assign]
    node = WorkerNode(name, models, [gateway])
    _sample_between_signals()
    say()
    node.run()


def client(gateway: str, in_flight: int, seconds: float) -> None:
    """Says when it is warm, and then what it used."""
    asyncio.run(_call(gateway, in_flight, seconds))


async def _call(gateway: str, in_flight: int, seconds: float) -> None:
    x = np.arange(VALUES, dtype=np.float32)
    answered = 0
    async with AsyncClient(gateway) as client:

        async def caller(until: float) -> None:
            nonlocal answered
            while time.perf_counter() < until:
                await client.infer("echo", x)
                answered += 1

        sampler = Sampler()
        await asyncio.gather(*(caller(time.perf_counter() + WARM_UP_S) for _ in range(in_flight)))
        say()
        answered = 0
        sampler.start()
        began_at = time.perf_counter()
        await asyncio.gather(*(caller(began_at + seconds) for _ in range(in_flight)))
        wall_s = time.perf_counter() - began_at
        say(used_s=sampler.stop(), answered=answered, wall_s=wall_s)


def measure(seconds: float) -> list[dict[str, object]]:
    """Returns a row for each level and role: requests a second, and microseconds a request by step."""
    rows: list[dict[str, object]] = []
    with Children("bench.cost_table") as children:
        gateway = children.start("gateway")
        addresses = children.hear(gateway)
        workers = [children.start("worker", name=f"w{n}", gateway=addresses["workers"]) for n in range(WORKERS)]
        for one in workers:
            children.hear(one)
        for in_flight in LEVELS:
            client = children.start("client", gateway=addresses["clients"], in_flight=in_flight, seconds=seconds)
            children.hear(client)
            _tell([gateway, *workers], signal.SIGUSR1)
            said = children.hear(client, seconds + 20)
            _tell([gateway, *workers], signal.SIGUSR2)
            used_s = {
                "client": [said["used_s"]],
                "gateway": [children.hear(gateway)["used_s"]],
                "workers": [children.hear(one)["used_s"] for one in workers],
            }
            for role, parts in used_s.items():
                split = {step: sum(part[step] for part in parts) / said["answered"] * 1e6 for step in COLUMNS}
                rows.append({
                    "in_flight": in_flight,
                    "requests_per_s": said["answered"] / said["wall_s"],
                    "role": role,
                    "all_us": sum(split.values()),
                    **{f"{step}_us": us for step, us in split.items()},
                })  # fmt: skip
    return rows


def _tell(children: list[Child], number: signal.Signals) -> None:
    for child in children:
        child.process.send_signal(number)


def table(rows: list[dict[str, object]]) -> str:
    """Returns the rows as a table in Markdown; a step that a role does not have is left empty."""
    lines = [
        f"| in flight | req/s | | all | {' | '.join(COLUMNS)} |",
        f"|---|---|---|---|{'---|' * len(COLUMNS)}",
    ]
    for row in rows:
        first = row["role"] == "client"
        head = f"| {row['in_flight']:,} | {row['requests_per_s']:,.0f} " if first else "| | "
        cells = [f"{row[f'{step}_us']:.2f}" if row[f"{step}_us"] else "" for step in COLUMNS]
        lines.append(f"{head}| {row['role']} | {row['all_us']:.2f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Prints the table, or plays one of its roles."""
    if sys.argv[1:2] == ["role"]:
        follow_the_parent()
        roles: dict[str, Callable[..., None]] = {"client": client, "gateway": gateway, "worker": worker}
        roles[sys.argv[2]](**json.loads(sys.argv[3]))
        return
    parser = Command("python -m bench.cost_table", __doc__.partition("\n")[0])
    parser.add_argument("--seconds", type=within, default=10.0, help="at each number in flight (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print JSON, not a table")
    arguments = parser.parse_args()
    rows = measure(arguments.seconds)
    print(json.dumps(rows) if arguments.json else table(rows))


if __name__ == "__main__":
    main()
