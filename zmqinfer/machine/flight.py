"""One request in a gateway's hands, from its admission to its one outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqinfer.records import MODEL_VERSION, PRIORITY, ROWS, Record

if TYPE_CHECKING:
    from zmqinfer.machine.members import ClientSession
    from zmqinfer.machine.routes import Engine, Route

__all__ = ["OUT", "Flight"]

# The slot of a request that is in the timing wheel no more.
OUT = -1


class Flight:
    """A request that was let in, and where it is now.

    It is queued (`is_waiting`), or dispatched (`engine` set and `tag` in the gateway's table), or
    it has ended; a dispatched one whose caller no longer wants it is a tombstone (`client` None)
    until the worker's REPLY gives the credit back.

    Attributes:
        record: the REQUEST as it came, payload by reference; its tag and budget are rewritten.
        client_tag: what the client calls it.
        tag: what the worker of its present dispatch calls it. Each dispatch has a tag of its own and
            no tag is used twice: that is what fences late replies of an earlier one.
        deadline: monotonic seconds.
        slot: its slot in the timing wheel.
        patience: until when it waits for a first worker of its model, or None.
        losses: how many workers were lost with it.
        version: the one that the client asked for, or None; the record's is rewritten to the one served.
    """

    __slots__ = ("client", "client_tag", "deadline", "engine", "home", "is_waiting", "key_hash", "losses",
                 "patience", "priority", "record", "route", "rows", "size", "slot", "tag", "version")  # fmt: skip

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
        self.patience: float | None = None

    # Set when they begin to mean something, to keep the constructor, which runs for each request, short:
    tag: int
    slot: int
    home: str | None
