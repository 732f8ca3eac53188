"""The supervisor: what dies comes back, what was drained stays down, what cannot live is given up.

Its time is an argument. Most children here are puppets, which do what the test says; the real ones are at the end.
"""

from __future__ import annotations

import logging
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.processes import is_running, wait_until
from zmqinfer.launch.child import Child
from zmqinfer.launch.pulse import Ear
from zmqinfer.launch.supervisor import BACKOFF_S, DEATHS_WITHIN_S, MAX_BACKOFF_S, MAX_DEATHS, Supervisor


class Voice(Ear):
    """Hears what the test says."""

    def __init__(self) -> None:
        self.is_ready = False
        self.is_whole = True
        self.heard_at = 0.0
        self.told = ""

    def listen(self, now: float) -> None:
        """Nothing more comes."""

    def close(self) -> None:
        """There is no pipe."""


class Life:
    """A process that is none."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)

    def kill(self) -> None:
        self.returncode = -signal.SIGKILL


@dataclass
class Puppet(Child):
    """A child without processes."""

    lives: list[Life] = field(default_factory=list)

    def start(self) -> None:
        self.restart_at = None
        self.ear = Voice()
        self.process = Life(1 + len(self.lives))  # type: ignore[assignment]
        self.lives.append(self.process)  # type: ignore[arg-type]

    def is_there(self, now: float = 0.0) -> None:
        """Its process gives a sign of life."""
        assert self.ear is not None
        self.ear.is_ready = True
        self.ear.heard_at = now

    def ends(self, code: int, told: str = "") -> None:
        """Its process ends, with these last words."""
        assert self.ear is not None
        self.ear.told = told
        self.lives[-1].returncode = code

    @property
    def is_asked_to_end(self) -> bool:
        """Whether its present process was."""
        return signal.SIGTERM in self.lives[-1].signals


def puppets(count: int = 1, *, are_there: bool = False) -> tuple[Supervisor, list[Puppet]]:
    """A supervisor and the children that it has started."""
    children = [Puppet(f"child_{number}", []) for number in range(count)]
    for child in children:
        child.start()
        if are_there:
            child.is_there()
    supervisor = Supervisor(children, hang_s=0)
    supervisor.tend(99.9)
    return supervisor, children


def dies(supervisor: Supervisor, child: Puppet, times: int, code: int = 7, *, is_ready: bool = False) -> list[float]:
    """Lets a child die so often, each time at its start, and returns how long it stayed away each time."""
    now, waits = 100.0, []
    for _ in range(times):
        if is_ready:
            child.is_there(now)
        child.ends(code)
        supervisor.tend(now)
        if child.restart_at is not None:
            waits.append(child.restart_at - now)
            now = child.restart_at
            supervisor.tend(now)
    return waits


def test_dead_child_comes_back_after_its_back_off() -> None:
    """Not before, and with another process; the others are left alone."""
    supervisor, (victim, other) = puppets(2)
    victim.ends(-signal.SIGKILL)

    supervisor.tend(100.0)
    supervisor.tend(100.0 + BACKOFF_S - 0.01)
    assert victim.pid == 0
    supervisor.tend(100.0 + BACKOFF_S)

    assert len(victim.lives) == 2
    assert len(other.lives) == 1
    assert not supervisor.gave_up


def test_drained_child_stays_down() -> None:
    """Exit code 0 is a wish, not a death; not even a rolling restart brings it back."""
    supervisor, (child,) = puppets(are_there=True)
    child.ends(0)

    supervisor.tend(100.0)
    supervisor.renew()
    supervisor.tend(1_000.0)

    assert child.is_done
    assert len(child.lives) == 1


def test_a_child_that_ends_before_it_is_ready_was_not_drained() -> None:
    """Whatever its exit code: a model may end its process with 0 while it is imported."""
    supervisor, (child,) = puppets()

    waits = dies(supervisor, child, 3, 0)

    assert waits == [0.5, 1.0, 2.0]
    assert not child.is_done


def test_crash_loop_is_given_up() -> None:
    """Five deaths within a minute; each back-off is twice the last, up to 30 s."""
    supervisor, (child,) = puppets()

    waits = dies(supervisor, child, MAX_DEATHS)

    assert waits == [0.5, 1.0, 2.0, 4.0]
    assert all(after == min(2 * before, MAX_BACKOFF_S) for before, after in pairwise(waits))
    assert "child_0 died 5 times" in supervisor.gave_up
    assert "exit code 7" in supervisor.gave_up
    assert supervisor.exit_code == 4


@pytest.mark.parametrize("code", [7, 2])
def test_a_child_that_was_ever_ready_is_not_given_up(code: int) -> None:
    """It may die of what it is asked, or find itself badly configured now: its back-off grows, the others go on."""
    supervisor, (child, other) = puppets(2)

    waits = dies(supervisor, child, 1, is_ready=True) + dies(supervisor, child, 8, code)

    assert waits[:1] + waits[2:7] == [0.5, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert not supervisor.gave_up
    assert len(child.lives) == 10
    assert len(other.lives) == 1


def test_deaths_long_ago_do_not_count() -> None:
    """One death every half minute for ever is no crash loop, and its back-off does not grow."""
    supervisor, (child,) = puppets()
    now = 100.0
    for _ in range(MAX_DEATHS + 2):
        child.ends(7)
        supervisor.tend(now)
        assert child.restart_at is not None
        assert child.restart_at - now <= 2 * BACKOFF_S
        now = child.restart_at
        supervisor.tend(now)
        now += DEATHS_WITHIN_S / 2

    assert not supervisor.gave_up


def test_wrong_configuration_is_given_up_at_once() -> None:
    """Exit code 2 of what has never been ready does not mend itself; the child's own sentence is the reason."""
    supervisor, (child, _) = puppets(2)
    child.ends(2, "no weights here")

    supervisor.tend(100.0)

    assert supervisor.gave_up == "child_0 cannot start: no weights here"
    assert supervisor.exit_code == 2


