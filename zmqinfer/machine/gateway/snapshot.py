"""What a gateway tells of itself, the answers to STATS.

Counters are plain integers owned by the machine; they become text only here, when somebody asks.
"""

from __future__ import annotations

import json
from typing import Any

from zmqinfer.errors import Status
from zmqinfer.machine.gateway.clients import Clients
from zmqinfer.machine.gateway.members import Replica, WorkerSession
from zmqinfer.machine.gateway.scheduler import Scheduler
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.records import Record

__all__ = ["Snapshot"]

# A page of an answer to STATS: four of them fill a head.
_PAGE_BYTES = 2**18


class Snapshot:
    """The counters and tables of a gateway as values that JSON can carry."""

    def __init__(self, tables: Tables, scheduler: Scheduler, clients: Clients, workers: Workers) -> None:
        self._tables = tables
        self._scheduler = scheduler
        self._clients = clients
        self._workers = workers

    def answer(self, record: Record, now: float) -> list[Record]:
        """Returns the records that answer a STATS record of a client: pages, for status grows with the cluster."""
        tag, subject = record[:2]
        topics = {"status": self.status, "models": self.models}
        if subject not in topics:
            return [[tag, subject, None, 0, 1]]
        text = json.dumps(topics[subject](now)).encode()
        pages = [text[at : at + _PAGE_BYTES] for at in range(0, len(text), _PAGE_BYTES)]
        return [[tag, subject, page, number, len(pages)] for number, page in enumerate(pages)]

    def status(self, now: float) -> dict[str, Any]:
        """Returns one entry of `status --json`."""
        tables, ledger = self._tables, self._tables.ledger
        workers = [self._worker(worker) for worker in tables.roster.by_name.values()]
        total = sum(worker["weight"] for worker in workers if worker["state"] == "ready")
        for worker in workers:
            worker["share"] = worker["weight"] / total if worker["state"] == "ready" and total else 0.0
        return {
            "address": tables.clients_address,
            "workers_address": tables.workers_address,
            "version": tables.version,
            "pid": tables.pid,
            "state": "draining" if self._clients.is_draining else "ready",
            "uptime_s": round(now - tables.started_at, 3),
            "ring_version": tables.roster.ring_version(),
            "clients": len(self._clients),
            "requests": {
                **{name: getattr(ledger, name) for name in ("received", "refused", "accepted", "answered", "pending")},
                "moved": self._scheduler.moved,
                "hedged": self._scheduler.hedges.sent,
                "hedges_won": self._scheduler.hedges.won,
                "duplicates": ledger.duplicates,
                "outcomes": {
                    status.name: count for status, count in zip(Status, ledger.outcomes, strict=True) if count
                },
            },
            "queued": {
                "requests": sum(route.waiting.count for route in tables.routes),
                "bytes": sum(route.waiting.bytes for route in tables.routes),
            },
            "protocol_errors": self._clients.door.offences + self._workers.door.offences,
            "late_replies": self._scheduler.dispatches.late_replies,
            "stray_replies": self._scheduler.dispatches.stray_replies,
            "workers": workers,
        }

    def _worker(self, worker: WorkerSession) -> dict[str, Any]:
        replicas = list(worker.replicas.values())
        rows = sum(replica.answered_rows for replica in replicas)
        batches = sum(replica.batches for replica in replicas)
        return {
            "name": worker.name,
            "agent": worker.agent,
            "session": worker.session.hex(),
            "state": worker.state.value,
            "weight": worker.weight,
            "share": 0.0,
            "credits": sum(replica.credits for replica in replicas),
            "in_flight": sum(replica.held for replica in replicas),
            "answered": sum(replica.answered for replica in replicas),
            "batches": round(batches),
            "mean_batch_size": round(rows / batches, 3) if batches else 0.0,
            "models": [self._replica(replica) for replica in replicas],
        }

    def _replica(self, replica: Replica) -> dict[str, Any]:
        rotation = self._tables.routes.find(replica.model, replica.version).rotation
        standing = rotation.standing(replica.name).value if replica.granted else "stuck"
        return {"name": replica.model, "version": replica.version, "standing": standing}

    def models(self, _now: float) -> list[dict[str, Any]]:
        """Returns the models that can be called now, with the workers that serve each."""
        return [
            {
                "name": route.model,
                "version": route.version,
                "signature": route.signature,
                "max_batch_size": route.max_rows,
                "idempotent": route.idempotent,
                "workers": sorted(route.replicas),
            }
            for route in self._tables.routes.served
        ]
