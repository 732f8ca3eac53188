"""Whether the simulator is to be believed: thirty scenarios on real processes and in virtual time.

    .venv/bin/python -m bench.calibration

Each runs under `zmqinfer bench` and under `zmqinfer simulate`, with the same seed, one after the other, and both must
agree within 15 % in right answers a second and in the median latency. How long a message takes on this machine now is
set by the two that are marked, and by no other. Writes results/calibration.json; exit code 1 if one does not agree.

All are loads that leave the processors time: virtual processes do not wait for each other's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.command import Command
from zmqinfer.load.stored import read_results
from zmqinfer.load.summary import median_latencies, summarize
from zmqinfer.scenario import Scenario

WITHIN = 0.15
CALIBRATED = ("one call at a time", "short, steady")
# From the client to its answer, through the gateway both times.
_MESSAGES = 4
BASE: dict[str, Any] = {
    "duration_s": 5.0, "warm_up_s": 1.0, "gateways": 1, "workers": 2, "clients": 1, "burst": 1, "keyed": 0.0,
    "cancelled": 0.0, "patient": 0.0, "deadline_s": 5.0,
}  # fmt: skip
SHORT: dict[str, Any] = {"name": "short", "a_ms": 1.0, "b_ms": 0.05}
MIDDLE: dict[str, Any] = {"name": "middle", "a_ms": 5.0, "b_ms": 0.5}
FIXED: dict[str, Any] = {"name": "fixed", "a_ms": 20.0, "b_ms": 0.0, "max_batch_size": 8}
LONG: dict[str, Any] = {"name": "long", "a_ms": 10.0, "b_ms": 5.0, "max_batch_size": 16}
TIMED = {"policy": "timed"}
# What each has that is not in BASE; `models` are tables as in the file. `in_flight` is a closed loop.
SCENARIOS: dict[str, dict[str, Any]] = {
    "one call at a time": {"in_flight": 1, "models": [SHORT]},
    "steady, half full": {"rate": 600, "models": [MIDDLE]},
    "steady, nearly idle": {"rate": 50, "models": [MIDDLE]},
    "steady, busy": {"rate": 1_500, "models": [MIDDLE]},
    "short, slow": {"rate": 100, "models": [SHORT]},
    "short, steady": {"rate": 500, "models": [SHORT]},
    "short, eight in flight": {"in_flight": 8, "models": [SHORT]},
    "fixed, one in flight": {"in_flight": 1, "models": [FIXED]},
    "fixed, eight in flight": {"in_flight": 8, "models": [FIXED]},
    "fixed, as many as fit": {"in_flight": 16, "models": [FIXED]},
    "fixed, twice as many": {"in_flight": 32, "models": [FIXED]},
    "fixed, steady": {"rate": 300, "models": [FIXED]},
    "fixed, nearly full": {"rate": 700, "models": [FIXED]},
    "long, steady": {"rate": 100, "models": [LONG]},
    "long, busy": {"rate": 250, "models": [LONG]},
    "long, full": {"in_flight": 64, "models": [LONG]},
    "one worker": {"workers": 1, "rate": 300, "models": [MIDDLE]},
    "one worker, full": {"workers": 1, "in_flight": 40, "models": [MIDDLE]},
    "four workers": {"workers": 4, "rate": 1_000, "models": [MIDDLE]},
    "four workers, full": {"workers": 4, "in_flight": 64, "models": [FIXED]},
    "bursts of ten": {"burst": 10, "rate": 400, "models": [MIDDLE]},
    "bursts of forty": {"burst": 40, "rate": 400, "models": [MIDDLE]},
    "with keys": {"keyed": 1.0, "rate": 400, "models": [MIDDLE]},
    "with keys, two in flight": {"keyed": 1.0, "in_flight": 2, "models": [FIXED]},
    "timed batches": {"rate": 400, "models": [MIDDLE | TIMED | {"max_wait_ms": 10.0}]},
    "timed batches, eight in flight": {"in_flight": 8, "models": [MIDDLE | TIMED | {"max_wait_ms": 5.0}]},
    "four clients": {"clients": 4, "rate": 600, "models": [MIDDLE]},
    "four clients, full": {"clients": 4, "in_flight": 64, "models": [LONG]},
    "two gateways": {"gateways": 2, "clients": 4, "rate": 600, "models": [MIDDLE]},
    "some taken back": {"cancelled": 0.2, "rate": 250, "models": [LONG]},
}


@dataclass(frozen=True)
class Figures:
    """What one run found."""

    rate_per_s: float
    p50_ms: float


def as_toml(document: Mapping[str, Any]) -> str:
    """Returns the text of a scenario file; JSON's numbers and strings are TOML's too."""
    plain = [f"{key} = {json.dumps(value)}" for key, value in document.items() if key != "models"]
    for model in document["models"]:
        plain += ["[[models]]", *(f"{key} = {json.dumps(value)}" for key, value in model.items())]
    return "\n".join(plain) + "\n"


def figures(command: str, file: Path, seed: int, out: Path) -> Figures:
    """Runs `zmqinfer bench` or `zmqinfer simulate`; all answers must be right."""
    arguments = [sys.executable, "-m", "zmqinfer", command, str(file), "--seed", str(seed), "--out", str(out)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        sys.exit(f"zmqinfer {command} {file.name} ended with {done.returncode}: {done.stderr}")
    (found,) = read_results(out).scenarios
    p50_ms = median_latencies(found).p50_ms
    assert p50_ms is not None, found
    return Figures(summarize(found).throughput_per_s, p50_ms)


def fitted(live: Sequence[Figures], simulated: Sequence[Figures], latency_ms: tuple[float, float]) -> list[float]:
    """Returns the span of a message's latency with which median latencies come as near to the live ones as can be.

    Args:
        simulated: what came of `latency_ms`.
    """
    # Each call's medians take `more` for each of its messages; their relative errors are to be each other's opposite.
    over = sum(one.p50_ms / two.p50_ms - 1 for one, two in zip(simulated, live, strict=True))
    more = -over / (_MESSAGES * sum(1 / one.p50_ms for one in live))
    least, most = latency_ms
    more = max(more, -0.9 * least)
    return [round(least + more, 4), round(most + more, 4)]


def main() -> None:
    """Prints the table; exit code 1 if a scenario does not agree."""
    command = Command("python -m bench.calibration", __doc__)
    command.add_argument("--seed", type=int, default=1, help="(%(default)s)")
    command.add_argument("--only", choices=SCENARIOS, action="append", help="one scenario; may be repeated")
    command.add_argument("--out", type=Path, default=Path("results"), help="where to write (%(default)s)")
    asked = command.parse_args()
    with tempfile.TemporaryDirectory() as folder:

        def run(way: str, name: str, latency_ms: Sequence[float]) -> Figures:
            file = Path(folder) / "scenario.toml"
            file.write_text(as_toml({"name": name, **BASE, **SCENARIOS[name], "latency_ms": [*latency_ms]}))
            return figures(way, file, asked.seed, Path(folder) / way)

        usual_ms = Scenario().latency_ms
        by_live = {name: run("bench", name, usual_ms) for name in CALIBRATED}
        by_usual = [run("simulate", name, usual_ms) for name in CALIBRATED]
        latency_ms = fitted([*by_live.values()], by_usual, usual_ms)
        print(f"a message takes {latency_ms[0]} to {latency_ms[1]} ms here, by what is marked *")
        print(f"{'':<32}{'answers/s: live':>16}{'simulated':>11}{'':>7}{'p50 ms: live':>16}{'simulated':>11}")
        rows = []
        for name in asked.only or SCENARIOS:
            live = by_live.get(name) or run("bench", name, latency_ms)
            simulated = run("simulate", name, latency_ms)
            rate, p50 = simulated.rate_per_s / live.rate_per_s, simulated.p50_ms / live.p50_ms
            agrees = all(abs(ratio - 1) <= WITHIN for ratio in (rate, p50))
            rows.append(
                {
                    "name": name, "calibrated": name in CALIBRATED, "agrees": agrees, "live": vars(live),
                    "simulated": vars(simulated), "rate_ratio": rate, "p50_ratio": p50,
                }
            )  # fmt: skip
            title = name + " *" * (name in CALIBRATED)
            print(
                f"{title:<32}{live.rate_per_s:>16,.0f}{simulated.rate_per_s:>11,.0f}"
                f"{rate:>7.2f}{live.p50_ms:>16.2f}{simulated.p50_ms:>11.2f}{p50:>7.2f}{'' if agrees else '  NOT'}",
                flush=True,
            )
    agreeing = sum(row["agrees"] is True for row in rows)
    print(f"{agreeing} of {len(rows)} agree within {WITHIN:.0%}")
    asked.out.mkdir(parents=True, exist_ok=True)
    written = {"latency_ms": latency_ms, "scenarios": rows}
    (asked.out / "calibration.json").write_text(json.dumps(written, indent=1))
    sys.exit(agreeing < len(rows))


if __name__ == "__main__":
    main()
