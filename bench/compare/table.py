"""The tables of a comparison, and the ratios that are promised, in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.compare.figures import medians
from bench.compare.promises import Pairs, Results, ratios

__all__ = ["render"]


def render(results: Results, pairs: Pairs, notes: Sequence[str], bare_us: Sequence[float]) -> str:
    """Returns everything as one text."""
    lines: list[str] = []
    for model in dict.fromkeys(cell.model for cell in results):
        lines += [f"## {model}", "", *_table(results, model), ""]
    lines += ["Times are CPU microseconds a request; *bad* counts failures and wrong answers.", ""]
    turns = max((len(runs) for runs in pairs.values()), default=0)
    said = [f"Those near their bounds are medians of {turns} pairs of windows, measured in turns.", ""] if turns else []
    lines += ["## Ratios", "", *said, *_ratio_lines(results, pairs, bare_us), "", *notes]
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


def _ratio_lines(results: Results, pairs: Pairs, bare_us: Sequence[float]) -> list[str]:
    lines = ["| what | asked | measured |", "|---|---|---:|"]
    keeps: dict[str, Callable[[float, float], bool]] = {">=": float.__ge__, "<=": float.__le__}
    for what, promise, measured in ratios(results, pairs, bare_us):
        sign, _, bound = promise.partition(" ")
        is_short = measured is not None and sign in keeps and not keeps[sign](measured, float(bound))
        shown = "not measured" if measured is None else f"{measured:.2f}{' (not reached)' if is_short else ''}"
        lines.append(f"| {what} | {promise} | {shown} |")
    return lines
