"""How long no gateway could be reached, for clients that would rather fail at once than at their deadlines."""

from __future__ import annotations

from collections.abc import Mapping

from zmqinfer.machine.link import Link, LinkState

__all__ = ["Reach"]


class Reach:
    """What a client knows of whether any gateway is there.

    Args:
        patience_s: how long none may be there; 0 for ever.
    """

    __slots__ = ("_heard_at", "_links", "_looked_at", "_patience_s", "_pause_s")

    def __init__(self, links: Mapping[int, Link], patience_s: float, heartbeat_s: float, now: float) -> None:
        self._links = links
        self._patience_s = patience_s
        self._pause_s = 2 * heartbeat_s
        self._heard_at = self._looked_at = now

    def heard(self, now: float) -> None:
        """Notes a sign of life of any gateway."""
        self._heard_at = now

    def look(self, now: float) -> None:
        """Notes that the client listens, as it does at every heartbeat while it waits for anything.

        After a pause of its own the gateways have all of their time again.
        """
        if now - self._looked_at > self._pause_s:
            self._heard_at = now
        self._looked_at = now

    def lost_at(self) -> float | None:
        """Returns when there has been no gateway for too long, which may be past; None while one is up."""
        # Without a generator: this is asked in each turn.
        if not self._patience_s:
            return None
        for link in self._links.values():
            if link.state is LinkState.UP:
                return None
        return self._heard_at + self._patience_s
