"""What a client waits for: blocks of calls, and questions to a gateway."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, TypeAlias

from zmqinfer.policy.wheel import SLOTS_PER_S
from zmqinfer.records import ANSWER, PAGE, PAGES, Kind, Record
from zmqinfer.tensor import Buffer, Payload, SharedPayload, payload_bytes

__all__ = ["DEFAULT_PRIORITY", "Block", "Body", "CallOptions", "Question", "SharedBody", "body_bytes"]

DEFAULT_PRIORITY = 4


class CallOptions(NamedTuple):
    """What a caller may say of a call besides its input. Of two blocks alike in these the calls may travel as one."""

    deadline_s: float
    version: int | None = None
    key: bytes | None = None
    priority: int = DEFAULT_PRIORITY
    idempotent: bool | None = None
    hedge: bool | None = None


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


_NOBODY: frozenset[int] = frozenset()


class Block:
    """Calls of a client that are alike and leave as one record.

    Attributes:
        tag: of the first call; the others follow.
        alike: what its calls have in common: model, layout, options, and the slot of the deadline.
        owners: of the calls by place, None for those that have ended.
        bodies: their payloads, kept to be sent again.
        rows: None for calls of one row without a batch axis.
        left: how many calls have not ended.
        link: the number of the gateway that has it.
        most: how many calls it takes.
        attempts: how often calls were asked for, by place, where that was more than once.
        resting: the places of calls that were refused and wait to be asked for again.
        sends: how often it may have left, to one gateway or another.
        is_held: whether it waits for a WELCOME.
        closes_at: it takes calls whose deadlines are before that.
    """

    __slots__ = (
        "alike", "attempts", "bodies", "closes_at", "deadline", "is_held", "layout", "left", "link", "model", "most",
        "options", "owners", "resting", "rows", "sends", "slot", "tag",
    )  # fmt: skip

    def __init__(
        self, tag: int, link: int, alike: tuple[str, bytes, CallOptions, int], rows: int | None, deadline: float
    ) -> None:
        self.tag = tag
        self.link = link
        self.alike = alike
        self.model, self.layout, self.options, slot = alike
        self.closes_at = (slot + 1) / SLOTS_PER_S
        self.rows = rows
        self.deadline = deadline
        self.owners: list[object] = []
        self.bodies: list[Payload | SharedBody] = []
        self.left = 0
        self.most = 1
        self.sends = 0
        self.is_held = False
        self.attempts: dict[int, int] | None = None
        self.resting: frozenset[int] = _NOBODY

    slot: int

    def close(self) -> None:
        """Takes no more calls."""
        self.closes_at = float("-inf")

    def request(self, first: int, calls: int, request_id: bytes) -> tuple[Record, int]:
        """Returns the REQUEST record of some of its calls, without its budget, and the bytes of its payload."""
        bodies = self.bodies[first : first + calls]
        # Only inline payloads have company.
        payload = bodies[0] if calls == 1 else b"".join(bodies)  # type: ignore[arg-type]
        size = body_bytes(payload)
        if isinstance(payload, SharedBody):
            payload, size = (payload.parts, size) if payload.goes_inline else (payload.place, 0)
        options = self.options
        record = [
            self.tag + first,
            calls,
            request_id,
            self.model,
            options.version,
            options.key,
            0,
            options.priority,
            self.attempt_of(first),
            options.idempotent,
            calls if self.rows is None else self.rows,
            self.layout,
            payload,
        ]
        if self.sends > 1:
            record += [None, options.hedge, True]
        elif options.hedge is not None:
            record += [None, options.hedge]
        return record, size

    def attempt_of(self, place: int) -> int:
        """Returns how often a call was asked for, from 1."""
        return self.attempts.get(place, 1) if self.attempts else 1

    def asks_again(self, first: int, calls: int) -> None:
        """Ends the rest of calls, whose next attempt this is."""
        places = range(first, first + calls)
        if self.attempts is None:
            self.attempts = {}
        for place in places:
            self.attempts[place] = self.attempt_of(place) + 1
        self.resting = self.resting.difference(places)

    def is_at_rest(self) -> bool:
        """Whether all calls that have not ended wait to be asked for again, so that no gateway has any of them."""
        return bool(self.resting) and all(
            owner is None or place in self.resting for place, owner in enumerate(self.owners)
        )

    def runs(self, first: int = 0, end: int | None = None) -> Iterator[tuple[int, int]]:
        """Yields the stretches, from `first` up to `end`, that a gateway should have: a place, and how many calls."""
        for place, owner in enumerate([*self.owners[first:end], None], first):
            if owner is None or place in self.resting:
                if place > first:
                    yield first, place - first
                first = place + 1


class Question:
    """A STATS or ADMIN record that waits for its answer from one gateway.

    Attributes:
        answer: the record that answers it; of one in pages their text is together in the first.
    """

    __slots__ = ("_pages", "answer", "deadline", "kind", "link", "owner", "record", "slot")

    def __init__(self, owner: object, kind: Kind, record: Record, link: int, deadline: float) -> None:
        self.owner = owner
        self.kind = kind
        self.record = record
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
