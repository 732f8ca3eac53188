"""performance_report.txt: what a benchmark found, for a person at a terminal.

Failures stand in the headline beside the successes. A figure that the samples do not
carry is printed as "-", with a note that says what it would take. No line is longer
than `WIDTH` columns.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path

from zmqinfer.load.results import Batching, BenchResult, ClosedLoop, LoadResult, OpenLoop
from zmqinfer.load.statistics import BACKING_SAMPLES, Latencies, samples_needed
from zmqinfer.load.stored import write_atomically
from zmqinfer.load.summary import Summary, median_latencies, summarize

__all__ = [
    "REPORT_FILE",
    "WIDTH",
    "batching_pairs",
    "batching_ratio",
    "fitted",
    "headline",
    "load_of",
    "natural",
    "report_text",
    "short_time",
    "side_by_side",
    "write_report",
]

REPORT_FILE = "performance_report.txt"
WIDTH = 96
_NAME_WIDTH = 28
_PER_MILLE = {"p50": 500, "p95": 950, "p99": 990, "p99.9": 999}


def write_report(result: BenchResult, directory: Path) -> Path:
    """Writes performance_report.txt into `directory`; all or nothing.

    Raises:
        ConfigError: the file cannot be written.
    """
    path = directory / REPORT_FILE
    write_atomically(path, report_text(result).encode())
    return path


def report_text(result: BenchResult) -> str:
    """The whole report, with a newline at its end."""
    started = datetime.fromisoformat(result.started_at)
    blocks = [
        [f"zmqinfer benchmark of {started:%Y-%m-%d %H:%M:%S} UTC", "", *_wrapped("", headline(result))],
        *([*_scenario(scenario)] for scenario in result.scenarios),
        [*_side_by_side(result)],
        [*_batching(result)],
        [*_circumstances(result)],
    ]
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks if block) + "\n"


def headline(result: BenchResult) -> str:
    """Successes, failures and wrong answers of everything that was sent, in one sentence."""
    summaries = [summarize(scenario) for scenario in _all_scenarios(result)]
    failed = sum(s.failed for s in summaries)
    wrong = sum(s.wrong_answers for s in summaries)
    verdict = "OK" if result.is_clean else "FAILED"
    return (
        f"{verdict}: {sum(s.sent for s in summaries):,} requests, "
        f"{sum(s.successes for s in summaries):,} successes, {failed:,} failures, {wrong:,} wrong answers"
    )


def side_by_side(result: BenchResult) -> tuple[LoadResult, ...]:
    """The scenarios to compare by load, lightest first: of two with one name, the one asked for."""
    named: dict[tuple[str, str], LoadResult] = {}
    for scenario in _all_scenarios(result):
        if scenario.batching is None:
            named.setdefault((scenario.name, scenario.model), scenario)
    return tuple(sorted(named.values(), key=_heaviness))


def batching_pairs(result: BenchResult) -> tuple[tuple[LoadResult, LoadResult], ...]:
    """(batching on, batching off) for each model that has both, in order of appearance."""
    sides = {(s.model, s.batching): s for s in _all_scenarios(result) if s.batching is not None}
    models = dict.fromkeys(model for model, _ in sides)
    pairs = ((sides.get((model, Batching.ON)), sides.get((model, Batching.OFF))) for model in models)
    return tuple((on, off) for on, off in pairs if on is not None and off is not None)


def batching_ratio(on: LoadResult, off: LoadResult) -> str:
    """What batching does to the throughput, in a few words."""
    on_per_s, off_per_s = summarize(on).throughput_per_s, summarize(off).throughput_per_s
    if not (on_per_s and off_per_s):
        return "no ratio, one side had no success"
    ratio = on_per_s / off_per_s
    return f"{ratio:,.{2 if ratio < 100 else 0}f} times the throughput with batching"


def load_of(load: ClosedLoop | OpenLoop) -> str:
    """The load in a few words."""
    if isinstance(load, OpenLoop):
        return f"{load.rate_per_s:,.6g} requests/s"
    return f"{load.concurrency:,} in flight"


def fitted(name: str, width: int) -> str:
    """The name in at most `width` characters: the middle of a longer one gives way to dots."""
    name = "".join(c if c.isprintable() else "?" for c in name)
    if len(name) <= width:
        return name
    head = (width - 2) // 2
    return f"{name[:head]}..{name[head + 2 - width :]}"


def natural(name: str) -> list[tuple[int, str]]:
    """A sort key by which worker_2 stands before worker_10."""
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(re.split(r"(\d+)", name))]


def short_time(latency_ms: float | None) -> str:
    """The latency with three digits and a unit that suits it, or "-" if there is none."""
    if latency_ms is None:
        return "-"
    value, unit = latency_ms, "ms"
    if latency_ms >= 999.5:
        value, unit = latency_ms / 1000, "s"
    elif latency_ms < 0.01:
        value, unit = latency_ms * 1000, "us"
    return f"{value:#.3g}".rstrip(".") + f" {unit}"


def _all_scenarios(result: BenchResult) -> tuple[LoadResult, ...]:
    """Each scenario once, also one that was both asked for and compared."""
    return (*result.scenarios, *(s for s in result.comparison if s not in result.scenarios))


def _heaviness(scenario: LoadResult) -> tuple[bool, float]:
    load = scenario.load
    return isinstance(load, OpenLoop), load.concurrency if isinstance(load, ClosedLoop) else load.rate_per_s


def _scenario(scenario: LoadResult) -> Iterator[str]:
    summary = summarize(scenario)
    yield _heading(f"{scenario.name}: model {scenario.model}, {_described(scenario.load)}")
    yield (
        f"  {summary.sent:,} requests: {summary.successes:,} successes, {summary.failed:,} failures, "
        f"{summary.wrong_answers:,} wrong answers"
    )
    if summary.failures:
        codes = ", ".join(f"{count:,} {code}" for code, count in summary.failures.items())
        yield from _wrapped("  failures: ", codes)
    yield from _wrapped("  ", _rounds(scenario, summary))
    yield ""
    yield from _figures(scenario, summary)
    yield from _note([scenario], *_PER_MILLE)
    if scenario.worker_requests:
        yield ""
        yield from _workers(scenario)


def _described(load: ClosedLoop | OpenLoop) -> str:
    if isinstance(load, OpenLoop):
        return f"open loop, {load_of(load)} for {load.duration_s:g} s"
    return f"closed loop, {load_of(load)}, {load.requests:,} requests a round"


def _rounds(scenario: LoadResult, summary: Summary) -> str:
    if len(scenario.rounds) == 1:
        return f"1 round of {summary.wall_s:.3g} s"
    said = f"{len(scenario.rounds):,} rounds, {summary.wall_s:.3g} s; the figures are the median round's"
    if summary.is_steady is False:
        said += "; NOT STEADY: the last three rounds differ by more than 10 %, so take them with care"
    return said


def _figures(scenario: LoadResult, summary: Summary) -> Iterator[str]:
    latencies = median_latencies(scenario)
    yield _row("throughput", _rate(summary.throughput_per_s), "requests/s", _spread(summary.throughput_spread))
    for label, figure in _latency_figures(latencies):
        yield _row(label, _ms(figure), "ms", _spread(summary.p50_spread) if label == "latency p50" else "")
    yield _row("mean batch size", _decimal(scenario.mean_batch_size), "rows")
    yield _row("load imbalance", _percent(summary.load_imbalance), "%", "the busiest worker over the mean")
    if scenario.client_cpu_s is not None:
        cores = scenario.client_cpu_s / summary.wall_s
        yield _row("load generator", _decimal(cores), "cores", f"{scenario.client_cpu_s:.2f} s of CPU")


def _latency_figures(latencies: Latencies) -> tuple[tuple[str, float | None], ...]:
    return (
        ("latency mean", latencies.mean_ms),
        *((f"latency {name}", figure) for name, figure in latencies.percentiles.items()),
        ("latency min", latencies.min_ms),
        ("latency max", latencies.max_ms),
        ("latency std dev", latencies.std_dev_ms),
    )


def _note(scenarios: Iterable[LoadResult], *printed: str) -> Iterator[str]:
    """A line that explains the dashes among the percentiles that were printed, if there are any."""
    given = [median_latencies(scenario).percentiles for scenario in scenarios]
    needed = [
        f"{name} takes {samples_needed(_PER_MILLE[name]):,}"
        for name in printed
        if any(percentiles[name] is None for percentiles in given)
    ]
    if needed:
        yield ""
        yield from _wrapped(
            "  - ",
            f"fewer than {BACKING_SAMPLES} samples lie beyond it: {', '.join(needed)} successes a round",
        )


def _workers(scenario: LoadResult) -> Iterator[str]:
    total = sum(scenario.worker_requests.values())
    yield f"  {'requests per worker':<{_NAME_WIDTH}}{'requests':>14}{'share':>10}"
    for name in sorted(scenario.worker_requests, key=natural):
        count = scenario.worker_requests[name]
        share = f"{100 * count / total:.1f} %" if total else "-"
        yield f"  {fitted(name, _NAME_WIDTH):<{_NAME_WIDTH}}{count:>14,}{share:>10}"


def _side_by_side(result: BenchResult) -> Iterator[str]:
    scenarios = side_by_side(result)
    if len(scenarios) < 2:
        return
    yield _heading("Loads side by side")
    yield _table_head("load")
    for scenario in scenarios:
        yield _table_row(f"{scenario.name} {scenario.model}", scenario)
    yield from _note(scenarios, "p50", "p99")


def _batching(result: BenchResult) -> Iterator[str]:
    pairs = batching_pairs(result)
    if not pairs:
        return
    yield _heading("Batching on against off")
    yield _table_head("model")
    for pair in pairs:
        for side in pair:
            yield _table_row(f"{side.model} {side.batching}", side)
    yield ""
    for on, off in pairs:
        yield f"  {fitted(on.model, _NAME_WIDTH)}: {batching_ratio(on, off)}"
    yield from _note((side for pair in pairs for side in pair), "p50", "p99")


def _table_head(first: str) -> str:
    numbers = f"{'requests/s':>12}{'p50 ms':>10}{'p99 ms':>11}{'batch':>8}{'failed':>10}"
    return f"  {first:<20}{'offered':>17}{numbers}"


def _table_row(name: str, scenario: LoadResult) -> str:
    summary = summarize(scenario)
    latencies = median_latencies(scenario)
    return (
        f"  {fitted(name, 20):<20}{load_of(scenario.load):>17}{_rate(summary.throughput_per_s):>12}"
        f"{_ms(latencies.p50_ms):>10}{_ms(latencies.p99_ms):>11}"
        f"{_decimal(scenario.mean_batch_size):>8}{summary.failed + summary.wrong_answers:>10,}"
    )


def _circumstances(result: BenchResult) -> Iterator[str]:
    machine, versions, configuration = result.machine, result.versions, result.configuration
    memory = "unknown" if machine.memory_bytes is None else f"{machine.memory_bytes / 2**30:.1f} GiB"
    yield _heading("Where and how")
    yield from _wrapped("  machine   ", f"{machine.cores} cores, {machine.cpu_model}, {memory} of memory")
    yield from _wrapped("  system    ", f"{machine.os}, {machine.python}")
    yield from _wrapped(
        "  versions  ",
        f"zmqinfer {versions.zmqinfer}, pyzmq {versions.pyzmq}, libzmq {versions.libzmq}, "
        f"numpy {versions.numpy}, msgpack {versions.msgpack}",
    )
    yield from _wrapped("  cluster   ", f"{configuration.workers} workers, {', '.join(configuration.gateways)}")
    if configuration.settings:
        settings = ", ".join(f"{name} = {value}" for name, value in configuration.settings.items())
        yield from _wrapped("  settings  ", settings)
    yield from _wrapped("  command   ", result.command)


def _heading(title: str) -> str:
    title = fitted(title, WIDTH)
    return f"{title}\n{'-' * len(title)}"


def _wrapped(lead: str, text: str) -> list[str]:
    text = "".join(c if c.isprintable() else "?" for c in text)
    return textwrap.wrap(
        text, WIDTH, initial_indent=lead, subsequent_indent=" " * len(lead), break_on_hyphens=False
    ) or [lead]


def _row(label: str, figure: str, unit: str, remark: str = "") -> str:
    return f"  {label:<18}{figure:>14} {unit:<12}{remark}"


def _rate(per_s: float) -> str:
    return f"{per_s:,.0f}" if per_s >= 100 else f"{per_s:,.1f}"


def _ms(latency_ms: float | None) -> str:
    if latency_ms is None:
        return "-"
    return f"{latency_ms:,.3f}" if latency_ms < 1000 else f"{latency_ms:,.1f}"


def _decimal(value: float | None) -> str:
    return "-" if value is None else f"{value:,.2f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:,.1f}"


def _spread(share: float | None) -> str:
    return "" if share is None else f"spread {100 * share:.1f} %"
