"""`zmqinfer up`: one line when ready, restarts, gives up, drains, and says in one sentence what is wrong."""

from __future__ import annotations

import os
import re
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

from tests.processes import (
    Process,
    Processes,
    children_of,
    command_of,
    free_addresses,
    is_running,
    parsed,
    run,
    saved,
    wait_until,
)

FUNCTIONS = """
def double(x):
    return x * 2
"""
# Backtracks for ages without letting go of the interpreter's lock, if it is asked for a negative number.
HANGING = """
import re

def double(x):
    if (x < 0).any():
        re.match(r"(a+)+$", "a" * 60 + "b")
    return x * 2
"""
# Kills each worker that loads it.
KILLER = "import os\nos._exit(1)\n"
TOML = """
target = "model:predict"
[inputs.x]
dtype = "FP32"
shape = [2]
[outputs.y]
dtype = "FP32"
shape = [2]
"""


def model_folder(repository: Path, code: str, toml: str = TOML) -> Path:
    folder = repository / "scorer"
    folder.mkdir(parents=True)
    (folder / "model.toml").write_text(toml)
    (folder / "model.py").write_text(code)
    return repository


def up(
    processes: Processes, *arguments: str | Path, cwd: Path | None = None, redirect: str = ""
) -> tuple[Process, str]:
    clients, workers = free_addresses(2)
    doors = ["--clients", clients, "--workers-at", workers]
    return processes.start("up", *doors, *arguments, cwd=cwd, redirect=redirect), clients


def pids_of(process: Process) -> list[int]:
    """All processes of an `up`, its own first."""
    return [process.pid, *children_of(process.pid)]


def refused(*arguments: str | Path, cwd: Path | None = None) -> str:
    """Runs a command that must end with exit code 2 and one sentence."""
    done = run(*arguments, cwd=cwd)
    assert done.returncode == 2, (done.returncode, done.stdout, done.stderr)
    said = done.stderr.strip()
    assert "\n" not in said, said
    return said


@pytest.mark.slow
def test_up_serves_restarts_what_dies_and_drains_on_ctrl_c(processes: Processes, tmp_path: Path) -> None:
    """One ready line; kill -9 of a worker brings another; a drained one stays away; Ctrl-C leaves nothing behind."""
    (tmp_path / "scorer.py").write_text(FUNCTIONS)
    process, clients = up(processes, "scorer:double", "--workers", "2", cwd=tmp_path)
    process.says("\nready: double on 2 workers; ")
    x = saved(tmp_path / "x.npy", [1.5, -2.0])
    before = children_of(process.pid)
    victim = min(pid for pid in before if "worker_2" in command_of(pid))

    os.kill(victim, signal.SIGKILL)
    process.says('died child=worker_2 why="signal SIGKILL"')
    answer = run("infer", "double", x, "-g", clients)
    process.says("restarted child=worker_2")
    again = run("status", "-g", clients, "--wait-workers", "2", "--timeout-s", "20", "--json")
    drain = run("drain", "worker_1", "-g", clients)
    process.says("drained, not restarted child=worker_1")
    left = {worker["name"] for worker in parsed(run("status", "-g", clients, "--json"))["gateways"][0]["workers"]}
    everyone = pids_of(process)
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert parsed(answer) == [3.0, -4.0]
    assert parsed(again)["schema"] == 1
    assert drain.returncode == 0
    assert left == {"worker_2"}
    assert len(everyone) == 3
    assert not [pid for pid in [*everyone, *before] if is_running(pid)]
    assert len(re.findall(r"^ready: ", process.log, re.MULTILINE)) == 1
    assert process.log.strip().endswith("drained and stopped")


@pytest.mark.slow
def test_up_gives_up_on_a_crash_loop(processes: Processes, tmp_path: Path) -> None:
    """Five deaths in a minute: exit code 4, the reason in a sentence, and no process left."""
    repository = model_folder(tmp_path / "models", KILLER)
    process, _ = up(processes, "--models", repository, "--workers", "1")
    process.says("died child=worker_1")
    everyone = pids_of(process)

    code = process.ends()

    assert code == 4, process.log
    assert process.log.count("died child=worker_1") == 4
    assert (
        "up gave up: worker_1 died 5 times within 60 s before it was ever ready, the last time: exit code 1;"
        in process.log
    )
    assert not [pid for pid in everyone if is_running(pid)]


