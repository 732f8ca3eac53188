"""The clients of two commits in turns: each figure as the median of the pairs' ratios, after over before.

Run from the repository's root, on a quiet machine:

    .venv/bin/python -m bench.clients main~5 main

Each commit calls echo with 64 float32 at a gateway and two workers of its own:

    one          p50 of one `Client.infer` at a time, by the main thread
    threads      16 threads that share a `Client`, each one call at a time: calls a second
    threads_p50  and their p50
    many         `Client.infer_many`, 1,024 in flight: results a second
    tasks        200 tasks that share an `AsyncClient`: calls a second
    async_many   `AsyncClient.infer_many` with a plain source, 1,024 in flight: results a second
    async_source the same with an asynchronous source

A commit is a name that git knows, or a folder with a checkout, such as `.`. Both measure in slices, one after the
other, so that what else the machine does meets both.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.command import Command, whole, within
from bench.trees import ROOT, tree_of

ROLES = ("one", "threads", "many", "asynchronous")
WARM_UP_S = 0.3
# Of these less is better.
TIMES = ("one", "threads_p50")


def _start(tree: Path, role: str, stack: ExitStack) -> subprocess.Popen[str]:
    """Begins a role with the package of a tree; its end is that of its input."""
    command = [sys.executable, "-P", str(ROOT / "bench" / "client_roles.py"), role]
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree)},
    )
    return stack.enter_context(child)


def _measure(child: subprocess.Popen[str], seconds: float) -> dict[str, float]:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{seconds}\n")
    child.stdin.flush()
    figures: dict[str, float] = json.loads(child.stdout.readline())
    return figures


def compare(before: Path, after: Path, roles: list[str], repeats: int, seconds: float) -> list[str]:
    """Returns a line for each figure: its medians, and the median of after over before."""
    found: dict[str, list[tuple[float, float]]] = {}
    for role in roles:
        with ExitStack() as stack:
            pair = [_start(tree, role, stack) for tree in (before, after)]
            for child in pair:
                _measure(child, WARM_UP_S)
            for number in range(repeats):
                # Who is first changes, for whatever the machine does meanwhile.
                early, late = (_measure(child, seconds) for child in (pair if number % 2 else pair[::-1]))
                if not number % 2:
                    early, late = late, early
                for name in early:
                    found.setdefault(name, []).append((early[name], late[name]))
    lines = [f"{'figure':<14} {'before':>10} {'after':>10} {'ratio':>7}  of all pairs"]
    for name, pairs in found.items():
        ratios = sorted(late / early for early, late in pairs)
        early, late = (statistics.median(side) for side in zip(*pairs, strict=True))
        unit = "us" if name in TIMES else "/s"
        span = f"{ratios[0]:.3f} to {ratios[-1]:.3f}"
        lines.append(f"{name:<14} {early:>8,.0f}{unit} {late:>8,.0f}{unit} {statistics.median(ratios):>7.3f}  {span}")
    return lines


def main() -> None:
    """Prints the ratios."""
    options = Command("python -m bench.clients", __doc__)
    options.add_argument("before")
    options.add_argument("after")
    options.add_argument("--only", choices=ROLES, action="append", help="one of the measurements; may be repeated")
    options.add_argument("--repeats", type=whole, default=21, help="of each commit, in turns (%(default)s)")
    options.add_argument("--seconds", type=within, default=0.25, help="of each measurement (%(default)s)")
    asked = options.parse_args()
    with ExitStack() as stack:
        before, after = (
            Path(name).resolve() if Path(name, "zmqinfer").is_dir() else tree_of(name, stack)
            for name in (asked.before, asked.after)
        )
        print("\n".join(compare(before, after, asked.only or list(ROLES), asked.repeats, asked.seconds)))


if __name__ == "__main__":
    main()
