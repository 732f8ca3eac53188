"""Hosts of one machine: network namespaces, each joined by a pair of veth devices to a bridge, and how they fail.

Everything lies in namespaces made here, the bridge too, so nothing of the machine's own network is touched. They
have no names: the kernel removes each with its last process and descriptor, however those end.

The addresses are of 127.77.0.0/24, which here lies on the wire and not on `lo`: the kernel allows that where
`route_localnet` is set. So gateways, which refuse to be reachable from other machines, serve other hosts here.
"""

from __future__ import annotations

import contextlib
import ctypes
import ipaddress
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from bench.packages import Missing, installed, program

__all__ = ["EXIT_MISSING", "Drop", "Host", "Namespace", "Network", "drop_program", "prepare", "refusal", "require"]

_NET = "127.77.0."
_SETTLE_S = 5.0
_OWN = Path("/proc/thread-self/ns/net")
_CLONE_NEWNET = 0x4000_0000
# What a kernel, or whoever confines us, says of what there is not for us; any other failure is a mistake.
_CANNOT = (
    "not permitted", "Permission denied", "not supported", "not implemented", "Unknown device type", "Read-only",
    "timed out",
)  # fmt: skip
_PROGRAMS = ("ip", "tc")
# The exit code of this module, if hosts cannot be made.
EXIT_MISSING = 3


class Namespace:
    """A network namespace: the calling thread may enter it, and processes that it starts meanwhile live there."""

    def __init__(self) -> None:
        before = _descriptor()
        try:
            # Who may not come back must not leave: that is so of users with namespaces of their own and not this one.
            _call("setns", before, _CLONE_NEWNET)
            _call("unshare", _CLONE_NEWNET)
            self.descriptor = _descriptor()
            _call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)

    @contextlib.contextmanager
    def entered(self) -> Iterator[None]:
        """Has the calling thread in it; nothing else of the process."""
        before = _descriptor()
        try:
            _call("setns", self.descriptor, _CLONE_NEWNET)
            try:
                yield
            finally:
                _call("setns", before, _CLONE_NEWNET)
        finally:
            os.close(before)

    def run(self, command: str, *last: str) -> str:
        """Runs a command in it, words between blanks, and `last` behind them; returns what it says.

        Raises:
            OSError: it says no.
        """
        name, *words = command.split()
        with self.entered():
            done = subprocess.run(
                [installed(name, "iproute2"), *words, *last], capture_output=True, text=True, timeout=30, check=False
            )
        if done.returncode:
            said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
            raise OSError(f"{command}: {said[0].removeprefix('Error: ').rstrip('.')}")
        return done.stdout

    @property
    def path(self) -> str:
        """Where it is to be found while this process has it."""
        return f"/proc/{os.getpid()}/fd/{self.descriptor}"

    def close(self) -> None:
        """Lets go of it."""
        os.close(self.descriptor)


def _descriptor() -> int:
    return os.open(_OWN, os.O_RDONLY | os.O_CLOEXEC)


def _call(name: str, *arguments: int) -> None:
    """Calls the C library; from Python 3.12 on `os` has these."""
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


@dataclass(frozen=True, slots=True)
class Drop:
    """What a host's cable loses.

    Attributes:
        is_from: whether it is of what the host sends, else of what is sent to it.
        part: how much of it, by chance, in (0, 1].
        peer: the only other end that is meant; None: all.
    """

    is_from: bool
    part: float = 1.0
    peer: str | None = None


def drop_program(drop: Drop) -> str:
    """Returns the classic BPF that drops this, as `tc filter ... bpf bytecode` takes it.

    It sees Ethernet frames. Its verdicts are those of `direct-action`: 2 drops, -1 passes on.
    """
    code: list[list[int]] = []
    if drop.peer is not None:
        # ldh [12], the type; ld [26] or [30], an IPv4 packet's source or destination.
        code += [[0x28, 0, 0, 12], [0x15, 0, -1, 0x0800], [0x20, 0, 0, 30 if drop.is_from else 26]]
        code += [[0x15, 0, -1, int(ipaddress.IPv4Address(drop.peer))]]
    if drop.part < 1.0:
        # ld rand, an extension of Linux: SKF_AD_OFF + SKF_AD_RANDOM; jge.
        code += [[0x20, 0, 0, 2**32 - 0x1000 + 56], [0x35, -1, 0, int(drop.part * 2**32)]]
    code += [[0x06, 0, 0, 2], [0x06, 0, 0, 2**32 - 1]]
    # -1 stands for the last instruction, which passes on: jumps are relative to the next.
    for at, one in enumerate(code):
        one[1:3] = [len(code) - at - 2 if jump < 0 else jump for jump in one[1:3]]
    return ",".join([str(len(code)), *(" ".join(map(str, one)) for one in code)])


