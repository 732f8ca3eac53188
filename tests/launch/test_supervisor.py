"""The supervisor: what dies comes back, what was drained stays down, what cannot live is given up.

Real children, but a clock of the test's own: `tend` takes the time as an argument, so no back-off is waited for.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.processes import is_running, wait_until
from zmqinfer.launch.pulse import Ear, Pulse
from zmqinfer.launch.supervisor import BACKOFF_S, DEATHS_WITHIN_S, MAX_BACKOFF_S, MAX_DEATHS, Child, Supervisor


class Script(Child):
    """A child that runs a line of Python in the place of `zmqinfer`, with `beat` to give a sign of life."""

    def spawn(self, pulse: int, **options: Any) -> subprocess.Popen[bytes]:
        prelude = f"import os, signal, time\nbeat = lambda: os.write({pulse}, b'.')\n"
        return subprocess.Popen([sys.executable, "-S", "-c", prelude + self.command[0]], pass_fds=[pulse], **options)


@pytest.fixture
def started() -> Iterator[list[Child]]:
    children: list[Child] = []
    yield children
    for child in children:
        if child.process is not None and child.process.poll() is None:
            child.process.kill()
            child.process.wait()


def supervise(started: list[Child], *codes: str) -> Supervisor:
    children = [Script(f"child_{number}", [code]) for number, code in enumerate(codes)]
    started += children
    for child in children:
        child.start()
    return Supervisor(children)


def ended(child: Child) -> None:
    """Waits for the end of a child's present life."""
    assert child.process is not None
    child.process.wait(20)


FOREVER = "signal.pause()"
# Ends politely at SIGTERM, as a node that drains does.
POLITE = "signal.signal(signal.SIGTERM, lambda *_: os._exit(0)); beat(); signal.pause()"


def test_dead_child_comes_back_after_its_back_off(started: list[Child]) -> None:
    """Not before, and with another process id; the others are left alone."""
    supervisor = supervise(started, FOREVER, FOREVER)
    victim, other = supervisor.children
    first, left_alone = victim.pid, other.pid
    assert victim.process is not None
    victim.process.send_signal(signal.SIGKILL)
    ended(victim)

    supervisor.tend(100.0)
    assert victim.pid == 0
    supervisor.tend(100.0 + BACKOFF_S - 0.01)
    assert victim.pid == 0
    supervisor.tend(100.0 + BACKOFF_S)

    assert victim.pid not in {0, first}
    assert other.pid == left_alone
    assert not supervisor.gave_up


def test_drained_child_stays_down(started: list[Child]) -> None:
    """Exit code 0 is a wish, not a death."""
    supervisor = supervise(started, "")
    (child,) = supervisor.children
    ended(child)

    supervisor.tend(100.0)
    supervisor.tend(1_000.0)

    assert child.is_done
    assert child.pid == 0


@pytest.mark.slow
def test_crash_loop_is_given_up(started: list[Child]) -> None:
    """Five deaths within a minute; each back-off is twice the last, up to 30 s."""
    supervisor = supervise(started, "raise SystemExit(7)")
    (child,) = supervisor.children
    now, waits = 100.0, []
    for _ in range(MAX_DEATHS):
        ended(child)
        supervisor.tend(now)
        if child.restart_at is not None:
            waits.append(child.restart_at - now)
            now = child.restart_at
            supervisor.tend(now)

    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert all(after == min(2 * before, MAX_BACKOFF_S) for before, after in pairwise(waits))
    assert "child_0 died 5 times" in supervisor.gave_up
    assert "exit code 7" in supervisor.gave_up


@pytest.mark.slow
def test_a_child_that_was_ready_is_never_given_up(started: list[Child]) -> None:
    """It may die of what it is asked: its back-off grows, and the others go on."""
    supervisor = supervise(started, "beat(); raise SystemExit(7)")
    (child,) = supervisor.children
    now, waits = 100.0, []
    for _ in range(MAX_DEATHS + 2):
        ended(child)
        supervisor.tend(now)
        assert child.restart_at is not None
        waits.append(child.restart_at - now)
        now = child.restart_at
        supervisor.tend(now)

    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert not supervisor.gave_up


@pytest.mark.slow
def test_deaths_long_ago_do_not_count(started: list[Child]) -> None:
    """One death every half minute for ever is no crash loop, and its back-off does not grow."""
    supervisor = supervise(started, "raise SystemExit(7)")
    (child,) = supervisor.children
    now = 100.0
    for _ in range(MAX_DEATHS + 2):
        ended(child)
        supervisor.tend(now)
        assert child.restart_at is not None
        assert child.restart_at - now <= 2 * BACKOFF_S
        now = child.restart_at
        supervisor.tend(now)
        now += DEATHS_WITHIN_S / 2

    assert not supervisor.gave_up


def test_wrong_configuration_is_given_up_at_once(started: list[Child]) -> None:
    """Exit code 2 does not mend itself."""
    supervisor = supervise(started, "raise SystemExit(2)")
    (child,) = supervisor.children
    ended(child)

    supervisor.tend(100.0)

    assert "child_0 cannot start" in supervisor.gave_up


# Says that it has its handler before it is spoken to.
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"


