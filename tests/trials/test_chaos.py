"""The chaos trial finds what is wrong, its proxies do what they say, and a short form of it holds."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import ROOT
from trials.chaos import Load, Outcome, Strike, Tally, print_mistakes, trial
from trials.nodes import Node
from trials.proxy import Link, Proxies
from trials.town import Fault, Town


def outcome(load: Load, *struck: str) -> Outcome:
    """A trial of two kinds of faults, of which some struck."""
    return Outcome(load, ["cut", "delay"], strikes=[Strike(kind, "somebody", 1.0, 2.0) for kind in struck])


def test_a_good_run_has_nothing_to_say() -> None:
    """All kinds, all answers."""
    assert outcome(Load(1, times=[(0.0, 0.1)]), "cut", "delay").judged(all_kinds=True) == []


@pytest.mark.parametrize(
    ("load", "struck", "words"),
    [
        (Load(1, times=[(0.0, 0.1)], failures=["at 1.0: WorkerLost"]), ["cut", "delay"], "1 calls failed"),
        (Load(1, times=[(0.0, 0.1)], wrong=2), ["cut", "delay"], "2 answers were wrong"),
        (Load(1), ["cut", "delay"], "no call was answered"),
        (Load(1, times=[(0.0, 0.1)]), ["delay"], "never happened: cut; give it more --seconds, or say --some-kinds"),
    ],
)
def test_what_does_not_hold_is_said(load: Load, struck: list[str], words: str) -> None:
    """In a sentence each."""
    (said,) = outcome(load, *struck).judged(all_kinds=True)

    assert words in said


def test_a_short_run_need_not_have_every_kind() -> None:
    """But what else does not hold counts."""
    one = outcome(Load(1, times=[(0.0, 0.1)]), "cut")
    one.mistakes.append("a gateway miscounted")

    assert one.judged(all_kinds=False) == ["a gateway miscounted"]


def test_the_slowest_call_is_of_those_sent_during_a_fault() -> None:
    """Not of those before and after it."""
    load = Load(1, times=[(0.5, 9.0), (1.5, 0.2), (1.7, 0.3), (2.5, 9.0)])

    assert outcome(load, "cut").tallies() == {"cut": Tally(1, 0.3), "delay": Tally()}


class Hamlet(Town):
    """Nobody lives there; one kind of fault, and one that cannot happen."""

    def __init__(self) -> None:
        super().__init__(random.Random(1))
        self.left_out = {"flood": "there is no river"}

    def guest(self) -> Node:
        raise NotImplementedError

    def faults(self) -> dict[str, Fault]:
        async def fire() -> None:
            raise NotImplementedError

        return {"fire": fire}


def test_an_unknown_kind_is_named() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match=r"no kinds of faults here: frost; there are fire"):
        asyncio.run(trial(Hamlet(), 1.0, 1, ["fire", "frost"]))


def test_a_trial_of_nothing_does_not_hold() -> None:
    """Though every kind that was asked for was left out for a reason."""
    found = asyncio.run(trial(Hamlet(), 1.0, 1, ["flood"]))

    assert found.left_out == {"flood": "there is no river"}
    assert "no kind of fault is left to try" in found.judged(all_kinds=False)


@pytest.fixture
def echo() -> Iterator[int]:
    """The port of a server that sends everything back."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    one, _ = server.accept()
                except OSError:
                    return
                threading.Thread(target=back, args=(one,), daemon=True).start()

        def back(one: socket.socket) -> None:
            with one:
                try:
                    while data := one.recv(65_536):
                        one.sendall(data)
                except OSError:
                    pass

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def link(echo: int) -> Iterator[tuple[Proxies, Link, socket.socket]]:
    """A link to that server, and a connection through it."""
    with Proxies() as proxies:
        one = proxies.add(echo)
        with socket.create_connection(("127.0.0.1", one.port), timeout=10) as connection:
            yield proxies, one, connection


def returned_s(connection: socket.socket, data: bytes = b"word") -> float:
    """How long data takes there and back."""
    began = time.perf_counter()
    connection.sendall(data)
    got = b""
    while len(got) < len(data):
        piece = connection.recv(65_536)
        if not piece:
            raise ConnectionResetError
        got += piece
    assert got == data
    return time.perf_counter() - began


def test_a_link_delays_and_heals(link: tuple[Proxies, Link, socket.socket]) -> None:
    """Both ways."""
    _, one, connection = link
    one.delay_s = 0.1
    assert returned_s(connection) >= 0.2
    one.heal()
    assert min(returned_s(connection) for _ in range(5)) < 0.2


def test_a_link_throttles(link: tuple[Proxies, Link, socket.socket]) -> None:
    """To so many bytes a second."""
    _, one, connection = link
    one.bytes_per_s = 100_000.0

    assert returned_s(connection, bytes(10_000)) >= 0.2


@pytest.mark.parametrize("side", ["is_up_blocked", "is_down_blocked"])
def test_a_blocked_link_keeps_what_waits(link: tuple[Proxies, Link, socket.socket], side: str) -> None:
    """As TCP does: it arrives when the way is free again."""
    _, one, connection = link
    setattr(one, side, True)
    threading.Timer(0.3, one.heal).start()

    assert returned_s(connection) >= 0.29


def test_a_link_is_cut_in_the_middle(link: tuple[Proxies, Link, socket.socket]) -> None:
    """After so many bytes; and at once when it is reset."""
    proxies, one, connection = link
    one.cut_after = 10
    with pytest.raises(OSError):
        returned_s(connection, bytes(1_000))
    assert one.cuts == 1
    with socket.create_connection(("127.0.0.1", one.port), timeout=10) as again:
        returned_s(again)
        proxies.reset(one)
        with pytest.raises(OSError):
            returned_s(again)


def test_what_does_not_hold_is_said_last(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Behind the logs of the nodes."""
    (tmp_path / "gateway.log").write_text("a line\n" * 100)

    print_mistakes(["never happened: cut"], outcome(Load(1), "delay"), tmp_path)

    said = capsys.readouterr().err
    assert "a line" in said
    assert said.endswith("\nnot so: never happened: cut\n")


@pytest.mark.slow
@pytest.mark.chaos
def test_some_seconds_of_chaos_fail_no_call() -> None:
    """The short form of `./run.sh chaos`."""
    done = subprocess.run(
        [sys.executable, "-m", "trials.chaos", "--seconds", "8", "--seed", "5", "--rate", "300", "--some-kinds"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    counts = [line.split()[1] for line in done.stdout.splitlines()[1:-1]]
    assert sum(count != "0" for count in counts) >= 3, done.stdout
