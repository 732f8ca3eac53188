"""The chaos trial finds what is wrong, its proxies do what they say, and a short form of it holds."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.processes import ROOT
from trials.chaos import KINDS, Load, Tally, judged
from trials.proxy import Link, Proxies


def tallies(count: int = 1) -> dict[str, Tally]:
    return {kind: Tally(count) for kind in KINDS}


def test_a_good_run_has_nothing_to_say() -> None:
    """All kinds, all answers."""
    assert judged(tallies(), Load(1, times=[(0.0, 0.1)]), [], all_kinds=True) == []


@pytest.mark.parametrize(
    ("load", "counts", "words"),
    [
        (Load(1, times=[(0.0, 0.1)], failures=["at 1.0: WorkerLost"]), tallies(), "1 calls failed"),
        (Load(1, times=[(0.0, 0.1)], wrong=2), tallies(), "2 answers were wrong"),
        (Load(1), tallies(), "no call was answered"),
        (Load(1, times=[(0.0, 0.1)]), {**tallies(), "cut": Tally(0)}, "never happened: cut"),
    ],
)
def test_what_does_not_hold_is_said(load: Load, counts: dict[str, Tally], words: str) -> None:
    """In a sentence each."""
    (said,) = judged(counts, load, [], all_kinds=True)

    assert words in said


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
    assert returned_s(connection) < 0.2


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


@pytest.mark.slow
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
    counts = [line.split()[1] for line in done.stdout.splitlines()[1 : 1 + len(KINDS)]]
    assert sum(count != "0" for count in counts) >= 3, done.stdout
