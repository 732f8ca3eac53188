"""What a gateway owes its clients, and what it asked of workers for that.

A *request* is one or several calls that were let in, until each has its one outcome. A *dispatch* is one asking of a
worker for them. A request has none while it waits or is placed again, most often one, and several when a second
worker was asked. A dispatch whose request has ended is a *tombstone*: it stays until the worker's REPLY gives its
credit back.
"""

from __future__ import annotations

from zmqinfer.machine.block import Parts, part_of
from zmqinfer.machine.gateway.members import Replica
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.admission import Usage
from zmqinfer.policy.ring import key_hash
from zmqinfer.policy.twice import may_run_twice
from zmqinfer.records import IDEMPOTENT, KEY, MODEL_VERSION, PLACES, PRIORITY, REQUEST_ID, ROWS, TAG, Record

__all__ = ["OUT", "ClientSession", "Dispatch", "Request"]

# The slot of a request that is in the timing wheel no more.
OUT = -1


class ClientSession:
    """One client, over all its connections.

    Attributes:
        session: the id that the client chose.
        owner: whom its requests count for. Limits and turns go by owner, so more connections are not more share.
        host: what it shares memory with; None: nobody.
        outbox: its answers; addressed to None while it has no connection.
        requests: those in hand, by the client's tags.
    """

    __slots__ = ("host", "outbox", "owner", "requests", "session")

    def __init__(self, session: bytes, outbox: Outbox, host: bytes | None, owner: Usage) -> None:
        self.session = session
        self.owner = owner
        self.host = host
        self.outbox = outbox
        self.requests: Parts[Request] = Parts()


class Request:
    """Calls that were let in, and where they are.

    They wait (`is_waiting`), or workers have them (`dispatches`), or they have ended (`is_open` False). Calls that do
    not share this any longer become requests of their own.

    Attributes:
        record: the REQUEST as it came, payload by reference; `priority` and `version` are what its client said.
        owner: whom it counts for.
        tag: what the client calls their block.
        places: which of the block's calls they are, as a bit set.
        calls: how many they are.
        deadline: monotonic seconds.
        size: bytes of the body that are kept here.
        slot: its slot in the timing wheel.
        due_at: when the wheel looks at it: at its deadline, or sooner if its wait for a first worker ends before.
        dispatches: who has it, in the order in which they were asked. Each is for exactly its calls.
        losses: how many workers were lost with it.
        may_have_run: whether an earlier dispatch may have run it.
        is_suspect: whether it may have ended a worker's process; it is for one call then, and runs alone.
        home: while it waits, the only worker that it waits for; set by the waiting room, as the next two are.
        leaves_home_at: until when; then it waits for any.
        rank: where its queue has it.
    """

    __slots__ = (
        "calls", "client", "deadline", "dispatches", "due_at", "home", "is_open", "is_suspect", "is_waiting",
        "leaves_home_at", "losses", "may_have_run", "owner", "places", "priority", "rank", "record", "route", "rows",
        "size", "slot", "tag", "version",
    )  # fmt: skip

    def __init__(
        self, record: Record, client: ClientSession, deadline: float, size: int, route: Route[Request]
    ) -> None:
        self.record = record
        self.client = client
        self.owner = client.owner
        self.priority: int = record[PRIORITY]
        self.version: int | None = record[MODEL_VERSION]
        self.tag: int = record[TAG]
        self.places: int = record[PLACES]
        self.calls = self.places.bit_count()
        self.rows: int = record[ROWS]
        self.deadline = self.due_at = deadline
        self.size = size
        self.route = route
        self.slot = OUT
        self.dispatches: tuple[Dispatch, ...] = ()
        self.losses = 0
        self.is_open = True
        self.is_waiting = self.is_suspect = self.may_have_run = False
        self.home: str | None = None
        self.leaves_home_at = self.rank = 0.0

    @property
    def may_run_twice(self) -> bool:
        """Whether its client, or its model as far as is known, allows that."""
        return may_run_twice(self.record[IDEMPOTENT], self.route.idempotent)

    def key_hashes(self) -> list[int]:
        """Returns what places its calls: one for each, or without keys one for the block, which so has one home."""
        keys = self.record[KEY]
        return [key_hash(self.record[REQUEST_ID])] if keys is None else list(map(key_hash, keys))

    def cut(self, places: int) -> Request:
        """Takes some calls off, and so of its dispatches, into a request that is in no table and does not wait."""
        calls = places.bit_count()
        size = self.size // self.calls * calls
        head = Request(part_of(self.record, places), self.client, self.deadline, size, self.route)
        head.dispatches = tuple([dispatch.cut(head) for dispatch in self.dispatches])
        head.losses = self.losses
        head.may_have_run = self.may_have_run
        head.is_open = self.is_open
        head.is_suspect = self.is_suspect
        self.size -= size
        self.places ^= places
        self.calls -= calls
        self.rows -= calls
        self.record = part_of(self.record, self.places)
        return head


class Dispatch:
    """One asking of a worker for the calls of a request, just those that the request is for.

    Attributes:
        tag: what the worker calls their block. No tag is used twice: that fences late replies of an earlier dispatch.
        sent_at: when, for a request that may be hedged; else 0.
        is_alone: whether it runs in a batch of its own, of which the worker tells beforehand.
    """

    __slots__ = ("is_alone", "replica", "request", "sent_at", "tag")

    def __init__(self, tag: int, request: Request, replica: Replica) -> None:
        self.tag = tag
        self.request = request
        self.replica = replica
        self.is_alone = False
        self.sent_at = 0.0

    @property
    def places(self) -> int:
        """Which of the block's calls they are, as a bit set."""
        return self.request.places

    def cut(self, head: Request) -> Dispatch:
        """Returns the dispatch of `head`, which is cut off from its request."""
        first = Dispatch(self.tag, head, self.replica)
        first.sent_at = self.sent_at
        return first
