"""`zmqinfer simulate`, through the real command line."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.processes import Processes, children_of, here, is_running, run, wait_until


def test_one_seed_says_what_happened() -> None:
    """And ends with 0, though most kinds of faults are not drawn for it."""
    done = run("simulate", "mixed", "--seed", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("1 schedules, ")
    assert done.stdout.endswith("nothing was violated\n")


def test_40_schedules_of_mixed_faults_violate_nothing() -> None:
    """0 lost, 0 answered twice, 0 wrong, 0 past deadline + 250 ms; and no kind of fault is missing."""
    done = run("simulate", "mixed", "--schedules", "40", "--no-shrink", timeout_s=180)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("40 schedules, ")
    faults = done.stdout.splitlines()[1].removeprefix("faults").split(", ")
    assert len(faults) >= 10
    assert all(int(fault.split()[-1].replace(",", "")) > 0 for fault in faults), faults


def test_a_run_without_faults_replays() -> None:
    """The same digest each time."""
    said = {run("simulate", "mixed", "--seed", "3", "--faults", "-").stdout.partition("digest ")[2][:16] for _ in "12"}
    assert len(said) == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing"], "no scenario 'nothing'"),
        (["mixed", "--faults", "999"], "has only the faults 0 to"),
        (["mixed", "--faults=-1"], "has only the faults 0 to"),
        (["mixed", "--faults", "x"], "expected numbers"),
        (["mixed", "--seed", str(2**53), "--schedules", "2"], "begin with a smaller seed"),
        (["scenario.toml"], "scenario.toml: unknown key 'wrokers'"),
        (["empty.toml"], "empty.toml: the [[models]] are []"),
        (["broken.toml"], "is no TOML"),
        (["mixed", "--schedules", "2", "--out", "results"], "--schedules is 2"),
    ],
)
def test_a_mistake_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], sentence: str
) -> None:
    """Exit code 2, and no traceback."""
    monkeypatch.chdir(tmp_path)
    Path("scenario.toml").write_text("wrokers = 3\n")
    Path("empty.toml").touch()
    Path("broken.toml").write_text("workers = \n")
    done = here("simulate", *words)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_a_fault_that_never_finds_a_victim_fails(tmp_path: Path) -> None:
    """Nothing is shown of it then."""
    scenario = tmp_path / "scenario.toml"
    # A worker hangs in a batch, and none is run.
    scenario.write_text('rate = 0.001\nduration_s = 0.5\n[faults]\nhang_worker = 1\n[[models]]\nname = "m"\n')
    done = run("simulate", str(scenario))
    assert done.returncode == 1
    assert "never had a victim, so nothing was shown of them: hang_worker; more schedules" in done.stderr
    assert "--schedules 10\n" in done.stderr


def test_a_scenario_without_faults_says_so(tmp_path: Path) -> None:
    """A line of the report is never empty."""
    scenario = tmp_path / "scenario.toml"
    # With the mark of its encoding that some editors begin a file with.
    scenario.write_text('rate = 5\nduration_s = 0.5\n[[models]]\nname = "m"\n', "utf-8-sig")
    done = run("simulate", str(scenario))
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1] == "faults    none"


def test_a_run_that_was_broken_off_has_no_figures(tmp_path: Path) -> None:
    """The violation is said, and nothing is written that looks like a result."""
    scenario = tmp_path / "scenario.toml"
    load = "promised_s = 0.1\ndeadline_s = 0.5\npatient = 0.0\n"
    scenario.write_text(load + '[[models]]\nname = "m"\na_ms = 2000\n')
    done = run("simulate", str(scenario), "--no-shrink", "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "so nothing is written to" in done.stderr
    assert "Violation: call" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_its_processes_end_with_it(processes: Processes) -> None:
    """Even when it is killed: they would go on for all schedules, and keep its output open."""
    simulation = processes.start("simulate", "mixed", "--schedules", "100000", "--jobs", "2")
    children = wait_until(lambda: len(children_of(simulation.pid)) == 2 and children_of(simulation.pid))

    simulation.sends(signal.SIGKILL)

    assert children
    wait_until(lambda: not any(map(is_running, children)))


@pytest.mark.slow
def test_ctrl_c_to_it_alone_ends_it_at_once(processes: Processes) -> None:
    """As from a supervisor: what its processes work at, which may last, is not waited for."""
    simulation = processes.start("simulate", "large", "--schedules", "4", "--jobs", "2")
    wait_until(lambda: len(children_of(simulation.pid)) == 2)

    simulation.sends(signal.SIGINT)

    assert simulation.ends(10.0) == 130
