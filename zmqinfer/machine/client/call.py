"""What a client waits for: blocks of calls, and questions to a gateway."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from zmqinfer.machine.block import listed
from zmqinfer.policy.wheel import SLOTS_PER_S
from zmqinfer.records import ANSWER, PAGE, PAGES, TAG, Kind, Record
from zmqinfer.tensor import Buffer, Payload, SharedPayload, payload_bytes

__all__ = ["DEFAULT_PRIORITY", "Alike", "Block", "Body", "CallOptions", "Question", "SharedBody", "body_bytes"]

DEFAULT_PRIORITY = 4


class CallOptions(NamedTuple):
    """What a caller may say of a call besides its input. Calls alike in these, but for the key, may travel as one."""

    deadline_s: float
    version: int | None = None
    priority: int = DEFAULT_PRIORITY
    idempotent: bool | None = None
    hedge: bool | None = None
    key: bytes | None = None

    def but_key(self) -> tuple[object, ...]:
        """All of it, but of the key only whether there is one."""
        return (*self[:-1], self.key is None)


class SharedBody:
    """A payload that a shell has laid into shared memory.

    Attributes:
        place: where it lies.
        parts: what lies there.
        goes_inline: whether a worker could not read it there, so that the parts travel as frames.
    """

    __slots__ = ("goes_inline", "parts", "place")

    def __init__(self, place: SharedPayload, parts: list[Buffer]) -> None:
        self.place = place
        self.parts = parts
        self.goes_inline = False


def body_bytes(payload: Payload | SharedBody) -> int:
    """Returns the size of a call's inputs, wherever they are."""
    if type(payload) is bytes:
        return len(payload)
    return payload_bytes(payload.parts if isinstance(payload, SharedBody) else payload)


# Layout and payload of a call.
Body: TypeAlias = tuple[bytes, Payload | SharedBody]
# What the calls of a block have in common: model, layout, options, and the slot of the deadline.
Alike: TypeAlias = tuple[str, bytes, tuple[object, ...], int]


class Block:
    """Calls of a client that are alike and leave as one record.

    Attributes:
        alike: what its calls have in common.
        options: those of its calls, as its first one has them.
        owners: of the calls by place, None for those that have ended.
        bodies: their payloads, kept to be sent again.
        keys: their keys, if they have any.
        rows: None for calls of one row without a batch axis.
        left: how many calls have not ended.
        link: the number of the gateway that has it.
        most: how many calls it takes.
        attempts: how often calls were asked for, by place, where that was more than once.
        resting: the places, as a bit set, of calls that were refused and wait to be asked for again.
        sends: how often it may have left, to one gateway or another.
        unrun: the places, as a bit set, of calls that did not run when they were sent, and that `sends` is not about.
        is_held: whether it waits for a WELCOME.
        closes_at: it takes calls whose deadlines are before that.
    """

    __slots__ = (
        "alike", "attempts", "bodies", "closes_at", "deadline", "is_held", "keys", "layout", "left", "link", "model",
        "most", "options", "owners", "resting", "rows", "sends", "slot", "tag", "unrun",
    )  # fmt: skip

    def __init__(
        self, tag: int, link: int, alike: Alike, options: CallOptions, rows: int | None, deadline: float
    ) -> None:
        self.tag = tag
        self.link = link
        self.alike = alike
        self.model, self.layout, _, slot = alike
        self.options = options
        self.closes_at = (slot + 1) / SLOTS_PER_S
        self.rows = rows
        self.deadline = deadline
        self.owners: list[object] = []
        self.bodies: list[Payload | SharedBody] = []
        self.keys: list[bytes] | None = None if options.key is None else []
        self.left = 0
        self.most = 1
        self.sends = 0
        self.is_held = False
        self.attempts: dict[int, int] | None = None
        self.resting = self.unrun = 0

    slot: int

    def pending(self) -> int:
        """Returns the places, as a bit set, of the calls that a gateway should have."""
        pending = ~self.resting & ((1 << len(self.owners)) - 1)
        if self.left < len(self.owners):
            for place, owner in enumerate(self.owners):
                if owner is None:
                    pending &= ~(1 << place)
        return pending

    def request(self, places: int, request_id: bytes) -> tuple[Record, int]:
        """Returns the REQUEST record of some of its calls, without its budget, and the bytes of its payload."""
        calls = places.bit_count()
        bodies, keys = self.bodies, self.keys
        if calls < len(bodies):
            chosen = listed(places)
            bodies = [bodies[place] for place in chosen]
            keys = keys and [keys[place] for place in chosen]
        # Only inline payloads have company.
        payload = bodies[0] if calls == 1 else b"".join(bodies)  # type: ignore[arg-type]
        size = body_bytes(payload)
        if isinstance(payload, SharedBody):
            payload, size = (payload.parts, size) if payload.goes_inline else (payload.place, 0)
        options = self.options
        record = [
            self.tag,
            places,
            request_id,
            self.model,
            options.version,
            keys,
            0,
            options.priority,
            self.attempt_of(places),
            options.idempotent,
            calls if self.rows is None else self.rows,
            self.layout,
            payload,
        ]
        if self.is_again(places):
            record += [None, options.hedge, True]
        elif options.hedge is not None:
            record += [None, options.hedge]
        return record, size

    def is_again(self, places: int) -> bool:
        """Whether any of some calls may have left more than once, not counting when they were refused."""
        return self.sends > 1 and places & ~self.unrun != 0

    def attempt_of(self, places: int) -> int:
        """Returns how often calls were asked for, the most of any of them, from 1."""
        return max(self.attempts.get(place, 1) for place in listed(places)) if self.attempts else 1

    def asks_again(self, places: int) -> None:
        """Ends the rest of calls, whose next attempt this is."""
        if self.attempts is None:
            self.attempts = {}
        for place in listed(places):
            self.attempts[place] = self.attempts.get(place, 1) + 1
        self.resting &= ~places

    def is_at_rest(self) -> bool:
        """Whether all calls that have not ended wait to be asked for again, so that no gateway has any of them."""
        return bool(self.resting) and not self.pending()


class Question:
    """A STATS or ADMIN record that waits for its answer from one gateway.

    Attributes:
        answer: the record that answers it; of one in pages their text is together in the first.
    """

    __slots__ = ("_pages", "answer", "deadline", "kind", "link", "owner", "record", "slot", "tag")

    def __init__(self, owner: object, kind: Kind, record: Record, link: int, deadline: float) -> None:
        self.owner = owner
        self.kind = kind
        self.record = record
        self.tag: int = record[TAG]
        self.link = link
        self.deadline = deadline
        self.answer: Record = []
        self._pages: list[bytes] = []

    slot: int

    def takes(self, record: Record) -> bool:
        """Takes a record that answers it; True if that was the last."""
        if self.kind is Kind.STATS and record[PAGES] > 1:
            # Asked again over a new connection it is answered anew, and the rest of the first answer may come before.
            if record[PAGE] == 0:
                self._pages.clear()
            if record[PAGE] != len(self._pages):
                return False
            self._pages.append(record[ANSWER] or b"")
            if len(self._pages) < record[PAGES]:
                return False
            record[ANSWER] = b"".join(self._pages)
        self.answer = record
        return True
