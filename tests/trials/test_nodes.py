"""Nodes of trials."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.processes import ROOT

_TRIAL = """
import pathlib, sys, time
from trials.nodes import Node

node = Node("gateway", ["gateway", "--clients", "tcp://127.0.0.1:0", "--workers", "tcp://127.0.0.1:0"],
            pathlib.Path(sys.argv[1]))
node.start()
while "gateway listens" not in node.log:
    time.sleep(0.01)
print(node.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.slow
def test_nodes_end_with_the_trial_that_is_killed(tmp_path: Path) -> None:
    """Nobody else would end them."""
    trial = subprocess.Popen(
        [sys.executable, "-c", _TRIAL, str(tmp_path)], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
    )
    assert trial.stdout is not None
    with trial.stdout:
        pid = int(trial.stdout.readline())
    trial.kill()
    trial.wait()

    give_up_at = time.monotonic() + 20.0
    while _is_running(pid):
        assert time.monotonic() < give_up_at, "the node outlives its trial"
        time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    # Nobody may wait for an orphan here: then it stays as a zombie.
    status = Path(f"/proc/{pid}/stat")
    return not status.exists() or status.read_text().rpartition(")")[2].split()[0] != "Z"
