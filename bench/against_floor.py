"""zmqinfer beside its floors in one run: what the checks, deadlines and promises cost.

Run from the repository's root, on a quiet machine:

    .venv/bin/python -m bench.against_floor

Three comparisons, each in turns and as the median of the pairs' ratios:

    throughput   200 tasks await `AsyncClient.infer` on echo with 64 float32, two workers; against
                 bench/floors/bundle_asyncio.py, the same with nothing checked
    keys         the same with a routing key of its own for each call, 10,000 in all
    latency      `Client.infer` one at a time; against bench/floors/message.py, raw pyzmq over the same hops
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bench.command import Command, whole, within
from bench.floors import bundle_asyncio, message
from zmqinfer import AsyncClient, Client
from zmqinfer.launch.processes import ProcessCluster

WORKERS = 2
VALUES = 64
WARM_UP_S = 0.5
KEYS = 10_000


async def _tasks(address: str, in_flight: int, seconds: float, *, has_keys: bool) -> dict[str, float]:
    x = np.arange(VALUES, dtype=np.float32)
    answered = 0
    async with AsyncClient(address) as client:

        async def caller(until: float) -> None:
            nonlocal answered
            while time.perf_counter() < until:
                y = await client.infer("echo", x, key=b"%d" % (answered % KEYS) if has_keys else None)
                answered += 1
            assert np.array_equal(y, x)  # type: ignore[arg-type]

        await asyncio.gather(*(caller(time.perf_counter() + WARM_UP_S) for _ in range(in_flight)))
        answered = 0
        began, cpu = time.perf_counter(), time.process_time()
        await asyncio.gather(*(caller(began + seconds) for _ in range(in_flight)))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
    return {"requests_per_s": answered / wall_s, "client_cpu_us": cpu_s / answered * 1e6}


def _one_at_a_time(address: str, seconds: float) -> dict[str, float]:
    x = np.arange(VALUES, dtype=np.float32)
    latencies: list[float] = []
    with Client(address) as client:
        for _ in range(200):
            client.infer("echo", x)
        until = time.perf_counter() + seconds
        while (began := time.perf_counter()) < until:
            client.infer("echo", x)
            latencies.append(time.perf_counter() - began)
    return {
        "p50_ms": statistics.median(latencies) * 1e3,
        "p99_ms": statistics.quantiles(latencies, n=100)[98] * 1e3,
    }


def _ours(role: str, address: str, in_flight: int, seconds: float) -> dict[str, float]:
    """Runs the client in a process of its own, as the floors do."""
    command = [sys.executable, "-m", "bench.against_floor", role, address, str(in_flight), str(seconds)]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=seconds + 30, cwd=Path(__file__).parents[1]
    )
    figures: dict[str, float] = json.loads(done.stdout)
    return figures


def compare(repeats: int, seconds: float) -> dict[str, object]:
    """Returns the ratios of `repeats` pairs, the product's figure over the floor's, and their medians."""
    throughput, keys, latency = [], [], []
    with ProcessCluster(WORKERS) as cluster:
        for _ in range(repeats):
            ours = _ours("tasks", cluster.clients_address, 200, seconds)
            floor = bundle_asyncio.run(200, seconds, workers=WORKERS)
            throughput.append((ours["requests_per_s"], floor["requests_per_s"]))
            print(f"throughput  {ours['requests_per_s']:>9,.0f}  floor {floor['requests_per_s']:>9,.0f}", flush=True)
            ours = _ours("keys", cluster.clients_address, 200, seconds)
            keys.append((ours["requests_per_s"], floor["requests_per_s"]))
            print(f"with keys   {ours['requests_per_s']:>9,.0f}", flush=True)
            single = _ours("single", cluster.clients_address, 1, seconds)
            raw = message.run(1, seconds, workers=WORKERS)
            latency.append((single["p50_ms"], raw["p50_ms"]))
            print(f"p50 ms      {single['p50_ms']:>9.3f}  floor {raw['p50_ms']:>9.3f}", flush=True)
    return {
        "throughput_ratio": statistics.median(ours / floor for ours, floor in throughput),
        "keys_ratio": statistics.median(ours / floor for ours, floor in keys),
        "keyless_ratio": statistics.median(own[0] / ours[0] for own, ours in zip(keys, throughput, strict=True)),
        "latency_ratio": statistics.median(ours / floor for ours, floor in latency),
        "throughput": throughput,
        "keys": keys,
        "latency_ms": latency,
    }


def main() -> None:
    """Compares, or plays one of the two clients."""
    if len(sys.argv) > 2 and sys.argv[1] in {"tasks", "keys", "single"}:
        role, address, in_flight, seconds = sys.argv[1:5]
        if role != "single":
            tasks = _tasks(address, int(in_flight), float(seconds), has_keys=role == "keys")
            print(json.dumps(asyncio.run(tasks)))
        else:
            print(json.dumps(_one_at_a_time(address, float(seconds))))
        return
    parser = Command("python -m bench.against_floor", __doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=whole, default=5)
    parser.add_argument("--seconds", type=within, default=2.0)
    arguments = parser.parse_args()
    result = compare(arguments.repeats, arguments.seconds)
    print(f"throughput: median of the ratios {result['throughput_ratio']:.3f}")
    print(f"with keys:  median of the ratios {result['keys_ratio']:.3f}")
    print(f"            and of those to the calls without {result['keyless_ratio']:.3f}")
    print(f"latency:    median of the ratios {result['latency_ratio']:.3f}")


if __name__ == "__main__":
    main()
