"""The chaos trial finds what is wrong, its proxies do what they say, and a short form of it holds."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from tests.processes import ROOT
from trials.chaos import Load, Tally, judged
from trials.namespaces import CABLE_FAULTS, CannotError, Hosts, HostTown
from trials.proxied import ProxiedTown
from trials.proxy import Link, Proxies


def tallies(count: int = 1) -> dict[str, Tally]:
    return {kind: Tally(count) for kind in ProxiedTown.all_kinds()}


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


def run_chaos(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "trials.chaos", *words, "--rate", "300", "--some-kinds"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def happened(done: subprocess.CompletedProcess[str]) -> set[str]:
    """Which kinds of faults the table says that there were."""
    rows = [line.split() for line in done.stdout.splitlines() if line.endswith(" s")]
    return {kind for kind, count, *_ in rows if count != "0"}


@pytest.mark.slow
@pytest.mark.chaos
def test_some_seconds_of_chaos_fail_no_call() -> None:
    """The short form of `./run.sh chaos`."""
    done = run_chaos("--seconds", "8", "--seed", "5")

    assert done.returncode == 0, done.stderr
    assert len(happened(done)) >= 3, done.stdout
    assert happened(done) <= set(ProxiedTown.all_kinds())


@pytest.mark.slow
@pytest.mark.netns
def test_some_seconds_of_lost_packets_fail_no_call() -> None:
    """The short form of `./run.sh chaos --network namespaces`: at least one cable is at fault."""
    done = run_chaos("--network", "namespaces", "--seconds", "10", "--seed", "3")

    if done.stderr.startswith("not tried: "):
        pytest.skip(done.stderr.strip())
    assert done.returncode == 0, done.stderr
    assert happened(done) & set(CABLE_FAULTS), done.stdout
    assert happened(done) <= set(HostTown.all_kinds())
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    assert "zi" not in listed


def test_without_root_there_are_no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said, and nothing is made."""
    monkeypatch.setattr(os, "geteuid", lambda: 1_000)
    with pytest.raises(CannotError, match="for root"):
        Hosts().__enter__()


def test_without_iproute2_there_are_no_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is said, with the package's name."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(CannotError, match="iproute2"):
        Hosts().__enter__()
