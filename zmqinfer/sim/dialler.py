"""The dialling sockets of a worker's or client's process."""

from __future__ import annotations

from collections.abc import Sequence

from zmqinfer.loop import dialler
from zmqinfer.sim.network import Dealer, Network
from zmqinfer.sim.process import Process

__all__ = ["Dialler"]


class Dialler(dialler.Dialler[Dealer]):
    """Production's dialler with DEALERs of the virtual network."""

    def __init__(self, network: Network, owner: Process, addresses: Sequence[str]) -> None:
        super().__init__()
        self.ports = {number: network.dial(owner, address) for number, address in enumerate(addresses)}
