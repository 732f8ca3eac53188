"""Hosts in network namespaces: their cables lose what they are told to, and nothing of the machine is changed."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.packages import Missing
from tests.processes import ROOT
from trials import netns
from trials.netns import Drop, Host, Namespace, Network, drop_program, refusal, require


@pytest.mark.parametrize(
    ("drop", "program"),
    [
        (Drop(is_from=True), "2,6 0 0 2,6 0 0 4294967295"),
        (Drop(is_from=True, part=0.25), "4,32 0 0 4294963256,53 1 0 1073741824,6 0 0 2,6 0 0 4294967295"),
        (
            Drop(is_from=True, peer="127.77.0.1"),
            "6,40 0 0 12,21 0 3 2048,32 0 0 30,21 0 1 2135752705,6 0 0 2,6 0 0 4294967295",
        ),
        (
            Drop(is_from=False, part=0.25, peer="127.77.0.1"),
            (
                "8,40 0 0 12,21 0 5 2048,32 0 0 26,21 0 3 2135752705,32 0 0 4294963256,53 1 0 1073741824,"
                "6 0 0 2,6 0 0 4294967295"
            ),
        ),
    ],
)
def test_what_is_dropped_is_a_program(drop: Drop, program: str) -> None:
    """Every jump that is no match leads to the last instruction, which passes on."""
    assert drop_program(drop) == program


def test_elsewhere_than_on_linux_hosts_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a sentence says what to do."""
    monkeypatch.setattr(netns.sys, "platform", "darwin")

    with pytest.raises(Missing, match="Linux; use --network proxies"):
        require()


def test_without_the_right_hosts_are_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's word, and what to do."""

    def refuse() -> None:
        raise PermissionError(1, "unshare: Operation not permitted")

    monkeypatch.setattr(netns.sys, "platform", "linux")
    monkeypatch.setattr(netns, "installed", lambda name, package: name)
    monkeypatch.setattr(netns, "Network", refuse)

    with pytest.raises(Missing, match=r"Operation not permitted.*that takes root"):
        require()


