"""What is promised, as ratios, and what was measured of it.

Machines that are shared change by a third within a minute, so the promises that are near their bounds are measured
anew in turns: a window of one, a window of the other, five times. Each ratio is the median of those of the pairs.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from bench.compare.figures import Cell, Figures, medians
from bench.peers.models import MODELS

__all__ = ["BARE", "Pairs", "Results", "pairs_to_measure", "ratios"]

Results = Mapping[Cell, Sequence[Figures]]
# Of two cells what was measured of them in turns.
Pairs = Mapping[tuple[Cell, Cell], Sequence[tuple[Figures, Figures]]]
Measure = Callable[[Figures], float]

# Clients that are not zmqinfer's: wrk is compiled, and the bare one was written for this comparison alone.
LIBRARIES = ("aiohttp", "grpc.aio")
BARE = "bare Python"

ASYNC = Cell("zmqinfer", "async", "echo", 200)
MANY = Cell("zmqinfer", "many", "echo", 1_000)
SYNC = Cell("zmqinfer", "sync", "echo", 1)
FRAMES = Cell("zmqinfer", "async, frames", "big", 50)
SHARED = Cell("zmqinfer", "async", "big", 50)
MOSEC = Cell("mosec", "wrk", "echo", 200)
MESSAGE = Cell("floor: message", "sync", "echo", 1)


def _rate(run: Figures) -> float:
    return run.requests_per_s


def _p50(run: Figures) -> float:
    return run.p50_ms


def _tail(run: Figures) -> float:
    return run.p99_ms / run.p50_ms


@dataclass(frozen=True)
class _Promise:
    """One ratio: of ours over theirs, or over the best of several.

    Attributes:
        is_paired: whether it is measured in turns.
    """

    what: str
    bound: str
    ours: Cell
    theirs: Cell | Callable[[Results], Cell | None]
    measure: Measure = _rate
    is_paired: bool = False

    def cells(self, results: Results) -> tuple[Cell, Cell] | None:
        """Returns what is compared, None if one of them was not measured."""
        theirs = self.theirs if isinstance(self.theirs, Cell) else self.theirs(results)
        return (self.ours, theirs) if theirs is not None and {self.ours, theirs} <= results.keys() else None


def _best(drivers: Iterable[str], in_flight: int, model: str = "echo") -> Callable[[Results], Cell | None]:
    """Returns what finds the peer with the most requests a second."""

    def found(results: Results) -> Cell | None:
        cells = [
            cell for cell in results if cell.driver in drivers and cell.in_flight == in_flight and cell.model == model
        ]
        return max(cells, key=lambda cell: medians(results[cell]).requests_per_s, default=None)

    return found


PROMISES = (
    _Promise("`AsyncClient.infer`, 200 in flight, over the bundle floor with futures", ">= 0.75", ASYNC,
             Cell("floor: bundles", "async", "echo", 200), is_paired=True),
    _Promise("the same, over mosec under wrk", ">= 3", ASYNC, MOSEC, is_paired=True),
    _Promise("the same, over the best peer with a Python library for a client", ">= 8", ASYNC, _best(LIBRARIES, 200)),
    _Promise("the same, over the best peer with a Python client made for this comparison", "shown", ASYNC,
             _best((BARE,), 200)),
    _Promise("`infer_many`, 1,000 in flight, over the bundle floor", ">= 0.5", MANY,
             Cell("floor: bundles", "sync", "echo", 1_000), is_paired=True),
    _Promise("the same, over mosec under wrk", ">= 5", MANY, MOSEC, is_paired=True),
    _Promise("`Client.infer`, one in flight, p50 over raw messages", "<= 1.8", SYNC, MESSAGE, _p50, is_paired=True),
    _Promise("the same, over FastAPI with a Python client", "shown", SYNC, Cell("fastapi", BARE, "echo", 1), _p50),
    _Promise("the same, over FastAPI behind a second hop", "shown", SYNC,
             Cell("fastapi, two hops", BARE, "echo", 1), _p50),
    _Promise("p99 / p50 at one in flight, over that of raw messages", "<= 1.5", SYNC, MESSAGE, _tail, is_paired=True),
    _Promise("`big`, 50 in flight, over raw messages without copies", ">= 0.8", FRAMES,
             Cell("floor: large", "sync", "big", 50), is_paired=True),
    _Promise("the same, over FastAPI under wrk", "shown", FRAMES, Cell("fastapi", "wrk", "big", 50)),
    _Promise("`big`, 50 in flight, shared memory, over the best HTTP peer", ">= 3", SHARED,
             _best(("wrk", BARE), 50, "big"), is_paired=True),
)  # fmt: skip


def pairs_to_measure(results: Results) -> list[tuple[Cell, Cell]]:
    """Returns what is to be measured in turns, each pair once."""
    found = (promise.cells(results) for promise in PROMISES if promise.is_paired)
    return list(dict.fromkeys(cells for cells in found if cells is not None))


def ratios(results: Results, pairs: Pairs, bare_us: Sequence[float]) -> list[tuple[str, str, float | None]]:
    """Returns what is promised, its bound, and what was measured."""
    rows: list[tuple[str, str, float | None]] = []
    for promise in PROMISES:
        cells = promise.cells(results)
        runs = pairs.get(cells) or list(zip(results[cells[0]], results[cells[1]], strict=False)) if cells else ()
        rows.append((promise.what, promise.bound, _median(promise.measure(a) / promise.measure(b) for a, b in runs)))
    used = [us for run in results.get(MANY, ()) if (us := run.cpu_us.get("gateway")) is not None]
    what = "gateway CPU a request, `infer_many`, over a bare decode-route-encode loop"
    rows.append((what, "<= 1.5", _median(us / bare for us, bare in zip(used, bare_us, strict=False))))
    grown = [run.gateway_grew_bytes for run in results.get(FRAMES, ()) if run.gateway_grew_bytes is not None]
    in_flight_bytes = FRAMES.in_flight * 4 * MODELS["big"].values_in
    what = "growth of the gateway's memory by frames, over the bytes in flight"
    rows.append((what, "<= 3", _median(size / in_flight_bytes for size in grown)))
    return rows


def _median(found: Iterable[float]) -> float | None:
    values = list(found)
    return statistics.median(values) if values else None
