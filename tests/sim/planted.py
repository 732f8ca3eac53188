"""Bugs planted into the machines, each of which the simulator has to find.

    python -m tests.sim.planted            # all of them
    python -m tests.sim.planted no_fencing

A patch in tests/planted/ is one bug; it is applied to a copy of the package. It begins with a sentence
that says what is wrong, and may name the scenario that shows it: "Scenario: losses"; else it is mixed.
A bug that takes many schedules may say where it was found last: "Seed: 119"; the tests look there first.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["PATCHES", "ROOT", "found_after", "last_seen", "plant"]

ROOT = Path(__file__).parents[2]
PATCHES = sorted(path.stem for path in (ROOT / "tests" / "planted").glob("*.patch"))
# A bug that takes more is not found.
MOST_SCHEDULES = 2_000
_CHUNK, _FEW = 16, 4


def found_after(name: str, *, first: int = 1) -> tuple[int, str]:
    """Returns in which schedule a bug was found, and as what.

    Args:
        first: the seed of the schedule that is tried first; if this one and a few more show nothing, all are tried.

    Raises:
        AssertionError: it was not, or what was found is there without it.
    """
    scenario = _scenario_of(name)
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "zmqinfer", Path(folder, "zmqinfer"), ignore=shutil.ignore_patterns("__pycache__"))
        plant(name, folder)
        for seed, count in ((first, _FEW), *((seed, _CHUNK) for seed in range(1, MOST_SCHEDULES, _CHUNK))):
            found = _simulate(folder, scenario, seed, count)
            if found:
                anyway = _simulate(str(ROOT), scenario, found[0], 1)
                assert anyway is None, f"{name} was not needed for {scenario} {found[0]}: {anyway}"
                return found
    raise AssertionError(f"{name} was not found in {MOST_SCHEDULES:,} schedules")


def plant(name: str, folder: str, *options: str) -> None:
    """Applies a patch to the package in a folder; with --check it only looks whether it could."""
    # Below a repository `git apply` would leave out what is not in it.
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(Path(folder).parent)}
    subprocess.run(["git", "apply", *options, str(_patch(name))], cwd=folder, check=True, env=environment)


def _patch(name: str) -> Path:
    return ROOT / "tests" / "planted" / f"{name}.patch"


def last_seen(name: str) -> int:
    """Returns the seed with which a bug was found last, 1 if its patch does not say."""
    said = re.search(r"^Seed: (\d+)$", _patch(name).read_text(), re.MULTILINE)
    return int(said[1]) if said else 1


def _scenario_of(name: str) -> str:
    named = re.search(r"^Scenario: (\w+)$", _patch(name).read_text(), re.MULTILINE)
    return named[1] if named else "mixed"


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
        except AssertionError as error:
            missed += 1
            print(error, flush=True)
        else:
            print(f"{name:32} found in schedule {schedules:5,}: {violation[:110]}", flush=True)
    sys.exit(bool(missed))


if __name__ == "__main__":
    _main()
