"""Two commits in turns, each micro-benchmark as a ratio of its medians.

    .venv/bin/python -m bench.micro.commits main~5 main

The benchmarks are those of this checkout; one that a commit cannot run, for its code looks otherwise, is
left out and named. Each commit is checked out into a folder of its own, which is removed again.
"""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

from bench.command import Command, whole
from bench.trees import ROOT, git, tree_of

Medians = dict[str, list[float]]


def _run(tree: Path, found: Medians) -> None:
    """Adds the median seconds of each benchmark in a tree."""
    out = tree / "micro.json"
    out.unlink(missing_ok=True)
    # Without the tests' own options: those of an older commit may skip benchmarks.
    command = [sys.executable, "-m", "pytest", "bench/micro", "-q", "-p", "no:cacheprovider", "-o", "addopts="]
    subprocess.run(
        [*command, f"--benchmark-json={out}", "--benchmark-max-time=0.3"],
        cwd=tree,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,  # a benchmark that this commit cannot run fails alone
        timeout=300,
    )
    for one in json.loads(out.read_text())["benchmarks"] if out.exists() else []:
        found.setdefault(one["name"], []).append(one["stats"]["median"])


def compare(before: str, after: str, repeats: int) -> list[str]:
    """Returns a line for each benchmark: its medians in microseconds, and after over before."""
    found: dict[str, Medians] = {before: {}, after: {}}
    with ExitStack() as stack:
        trees: dict[str, Path] = {}
        for commit in found:
            tree = tree_of(commit, stack)
            shutil.rmtree(tree / "bench" / "micro", ignore_errors=True)
            shutil.copytree(ROOT / "bench" / "micro", tree / "bench" / "micro")
            trees[commit] = tree
        for _ in range(repeats):
            for commit, tree in trees.items():
                _run(tree, found[commit])
    lines = [f"{'benchmark':<58} {'before us':>10} {'after us':>10} {'ratio':>7}"]
    for name in sorted({*found[before], *found[after]}):
        pair = [found[commit].get(name) for commit in (before, after)]
        if pair[0] is None or pair[1] is None:
            lines.append(f"{name:<58} only {'before' if pair[0] else 'after'} can run it")
            continue
        ratio = statistics.median(late / early for early, late in zip(*pair, strict=False))
        us = [statistics.median(times) * 1e6 for times in pair if times]
        lines.append(f"{name:<58} {us[0]:>10.2f} {us[1]:>10.2f} {ratio:>7.3f}")
    return lines


def main() -> None:
    """Prints the ratios."""
    options = Command("python -m bench.micro.commits", __doc__)
    options.add_argument("before")
    options.add_argument("after")
    options.add_argument("--repeats", type=whole, default=3, help="of each commit, in turns (%(default)s)")
    asked = options.parse_args()
    before, after = (git("rev-parse", "--verify", f"{name}^{{commit}}") for name in (asked.before, asked.after))
    if before == after:
        sys.exit("both names are the same commit; nothing to compare")
    print("\n".join(compare(before, after, asked.repeats)))


if __name__ == "__main__":
    main()
