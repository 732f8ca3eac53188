"""REPLY records of a node's own: for calls that ended without the model's word."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.records import RAN_NO, Record

__all__ = ["failure"]


def failure(
    tag: int,
    places: int,
    status: Status,
    detail: str,
    where: str | None = None,
    *,
    worker: str = "",
    version: int = 0,
    attempt: int = 1,
    ran: int = RAN_NO,
    retry_after_ms: int | None = None,
) -> Record:
    """Returns the REPLY to calls that ended without a result: no batch, no times.

    Args:
        detail: what happened, what was expected and what to do.
        where: in which place it ended, as PROTOCOL.md lists them.
        worker: who says so, empty for a gateway or a client.
    """
    return [tag, places, status, detail, where, worker, version, attempt, ran, retry_after_ms, 0, 0, 0]
