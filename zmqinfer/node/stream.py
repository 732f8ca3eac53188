"""The calls of one `infer_many`, and their results in the order of its inputs.

Its calls share this one owner, so what a reply brings for a whole block is put down at once, where a
waiter for each call would cost 0.6 us a call. One thread or task sends and puts results down, another
takes them: each step that both may see is a single one of Python's own containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

from zmqinfer.errors import ZmqInferError
from zmqinfer.loop.client import Taker
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.call import Body, CallOptions, body_bytes
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.connection import Connection
from zmqinfer.records import Record

__all__ = ["GATHER_S", "MANY_BYTES", "Result", "Stream"]

Result: TypeAlias = Output | ZmqInferError

# A source is asked for more inputs no longer than this before those that it gave are sent.
GATHER_S = 0.005
# Large inputs of one `infer_many` that are under way at most: a quarter of what a gateway takes of one client.
MANY_BYTES = 64 << 20


class Stream(Taker):
    """What is under way to a model, at most `in_flight` calls, and what has come and was not taken yet.

    Attributes:
        tags: of the calls whose results are still to be taken, in their order.
        results: what has come, by tag.
        enough: so many calls may be under way while it is worth asking for more inputs.
        held: bytes of the large inputs that were asked for and whose results were not taken.
        on_ready: called once, when the next result is there; set by who waits for it, and then finds `is_ready` false.
    """

    __slots__ = (
        "_codec", "_connection", "_in_flight", "_model", "_options", "_refused", "_sizes", "enough", "held",
        "on_ready", "results", "tags",
    )  # fmt: skip

    def __init__(self, connection: Connection, model: str, in_flight: int, options: CallOptions) -> None:
        self.tags: deque[int] = deque()
        self.results: dict[int, Result] = {}
        self.on_ready: Callable[[], None] | None = None
        self._connection = connection
        self._codec = connection.machine.codec
        self._model = model
        self._in_flight = in_flight
        # More are asked for by a part at a time, so that inputs leave in bundles.
        self.enough = in_flight - max(1, in_flight // 4)
        self._options = options
        self.held = 0
        self._sizes: dict[int, int] = {}
        self._refused = 0

    def room(self) -> int:
        """Returns how many more inputs may be asked for."""
        return self._in_flight - len(self.tags) if self.held < MANY_BYTES else 0

    def wants_more(self) -> bool:
        """Whether it is worth asking for more inputs."""
        return len(self.tags) <= self.enough and self.held < MANY_BYTES

    # For who sends -----------------------------------------------------------------------------------

    def encode(self, x: Input) -> Body | ZmqInferError:
        """Returns an input as it is now, independent of its caller's arrays, or what is wrong with it."""
        version = self._options.version
        try:
            body: Body = self._codec.encode(self._model, version, x, None)
        except ZmqInferError as error:
            return error
        if type(body[1]) is not bytes:
            self.held += body_bytes(body[1])
            body = self._connection.own(self._model, version, body)
        return body

    def send(self, bodies: Iterable[Body | ZmqInferError], now: float) -> None:
        """Sends inputs; one that is refused never leaves, and its error waits for its turn."""
        connection, machine = self._connection, self._connection.machine
        submit, model, options = machine.submit, self._model, self._options
        full = machine.full_blocks
        for body in bodies:
            if isinstance(body, tuple):
                try:
                    if not connection.is_open:
                        connection.check_goes_on()
                    tag = submit(self, model, body, None, options, now)
                except ZmqInferError as error:
                    tag = self._refuse(error)
                if type(body[1]) is not bytes:
                    self._sizes[tag] = body_bytes(body[1])
            else:
                tag = self._refuse(body)
            self.tags.append(tag)
            if machine.full_blocks != full:
                connection.loop.push(now)
                full = machine.full_blocks

    def _refuse(self, error: ZmqInferError) -> int:
        """Puts down an error; returns its tag, which no call has."""
        self._refused -= 1
        self._put_down([self._refused], [error])
        return self._refused

    def take(self, reply: Record, place: int, outcomes: Sequence[Result]) -> None:
        """Puts down the results of calls."""
        self._put_down(numbers_of(reply)[place : place + len(outcomes)], outcomes)

    def _put_down(self, numbers: Sequence[int], results: Sequence[Result]) -> None:
        self.results.update(zip(numbers, results, strict=True))
        if self.on_ready is not None and self.is_ready():
            on_ready, self.on_ready = self.on_ready, None
            on_ready()

    # For who takes -----------------------------------------------------------------------------------

    def is_ready(self) -> bool:
        """Whether the next result is there."""
        tags = self.tags
        return bool(tags) and tags[0] in self.results

    def give_back(self, tag: int) -> None:
        """Counts the input of a call that was taken no longer."""
        self.held -= self._sizes.pop(tag, 0)
