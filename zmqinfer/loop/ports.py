"""What a loop needs of a socket: ZeroMQ's in production, that of a virtual network in a simulation."""

from __future__ import annotations

from typing import Final, Protocol

from zmqinfer.tensor import Buffer

__all__ = ["FULL", "GONE", "SENT", "DealerPort", "Reporter", "RouterPort"]

# What becomes of a message: it left, or the socket takes nothing now, or nobody is there whom it could reach.
SENT: Final = 0
FULL: Final = 1
GONE: Final = 2


class RouterPort(Protocol):
    """A listening socket, which names each connection afresh."""

    @property
    def is_signalled(self) -> bool:
        """Whether something may be there to read; if not, nothing is."""

    def receive(self) -> tuple[bytes, bytes, list[Buffer]] | None:
        """Returns who sent the next message, its head and its parts, or None."""

    def look(self) -> int:
        """Makes sure that what has come is seen, signalled or not; returns after how many messages all have been."""

    def send(self, peer: bytes, frames: list[Buffer]) -> int:
        """Sends a message, and returns SENT, FULL or GONE."""

    def closed(self) -> list[bytes]:
        """Returns the peers whose connections have closed since; empty for one that never said anything."""

    def cut(self, peer: bytes) -> None:
        """Ends a connection."""


class DealerPort(Protocol):
    """A socket that dials one address, again and again."""

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Returns the head and the parts of the next message, or None."""

    def is_readable(self) -> bool:
        """Whether there is a message."""

    def send(self, frames: list[Buffer]) -> int:
        """Sends a message, and returns SENT or FULL, which it also is without a connection."""

    def close(self) -> None:
        """Ends it; what it holds has a while to leave."""


class Reporter:
    """Who tells people of rare happenings; this one tells nobody."""

    def info(self, event: str, **values: object) -> None:
        """Says something that a person would want to know."""

    def warning(self, event: str, **values: object) -> None:
        """Says that something was wrong and was coped with."""