@pytest.mark.slow
def test_model_that_a_worker_cannot_load_ends_up_with_its_sentence(processes: Processes, tmp_path: Path) -> None:
    """Wrong configuration does not mend itself: one worker's sentence for all of them, exit code 2, no restarts."""
    repository = model_folder(tmp_path / "models", "raise ValueError('no weights here')\n")
    process, _ = up(processes, "--models", repository, "--workers", "3")

    assert process.ends() == 2, process.log
    (said,) = re.findall(r".*no weights here.*", process.log)
    assert re.match(
        rf"zmqinfer: up gave up: worker_. cannot start: {repository}.*: target 'model:predict' raised", said
    )
    assert "died child" not in process.log


@pytest.mark.slow
def test_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Before anything is started, with the options that choose another; for `up` and for `gateway`."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = f"tcp://127.0.0.1:{holder.getsockname()[1]}"
        (other,) = free_addresses(1)

        of_up = refused("up", "--clients", taken, "--workers-at", other)
        of_gateway = refused("gateway", "--clients", other, "--workers", taken)

    assert taken in of_up
    assert "--clients" in of_up
    assert taken in of_gateway
    assert "choose another address" in of_gateway


@pytest.mark.slow
def test_addresses_that_cannot_be_had_are_named() -> None:
    """Before anything is started: a port that does not exist, two that meet."""
    assert "neither tcp://HOST:PORT" in refused("up", "--clients", "tcp://127.0.0.1:65536")
    beyond = refused("up", "--workers-at", "tcp://127.0.0.1:65533", "--gateways", "3")
    assert "--workers-at tcp://127.0.0.1:65533 gives gateway 2, from 0, port 65537" in beyond
    assert "fewer --gateways" in beyond
    assert "each once" in refused(
        "up", "--clients", "tcp://127.0.0.1:7001", "--workers-at", "tcp://127.0.0.1:7003", "--gateways", "2"
    )


@pytest.mark.slow
def test_path_of_a_file_or_of_another_gateway_is_left_alone(processes: Processes, tmp_path: Path) -> None:
    """And one that a killed gateway left behind is taken."""
    (tmp_path / "file").write_text("mine")
    paths = ["--clients", f"ipc://{tmp_path}/c", "--workers", f"ipc://{tmp_path}/w"]
    first = processes.start("gateway", *paths)
    first.says("gateway listens")

    assert "in use" in refused("gateway", *paths)
    assert "no socket" in refused("gateway", "--clients", f"ipc://{tmp_path}/file")
    assert "in use" in refused("gateway", "--clients", f"ipc://{tmp_path}/w", "--workers", f"ipc://{tmp_path}/w")
    first.sends(signal.SIGKILL)
    first.ends()
    second = processes.start("gateway", *paths)
    second.says("gateway listens")
    second.sends(signal.SIGTERM)
    second.ends()

    assert (tmp_path / "file").read_text() == "mine"
    assert not [path for path in tmp_path.iterdir() if path.is_socket()]


@pytest.mark.slow
@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://192.0.2.1:5555", "tcp://[::]:0"])
def test_bind_beyond_loopback_is_refused(address: str) -> None:
    """There are no keys yet to keep strangers out."""
    said = refused("up", "--clients", address)

    assert address in said
    assert "127.0.0.1" in said


@pytest.mark.slow
def test_bind_beyond_loopback_is_refused_by_the_gateway_too() -> None:
    """Both of its addresses are looked at."""
    assert "tcp://0.0.0.0:0" in refused("gateway", "--clients", "tcp://127.0.0.1:0", "--workers", "tcp://0.0.0.0:0")


@pytest.mark.slow
def test_missing_and_wrong_models_are_named(tmp_path: Path) -> None:
    """Folder, file and key are named, before anything is started."""
    wrong = model_folder(tmp_path / "wrong", "", TOML.replace("target", "max_batchsize = 3\ntarget"))
    type_ = model_folder(tmp_path / "type", "", "max_wait_ms = 'soon'\n" + TOML)

    missing_folder = refused("up", "--models", tmp_path / "nowhere")
    unknown_key = refused("up", "--models", wrong)
    wrong_type = refused("worker", "--models", type_)

    assert str(tmp_path / "nowhere") in missing_folder
    assert str(wrong / "scorer" / "model.toml") in unknown_key
    assert "max_batchsize" in unknown_key
    assert "max_batch_size" in unknown_key
    assert str(type_ / "scorer" / "model.toml") in wrong_type
    assert "max_wait_ms is 'soon'" in wrong_type