@pytest.mark.slow
def test_stop_asks_and_then_insists(started: list[Child]) -> None:
    """SIGTERM to all, SIGKILL after the grace to who does not listen; none is left, not even one that is down."""
    supervisor = supervise(started, FOREVER, "")
    stubborn = Child("stubborn", [])
    stubborn.process = subprocess.Popen([sys.executable, "-S", "-c", STUBBORN], stdout=subprocess.PIPE)
    started.append(stubborn)
    assert stubborn.process.stdout is not None
    assert stubborn.process.stdout.readline() == b"1\n"
    stubborn.process.stdout.close()
    pids = [child.pid for child in started if child.pid]
    children = [*supervisor.children, stubborn, Child("never started", [])]

    supervisor.stop(children, 0.2)

    assert all(child.is_done for child in children)
    wait_until(lambda: not any(is_running(pid) for pid in pids), 5)
    assert stubborn.process.returncode == -signal.SIGKILL
    assert supervisor.children[0].process is not None
    assert supervisor.children[0].process.returncode == -signal.SIGTERM


def heard(supervisor: Supervisor, child: Child, now: float) -> None:
    """Looks, at one instant, until a child's sign of life has come."""

    def look() -> bool:
        supervisor.tend(now)
        return child.is_ready

    wait_until(look, what=f"a sign of life of {child.name}")


def test_a_child_that_falls_silent_is_killed_and_comes_back(started: list[Child]) -> None:
    """After its first sign of life; one that has given none may be loading a model."""
    supervisor = supervise(started, "beat(); signal.pause()", FOREVER)
    hanging, loading = supervisor.children
    heard(supervisor, hanging, 100.0)
    first = hanging.pid

    for second in range(1, 11):
        supervisor.tend(100.0 + second)
    assert hanging.pid == first
    supervisor.tend(110.5)
    ended(hanging)
    supervisor.tend(110.6)
    supervisor.tend(110.6 + BACKOFF_S)

    assert hanging.pid not in {0, first}
    assert loading.pid


def test_a_supervisor_that_was_stopped_itself_kills_nobody(started: list[Child]) -> None:
    """It was not there to hear them."""
    supervisor = supervise(started, "beat(); signal.pause()")
    (child,) = supervisor.children
    heard(supervisor, child, 100.0)

    for instant in (160.0, 160.5, 161.0, 169.9):
        supervisor.tend(instant)

    assert child.pid
    assert child.process is not None
    assert child.process.poll() is None


def test_silence_may_be_allowed(started: list[Child]) -> None:
    """With a limit of 0, as for who looks into a process with a debugger."""
    supervisor = supervise(started, "beat(); signal.pause()")
    patient = Supervisor(supervisor.children, hang_s=0)
    (child,) = patient.children
    heard(patient, child, 100.0)

    for instant in range(100, 5_000):
        patient.tend(float(instant))

    assert child.pid


def test_children_are_renewed_one_after_another(started: list[Child]) -> None:
    """Each when the one before gives its sign of life; that they end is no death."""
    supervisor = supervise(started, POLITE, POLITE)
    one, other = supervisor.children
    for child in (one, other):
        heard(supervisor, child, 100.0)
    first = [one.pid, other.pid]
    now = 100.0

    supervisor.renew(supervisor.children)
    pids: list[tuple[int, int]] = []

    def look() -> bool:
        nonlocal now
        now += 0.05
        supervisor.tend(now)
        pids.append((one.pid, other.pid))
        return one.pid not in {0, first[0]} and other.pid not in {0, first[1]} and other.is_ready

    wait_until(look, what="two new processes")
    # Never both down, and the second one not before the first is there again.
    assert all(one_pid or other_pid == first[1] for one_pid, other_pid in pids)
    assert not one.deaths
    assert not other.deaths
    assert not supervisor.gave_up


def test_a_child_learns_that_it_is_alone() -> None:
    """However its parent ended; and the pipe is not passed on to what the child starts."""
    ear = Ear()
    alone = threading.Event()
    pulse = Pulse(os.dup(ear.descriptor))
    assert not os.get_inheritable(pulse._descriptor)
    pulse.start(alone.set)
    pulse.begin()

    def look() -> bool:
        ear.listen(5.0)
        return ear.is_ready

    wait_until(look, what="a sign of life")
    ear.began()
    ear.close()

    assert alone.wait(10)


def test_no_sign_of_life_before_it_is_ready() -> None:
    """To load a model may take long; and then at once, for what comes first may hang it."""
    ear = Ear()
    pulse = Pulse(os.dup(ear.descriptor))
    ear.listen(5.0)
    assert not ear.is_ready
    assert ear.silent_for(1_000.0) == 0.0

    pulse.begin()
    ear.listen(6.0)

    assert ear.silent_for(7.0) == 1.0
    ear.began()
    ear.close()


def test_last_words_are_heard_and_are_no_sign_of_life() -> None:
    """Also of a process that is gone, as far as a pipe takes them at once; and beside earlier signs of life."""
    ear = Ear()
    pulse = Pulse(os.dup(ear.descriptor))
    ear.began()

    pulse.say("no weights in ü.npz" + 5_000 * "!")
    ear.listen(5.0)

    assert ear.told.startswith("no weights in ü.npz!")
    assert not ear.is_ready
    pulse.begin()
    pulse.say("the end")
    os.close(pulse._descriptor)
    ear.listen(6.0)
    ear.listen(7.0)
    assert (ear.told, ear.is_ready, ear.heard_at) == ("the end", True, 6.0)
    ear.close()
