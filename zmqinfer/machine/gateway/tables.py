"""What the parts of a gateway share: who it is, and its tables."""

from __future__ import annotations

from zmqinfer.config import GatewaySettings
from zmqinfer.machine.gateway.ledger import Ledger
from zmqinfer.machine.gateway.members import Roster
from zmqinfer.machine.gateway.requests import Request
from zmqinfer.machine.gateway.routes import Routes
from zmqinfer.machine.gateway.suspects import Suspects
from zmqinfer.policy.timers import Timers
from zmqinfer.records import Record

__all__ = ["Tables"]


class Tables:
    """A gateway's settings, its name for itself, and all that more than one of its parts looks at."""

    def __init__(
        self, settings: GatewaySettings, session: bytes, version: str, pid: int, addresses: tuple[str, str], now: float
    ) -> None:
        self.settings = settings
        self.session = session
        self.version = version
        self.pid = pid
        self.clients_address, self.workers_address = addresses
        self.started_at = now
        self.ledger = Ledger(settings)
        self.routes: Routes[Request] = Routes()
        self.roster = Roster()
        self.suspects = Suspects()
        self.timers = Timers()

    def welcome(self, cards: list[Record]) -> Record:
        """Returns a WELCOME that lists these models."""
        agent = f"zmqinfer/{self.version} pid {self.pid}"
        return [self.session, agent, self.settings.heartbeat_ms, self.settings.max_body_bytes, cards]
