"""What `status`, `models` and `ring` print for people: in 80 columns, sorted by name.

Only a name or an address that is itself too long goes beyond. Programs read `--json`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from zmqinfer.load.report import natural
from zmqinfer.signature import Signature

__all__ = ["WIDTH", "model_lines", "ring_lines", "status_lines"]

WIDTH = 80
_UNBROKEN = "\N{NO-BREAK SPACE}"
_REQUESTS = ("received", "refused", "accepted", "answered", "pending", "queued")
_HEADINGS = ("worker", "state", "share", "held", "credits", "answered", "batches", "mean rows")


def status_lines(gateway: Mapping[str, Any]) -> Iterator[str]:
    """What one gateway tells of itself, its requests, its workers and its models."""
    requests, workers = gateway["requests"], sorted(gateway["workers"], key=_by_name)
    yield f"gateway {gateway['address']}"
    process = [("pid", gateway["pid"]), ("up", _span(gateway["uptime_s"])), ("version", gateway["version"])]
    yield from _listed("process", *process, ("ring", gateway["ring_version"]), ("clients", f"{gateway['clients']:,}"))
    counts = {**requests, "queued": gateway["queued"]["requests"]}
    yield from _listed("requests", *((name, f"{counts[name]:,}") for name in _REQUESTS))
    yield from _listed("outcomes", *((name, f"{count:,}") for name, count in requests["outcomes"].items()))
    if not workers:
        yield "  no worker"
        return
    yield ""
    yield from _table([_HEADINGS, *map(_cells, workers)])
    yield ""
    yield from _placed(workers)


def _by_name(one: Mapping[str, Any]) -> list[tuple[int, str]]:
    return natural(one["name"])


def _listed(what: str, *facts: tuple[str, object]) -> list[str]:
    pairs = (f"{name} {fact}".replace(" ", _UNBROKEN) for name, fact in facts)
    return [line.replace(_UNBROKEN, " ") for line in _folded(f"  {what:<8}  ", ", ".join(pairs) or "none yet")]


def _span(seconds: float) -> str:
    """Returns how long something lasts, in its two largest units."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    units = [f"{count} {unit}" for count, unit in ((days, "d"), (hours, "h"), (minutes, "min"), (rest, "s"))]
    first = next((place for place, text in enumerate(units) if text[0] != "0"), 3)
    return " ".join(units[first : first + 2])


def _cells(worker: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        worker["name"],
        worker["state"],
        f"{worker['share']:.1%}",
        f"{worker['in_flight']:,}",
        f"{worker['credits']:,}",
        f"{worker['answered']:,}",
        f"{worker['batches']:,}",
        f"{worker['mean_batch_size']:.1f}",
    )


def _placed(workers: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A line for each model: which workers have it, and how they stand if they are not in."""
    places: dict[tuple[str, int], list[str]] = {}
    for worker in workers:
        for model in worker["models"]:
            standing = "" if model["standing"] == "in" else f" ({model['standing']})"
            places.setdefault((model["name"], model["version"]), []).append(worker["name"] + standing)
    everywhere = [worker["name"] for worker in workers]
    rows = [
        (f"{name}:{version}", "all" if where == everywhere and len(where) > 1 else ", ".join(where))
        for (name, version), where in sorted(places.items(), key=lambda item: (natural(item[0][0]), item[0][1]))
    ]
    width = max(len(model) for model, _ in [("model", ""), *rows])
    for model, where in [("model", "workers"), *rows]:
        yield from _folded(f"  {model:<{width}}  ", where)


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Columns, the first two of them words. A name that takes more than there is has a line of its own."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[0] = max(len(rows[0][0]), min(widths[0], WIDTH - 2 * len(widths) - sum(widths[1:])))
    for name, state, *figures in rows:
        is_long = len(name) > widths[0]
        if is_long:
            yield f"  {name}"
        words = f"{'' if is_long else name:<{widths[0]}}  {state:<{widths[1]}}"
        cells = (f"{figure:>{width}}" for figure, width in zip(figures, widths[2:], strict=True))
        yield f"  {words}  {'  '.join(cells)}"


def _folded(lead: str, text: str) -> list[str]:
    return textwrap.wrap(
        text,
        WIDTH,
        initial_indent=lead,
        subsequent_indent=" " * len(lead),
        break_long_words=False,
        break_on_hyphens=False,
    )


def model_lines(models: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """What each model takes and gives, and who serves it."""
    for one in sorted(models, key=lambda one: (_by_name(one), one["version"])):
        signature = Signature.from_wire(one["signature"])
        takes = ", ".join(f"{spec.name} {spec}" for spec in signature.inputs)
        gives = ", ".join(f"{spec.name} {spec}" for spec in signature.outputs)
        where = ", ".join(sorted(one["workers"], key=natural))
        yield from _folded("", f"{one['name']} version {one['version']}: {takes} -> {gives}")
        yield from _folded("  ", f"batches up to {one['max_batch_size']:,}, on {where}")


def ring_lines(version: str, peak: float, weights: Mapping[str, float], shares: Mapping[str, float]) -> Iterator[str]:
    """Who owns which share of the keys."""
    yield f"ring {version}: {len(weights)} workers, peak to mean {peak:.3f}"
    names = sorted(weights, key=natural)
    yield from _table([("worker", "weight", "share"), *((n, f"{weights[n]:g}", f"{shares[n]:.2%}") for n in names)])