@pytest.mark.slow
def test_wrong_target_is_named(tmp_path: Path) -> None:
    """A module that is not there, one that raises, an attribute that is not there, and both kinds at once."""
    (tmp_path / "scorer.py").write_text(FUNCTIONS)
    (tmp_path / "raises.py").write_text("1 / 0\n")
    of_workers = ("--log-level", "error", "--clients", f"ipc://{tmp_path}/c", "--workers-at", f"ipc://{tmp_path}/w")

    assert "nomodule" in refused("up", "nomodule:f", cwd=tmp_path)
    assert "triple" in refused("up", "scorer:triple", *of_workers, cwd=tmp_path)
    assert "ZeroDivisionError" in refused("up", "raises:f", *of_workers, cwd=tmp_path)
    assert "MODULE:CALLABLE" in refused("up", "scorer:double", "--models", tmp_path, cwd=tmp_path)


@pytest.mark.slow
def test_up_stops_before_it_is_ready(processes: Processes) -> None:
    """SIGTERM while the workers still load ends everything with 0 as well."""
    process, _ = up(processes, "--workers", "1")
    process.says("gateway listens")
    everyone = pids_of(process)

    process.sends(signal.SIGTERM)

    assert process.ends() == 0, process.log
    wait_until(lambda: not [pid for pid in everyone if is_running(pid)], 5)


@pytest.mark.slow
@pytest.mark.parametrize("redirect", [">/dev/full 2>&1", ">&- 2>&-"])
def test_output_that_cannot_be_written_stops_nothing(processes: Processes, tmp_path: Path, redirect: str) -> None:
    """A full disk, or a log that nobody takes, does not keep a dead worker from coming back."""
    (tmp_path / "scorer.py").write_text(FUNCTIONS)
    process, clients = up(processes, "scorer:double", "--workers", "1", cwd=tmp_path, redirect=redirect)
    assert run("status", "-g", clients, "--wait-workers", "1", "--timeout-s", "20").returncode == 0
    (worker,) = [pid for pid in children_of(process.pid) if "worker_1" in command_of(pid)]

    os.kill(worker, signal.SIGKILL)
    answer = run("infer", "double", saved(tmp_path / "x.npy", [1.5]), "-g", clients, "--deadline-s", "20")
    process.sends(signal.SIGINT)

    assert parsed(answer) == [3.0]
    assert process.ends() == 0


@pytest.mark.slow
def test_up_that_is_killed_leaves_nothing_behind(processes: Processes, tmp_path: Path) -> None:
    """Its gateways and workers find out that they are alone, finish and end."""
    (tmp_path / "scorer.py").write_text(FUNCTIONS)
    process, _ = up(processes, "scorer:double", "--workers", "2", cwd=tmp_path)
    process.says("\nready: ")
    children = children_of(process.pid)
    assert len(children) == 3

    process.sends(signal.SIGKILL)

    wait_until(lambda: not [pid for pid in children if is_running(pid)], what="nobody left")


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed_and_started_again(processes: Processes, tmp_path: Path) -> None:
    """A model that holds the interpreter's lock: the caller gets its error, the next ones their answers."""
    (tmp_path / "scorer.py").write_text(HANGING)
    process, clients = up(processes, "scorer:double", "--workers", "2", "--hang-s", "2", cwd=tmp_path)
    process.says("\nready: ")
    bad, good = saved(tmp_path / "bad.npy", [-1.0]), saved(tmp_path / "good.npy", [1.5])

    answer = run("infer", "double", bad, "-g", clients, "--deadline-s", "2")
    process.says("hangs, killed child=worker_")
    process.says("restarted child=worker_")
    back = run("status", "-g", clients, "--wait-workers", "2", "--timeout-s", "20")
    again = run("infer", "double", good, "-g", clients)
    process.sends(signal.SIGINT)

    # Its last worker hung too: nobody is left to ask.
    assert answer.returncode in {1, 3}, answer.stderr
    assert back.returncode == 0
    assert parsed(again) == [3.0]
    assert process.ends() == 0, process.log