class Host:
    """One host, and its cable to the bridge."""

    def __init__(self, name: str, number: int, namespace: Namespace, bridge: Namespace) -> None:
        self.name = name
        self.address = f"{_NET}{number}"
        self.namespace = namespace
        self._bridge = bridge
        self._port = f"port{number}"
        bridge.run(f"ip link add {self._port} type veth peer name eth0 netns {namespace.path}")
        bridge.run(f"ip link set {self._port} master bridge up")
        with self.namespace.entered():
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
        self.namespace.run(f"ip address add {self.address}/24 dev eth0")
        self.namespace.run("ip link set eth0 up")

    def pull(self) -> None:
        """Pulls the cable at the bridge: the host is gone, and nobody is told."""
        self._bridge.run(f"ip link set {self._port} down")
        self._assert_is_off()

    def plug(self) -> None:
        """Puts it back."""
        self._bridge.run(f"ip link set {self._port} up")

    def shut(self) -> None:
        """Takes the host's own device down: its programs are told that there is no network."""
        self.namespace.run("ip link set eth0 down")
        self._assert_is_off()

    def open(self) -> None:
        """Takes it up again."""
        self.namespace.run("ip link set eth0 up")

    def settle(self) -> None:
        """Waits until its device is up again: the kernel takes up to a second to say so."""
        give_up_at = time.monotonic() + _SETTLE_S
        while not self._is_up():
            assert time.monotonic() < give_up_at, f"the device of {self.name} is not up after {_SETTLE_S:g} s"
            time.sleep(0.02)

    def _is_up(self) -> bool:
        (device,) = json.loads(self.namespace.run("ip -json link show eth0"))
        return bool(device["operstate"] == "UP")

    def _assert_is_off(self) -> None:
        assert not self._is_up(), f"the device of {self.name} is up in spite of all"

    def lose(self, *drops: Drop) -> None:
        """Drops frames from now on."""
        self._bridge.run(f"tc qdisc add dev {self._port} clsact")
        for drop in drops:
            side = "ingress" if drop.is_from else "egress"
            self._bridge.run(f"tc filter add dev {self._port} {side} bpf direct-action bytecode", drop_program(drop))

    def lose_nothing(self) -> int:
        """Drops no more; returns how many frames were dropped."""
        dropped = _counted(self._bridge, self._port, "drops")
        self._bridge.run(f"tc qdisc del dev {self._port} clsact")
        return dropped

    def queue(self, how: str) -> None:
        """Sends what passes, either way, through a queue that `tc qdisc` knows, with its settings."""
        for namespace, device in self._ends:
            namespace.run(f"tc qdisc add dev {device} root {how}")

    def queue_nothing(self) -> int:
        """Has all pass as it comes; returns how many frames went through the queues."""
        passed = 0
        for namespace, device in self._ends:
            passed += _counted(namespace, device, "packets")
            namespace.run(f"tc qdisc del dev {device} root")
        return passed

    @property
    def _ends(self) -> tuple[tuple[Namespace, str], ...]:
        return (self._bridge, self._port), (self.namespace, "eth0")


def _counted(namespace: Namespace, device: str, what: str) -> int:
    """Adds up what the queues and filters of a device have counted; the one that every device has counts nothing."""
    queues = json.loads(namespace.run(f"tc -statistics -json qdisc show dev {device}"))
    return sum(int(one.get(what, 0)) for one in queues)


class Network:
    """A bridge, and the hosts at it."""

    def __init__(self) -> None:
        self._bridge = Namespace()
        self._others: list[Namespace] = []
        try:
            self._bridge.run("ip link add bridge type bridge")
            self._bridge.run("ip link set bridge up")
        except BaseException:
            self._bridge.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (*self._others, self._bridge):
            one.close()

    def host(self, name: str) -> Host:
        """Adds a host."""
        namespace = Namespace()
        self._others.append(namespace)
        return Host(name, len(self._others), namespace, self._bridge)


def require() -> None:
    """Makes sure that hosts can be made here, by making two.

    Raises:
        Missing: they cannot; says why, and what to do.
    """
    if sys.platform != "linux":
        raise Missing("network namespaces are a thing of Linux; use --network proxies")
    for name in _PROGRAMS:
        installed(name, "iproute2")
    try:
        with Network() as network:
            one, other = network.host("one"), network.host("other")
            with one.namespace.entered():
                server = socket.create_server((one.address, 0))
            with server, other.namespace.entered(), socket.create_connection(server.getsockname(), 5.0):
                pass
    except OSError as error:
        if not any(word in str(error) for word in _CANNOT):
            raise  # a mistake of ours, or something that should be known
        raise Missing(
            f"no hosts can be made here ({error}); that takes root and a kernel with network namespaces, veth and"
            " bridge; where users may have namespaces of their own, run it behind: unshare --user --map-root-user --net"
        ) from error


def refusal(trying: Callable[[], object], undoing: Callable[[], object]) -> str | None:
    """Returns why the kernel does not do something, or None if it does; it is undone at once."""
    why = None
    try:
        trying()
    except OSError as error:
        why = str(error)
    # What failed half-way is there by half.
    with contextlib.suppress(OSError):
        undoing()
    return why


def prepare() -> None:
    """Installs what hosts need, where that is possible; raises `Missing` if they cannot be made all the same."""
    if sys.platform == "linux":
        for name in _PROGRAMS:
            program(name, "iproute2")
    require()


def main() -> None:
    """Says whether hosts can be made; the exit code tells it too."""
    try:
        prepare()
    except Missing as missing:
        print(missing)
        sys.exit(EXIT_MISSING)


if __name__ == "__main__":
    main()
