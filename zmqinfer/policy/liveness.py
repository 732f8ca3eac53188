"""Which peers have been silent for too long.

Any traffic from a peer is a sign of life; only a silent one needs heartbeats. A peer that has
not been heard for `MISSES` heartbeats is lost. A node that was itself asleep (stopped, swapped
out, starved) must not take its own pause for everybody's silence: see `forgive`.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from typing import Generic, TypeVar

__all__ = ["MISSES", "Liveness"]

# With heartbeats of 500 ms a peer is lost after 1.5 s; ipyparallel's two misses lost busy engines (ipython 3290).
MISSES = 3
# Silence is looked at once a heartbeat, when it is time to speak anyway: a bare wake-up costs 0.05 to 0.5 ms of a
# core. Only who may be lost sooner is looked at sooner, but not more often than so many times a heartbeat.
_LOOKS = 5
# Seconds after the last instant of grace.
_JUST_AFTER_S = 0.001

Peer = TypeVar("Peer", bound=Hashable)


class Liveness(Generic[Peer]):
    """When each watched peer was last heard, and when to look again."""

    __slots__ = ("_heard_at", "_interval_s", "_look_at", "_looked_at", "_speak_at")

    def __init__(self, heartbeat_s: float) -> None:
        self._interval_s = heartbeat_s
        self._heard_at: dict[Peer, float] = {}
        self._look_at = 0.0
        self._looked_at = 0.0
        self._speak_at = 0.0

    def watch(self, peer: Peer, now: float) -> None:
        """Begins to watch `peer`, as heard at `now`."""
        if not self._heard_at:
            self._looked_at = now
            self._look_at = self._speak_at = now + self._interval_s
        self._heard_at[peer] = now

    def forget(self, peer: Peer) -> None:
        """Ends the watch; nothing happens when there was none."""
        self._heard_at.pop(peer, None)

    def heard(self, peer: Peer, now: float) -> None:
        """Notes a sign of life of a watched peer."""
        if peer in self._heard_at:
            self._heard_at[peer] = now

    def silent_for(self, peer: Peer, now: float) -> float:
        """Returns for how many seconds a watched peer has been silent."""
        return now - self._heard_at[peer]

    def is_beat_due(self, now: float) -> bool:
        """Whether it is time to speak to every peer; true once each interval."""
        if not self._heard_at or now < self._speak_at:
            return False
        self._speak_at = now + self._interval_s
        return True

    def lost(self, now: float) -> list[Peer]:
        """Returns the watched peers silent for more than `MISSES` intervals, in the order they came."""
        if not self._heard_at or now < self._look_at:
            return []
        # Looks are a heartbeat apart at most, so it was we who were away.
        if now - self._looked_at > (2 + 1 / _LOOKS) * self._interval_s:
            self.forgive(now)
        self._looked_at = now
        soonest = min(self._heard_at.values()) + MISSES * self._interval_s + _JUST_AFTER_S
        self._look_at = min(max(soonest, now + self._interval_s / _LOOKS), now + self._interval_s)
        limit = now - MISSES * self._interval_s
        return [peer for peer, heard_at in self._heard_at.items() if heard_at < limit]

    def is_judging(self, now: float) -> bool:
        """Whether `lost` would name somebody now; their signs of life may still wait to be read."""
        return now >= self._look_at and any(
            now - heard_at > MISSES * self._interval_s for heard_at in self._heard_at.values()
        )

    def forgive(self, now: float) -> None:
        """Gives every peer one fresh period of grace: it was we who were not there to hear them."""
        for peer in self._heard_at:
            self._heard_at[peer] = now

    def wake_at(self) -> float:
        """Returns when to ask again, infinity while nobody is watched."""
        return min(self._look_at, self._speak_at) if self._heard_at else math.inf
