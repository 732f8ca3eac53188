"""A gateway's process: its sockets, its clock, and the loop around them."""

from __future__ import annotations

import os
import time

from zmqinfer import __version__
from zmqinfer.config import GatewaySettings
from zmqinfer.loop.gateway import GatewayLoop
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.node import sockets
from zmqinfer.node.descriptors import limit
from zmqinfer.node.poller import Poller
from zmqinfer.node.ports import Router
from zmqinfer.node.report import Report
from zmqinfer.wire import most_frame_bytes

__all__ = ["GatewayNode"]

# The parts of the descriptors that are left when clients, and when workers, are no longer let in.
_LEFT_BY_CLIENTS, _LEFT_BY_WORKERS = 1 / 4, 1 / 8
# What a gateway itself has open, and something for what its process may open besides.
_OWN_DESCRIPTORS = 32


class GatewayNode:
    """One gateway, in a process or a thread."""

    def __init__(self, clients_address: str, workers_address: str, settings: GatewaySettings | None = None) -> None:
        """Binds both sockets; `clients_address` and `workers_address` then hold the real ports.

        Raises:
            ConfigError: an address is taken or cannot be bound.
        """
        settings = settings or GatewaySettings()
        self.workers_address = workers_address
        self._report = Report("gateway", gateway=lambda: self.workers_address)
        self._context = sockets.new_context()
        try:
            self._clients = self._bind(clients_address, "clients", _LEFT_BY_CLIENTS, settings)
            self._workers = self._bind(workers_address, "workers", _LEFT_BY_WORKERS, settings)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.clients_address = self._clients.address
        self.workers_address = self._workers.address
        self._poller = Poller((self._workers, self._clients))
        self._is_stopping = False
        self.machine = GatewayMachine(
            settings,
            session=os.urandom(16),
            version=__version__,
            pid=os.getpid(),
            addresses=(self.clients_address, self.workers_address),
            first_tag=int.from_bytes(os.urandom(7), "little") >> 8,
            now=time.monotonic(),
        )
        self._loop = GatewayLoop(self.machine, self._clients, self._workers, self._report)

    def _bind(self, address: str, door: str, left: float, settings: GatewaySettings) -> Router:
        most = most_frame_bytes(settings.max_body_bytes)
        return Router(self._context, address, door=door, max_frame_bytes=most, left=left, report=self._report)

    def drain(self) -> None:
        """Begins to leave: clients go elsewhere, then `run` returns; from any thread or signal handler."""
        self._loop.drain()
        self._poller.wake()

    def stop(self) -> None:
        """Ends `run` after its present turn; from any thread or signal handler."""
        self._is_stopping = True
        self._poller.wake()

    def run(self) -> None:
        """Serves until drained or stopped, then closes everything."""
        poller, machine = self._poller, self.machine
        self._report.info("gateway listens", clients=self.clients_address, workers=self.workers_address)
        self._look_for_room()
        due = machine.wake_at()
        ended_at = time.monotonic()
        try:
            while not (self._is_stopping or machine.is_drained(ended_at)):
                now, away_s = poller.wait(due, ended_at)
                self._workers.gate.tend(now)
                self._clients.gate.tend(now)
                due = self._loop.turn(now, away_s)
                ended_at = time.monotonic()
            self._loop.part(time.monotonic())
        finally:
            self._close()

    def _look_for_room(self) -> None:
        wanted, room = self.machine.settings.max_clients, self._clients.gate.room() - _OWN_DESCRIPTORS
        if wanted > room:
            self._report.info("too few descriptors for max_clients", max_clients=wanted, room=room, limit=limit())

    def _close(self) -> None:
        for port in (self._workers, self._clients):
            port.close()
        self._context.destroy(linger=sockets.LINGER_MS)
        self._poller.close()
