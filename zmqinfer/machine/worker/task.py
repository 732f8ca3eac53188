"""One request in a worker's hands, and the batch it runs in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from zmqinfer.errors import Status
from zmqinfer.machine.block import cut_request
from zmqinfer.records import CALLS, REQUEST_ID, ROWS, TAG, Record
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
        is_alone: whether it is for one request only, of which the gateway is told before it runs.
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
        tag: of the first call.
        link: the number of the gateway that it came from.
        record: the REQUEST.
        bound: its layout, fitted to the model.
        arrived_at: when this worker took it from the socket, monotonic seconds.
        block: the id of its block, set by `Twins`.
        followers: calls with the same ids that came while it was here, and get what it gets.
    """

    __slots__ = (
        "arrived_at", "block", "bound", "calls", "deadline", "followers", "is_waiting", "link", "record", "rows",
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
        self.calls: int = record[CALLS]
        self.rows: int = record[ROWS]
        self.is_waiting = False
        self.followers: list[Task] | None = None

    block: bytes

    @property
    def tags(self) -> range:
        """Those of its calls."""
        return range(self.tag, self.tag + self.calls)

    def cut(self, calls: int) -> Task:
        """Takes the first `calls` calls off into a task of their own."""
        size = self.size // self.calls * calls
        record, self.record = cut_request(self.record, calls)
        head = Task(self.link, record, self.bound, size, self.deadline, self.arrived_at)
        head.is_waiting = self.is_waiting
        if self.followers:
            first = self.record[REQUEST_ID][-1]
            head.followers = [one for one in self.followers if one.record[REQUEST_ID][-1] < first]
            self.followers = [one for one in self.followers if one.record[REQUEST_ID][-1] >= first]
        self.tag += calls
        self.calls -= calls
        self.rows -= calls
        self.size -= size
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
