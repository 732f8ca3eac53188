"""From which size on shared memory beats frames: requests a second by the size of the input.

    .venv/bin/python -m bench.shared

One asyncio client with 50 in flight, or with one, a gateway and two workers that take the mean. Both ways in
turns, medians; the last column is their ratio.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from pathlib import Path

import numpy as np

from bench.command import Command, whole, within
from zmqinfer import AsyncClient
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.node import connection

SIZES = tuple(2**n * 1_024 for n in range(6, 13))
WARM_UP_S = 0.3
# Inputs of 16 MiB together, as bench/peers/load.py has them.
DISTINCT_BYTES = 16 << 20


async def rate(address: str, size: int, in_flight: int, seconds: float, *, is_shared: bool) -> float:
    """Returns the requests a second."""
    count = max(1, min(64, DISTINCT_BYTES // size))
    inputs = np.random.default_rng(1).random((count, size // 4), np.float32)
    answered = 0
    async with AsyncClient(address, shared_memory_mb=1_024 if is_shared else 0) as client:

        async def caller(until: float, x: np.ndarray) -> None:
            nonlocal answered
            while time.perf_counter() < until:
                await client.infer("mean", x)
                answered += 1

        began_at = time.perf_counter()
        for lasts_s in (WARM_UP_S, seconds):
            answered = 0
            began_at = time.perf_counter()
            await asyncio.gather(*(caller(began_at + lasts_s, inputs[n % count]) for n in range(in_flight)))
        return answered / (time.perf_counter() - began_at)


def main() -> None:
    """Prints the table."""
    options = Command("python -m bench.shared", __doc__)
    options.add_argument("--seconds", type=within, default=0.7, help="of each window (%(default)s)")
    options.add_argument("--repeats", type=whole, default=3, help="(%(default)s)")
    asked = options.parse_args()
    connection.SHARED_ABOVE_BYTES = 1  # type: ignore[attr-defined]
    print(f"{'bytes':>10} {'in flight':>10} {'frames/s':>10} {'shared/s':>10} {'ratio':>6}")
    with ProcessCluster(2, models=[Path(__file__).parent / "models"]) as cluster:
        address = cluster.clients_address
        for in_flight in (1, 50):
            for size in SIZES:
                pairs = [
                    [
                        asyncio.run(rate(address, size, in_flight, asked.seconds, is_shared=is_shared))
                        for is_shared in (False, True)
                    ]
                    for _ in range(asked.repeats)
                ]
                frames, shared = (statistics.median(column) for column in zip(*pairs, strict=True))
                ratio = statistics.median(shared / frames for frames, shared in pairs)
                print(f"{size:>10,} {in_flight:>10} {frames:>10,.0f} {shared:>10,.0f} {ratio:>6.2f}", flush=True)


if __name__ == "__main__":
    main()