def test_a_process_that_the_system_refuses_is_asked_for_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As for want of memory or descriptors; the supervisor itself goes on, and the others do."""
    child = Child("child_0", ["worker"])
    monkeypatch.setattr(child, "spawn", lambda pulse, **options: Path("/nowhere").stat())
    child.was_ready = True
    supervisor = Supervisor([child])
    child.start()

    supervisor.tend(100.0)
    supervisor.tend(100.0 + BACKOFF_S)
    supervisor.tend(101.0)

    assert child.restart_at == 101.0 + 2 * BACKOFF_S
    assert child.why == "the system refuses another process: No such file or directory"


# Rolling restarts.


def test_children_are_renewed_one_after_another() -> None:
    """Each when the one before is ready; that they end is no death, with whatever code."""
    supervisor, (one, other) = puppets(2, are_there=True)

    supervisor.renew()
    supervisor.tend(100.0)
    assert one.is_asked_to_end
    one.ends(1)
    supervisor.tend(100.1)
    supervisor.tend(130.0)
    assert (len(one.lives), other.is_asked_to_end) == (2, False)
    one.is_there(130.1)
    supervisor.tend(130.2)
    assert other.is_asked_to_end
    other.ends(0)
    supervisor.tend(130.3)
    other.is_there(130.4)
    supervisor.tend(130.5)

    assert (len(one.lives), len(other.lives)) == (2, 2)
    assert not one.is_asked_to_end
    assert not one.deaths
    assert not other.deaths


@pytest.mark.parametrize("code", [2, 7, 0, -signal.SIGSEGV])
def test_a_roll_whose_new_process_fails_leaves_the_others_alone(code: int, caplog: pytest.LogCaptureFixture) -> None:
    """It is tried again by itself until it is mended; an operator is told what to do, once."""
    supervisor, (one, other) = puppets(2, are_there=True)
    supervisor.renew()
    supervisor.tend(100.0)
    one.ends(0)
    supervisor.tend(100.1)

    one.ends(code, "no weights here")
    for tenth in range(1_002, 1_300):
        supervisor.tend(tenth / 10)
        if one.restart_at is None and one.pid:
            one.ends(code, "no weights here")

    assert len(one.lives) > 4
    assert len(other.lives) == 1
    assert not other.is_asked_to_end
    assert not supervisor.gave_up
    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert told == (
        "rolling restart stopped, the others go on as before; mend the cause and send SIGHUP again"
        ' child=child_0 why="no weights here" restart_in_s=0.500 not_restarted=child_1'
    )
    one.start()
    one.is_there(130.0)
    supervisor.renew()
    supervisor.tend(130.1)
    assert one.is_asked_to_end


def test_a_roll_whose_new_process_serves_less_leaves_the_others_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A model that is broken by now is still served by them; less than all from the beginning is no less."""
    supervisor, (one, other) = puppets(2, are_there=True)
    for is_whole, are_asked in ((False, False), (False, True)):
        supervisor.renew()
        supervisor.tend(100.0)
        one.ends(0)
        supervisor.tend(100.1)
        one.is_there(100.2)
        assert one.ear is not None
        one.ear.is_whole = is_whole
        supervisor.tend(100.3)

        assert other.is_asked_to_end is are_asked

    (told,) = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert 'child=child_0 why="it no longer serves all models, see its errors" not_restarted=child_1' in told