@pytest.mark.slow
def test_a_worker_that_cannot_start_again_ends_nobody_else(processes: Processes, tmp_path: Path) -> None:
    """In a rolling restart with a broken model, which stops there, and after kill -9 while its file is missing.

    It says so, and comes back by itself when the file is mended; the others serve all the time.
    """
    scorer = tmp_path / "scorer.py"
    scorer.write_text(FUNCTIONS)
    x = saved(tmp_path / "x.npy", [1.5])
    process, clients = up(processes, "scorer:double", "--workers", "2", cwd=tmp_path)
    process.says("\nready: ")
    before = {command_of(pid).split()[-1]: pid for pid in children_of(process.pid)}

    def answer() -> object:
        return parsed(run("infer", "double", x, "-g", clients))

    def is_whole() -> bool:
        return run("status", "-g", clients, "--wait-workers", "2", "--timeout-s", "20").returncode == 0

    scorer.write_text("this is no Python")
    process.sends(signal.SIGHUP)
    process.says(
        "ERROR   zmqinfer.up rolling restart stopped, the others go on as before; mend the cause and send SIGHUP"
    )
    answers = [answer()]
    scorer.write_text(FUNCTIONS)
    comes_back = is_whole()
    (killed,) = [pid for pid in children_of(process.pid) if "worker_2" in command_of(pid)]
    scorer.unlink()
    os.kill(killed, signal.SIGKILL)
    process.says("ERROR   zmqinfer.up cannot start again, and is tried until it can; mend the cause child=worker_2")
    answers.append(answer())
    scorer.write_text(FUNCTIONS)
    comes_back_again = is_whole()
    process.sends(signal.SIGINT)

    assert process.ends() == 0, process.log
    assert answers == [[3.0], [3.0]]
    assert killed in before.values()
    assert (comes_back, comes_back_again) == (True, True)
    assert "child=worker_1 why=\"target 'scorer:double' raised while loading: SyntaxError" in process.log
    assert "child=worker_2 why=\"target is 'scorer:double', but no module 'scorer' is in" in process.log


@pytest.mark.slow
def test_one_bad_model_folder_does_not_stop_the_others(processes: Processes, tmp_path: Path) -> None:
    """It is said loudly, at the start and at the end, where the exit code is 1; with --strict `up` refuses."""
    repository = model_folder(tmp_path / "models", "def predict(batch): return {'y': batch['x']}")
    for name, code, file in (("torn", "raise ValueError('no weights here')", "model.toml"), ("slip", "", "model.tml")):
        (repository / name).mkdir()
        (repository / name / file).write_text(TOML)
        (repository / name / "model.py").write_text(code)
    process, clients = up(processes, "--models", repository, "--workers", "1")
    process.says("\nready: scorer on 1 workers, but not all models, see the errors above; clients dial ")
    answer = run("infer", "scorer", saved(tmp_path / "x.npy", np.ones(2, np.float32)), "-g", clients)
    drained = run("drain", "worker_1", "-g", clients)
    process.says("drained, not restarted child=worker_1")
    process.sends(signal.SIGINT)

    assert process.ends() == 1, process.log
    assert parsed(answer) == [1.0, 1.0]
    assert drained.returncode == 0
    said = re.findall(
        r"ERROR   zmqinfer\.worker model not served; mend it .* why=\"(.*)\" worker=worker_1", process.log
    )
    assert len(said) == 2
    assert f"{repository}/slip has model.tml and no model.toml, expected that; rename the file" in said[0]
    assert "target 'model:predict' raised while loading: ValueError: no weights here" in said[1]
    assert process.log.strip().endswith("not all models were served, see the errors above")
    assert "slip has model.tml" in refused("up", "--models", repository, "--strict")
    worker = processes.worker("w1", "tcp://127.0.0.1:1", "--models", repository)
    worker.says("no weights here")
    worker.sends(signal.SIGTERM)
    assert worker.ends() == 1


@pytest.mark.slow
def test_folders_of_which_none_can_be_served_are_refused(tmp_path: Path) -> None:
    """With the reason for each."""
    repository = model_folder(tmp_path / "models", "1 / 0")
    (repository / "other").mkdir()
    (repository / "other" / "model.toml").write_text("")

    said = refused("worker", "--models", repository)

    assert "other/model.toml: target is missing" in said
    assert "ZeroDivisionError" in said


@pytest.mark.slow
def test_ports_may_be_left_to_the_system(processes: Processes) -> None:
    """The line at the end of the start has the real ones, of each gateway."""
    process = processes.start(
        "up", "--workers", "1", "--gateways", "2", "--clients", "tcp://127.0.0.1:0", "--workers-at", "tcp://127.0.0.1:0"
    )
    process.says("Ctrl-C drains")
    (found,) = re.findall(r"^ready: .* clients dial (\S+), workers dial (\S+);", process.log, re.MULTILINE)
    doors = ",".join(found).split(",")

    assert len({door for door in doors if re.fullmatch(r"tcp://127\.0\.0\.1:[1-9]\d+", door)}) == 4
    assert run("status", "-g", found[0], "--wait-workers", "1").returncode == 0
    process.sends(signal.SIGINT)
    assert process.ends() == 0, process.log
