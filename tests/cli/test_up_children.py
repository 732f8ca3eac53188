"""What the processes that `zmqinfer up` starts have of it: where Python finds modules, and its settings."""

from __future__ import annotations

import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.processes import ROOT, Processes, children_of, command_of, free_addresses, here, parsed, run, saved

# As pex, Bazel and other launchers start a program: with an interpreter that finds nothing by itself.
LAUNCHER = """
import sys
sys.path[:0] = {path!r}
from zmqinfer.cli import main
main()
"""
ISOLATED = """
target = "model:predict"
isolation = "process"
[inputs.x]
dtype = "FP32"
shape = [2]
[outputs.y]
dtype = "FP32"
shape = [2]
"""
MODEL = """
from only_there import twice

def predict(batch):
    return {"y": twice(batch["x"])}
"""


@pytest.mark.slow
def test_children_find_the_modules_that_up_finds(processes: Processes, tmp_path: Path) -> None:
    """Also what only the launcher put on sys.path; workers, gateways and the process of an isolated model."""
    library, folder = tmp_path / "library", tmp_path / "models" / "guarded"
    library.mkdir()
    folder.mkdir(parents=True)
    (library / "only_there.py").write_text("def twice(x):\n    return 2 * x\n")
    (folder / "model.toml").write_text(ISOLATED)
    (folder / "model.py").write_text(MODEL)
    launcher = tmp_path / "launcher.py"
    launcher.write_text(LAUNCHER.format(path=[str(library), str(ROOT), *sys.path]))
    clients, workers = free_addresses(2)
    bare = Path(sys.base_prefix) / "bin" / f"python{sys.version_info[0]}.{sys.version_info[1]}"

    process = processes.start(
        "up", "--workers", "1", "--models", folder, "--clients", clients, "--workers-at", workers,
        program=[bare, "-I", "-S", launcher], environment={"PYTHONPATH": ""},
    )  # fmt: skip
    process.says("\nready: guarded")
    answer = run("infer", "guarded", saved(tmp_path / "x.npy", np.ones(2, np.float32)), "-g", clients)
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert parsed(answer) == [2.0, 2.0]


@pytest.mark.slow
def test_only_workers_import_the_module_that_is_served(processes: Processes, tmp_path: Path) -> None:
    """It may take long, or much memory, or end its process."""
    (tmp_path / "scorer.py").write_text("import os\nprint('imported by', os.getpid())\nprint = abs\n")
    clients, workers = free_addresses(2)

    process = processes.start(
        "up", "scorer:print", "--workers", "2", "--clients", clients, "--workers-at", workers, cwd=tmp_path
    )
    process.says("\nready: ")
    importers = {int(pid) for pid in re.findall(r"imported by (\d+)", process.log)}
    served_by = {pid for pid in children_of(process.pid) if "worker_" in command_of(pid)}
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert importers == served_by
    assert len(served_by) == 2


SCORER = """
class Twice:
    def load(self):
        self.factor = 2

    def infer(self, x):
        return self.factor * x
"""


@pytest.mark.slow
def test_options_reach_gateways_workers_and_the_model(processes: Processes, tmp_path: Path) -> None:
    """Under their own names, from the command line and the environment; a bare model has settings too."""
    (tmp_path / "scorer.py").write_text(SCORER)
    clients, workers = free_addresses(2)
    words = ["--workers", "1", "--clients", clients, "--workers-at", workers]
    words += ["--weight", "2", "--isolation", "process", "--memory-mb", "2000", "--idempotent", "false"]
    process = processes.start(
        "up", "scorer:Twice", *words, cwd=tmp_path, environment={"ZMQINFER_UP_MAX_BODY_BYTES": "1024"}
    )
    process.says("\nready: Twice on 1 workers")

    answer = run("infer", "Twice", saved(tmp_path / "x.npy", np.ones(2)), "-g", clients)
    large = run("infer", "Twice", saved(tmp_path / "large.npy", np.ones(2_000)), "-g", clients)
    (worker,) = parsed(run("status", "-g", clients, "--json"))["gateways"][0]["workers"]
    (parent,) = [pid for pid in children_of(process.pid) if "worker_1" in command_of(pid)]
    titles = [command_of(pid) for pid in children_of(parent)]
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert parsed(answer) == [2.0, 2.0]
    assert "the gateway takes 1,024; raise --max-body-bytes" in large.stderr
    assert worker["weight"] == 2
    assert [title for title in titles if "zmqinfer model scorer:Twice" in title]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["up", "--policy", "timed"], "--policy was given without MODULE:CALLABLE, which it is for; models in folders"),
        (["worker", "--hedge", "true"], "--hedge was given without --function, which it is for; models in folders"),
        (["up", "json:dumps", "--memory-mb", "64"], "--memory-mb is 64, which needs isolation = 'process'"),
        (["up", "--max-body-bytes", "3"], "--max-body-bytes is 3, expected 1,024 to 2,147,483,648"),
        (["up", "--weight", "0"], "--weight is 0.0, expected 0.01 to 100"),
    ],
)
def test_wrong_options_are_refused_before_anything_is_started(arguments: list[str], sentence: str) -> None:
    """By their own names."""
    done = here(*arguments)

    assert done.returncode == 2
    assert done.stderr.startswith(f"zmqinfer: {sentence}"), done.stderr
