"""A town whose nodes are on hosts of their own: Linux network namespaces, cabled to a switch.

Packets that are lost here are lost, where a proxy's connection still has two living ends: a host that is unplugged
says nothing more, and what it sent is sent again by TCP in its own time.

The hosts are of the loopback range, 127.77.0.0/24, which the kernel is asked to take as any other: a gateway refuses
addresses beyond it. Nothing of the machine's own network is touched; all of this is gone at the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from trials.nodes import Node
from trials.town import GATEWAYS, PROCESS_FAULTS, WORKERS, Fault, Town, by_name

__all__ = ["CannotError", "Host", "HostTown", "Hosts", "host_town"]

_CLIENTS, _WORKERS = 5555, 5556
_CLONE_NEWNET = 0x4000_0000
_SHAPED = ("tbf", "rate", "2mbit", "burst", "16kb", "latency", "100ms")
# What does not fit into a queue of four packets is dropped.
_SHORT_QUEUE = ("tbf", "rate", "20mbit", "burst", "3kb", "limit", "6kb")


class CannotError(Exception):
    """This machine has no namespaces for us; the sentence says why."""


@dataclass(frozen=True)
class Host:
    """A namespace with one cable.

    Attributes:
        name: of the namespace.
        port: of its cable's end at the switch.
    """

    name: str
    address: str
    port: str
    switch: str

    @property
    def inside(self) -> tuple[str, ...]:
        """What comes before a command that is to run there."""
        return ("ip", "netns", "exec", self.name)

    def plug(self, *, in_it: bool) -> None:
        """Puts the cable in, or pulls it out."""
        _ip("-n", self.switch, "link", "set", self.port, "up" if in_it else "down")

    def lose(self, peer: Host, *, it: bool) -> None:
        """Loses everything that this host sends to another one, or no longer."""
        _ip("-n", self.name, "route", "add" if it else "del", "blackhole", f"{peer.address}/32")

    def queue(self, *discipline: str) -> None:
        """Lets what leaves wait in such a queue; in the usual one if none is named."""
        words = ("replace", "dev", "eth0", "root", *discipline) if discipline else ("del", "dev", "eth0", "root")
        _run("tc", "-n", self.name, "qdisc", *words)


class Hosts:
    """The switch and the hosts at it, from `with` to its end. Only for root."""

    def __init__(self) -> None:
        self._made: list[str] = []
        self._prefix = f"zi{os.getpid()}"
        self._switch = f"{self._prefix}-switch"

    def __enter__(self) -> Hosts:
        if os.geteuid() != 0:
            raise CannotError("namespaces are for root; run it as root, or without --network namespaces")
        if shutil.which("ip") is None or shutil.which("tc") is None:
            raise CannotError("`ip` and `tc` are not there; on Debian: apt-get install iproute2")
        try:
            self._add(self._switch)
            _ip("-n", self._switch, "link", "add", "bridge", "type", "bridge")
            _ip("-n", self._switch, "link", "set", "bridge", "up")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name in self._made:
            with contextlib.suppress(CannotError):
                _ip("netns", "del", name)

    def _add(self, name: str) -> None:
        _ip("netns", "add", name)
        self._made.append(name)
        _ip("-n", name, "link", "set", "lo", "up")

    def add(self, number: int) -> Host:
        """Adds the host of this address."""
        host = Host(f"{self._prefix}-{number}", f"127.77.0.{number}", f"port{number}", self._switch)
        self._add(host.name)
        cable = ("link", "add", host.port, "type", "veth", "peer", "name", "eth0", "netns", host.name)
        _ip("-n", self._switch, *cable)
        _ip("-n", self._switch, "link", "set", host.port, "master", "bridge", "up")
        # The range is another network here, of which only 127.0.0.1 stays the host's own.
        for setting in ("all", "eth0"):
            _run(*host.inside, "sysctl", "-qw", f"net.ipv4.conf.{setting}.route_localnet=1")
        _ip("-n", host.name, "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
        _ip("-n", host.name, "addr", "flush", "dev", "lo")
        _ip("-n", host.name, "addr", "add", "127.0.0.1/32", "dev", "lo")
        _ip("-n", host.name, "addr", "add", f"{host.address}/24", "dev", "eth0")
        _ip("-n", host.name, "link", "set", "eth0", "up")
        return host


@contextlib.contextmanager
def _moved_to(host: Host) -> Iterator[None]:
    """Lets this thread, and those that it starts, have the host's network."""
    setns = ctypes.CDLL(None, use_errno=True).setns
    with Path("/proc/thread-self/ns/net").open() as own, Path("/var/run/netns", host.name).open() as other:
        if setns(other.fileno(), _CLONE_NEWNET):
            raise CannotError(f"this process may not go to a namespace: {os.strerror(ctypes.get_errno())}")
        try:
            yield
        finally:
            setns(own.fileno(), _CLONE_NEWNET)


