"""`zmqinfer up` and its terminal: SIGHUP renews, a terminal that is closed ends, and `nohup` is obeyed."""

from __future__ import annotations

import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from tests.processes import Processes, children_of, free_addresses, is_running, run

# Begins a session of its own with the terminal that is named first, as a terminal's own shell does.
SHELL = """
import os, sys
os.setsid()
os.dup2(os.open(sys.argv[1], os.O_RDWR), 0)
os.execv(sys.executable, [sys.executable, "-m", "zmqinfer", *sys.argv[2:]])
"""


def words(tmp_path: Path) -> list[str]:
    return ["up", "--workers", "1", "--clients", f"ipc://{tmp_path}/c", "--workers-at", f"ipc://{tmp_path}/w"]


@pytest.mark.slow
def test_a_closed_terminal_ends_up_and_a_signal_alone_does_not(processes: Processes, tmp_path: Path) -> None:
    """`kill -HUP` restarts all; when the terminal has gone as well it drains, and nobody is left."""
    ours, theirs = pty.openpty()
    process = processes.start(os.ttyname(theirs), *words(tmp_path), program=[sys.executable, "-c", SHELL])
    process.says("\nready: ")
    os.close(theirs)

    process.sends(signal.SIGHUP)
    process.says("restarted all")
    children = children_of(process.pid)
    os.close(ours)

    assert process.ends() == 0, process.log
    assert "the terminal has gone" in process.log
    assert len(children) == 2
    assert not [pid for pid in children if is_running(pid)]


@pytest.mark.slow
def test_a_signal_that_was_ignored_at_the_start_stays_ignored(processes: Processes, tmp_path: Path) -> None:
    """As under `nohup`; in `up`, its workers and its gateways."""
    process = processes.start(*words(tmp_path), program=["nohup", sys.executable, "-m", "zmqinfer"])
    process.says("\nready: ")
    children = children_of(process.pid)

    for pid in (process.pid, *children):
        os.kill(pid, signal.SIGHUP)
    answer = run("status", "-g", f"ipc://{tmp_path}/c", "--wait-workers", "1")

    assert answer.returncode == 0
    assert children_of(process.pid) == children
    process.sends(signal.SIGTERM)
    assert process.ends() == 0
    assert "restart" not in process.log


@pytest.mark.slow
def test_nodes_by_themselves_drain_when_they_are_hung_up(processes: Processes) -> None:
    """What SIGHUP asks of `up` is not for them: a worker's or gateway's terminal was closed."""
    clients, workers = free_addresses(2)
    gateway = processes.start("gateway", "--clients", clients, "--workers", workers)
    worker = processes.worker("w1", workers)
    assert run("status", "-g", clients, "--wait-workers", "1", "--timeout-s", "30").returncode == 0

    worker.sends(signal.SIGHUP)
    assert worker.ends() == 0
    gateway.sends(signal.SIGHUP)
    assert gateway.ends() == 0
