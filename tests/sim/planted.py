"""Bugs planted into the machines, each of which the simulator has to find.

    python -m tests.sim.planted            # all of them
    python -m tests.sim.planted no_fencing

A patch in tests/planted/ is one bug; it is applied to a copy of the package. It begins with a sentence
that says what is wrong, and may name the scenario that shows it: "Scenario: losses"; else it is mixed.
A bug that takes more than 64 schedules says where it was found last: "Seed: 119"; it is looked for there first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["PATCHES", "ROOT", "SOON", "found_after", "is_common", "plant"]

ROOT = Path(__file__).parents[2]
PATCHES = sorted(path.stem for path in (ROOT / "tests" / "planted").glob("*.patch"))
# A bug that takes more is not found; one that takes more than the second needs to say where it was.
MOST_SCHEDULES, SOON = 2_000, 64
_CHUNK, _FEW = 16, 4


def found_after(name: str, most: int = MOST_SCHEDULES) -> tuple[int, str]:
    """Returns in which schedule a bug was found, and as what: where it was last, else from the first one on.

    Raises:
        AssertionError: it was not, or what was found is there without it.
    """
    scenario = _said(name, "Scenario") or "mixed"
    last = int(_said(name, "Seed") or 1)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "zmqinfer", Path(folder, "zmqinfer"), ignore=shutil.ignore_patterns("__pycache__"))
        plant(name, folder)
        for seed, count in ((last, _FEW), *((seed, _CHUNK) for seed in range(1, most, _CHUNK))):
            found = _simulate(folder, scenario, seed, count)
            if found:
                anyway = _simulate(str(ROOT), scenario, found[0], 1)
                assert anyway is None, f"{name} was not needed for {scenario} {found[0]}: {anyway}"
                return found
    raise AssertionError(f"{name} was not found in {most:,} schedules")


def plant(name: str, folder: str, *options: str) -> None:
    """Applies a patch to the package in a folder; with --check it only looks whether it could."""
    # Below a repository `git apply` would leave out what is not in it.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
    subprocess.run(["git", "apply", *options, str(_patch(name))], cwd=folder, check=True, env=environment)


def _patch(name: str) -> Path:
    return ROOT / "tests" / "planted" / f"{name}.patch"


def is_common(name: str) -> bool:
    """Whether a bug is found soon, so that its patch need not say where."""
    return not _said(name, "Seed")


def _said(name: str, what: str) -> str:
    said = re.search(rf"^{what}: (\w+)$", _patch(name).read_text(), re.MULTILINE)
    return said[1] if said else ""


def _simulate(folder: str, scenario: str, first: int, count: int) -> tuple[int, str] | None:
    command = ["simulate", scenario, "--seed", str(first), "--schedules", str(count), "--no-shrink"]
    done = subprocess.run(
        [sys.executable, "-m", "zmqinfer", *command],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": folder},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    seeds = re.findall(r"^seed (\d+): (.*)$", done.stderr, re.MULTILINE)
    assert done.returncode == (1 if seeds else 0) or "never had" in done.stderr, done.stderr
    return (int(seeds[0][0]), seeds[0][1]) if seeds else None


def _main() -> None:
    missed = 0
    for name in sys.argv[1:] or PATCHES:
        try:
            schedules, violation = found_after(name)
            if schedules > SOON and is_common(name):
                raise AssertionError(f"{name} was found late: write Seed: {schedules} into its patch")
        except AssertionError as error:
            missed += 1
            print(error, flush=True)
        else:
            print(f"{name:32} found in schedule {schedules:5,}: {violation[:110]}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    _main()