def test_a_restarted_child_that_cannot_start_is_said_loudly_once(caplog: pytest.LogCaptureFixture) -> None:
    """Again when the reason is another, or when it could in the meantime."""
    supervisor, (child, _) = puppets(2, are_there=True)

    for instant, told in ((100.0, "gone"), (110.0, "gone"), (120.0, "torn"), (130.0, ""), (140.0, "torn")):
        if not told:
            child.is_there(instant)
        child.ends(2 if told else -signal.SIGKILL, told)
        supervisor.tend(instant)
        supervisor.tend(instant + 9.0)

    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert [line.partition(" child=")[0] for line in lines] == 3 * [
        "cannot start again, and is tried until it can; mend the cause"
    ]
    assert [why in line for line, why in zip(lines, ("gone", "torn", "torn"), strict=True)] == [True, True, True]


def test_a_roll_does_not_wait_for_the_back_off_of_one_that_is_down() -> None:
    """Whoever asks for it has mended something."""
    supervisor, (one, other) = puppets(2, are_there=True)
    dies(supervisor, one, 6)
    one.ends(2)
    supervisor.tend(200.0)
    assert one.pid == 0

    supervisor.renew()
    supervisor.tend(200.1)

    assert one.pid != 0
    assert not one.is_asked_to_end
    one.is_there(200.2)
    supervisor.tend(200.3)
    assert other.is_asked_to_end


def test_a_second_roll_begins_with_the_first_child_again() -> None:
    """What was renewed before may be old by now."""
    supervisor, (one, other) = puppets(2, are_there=True)
    supervisor.renew()
    supervisor.tend(100.0)
    one.ends(0)
    supervisor.tend(100.1)

    supervisor.renew()
    one.is_there(100.2)
    supervisor.tend(100.3)

    assert one.is_asked_to_end
    assert not other.is_asked_to_end


# Silence.


def test_a_child_that_falls_silent_is_killed_and_comes_back() -> None:
    """After its first sign of life; one that has given none may be loading a model."""
    children = [Puppet("child_0", []), Puppet("child_1", [])]
    supervisor = Supervisor(children)
    for child in children:
        child.start()
    hanging, loading = children
    hanging.is_there(100.0)

    for tenth in range(1_000, 1_100):
        supervisor.tend(tenth / 10)
    assert hanging.pid
    supervisor.tend(110.5)
    supervisor.tend(110.6)
    supervisor.tend(110.6 + BACKOFF_S)

    assert len(hanging.lives) == 2
    assert len(loading.lives) == 1


def test_a_supervisor_that_was_stopped_itself_kills_nobody() -> None:
    """It was not there to hear them."""
    child = Puppet("child_0", [])
    supervisor = Supervisor([child])
    child.start()
    child.is_there(100.0)

    for instant in (100.0, 160.0, 160.5, 161.0, 169.9):
        supervisor.tend(instant)

    assert child.pid


def test_silence_may_be_allowed() -> None:
    """With a limit of 0, as for who looks into a process with a debugger."""
    supervisor, (child,) = puppets(are_there=True)

    for instant in range(100, 5_000):
        supervisor.tend(float(instant))

    assert child.pid


# Real processes.


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
        child.forget()


FOREVER = "signal.pause()"


@pytest.mark.slow
def test_real_children_are_heard_killed_and_started_again(started: list[Child]) -> None:
    """The first sign of life, silence, and another process id."""
    child = Script("child_0", ["beat(); signal.pause()"])
    started.append(child)
    child.start()
    supervisor = Supervisor([child])

    def until(condition: Any, now: float) -> None:
        wait_until(lambda: supervisor.tend(now) or condition(), what="a sign of life or an end")

    until(lambda: child.is_ready, 100.0)
    first = child.pid
    for second in range(1, 11):
        supervisor.tend(100.0 + second)
    assert child.pid == first
    supervisor.tend(110.5)
    until(lambda: child.restart_at is not None, 110.6)
    supervisor.tend(110.6 + BACKOFF_S)

    assert child.pid not in {0, first}
    assert child.deaths


# Says that it has its handler before it is spoken to.
STUBBORN = "signal.signal(signal.SIGTERM, signal.SIG_IGN); beat(); signal.pause()"


@pytest.mark.slow
def test_stop_asks_and_then_insists(started: list[Child]) -> None:
    """SIGTERM to all, SIGKILL after the grace to who does not listen; none is left, not even one that is down."""
    children: list[Child] = [Script(f"child_{number}", [code]) for number, code in enumerate((FOREVER, "", STUBBORN))]
    started += children
    for child in children:
        child.start()
    forever, _, stubborn = children
    supervisor = Supervisor(children)
    wait_until(lambda: supervisor.tend(100.0) or stubborn.is_ready)
    pids = [child.pid for child in children if child.pid]

    supervisor.stop([*children, Child("never started", [])], 0.2)

    assert all(child.is_done for child in children)
    wait_until(lambda: not any(is_running(pid) for pid in pids), 5)
    assert stubborn.process is not None
    assert stubborn.process.returncode == -signal.SIGKILL
    assert forever.process is not None
    assert forever.process.returncode == -signal.SIGTERM