def test_a_mistake_is_not_taken_for_a_kernel_that_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the tests would be left out for a slip of the pen, and nobody would know."""

    def slip() -> None:
        raise OSError('ip lnik add: Object "lnik" is unknown')

    monkeypatch.setattr(netns.sys, "platform", "linux")
    monkeypatch.setattr(netns, "installed", lambda name, package: name)
    monkeypatch.setattr(netns, "Network", slip)

    with pytest.raises(OSError, match="lnik"):
        require()


def test_what_the_kernel_refuses_is_undone() -> None:
    """It may be there by half."""
    undone = []

    def fail() -> None:
        raise OSError("Specified qdisc kind is unknown")

    assert refusal(fail, lambda: undone.append(1)) == "Specified qdisc kind is unknown"
    assert refusal(lambda: None, lambda: undone.append(2)) is None
    assert undone == [1, 2]


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host, Host]]:
    """Three hosts at a bridge."""
    with Network() as network:
        yield network.host("one"), network.host("two"), network.host("three")


class Line:
    """Datagrams from one host to another, which nobody repeats."""

    def __init__(self, sender: Host, receiver: Host) -> None:
        with receiver.namespace.entered():
            self._in = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._in.bind((receiver.address, 0))
        with sender.namespace.entered():
            self._out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._out.connect(self._in.getsockname())
        self._in.settimeout(0.2)

    def arrived(self, count: int = 1) -> int:
        """Sends so many, and returns how many arrive."""
        arrived = 0
        # Few at a time, for a host that is still to be found keeps few.
        for _ in range(count):
            try:
                self._out.send(b"word")
                arrived += bool(self._in.recv(16))
            except TimeoutError:
                continue
        return arrived

    def close(self) -> None:
        self._in.close()
        self._out.close()


@pytest.fixture
def line() -> Iterator[Callable[[Host, Host], Line]]:
    """Makes lines, and closes them."""
    lines: list[Line] = []

    def make(sender: Host, receiver: Host) -> Line:
        lines.append(Line(sender, receiver))
        assert lines[-1].arrived()
        return lines[-1]

    yield make
    for one in lines:
        one.close()


Hosts = tuple[Host, Host, Host]
Lines = Callable[[Host, Host], Line]


@pytest.mark.netns
@pytest.mark.slow
def test_a_host_that_is_not_heard_hears(hosts: Hosts, line: Lines) -> None:
    """One way, whoever is at the other end; and what was dropped is counted."""
    one, two, _ = hosts
    there, back = line(one, two), line(two, one)

    one.lose(Drop(is_from=True))
    assert (there.arrived(), back.arrived()) == (0, 1)
    assert one.lose_nothing() >= 1
    one.lose(Drop(is_from=False))
    assert (there.arrived(), back.arrived()) == (1, 0)
    assert one.lose_nothing() >= 1
    assert (there.arrived(), back.arrived()) == (1, 1)


@pytest.mark.netns
@pytest.mark.slow
def test_two_hosts_are_parted_and_others_are_not(hosts: Hosts, line: Lines) -> None:
    """Both ways."""
    one, two, three = hosts
    there, back, beside = line(one, two), line(two, one), line(one, three)

    one.lose(*(Drop(is_from=is_from, peer=two.address) for is_from in (True, False)))

    assert (there.arrived(), back.arrived(), beside.arrived()) == (0, 0, 1)
    assert one.lose_nothing() == 2


@pytest.mark.netns
@pytest.mark.slow
def test_a_cable_loses_a_part(hosts: Hosts, line: Lines) -> None:
    """By chance: of 30 about a half, and all or none of them once in a hundred million times."""
    one, two, _ = hosts
    there = line(one, two)

    one.lose(Drop(is_from=True, part=0.5, peer=two.address))

    arrived = there.arrived(30)
    assert 0 < arrived < 30
    assert one.lose_nothing() == 30 - arrived


@pytest.mark.netns
@pytest.mark.slow
def test_a_pulled_cable_tells_nobody(hosts: Hosts, line: Lines) -> None:
    """A host whose device is shut is told; both are there again when it is over."""
    one, two, _ = hosts
    there = line(one, two)

    one.pull()
    assert there.arrived() == 0
    one.plug()
    one.settle()
    assert there.arrived(10) > 0
    one.shut()
    with pytest.raises(OSError, match="unreachable"):
        there.arrived()
    one.open()
    one.settle()
    assert there.arrived(10) > 0


@pytest.mark.netns
@pytest.mark.slow
def test_a_slow_cable_passes_so_much_a_second(hosts: Hosts) -> None:
    """And has the word of those whose bytes it counted."""
    one, two, _ = hosts
    with two.namespace.entered():
        server = socket.create_server((two.address, 0))
    with one.namespace.entered():
        connection = socket.create_connection(server.getsockname(), 5.0)
    with server, connection, server.accept()[0] as other:
        one.queue("tbf rate 1600kbit burst 16kb latency 400ms")
        began = time.perf_counter()
        connection.sendall(bytes(80_000))
        left = 80_000
        while left:
            left -= len(other.recv(65_536))
        # 64,000 bytes beyond the bucket, at 200,000 a second.
        assert time.perf_counter() - began > 0.25
        assert one.queue_nothing() > 0


@pytest.mark.netns
def test_nothing_of_the_machine_is_changed() -> None:
    """The same devices as before, while hosts are there and afterwards, for this thread and for processes."""

    def seen() -> tuple[str, list[str]]:
        return Path("/proc/thread-self/ns/net").readlink().name, [name for _, name in socket.if_nameindex()]

    before = seen()
    with Network() as network:
        host = network.host("one")
        during = seen()
        with host.namespace.entered():
            inside = seen()

    assert before == during == seen()
    assert inside[0] != before[0]
    assert inside[1] == ["lo", "eth0"]


@pytest.mark.netns
def test_a_command_that_fails_says_why() -> None:
    """With the command."""
    namespace = Namespace()
    try:
        with pytest.raises(OSError, match=r"ip link show nothing: Device \"nothing\" does not exist"):
            namespace.run("ip link show nothing")
    finally:
        namespace.close()


@pytest.mark.netns
@pytest.mark.slow
def test_some_seconds_of_a_bad_network_fail_no_call() -> None:
    """The short form of `./run.sh chaos --network namespaces`; each of these kinds has to strike."""
    kinds = ["pull_cable", "drop_from", "partition", "lose_some"]
    # By this seed they last 9.5 s together.
    options = ["--network", "namespaces", "--seconds", "9", "--seed", "42", "--rate", "300", "--only", *kinds]
    done = subprocess.run(
        [sys.executable, "-m", "trials.chaos", *options],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    counts = {line.split()[0]: line.split()[1] for line in done.stdout.splitlines()[1:-1]}
    assert set(counts) == set(kinds), done.stdout
    assert "0" not in counts.values(), done.stdout
