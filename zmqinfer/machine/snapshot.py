"""What a gateway tells of itself: the answers to STATS and ADMIN.

Counters are plain integers owned by the machine; they become text only here, when somebody asks.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from zmqinfer.errors import Status
from zmqinfer.records import MAX_TEXT, Record

if TYPE_CHECKING:
    from zmqinfer.machine.gateway import GatewayMachine
    from zmqinfer.machine.members import WorkerSession
    from zmqinfer.machine.routes import Engine

__all__ = ["models", "obeyed", "status", "told"]


# Of an answer to STATS in one record: four of them fill a head.
_PAGE_BYTES = 2**18


def told(gateway: GatewayMachine, record: Record, now: float) -> list[Record]:
    """Returns the records that answer a STATS record of a client: pages, for status grows with the cluster."""
    tag, subject = record[:2]
    topics = {"status": status, "models": models}
    if subject not in topics:
        return [[tag, subject, None, 0, 1]]
    text = json.dumps(topics[subject](gateway, now)).encode()
    pages = [text[at : at + _PAGE_BYTES] for at in range(0, len(text), _PAGE_BYTES)]
    return [[tag, subject, page, number, len(pages)] for number, page in enumerate(pages)]


def obeyed(gateway: GatewayMachine, record: Record) -> Record:
    """Does what an ADMIN record of a client orders; returns the record that answers it."""
    tag, command, argument = record[:3]
    if command != "drain":
        return [
            tag,
            command,
            argument,
            Status.INVALID_ARGUMENT,
            f"command {command!r} is not known; known: drain",
        ]
    if gateway.workers.drain(argument):
        return [tag, command, argument, Status.OK, f"worker {argument!r} was asked to drain"]
    names = ", ".join(sorted(worker.name for worker in gateway.workers.everyone())) or "none"
    detail = f"no worker {argument!r} here; connected: {names}"
    return [tag, command, argument, Status.NOT_FOUND, detail[:MAX_TEXT]]


def status(gateway: GatewayMachine, now: float) -> dict[str, Any]:
    """Returns one entry of `status --json`."""
    ledger = gateway.ledger
    workers = [_worker(worker) for worker in gateway.workers.everyone()]
    total = sum(worker["weight"] for worker in workers if worker["state"] == "ready")
    for worker in workers:
        worker["share"] = worker["weight"] / total if worker["state"] == "ready" and total else 0.0
    return {
        "address": gateway.addresses[0],
        "workers_address": gateway.addresses[1],
        "version": gateway.version,
        "pid": gateway.pid,
        "state": "draining" if gateway.is_draining else "ready",
        "uptime_s": round(now - gateway.started_at, 3),
        "ring_version": gateway.workers.ring_version(),
        "clients": len(gateway.clients),
        "requests": {
            "received": ledger.received,
            "refused": ledger.refused,
            "accepted": ledger.accepted,
            "answered": ledger.answered,
            "pending": ledger.pending,
            "moved": gateway.moved,
            "hedged": gateway.hedges.sent,
            "hedges_won": gateway.hedges.won,
            "duplicates": ledger.duplicates,
            "outcomes": {status.name: count for status, count in zip(Status, ledger.outcomes, strict=True) if count},
        },
        "queued": {
            "requests": sum(route.waiting.count for route in gateway.routes),
            "bytes": sum(route.waiting.bytes for route in gateway.routes),
        },
        "protocol_errors": gateway.clients.door.offences + gateway.workers.door.offences,
        "late_replies": gateway.dispatches.late_replies,
        "stray_replies": gateway.dispatches.stray_replies,
        "workers": workers,
    }


def _worker(worker: WorkerSession) -> dict[str, Any]:
    engines = worker.engines
    answered = sum(engine.answered for engine in engines)
    rows = sum(engine.answered_rows for engine in engines)
    batches = sum(engine.batches for engine in engines)
    return {
        "name": worker.name,
        "agent": worker.agent,
        "session": worker.session.hex(),
        "state": worker.state.value,
        "weight": worker.weight,
        "share": 0.0,
        "credits": sum(engine.credits for engine in engines),
        "in_flight": sum(engine.held for engine in engines),
        "answered": answered,
        "batches": round(batches),
        "mean_batch_size": round(rows / batches, 3) if batches else 0.0,
        "models": [_engine(engine) for engine in engines],
    }


def _engine(engine: Engine) -> dict[str, Any]:
    route = engine.route
    standing = "stuck" if not engine.granted else route.rotation.standing(engine.name).value
    return {"name": route.model, "version": route.version, "standing": standing}


def models(gateway: GatewayMachine, _now: float) -> list[dict[str, Any]]:
    """Returns the models that can be called now, with the workers that serve each."""
    return [
        {
            "name": route.model,
            "version": route.version,
            "signature": route.signature,
            "max_batch_size": route.max_rows,
            "idempotent": route.idempotent,
            "workers": sorted(route.engines),
        }
        for route in gateway.routes
        if route.engines
    ]
