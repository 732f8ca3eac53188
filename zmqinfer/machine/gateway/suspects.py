"""Requests that may have ended their worker's process, until it is known whether one did.

After a worker's sudden end the oldest requests of each of its models, a batch's worth, are *suspects*: each runs
again in a batch of its own, of which the worker tells the gateway beforehand. One whose worker ends while it runs so
is *accused*. If that worker shows up again, it was only the connection that had ended. Else the input is in
*quarantine*, and is not run again for a while.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmqinfer.machine.gateway.members import Replica
from zmqinfer.machine.gateway.requests import Dispatch, Request
from zmqinfer.policy.quarantine import Quarantine, digest_of
from zmqinfer.records import LAYOUT, MODEL, PAYLOAD, Record

__all__ = ["ACQUITTED_BY_S", "Suspects", "oldest"]

# A worker whose connection alone had ended dials again within tenths of a second, and greets within a heartbeat.
ACQUITTED_BY_S = 2.0


class Suspects:
    """The accused and the quarantine.

    Attributes:
        is_wary: whether there is anything in quarantine; an attribute, for it is asked for each request.
    """

    __slots__ = ("_accused", "_quarantine", "is_wary")

    def __init__(self) -> None:
        # Until when each may be acquitted, and by whom: the session of the worker that is gone.
        self._accused: dict[Request, tuple[float, bytes]] = {}
        self._quarantine = Quarantine()
        self.is_wary = False

    def accuse(self, request: Request, session: bytes, now: float) -> None:
        """Keeps a request until it is known whether its worker's process has ended."""
        self._accused[request] = now + ACQUITTED_BY_S, session

    def acquit(self, session: bytes) -> list[Request]:
        """Returns those that ended nothing, for this worker is there."""
        freed = [request for request, (_, one) in self._accused.items() if one == session]
        for request in freed:
            del self._accused[request]
        return [request for request in freed if request.is_open]

    def condemn(self, request: Request, now: float) -> bool:
        """Puts the input of an accused whose worker did not come back into quarantine; False if it came back."""
        until, _ = self._accused.get(request, (float("inf"), b""))
        if until > now:
            return False
        del self._accused[request]
        self.convict(request, now)
        return True

    def convict(self, request: Request, now: float) -> None:
        """Puts an input into quarantine."""
        digest = _digest(request.record)
        if digest is not None:
            self._quarantine.add(digest, now)
            self.is_wary = True

    def refuses(self, record: Record, now: float) -> bool:
        """Whether a request for one call is in quarantine."""
        digest = _digest(record)
        is_held = digest is not None and self._quarantine.holds(digest, now)
        self.is_wary = len(self._quarantine) > 0
        return is_held

    def awaited(self) -> int:
        """Returns how many calls are accused that somebody waits for."""
        return sum(request.calls for request in self._accused if request.is_open)


def oldest(held: Iterable[Dispatch]) -> set[Request]:
    """Returns those that may have run when their worker ended: of each model a batch's worth, oldest first."""
    rows: dict[Replica, int] = {}
    found: set[Request] = set()
    for dispatch in held:
        before = rows.get(dispatch.replica, 0)
        if before < dispatch.request.route.max_rows:
            found.add(dispatch.request)
        rows[dispatch.replica] = before + dispatch.request.rows
    return found


def _digest(record: Record) -> int | None:
    """Returns the digest of a request's input, None of one in shared memory, which is not at hand here."""
    payload = record[PAYLOAD]
    if type(payload) is tuple:
        return None
    return digest_of(record[MODEL], record[LAYOUT], [payload] if type(payload) is bytes else payload)
