"""What the floors share: child processes, statistics and the command line.

Nothing here is on a measured path. A floor is a module with roles (gateway, worker, client), each of which
runs as a process of its own, so that the caller of `run()` costs nothing while it waits.
"""

import argparse
import json
import sys
import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench.children import START_S, Children, follow_the_parent
from bench.command import whole, within

__all__ = ["ANY_PORT", "VALUES", "WARM_UP_S", "Stopwatch", "main", "run_floor"]

ANY_PORT = "tcp://127.0.0.1:*"
VALUES = 64  # of float32 in each request and in each answer: the input of the shipped digits model
WARM_UP_S = 0.5


class Stopwatch:
    """The measured window of a client: latencies, wall time and the CPU time of its process.

    The client appends to `latencies_s` from its first request on; `start` forgets the warm-up.
    """

    def __init__(self) -> None:
        self.latencies_s = array("d")
        self._warm_ups = 0
        self._started_at = 0.0
        self._cpu_s = 0.0

    def start(self) -> None:
        """Begin the window: what was recorded so far was warm-up."""
        self._warm_ups = len(self.latencies_s)
        del self.latencies_s[:]
        self._cpu_s = time.process_time()
        self._started_at = time.perf_counter()

    def stop(self) -> dict[str, float]:
        """Return the figures of the window; `answered_ever` counts the warm-up too."""
        wall_s = time.perf_counter() - self._started_at
        used_s = time.process_time() - self._cpu_s
        latencies_s = sorted(self.latencies_s)
        answered = len(latencies_s)
        return {
            "answered_ever": answered + self._warm_ups,
            "requests_per_s": answered / wall_s,
            "p50_ms": 1e3 * _quantile(latencies_s, 0.50),
            "p99_ms": 1e3 * _quantile(latencies_s, 0.99),
            "cpu_us": 1e6 * used_s / answered,
        }


def run_floor(module: str, *, in_flight: int, seconds: float, workers: int, model: str) -> dict[str, Any]:
    """Run gateway, workers and client of a floor as processes; returns the line that the floor prints.

    The client's CPU time is that of the window. Gateway and workers are charged all that they used after
    starting up, divided by all requests, those of the warm-up included.
    """
    with Children(module) as children:
        gateway = children.start("gateway", workers=workers)
        addresses = children.hear(gateway)
        for _ in range(workers):
            children.hear(children.start("worker", gateway=addresses["workers"], model=model))
        children.hear(gateway)
        client = children.start(
            "client", gateway=addresses["clients"], in_flight=in_flight, seconds=seconds, model=model
        )
        figures = children.hear(client, START_S + WARM_UP_S + seconds)
        used_s = children.stop()
    used_us = {role: round(1e6 * role_s / figures["answered_ever"], 2) for role, role_s in used_s.items()}
    return {
        "floor": module.rpartition(".")[2],
        "model": model,
        "in_flight": in_flight,
        "requests_per_s": round(figures["requests_per_s"]),
        "p50_ms": round(figures["p50_ms"], 3),
        "p99_ms": round(figures["p99_ms"], 3),
        "cpu_us_per_request": {
            "client": round(figures["cpu_us"], 2),
            "gateway": used_us["gateway"],
            "workers": used_us["worker"],
        },
    }


def main(
    about: str | None,
    run: Callable[..., dict[str, Any]],
    roles: Mapping[str, Callable[..., object]],
    *,
    in_flight: int,
    models: Sequence[str] = ("echo", "mlp"),
) -> None:
    """Be the command line of a floor, or one of its roles when `run_floor` started this process."""
    if sys.argv[1:2] == ["role"]:
        follow_the_parent()
        roles[sys.argv[2]](**json.loads(sys.argv[3]))
        return
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=form)
    parser.add_argument("--in-flight", type=whole, default=in_flight, help="requests in flight (%(default)s)")
    parser.add_argument("--seconds", type=within, default=3.0, help="measured seconds (%(default)s)")
    parser.add_argument("--workers", type=whole, default=2, help="worker processes (%(default)s)")
    parser.add_argument("--model", choices=models, default=models[0], help="what the workers run (%(default)s)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON, not a sentence")
    asked = parser.parse_args()
    try:
        line = run(asked.in_flight, asked.seconds, workers=asked.workers, model=asked.model)
    except KeyboardInterrupt:
        sys.exit(130)
    print(json.dumps(line) if asked.json else _sentence(line))


def _quantile(ascending: Sequence[float], part: float) -> float:
    return ascending[min(len(ascending) - 1, int(part * len(ascending)))]


def _sentence(line: Mapping[str, Any]) -> str:
    used_us = ", ".join(f"{role} {us:.1f}" for role, us in line["cpu_us_per_request"].items())
    return (
        f"{line['floor']}, {line['model']}: {line['requests_per_s']:,} requests/s, {line['in_flight']:,} in flight, "
        f"p50 {line['p50_ms']:.3f} ms, p99 {line['p99_ms']:.3f} ms, CPU us a request: {used_us}"
    )
