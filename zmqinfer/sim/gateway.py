"""A gateway's process: production's loop and machine between sockets of the virtual network."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from zmqinfer.config import GatewaySettings
from zmqinfer.loop.gateway import GatewayLoop
from zmqinfer.loop.ports import Reporter
from zmqinfer.machine.gateway.machine import GatewayMachine
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process

__all__ = ["GatewayProcess"]


class GatewayProcess(Process):
    """One life of one gateway."""

    turn_s, record_s = 60e-6, 8e-6

    def __init__(
        self, name: str, network: Network, random: Random, addresses: tuple[str, str], settings: GatewaySettings,
        on_end: Callable[[], None],
    ) -> None:  # fmt: skip
        super().__init__(name, network.timeline)
        self.machine = GatewayMachine(
            settings,
            session=random.randbytes(16),
            version="simulated",
            pid=0,
            addresses=addresses,
            first_tag=random.getrandbits(48),
            now=self.timeline.now,
        )
        self._clients = network.listen(self, addresses[0])
        self._workers = network.listen(self, addresses[1])
        self._loop = self.counted = GatewayLoop(self.machine, self._clients, self._workers, Reporter())
        self._on_end = on_end
        self.rouse()

    def drain(self) -> None:
        """Begins to leave, as after SIGTERM."""
        self._loop.drain()
        self.rouse()

    def turn(self, now: float, gap: float) -> float | None:
        """Does a turn of the loop."""
        due = self._loop.turn(now, gap)
        if self._workers.is_signalled or self._clients.is_signalled:
            self.rouse()
        if self.machine.is_drained(now):
            self._loop.part(now)
            self.timeline.after(self.busy_s(), self._on_end)
        return due
