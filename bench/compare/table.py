"""The tables of a comparison, and the ratios that are promised, in Markdown."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence

from bench.compare.figures import Cell, Figures, medians
from bench.peers.models import MODELS

__all__ = ["ratios", "render"]

Results = Mapping[Cell, Sequence[Figures]]
# Clients that are not zmqinfer's: wrk is compiled, and the bare one was written for this comparison alone.
LIBRARIES = ("aiohttp", "grpc.aio")
BARE = "bare Python"


def render(results: Results, notes: Sequence[str], bare_us: Sequence[float]) -> str:
    """Returns everything as one text."""
    lines: list[str] = []
    for model in dict.fromkeys(cell.model for cell in results):
        lines += [f"## {model}", "", *_table(results, model), ""]
    lines += ["Times are CPU microseconds a request; *bad* counts failures and wrong answers.", ""]
    lines += ["## Ratios", "", *_ratio_lines(results, bare_us), "", *notes]
    return "\n".join(lines) + "\n"


def _table(results: Results, model: str) -> list[str]:
    cells = [cell for cell in results if cell.model == model]
    lines = [
        "| system | client | in flight | req/s | p50 ms | p99 ms | client us | gateway us | workers us | bad |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for cell in cells:
        one = medians(results[cell])
        used = " | ".join("" if (us := one.cpu_us[role]) is None else f"{us:,.1f}" for role in one.cpu_us)
        lines.append(
            f"| {cell.system} | {cell.driver} | {cell.in_flight:,} | {one.requests_per_s:,.0f} | {one.p50_ms:.3f} |"
            f" {one.p99_ms:.3f} | {used} | {one.failures + one.wrong} |"
        )
    return lines


def ratios(results: Results, bare_us: Sequence[float]) -> list[tuple[str, str, float | None]]:
    """Returns what is promised, the promise, and what was measured: medians of the ratios within each repeat."""
    peers = sorted({cell.system for cell in results if cell.driver in {"wrk", BARE, *LIBRARIES}})

    def of(system: str, driver: str, in_flight: int, model: str = "echo") -> Sequence[Figures]:
        return results.get(Cell(system, driver, model, in_flight), ())

    def best(drivers: Sequence[str], in_flight: int, model: str = "echo") -> list[float]:
        series = [one for name in peers for driver in drivers if (one := of(name, driver, in_flight, model))]
        return [max(run.requests_per_s for run in runs) for runs in zip(*series, strict=True)]

    def rates(runs: Sequence[Figures]) -> list[float]:
        return [run.requests_per_s for run in runs]

    def p50(runs: Sequence[Figures]) -> list[float]:
        return [run.p50_ms for run in runs]

    def tail(runs: Sequence[Figures]) -> list[float]:
        return [run.p99_ms / run.p50_ms for run in runs]

    awaited, stream, single = of("zmqinfer", "async", 200), of("zmqinfer", "many", 1_000), of("zmqinfer", "sync", 1)
    mosec = rates(of("mosec", "wrk", 200))
    large = of("zmqinfer", "async, frames", 50, "big")
    shared = of("zmqinfer", "async", 50, "big")
    raw = of("floor: message", "sync", 1)
    gateway_us = [us for run in stream if (us := run.cpu_us["gateway"]) is not None]
    grown = [run.gateway_grew_bytes for run in large if run.gateway_grew_bytes is not None]
    large_bytes = 50 * 4 * MODELS["big"].values_in
    pairs: list[tuple[str, str, Sequence[float], Sequence[float]]] = [
        ("`AsyncClient.infer`, 200 in flight, over the bundle floor with futures", ">= 0.75", rates(awaited),
         rates(of("floor: bundles", "async", 200))),
        ("the same, over mosec under wrk", ">= 3", rates(awaited), mosec),
        ("the same, over the best peer with a Python library for a client", ">= 8", rates(awaited),
         best(LIBRARIES, 200)),
        ("the same, over the best peer with a Python client made for this comparison", "shown", rates(awaited),
         best((BARE,), 200)),
        ("`infer_many`, 1,000 in flight, over the bundle floor", ">= 0.5", rates(stream),
         rates(of("floor: bundles", "sync", 1_000))),
        ("the same, over mosec under wrk", ">= 5", rates(stream), mosec),
        ("`Client.infer`, one in flight, p50 over raw messages", "<= 1.8", p50(single), p50(raw)),
        ("the same, over FastAPI with a Python client", "shown", p50(single), p50(of("fastapi", BARE, 1))),
        ("the same, over FastAPI behind a second hop", "shown", p50(single),
         p50(of("fastapi, two hops", BARE, 1))),
        ("p99 / p50 at one in flight, over that of raw messages", "<= 1.5", tail(single), tail(raw)),
        ("gateway CPU a request, `infer_many`, over a bare decode-route-encode loop", "<= 1.5", gateway_us, bare_us),
        ("`big`, 50 in flight, over raw messages without copies", ">= 0.8", rates(large),
         rates(of("floor: large", "sync", 50, "big"))),
        ("the same, over FastAPI under wrk", "shown", rates(large), rates(of("fastapi", "wrk", 50, "big"))),
        ("`big`, 50 in flight, shared memory, over the best HTTP peer", ">= 3", rates(shared),
         best(("wrk", BARE), 50, "big")),
        ("growth of the gateway's memory by frames, over the bytes in flight", "<= 3", grown,
         [large_bytes] * len(grown)),
    ]  # fmt: skip
    return [(what, promise, _median_ratio(ours, theirs)) for what, promise, ours, theirs in pairs]


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float | None:
    found = [mine / other for mine, other in zip(ours, theirs, strict=False) if other]
    return statistics.median(found) if found else None


def _ratio_lines(results: Results, bare_us: Sequence[float]) -> list[str]:
    lines = ["| what | asked | measured |", "|---|---|---:|"]
    keeps: dict[str, Callable[[float, float], bool]] = {">=": float.__ge__, "<=": float.__le__}
    for what, promise, measured in ratios(results, bare_us):
        sign, _, bound = promise.partition(" ")
        is_short = measured is not None and sign in keeps and not keeps[sign](measured, float(bound))
        shown = "not measured" if measured is None else f"{measured:.2f}{' (not reached)' if is_short else ''}"
        lines.append(f"| {what} | {promise} | {shown} |")
    return lines
