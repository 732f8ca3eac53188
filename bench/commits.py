"""Two commits in turns, each with a cluster of its own: what a change costs whoever calls.

    .venv/bin/python -m bench.commits main~5 main

Four figures of each, on one gateway and two workers with 64 float32 for a call; the last column is the median of the
ratios of the pairs. A folder may stand for a commit; of several the first is what the others are compared with.

    async    200 tasks await `AsyncClient.infer`, requests a second
    many     `Client.infer_many` with 1,000 in flight, requests a second
    single   `Client.infer` one at a time, p50 in us
    tail     the same, p99
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
WORKERS = 2
WARM_UP_S = 0.2
KINDS = ("async", "many", "single")
FIGURES = {"async": "async/s", "many": "many/s", "single": "p50 us", "tail": "p99 us"}


async def _async(address: str, model: str, seconds: float) -> float:
    from zmqinfer import AsyncClient

    x = np.arange(64, dtype=np.float32) % 16
    answered = 0
    async with AsyncClient(address) as client:

        async def caller(until: float) -> None:
            nonlocal answered
            while time.perf_counter() < until:
                await client.infer(model, x)
                answered += 1

        for lasts_s in (WARM_UP_S, seconds):
            answered, began = 0, time.perf_counter()
            await asyncio.gather(*(caller(began + lasts_s) for _ in range(200)))
        return answered / (time.perf_counter() - began)


def _many(address: str, model: str, seconds: float) -> float:
    from zmqinfer import Client

    x = np.arange(64, dtype=np.float32) % 16

    def inputs(until: float) -> Iterator[np.ndarray]:
        while time.perf_counter() < until:
            yield from itertools.repeat(x, 100)

    with Client(address) as client:
        for lasts_s in (WARM_UP_S, seconds):
            began = time.perf_counter()
            answered = sum(1 for _ in client.infer_many(model, inputs(began + lasts_s), in_flight=1_000))
        return answered / (time.perf_counter() - began)


def _single(address: str, model: str, seconds: float) -> list[float]:
    from zmqinfer import Client

    x = np.arange(64, dtype=np.float32) % 16
    times: list[float] = []
    with Client(address) as client:
        for lasts_s in (WARM_UP_S, seconds):
            times.clear()
            until = time.perf_counter() + lasts_s
            while (began := time.perf_counter()) < until:
                client.infer(model, x)
                times.append(time.perf_counter() - began)
    cuts = statistics.quantiles(times, n=100)
    return [cuts[49] * 1e6, cuts[98] * 1e6]


def _serve_and_measure(model: str) -> None:
    """Is one commit: has a cluster, and measures what it is asked to on its standard input."""
    from zmqinfer.launch.processes import ProcessCluster

    with ProcessCluster(WORKERS) as cluster:
        address = cluster.clients_address
        print(flush=True)
        for line in sys.stdin:
            kind, lasts_s = line.split()
            seconds = float(lasts_s)
            if kind == "async":
                figures = {"async": asyncio.run(_async(address, model, seconds))}
            elif kind == "many":
                figures = {"many": _many(address, model, seconds)}
            else:
                figures = dict(zip(("single", "tail"), _single(address, model, seconds), strict=True))
            print(json.dumps(figures), flush=True)


class Tree:
    """A commit's process."""

    def __init__(self, stack: ExitStack, name: str, model: str) -> None:
        self.name = name
        self.figures: dict[str, list[float]] = {}
        folder = Path(name).resolve()
        if not folder.is_dir():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "tree")
            _git("worktree", "add", "--detach", str(folder), name)
            stack.callback(_git, "worktree", "remove", "--force", str(folder))
        self._process = subprocess.Popen(
            [sys.executable, __file__, "measure", model],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        stack.callback(self._end)
        self._hear()

    def measure(self, kind: str, seconds: float) -> None:
        """Adds what it measures for so many seconds to its figures."""
        assert self._process.stdin is not None
        print(kind, seconds, file=self._process.stdin, flush=True)
        for figure, value in json.loads(self._hear()).items():
            self.figures.setdefault(figure, []).append(value)

    def _hear(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise ChildProcessError(f"{self.name} cannot be measured; its own words are above")
        return line

    def _end(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def _git(*words: str) -> None:
    subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True)


def compare(names: list[str], model: str, kinds: list[str], repeats: int, seconds: float) -> list[str]:
    """Returns the lines of a table."""
    with ExitStack() as stack:
        trees = [Tree(stack, name, model) for name in names]
        for turn in range(repeats):
            for kind in kinds:
                # Whoever is first in one turn is last in the next: machines warm up and tire.
                for tree in trees if turn % 2 == 0 else reversed(trees):
                    tree.measure(kind, seconds)
    first, *others = trees
    lines = [f"{'figure':<10} {first.name[-20:]:>20} {'':>20} {'median':>10} {'ratio':>6}  pairs"]
    for figure, words in FIGURES.items():
        if figure not in first.figures:
            continue
        for tree in others:
            pairs = [mine / base for mine, base in zip(tree.figures[figure], first.figures[figure], strict=True)]
            lines.append(
                f"{words:<10} {statistics.median(first.figures[figure]):>20,.0f} {tree.name[-20:]:>20}"
                f" {statistics.median(tree.figures[figure]):>10,.0f} {statistics.median(pairs):>6.3f} "
                + " ".join(f"{pair:.2f}" for pair in pairs)
            )
    return lines


def main() -> None:
    """Prints the table, or is one of the commits."""
    if sys.argv[1:2] == ["measure"]:
        _serve_and_measure(sys.argv[2])
        return
    from bench.command import Command, whole, within

    options = Command("python -m bench.commits", __doc__)
    options.add_argument("names", nargs="+", metavar="COMMIT")
    options.add_argument("--model", default="echo", choices=("echo", "digits"))
    options.add_argument("--only", nargs="+", choices=KINDS, help="of the kinds of load (all)")
    options.add_argument("--repeats", type=whole, default=15, help="pairs (%(default)s)")
    options.add_argument("--seconds", type=within, default=0.5, help="of each window (%(default)s)")
    asked = options.parse_args()
    print("\n".join(compare(asked.names, asked.model, asked.only or list(KINDS), asked.repeats, asked.seconds)))


if __name__ == "__main__":
    main()