class HostTown(Town):
    """Each node on a host of its own."""

    def __init__(self, chance: random.Random, folder: Path, hosts: Hosts) -> None:
        self.client_host = hosts.add(1)
        self.gateway_hosts = [hosts.add(11 + n) for n in range(GATEWAYS)]
        self.worker_hosts = [hosts.add(21 + n) for n in range(WORKERS)]
        self._folder = folder
        super().__init__(
            chance,
            [
                Node(
                    f"gateway_{n}",
                    ["gateway", "--clients", _at(host, _CLIENTS), "--workers", _at(host, _WORKERS)],
                    folder,
                    host.inside,
                )
                for n, host in enumerate(self.gateway_hosts)
            ],
            [self._worker(f"worker_{n}", host) for n, host in enumerate(self.worker_hosts)],
            [_at(host, _CLIENTS) for host in self.gateway_hosts],
        )
        self.left_out = self._beyond_this_kernel()

    def _worker(self, name: str, host: Host) -> Node:
        where = ",".join(_at(gateway, _WORKERS) for gateway in self.gateway_hosts)
        return Node(name, ["worker", "--name", name, "--gateway", where], self._folder, host.inside)

    def guest(self, name: str) -> Node:
        """Returns a worker on the first one's host."""
        return self._worker(name, self.worker_hosts[0])

    @classmethod
    def all_kinds(cls) -> dict[str, Fault]:
        """What may go wrong: with processes, and with cables."""
        return PROCESS_FAULTS | CABLE_FAULTS

    def _beyond_this_kernel(self) -> dict[str, str]:
        try:
            self.client_host.queue(*_SHAPED)
            self.client_host.queue()
        except CannotError as error:
            return dict.fromkeys((slow_cable.__name__, lossy_cable.__name__), str(error))
        return {}

    def a_host(self) -> Host:
        """Picks anybody's."""
        return self.chance.choice([self.client_host, *self.gateway_hosts, *self.worker_hosts])

    def a_pair(self) -> tuple[Host, Host]:
        """Picks one who dials, and a gateway."""
        return self.chance.choice([self.client_host, *self.worker_hosts]), self.chance.choice(self.gateway_hosts)


@contextlib.contextmanager
def host_town(chance: random.Random, folder: Path) -> Iterator[HostTown]:
    """Makes the hosts and takes this thread to the client's; starts no node.

    Raises:
        CannotError: this machine has no namespaces for us.
    """
    with Hosts() as hosts:
        town = HostTown(chance, folder, hosts)
        with _moved_to(town.client_host):
            yield town


# Faults: each lasts until it returns, and has healed then. ----------------------------------------


async def unplug(town: HostTown) -> None:
    """A host is gone, without a word to anybody, and comes back."""
    await _unplug(town.a_host(), town.chance.uniform(0.5, 4.0))


async def flap(town: HostTown) -> None:
    """A cable has a loose contact."""
    host = town.a_host()
    for _ in range(8):
        await _unplug(host, town.chance.uniform(0.02, 0.2))
        await asyncio.sleep(town.chance.uniform(0.02, 0.3))


async def _unplug(host: Host, seconds: float) -> None:
    host.plug(in_it=False)
    try:
        await asyncio.sleep(seconds)
    finally:
        host.plug(in_it=True)


async def lose_up(town: HostTown) -> None:
    """Nothing comes from a client or worker to a gateway."""
    dialler, gateway = town.a_pair()
    await _lose(town, [(dialler, gateway)])


async def lose_down(town: HostTown) -> None:
    """Nothing comes from a gateway to a client or worker."""
    dialler, gateway = town.a_pair()
    await _lose(town, [(gateway, dialler)])


async def part(town: HostTown) -> None:
    """Nothing passes between a gateway and a client or worker, while everybody else hears both."""
    dialler, gateway = town.a_pair()
    await _lose(town, [(dialler, gateway), (gateway, dialler)])


async def _lose(town: HostTown, pairs: list[tuple[Host, Host]]) -> None:
    for sender, receiver in pairs:
        sender.lose(receiver, it=True)
    try:
        await asyncio.sleep(town.chance.uniform(0.5, 4.0))
    finally:
        for sender, receiver in pairs:
            sender.lose(receiver, it=False)


async def slow_cable(town: HostTown) -> None:
    """What a host sends passes at 2 Mbit a second."""
    await _queue(town.a_host(), _SHAPED)


async def lossy_cable(town: HostTown) -> None:
    """Of what a host sends at once the most is lost, and sent again by TCP."""
    await _queue(town.a_host(), _SHORT_QUEUE)


async def _queue(host: Host, discipline: tuple[str, ...]) -> None:
    host.queue(*discipline)
    try:
        await asyncio.sleep(2.0)
    finally:
        host.queue()


CABLE_FAULTS = by_name(unplug, flap, lose_up, lose_down, part, slow_cable, lossy_cable)


def _at(host: Host, port: int) -> str:
    return f"tcp://{host.address}:{port}"


def _ip(*words: str) -> None:
    _run("ip", *words)


def _run(*words: str) -> None:
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10, check=False)
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"it ended with {done.returncode}"
        raise CannotError(f"`{' '.join(words)}` failed: {said}")
