"""One request in a worker's hands, and the batch it runs in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from zmqinfer.errors import Status
from zmqinfer.machine.block import first_of, part_of
from zmqinfer.records import PLACES, REQUEST_ID, ROWS, TAG, Record
from zmqinfer.tensor import Layout, Payload

__all__ = ["Batch", "Bound", "Outcome", "Task"]

# What became of so many calls of a request: the layout and payload of their rows of the answer, or why there is none.
Outcome: TypeAlias = tuple[int, bytes, Payload] | tuple[int, Status, str]


@dataclass(frozen=True, slots=True, eq=False)
class Bound:
    """A layout that fits a model: what came, and where each declared input lies in it.

    Requests batch together when they share one of these, so equal shapes must share one object.

    Attributes:
        model: its number.
        is_alone: whether it is for one request only, which the worker names to the gateway before it runs.
    """

    layout: Layout
    order: tuple[int, ...]
    model: int = 0
    is_alone: bool = False

    def alone(self) -> Bound:
        """Returns one like this for a single request."""
        return Bound(self.layout, self.order, self.model, is_alone=True)


class Task:
    """A request at the worker, of one call or of a block of them.

    Attributes:
        tag: of their block.
        places: which of the block's calls they are, as a bit set.
        calls: how many they are.
        link: the number of the gateway that it came from.
        record: the REQUEST.
        bound: its layout, fitted to the model.
        arrived_at: when this worker took it from the socket, monotonic seconds.
        followers: calls with the same ids that came while it was here, and get what it gets.
    """

    __slots__ = (
        "arrived_at", "bound", "calls", "deadline", "followers", "is_waiting", "link", "places", "record", "rows",
        "size", "tag",
    )  # fmt: skip

    def __init__(self, link: int, record: Record, bound: Bound, size: int, deadline: float, arrived_at: float) -> None:
        self.link = link
        self.record = record
        self.bound = bound
        self.size = size
        self.deadline = deadline
        self.arrived_at = arrived_at
        self.tag: int = record[TAG]
        self.places: int = record[PLACES]
        self.calls = self.places.bit_count()
        self.rows: int = record[ROWS]
        self.is_waiting = False
        self.followers: list[Task] | None = None

    @property
    def block(self) -> bytes:
        """The id of their block."""
        return self.record[REQUEST_ID]  # type: ignore[no-any-return]

    def cut(self, calls: int) -> Task:
        """Takes the first `calls` calls off into a task of their own."""
        return self.part(first_of(self.places, calls))

    def part(self, places: int) -> Task:
        """Takes some of the calls off into a task of their own."""
        head = Task(self.link, part_of(self.record, places), self.bound, 0, self.deadline, self.arrived_at)
        head.size = self.size // self.calls * head.calls
        head.is_waiting = self.is_waiting
        if self.followers:
            head.followers = [one for one in self.followers if one.places & places]
            self.followers = [one for one in self.followers if not one.places & places]
        self.places ^= places
        self.calls -= head.calls
        self.rows -= head.calls
        self.size -= head.size
        self.record = part_of(self.record, self.places)
        return head


@dataclass(slots=True)
class Batch:
    """Tasks that run together.

    Attributes:
        engine: the number of the model.
        bound: what all their inputs look like.
        started_at: when it was handed to the engine.
        is_short: whether such batches are so short that handing one to another thread costs more than it gains.
        patience_s: so long it may take, and longer is much longer than it should.
        begins_at: when it began, as far as is known: those that were handed over before it run first.
    """

    engine: int
    bound: Bound
    tasks: list[Task]
    rows: int
    started_at: float
    patience_s: float = float("inf")
    is_short: bool = False
    begins_at: float = field(init=False)

    def __post_init__(self) -> None:
        self.begins_at = self.started_at

    @property
    def stuck_at(self) -> float:
        """When it will have taken much longer than it should."""
        return self.begins_at + self.patience_s
