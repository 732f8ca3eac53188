"""The gateway: its parts put together, and what concerns them all."""

from __future__ import annotations

from zmqinfer.config import GatewaySettings
from zmqinfer.machine.gateway.clients import Clients
from zmqinfer.machine.gateway.intake import Intake
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.gateway.snapshot import Snapshot
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.records import Kind, Record

__all__ = ["GatewayMachine"]

# Clients that are owed nothing and do not hear that this gateway drains are left after so long.
_GOODBYE_S = 1.0


class GatewayMachine:
    """All that a gateway decides. Its shell owns two ROUTER sockets, a clock and nothing else.

    Attributes:
        clients: the door for clients; messages of theirs go there.
        workers: the door for workers, likewise.
        snapshot: what this gateway tells of itself.
        is_draining: whether this gateway finishes what it has, and ends.
    """

    def __init__(
        self,
        settings: GatewaySettings,
        *,
        session: bytes,
        version: str,
        pid: int,
        addresses: tuple[str, str],
        first_tag: int,
        now: float,
    ) -> None:
        """Makes a gateway without peers.

        Args:
            session: 16 random bytes that name this life of the gateway.
            version: of the release, and
            pid: of the process: for `status` and the peers' logs.
            addresses: where clients and where workers dial, for error texts.
            first_tag: where the tags begin; random, so that two lives of a gateway share none.
        """
        self.settings = settings
        tables = Tables(settings, session, version, pid, addresses, now)
        self.ledger, self.routes, self.roster = tables.ledger, tables.routes, tables.roster
        self.scheduler = Scheduler(tables, first_tag)
        self.clients = Clients(tables, Intake(tables, self.scheduler), self.scheduler, self._answers)
        self.workers = Workers(tables, self.scheduler, self.clients.announce)
        self.snapshot = Snapshot(tables, self.scheduler, self.clients, self.workers)
        # Until when, if draining: for all that is pending, and for the goodbyes of those who are owed nothing.
        self._drain_by = self._goodbye_by = float("inf")

    def _answers(self, kind: Kind, record: Record, now: float) -> list[Record]:
        return self.snapshot.answer(record, now) if kind is Kind.STATS else [self.workers.obey(record)]

    @property
    def is_draining(self) -> bool:
        """Whether this gateway finishes what it has, and ends."""
        return self.clients.is_draining

    def drain(self, now: float) -> None:
        """Begins to leave: clients hear of it and go elsewhere, and everything that is or comes in is answered."""
        if not self.is_draining:
            self._drain_by = now + self.settings.drain_grace_s
            self._goodbye_by = min(now + _GOODBYE_S, self._drain_by)
            self.clients.drain()

    def is_drained(self, now: float) -> bool:
        """Whether all clients have gone, or the time of grace is over."""
        return self.is_draining and (not len(self.clients) or now >= self._leave_by)

    @property
    def _leave_by(self) -> float:
        return self._drain_by if self.ledger.pending else self._goodbye_by

    def on_timer(self, now: float) -> None:
        """Does what is due: expires requests, ends waits, beats, and gives up silent peers."""
        self.scheduler.on_timer(now)
        self.workers.on_timer(now)
        self.clients.end_unread()

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, or None when nothing waits for time to pass."""
        earliest = min(self.scheduler.wake_at(), self.workers.wake_at(), self._leave_by)
        return None if earliest == float("inf") else earliest

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        self.ledger.check(self.clients.everyone())
        self.scheduler.check()
