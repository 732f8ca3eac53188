"""Throughput with 1 to 16 workers, for a model that takes its time whatever the load on this machine.

    .venv/bin/python -m bench.scaling

`sleep` takes 10 ms a batch of up to 32, as an accelerator would; one client's `infer_many` keeps 2,048 in
flight. A worker's ideal is 3,200 requests a second; what N workers do is judged by N times what one did in
the same run. Writes results/scaling.json and scaling.png.
"""

from __future__ import annotations

import datetime as dt
import json
import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.command import Command, whole, within
from zmqinfer import Client
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.load.results import Machine

COUNTS = (1, 2, 4, 8, 16)
IN_FLIGHT = 2_048
WARM_UP_S = 1.0


def rate(workers: int, seconds: float) -> float:
    """Returns the requests a second of one cluster."""
    with ProcessCluster(workers) as cluster, Client(cluster.clients_address) as client:
        _stream(client, WARM_UP_S)
        began_at = time.perf_counter()
        answered = _stream(client, seconds)
        return answered / (time.perf_counter() - began_at)


def _stream(client: Client, seconds: float) -> int:
    until = time.perf_counter() + seconds

    def inputs() -> Iterator[np.ndarray]:
        x = np.zeros(4, np.float32)
        while time.perf_counter() < until:
            yield x

    return sum(1 for _ in client.infer_many("sleep", inputs(), in_flight=IN_FLIGHT))


def draw(rates: dict[int, float], path: Path, caption: str) -> None:
    """Draws throughput against the ideal, with the efficiency beside each point."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 6), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    counts = sorted(rates)
    one = rates[counts[0]] / counts[0]
    axes.plot(counts, [one * count for count in counts], "--", color="#999999", label="N times one worker")
    axes.plot(counts, [rates[count] for count in counts], "o-", color="#0072B2", label="measured")
    for count in counts:
        text = f"{rates[count]:,.0f}\n{rates[count] / count / one:.1%}"
        axes.annotate(text, (count, rates[count]), xytext=(8, -24), textcoords="offset points", fontsize=10)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log", base=2)
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.margins(x=0.12, y=0.12)
    axes.set_xlabel("workers")
    axes.set_ylabel("requests a second")
    axes.set_title("sleep, 10 ms a batch of 32, 2,048 in flight: measured, and in % of the ideal", loc="left")
    axes.legend(frameon=False)
    axes.grid(color="#E5E5E5")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.supxlabel(caption, fontsize=9)
    figure.savefig(path)


def main() -> None:
    """Measures, prints and draws."""
    options = Command("python -m bench.scaling", __doc__)
    options.add_argument("--seconds", type=within, default=3.0, help="at each number of workers (%(default)s)")
    options.add_argument("--repeats", type=whole, default=3, help="of the whole row (%(default)s)")
    options.add_argument("--out", type=Path, default=Path("results"), help="folder (%(default)s)")
    asked = options.parse_args()
    runs = [{count: rate(count, asked.seconds) for count in COUNTS} for _ in range(asked.repeats)]
    rates = {count: statistics.median(run[count] for run in runs) for count in COUNTS}
    for count in COUNTS:
        share = statistics.median(run[count] / count / run[1] for run in runs)
        print(f"{count:>3} workers {rates[count]:>10,.0f} req/s  {share:.3f} of the ideal")
    here = Machine.here()
    today = dt.datetime.now().astimezone().date()
    command = f"python -m bench.scaling --repeats {asked.repeats} --seconds {asked.seconds:g}"
    caption = f"{today}, {here.cores} shared cores of {here.cpu_model}; {command}; medians"
    asked.out.mkdir(parents=True, exist_ok=True)
    (asked.out / "scaling.json").write_text(json.dumps({"caption": caption, "runs": runs}, indent=1) + "\n")
    draw(rates, asked.out / "scaling.png", caption)


if __name__ == "__main__":
    main()
