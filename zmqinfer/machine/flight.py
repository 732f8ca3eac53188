"""One request in a gateway's hands, from its admission to its one outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqinfer.machine.block import cut_request
from zmqinfer.records import CALLS, MODEL_VERSION, PRIORITY, ROWS, Record

if TYPE_CHECKING:
    from zmqinfer.machine.members import ClientSession
    from zmqinfer.machine.routes import Engine, Route

__all__ = ["OUT", "Flight"]

# The slot of a request that is in the timing wheel no more.
OUT = -1


class Flight:
    """A request that was let in, of one call or of a block of them, and where it is now.

    It is queued (`is_waiting`), or dispatched (`engine` set and `tag` in the gateway's table), or
    it has ended; a dispatched one whose caller no longer wants it is a tombstone (`client` None)
    until the worker's REPLY gives the credit back. Calls of a block that do not share this any
    longer become flights of their own.

    Attributes:
        record: the REQUEST as it came, payload by reference; its tag and budget are rewritten.
        calls: how many calls it is for.
        client_tag: what the client calls the first of them.
        tag: what the worker of its present dispatch calls the first of them. Each dispatch has tags of
            its own and no tag is used twice: that is what fences late replies of an earlier one.
        deadline: monotonic seconds.
        slot: its slot in the timing wheel.
        patience: until when it waits for a first worker of its model, or None.
        losses: how many workers were lost with it.
        rival: with hedging the other copy, which another worker has; the second copy has no client.
        sent_at: with hedging when it was dispatched.
        is_suspect: whether it may have ended the process of one; it is for one call then, and runs alone.
        version: the one that the client asked for, or None; the record's is rewritten to the one served.
    """

    __slots__ = ("calls", "client", "client_tag", "deadline", "engine", "home", "is_suspect", "is_waiting", "key_hash",
                 "losses", "patience", "priority", "rank", "record", "rival", "route", "rows", "sent_at", "size",
                 "slot", "tag", "version")  # fmt: skip

    def __init__(
        self,
        record: Record,
        client: ClientSession,
        client_tag: int,
        deadline: float,
        key_hash: int,
        size: int,
        route: Route,
    ) -> None:
        self.record = record
        self.client: ClientSession | None = client
        self.calls: int = record[CALLS]
        self.client_tag = client_tag
        self.deadline = deadline
        self.key_hash = key_hash
        self.size = size
        self.route = route
        self.rows: int = record[ROWS]
        self.priority: int = record[PRIORITY]
        self.version: int | None = record[MODEL_VERSION]
        self.engine: Engine | None = None
        self.is_waiting = False
        self.losses = 0
        self.is_suspect = False
        self.patience: float | None = None
        self.rival: Flight | None = None
        self.sent_at = 0.0

    # Set when they begin to mean something, to keep the constructor, which runs for each request, short:
    tag: int
    slot: int
    home: str | None
    rank: float

    @property
    def due_at(self) -> float:
        """When the wheel must look at it: at its deadline, or before that when its patience ends."""
        return self.deadline if self.patience is None else min(self.patience, self.deadline)

    def copy(self) -> Flight:
        """Returns another one like this; they share the record."""
        copy: Flight = object.__new__(Flight)
        for name in Flight.__slots__:
            if hasattr(self, name):
                setattr(copy, name, getattr(self, name))
        return copy

    def cut(self, calls: int) -> Flight:
        """Takes the first `calls` calls off into a flight of their own, which is in no table yet."""
        head = self.copy()
        head.size = self.size // self.calls * calls
        head.record, self.record = cut_request(self.record, calls)
        head.calls = head.rows = calls
        self.size -= head.size
        self.calls -= calls
        self.rows -= calls
        self.client_tag += calls
        if self.engine is not None:
            self.tag += calls
        return head
