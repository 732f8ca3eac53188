"""The calls of one `infer_many`, and their results in the order of its inputs.

Its calls share this one owner, so what a reply brings for a whole block is put down at once, where a
waiter for each call would cost 0.6 us a call. One thread or task sends and puts results down, another
takes them: each step that both may see is a single one of Python's own containers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import TypeAlias

from zmqinfer.errors import Executed, InvalidArgument, Overloaded, ZmqInferError
from zmqinfer.loop.client import Taker
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.call import Body, CallOptions, SharedBody, body_bytes
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.arguments import key_bytes
from zmqinfer.node.connection import Connection
from zmqinfer.records import STATUS, Record

__all__ = ["GATHER_S", "MANY_BYTES", "Parcel", "Result", "Stream"]

Result: TypeAlias = Output | ZmqInferError
# An input as it was given, with its options if it has a key of its own; or what is wrong with it.
Parcel: TypeAlias = Body | tuple[*Body, CallOptions] | ZmqInferError

# A source is asked for more inputs no longer than this before those that it gave are sent.
GATHER_S = 0.005
# Large inputs of one `infer_many` that are under way at most: a quarter of what a gateway takes of one client.
MANY_BYTES = 64 << 20


class Stream(Taker):
    """What is under way to a model, at most `in_flight` calls, and what has come and was not taken yet.

    Attributes:
        tags: of the calls whose results are still to be taken, in their order.
        parcels: what was sent for these.
        results: what has come, by tag.
        enough: so many calls may be under way while it is worth asking for more inputs.
        held: bytes of the large inputs that were asked for and whose results were not taken.
        on_ready: called once, when the next result is there; set by who waits for it, and then finds `is_ready` false.
    """

    __slots__ = (
        "_codec", "_connection", "_in_flight", "_keys", "_model", "_most", "_narrowed_at", "_options", "_refused",
        "enough", "held", "on_ready", "parcels", "results", "tags",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, model: str, in_flight: int, options: CallOptions, keys: Iterator[object] | None
    ) -> None:
        self.tags: deque[int] = deque()
        self.parcels: deque[Parcel] = deque()
        self.results: dict[int, Result] = {}
        self.on_ready: Callable[[], None] | None = None
        self._connection = connection
        self._codec = connection.machine.codec
        self._model = model
        self._most = in_flight
        self._set_in_flight(in_flight)
        self._options = options
        self._keys = keys
        self.held = 0
        self._refused = 0
        # Which call was the last when less began to be in flight.
        self._narrowed_at = 0

    def _set_in_flight(self, in_flight: int) -> None:
        self._in_flight = in_flight
        # More are asked for by a part at a time, so that inputs leave in bundles.
        self.enough = in_flight - max(1, in_flight // 4)

    def room(self) -> int:
        """Returns how many more inputs may be asked for."""
        return self._in_flight - len(self.tags) if self.held < MANY_BYTES else 0

    def wants_more(self) -> bool:
        """Whether it is worth asking for more inputs."""
        return len(self.tags) <= self.enough and self.held < MANY_BYTES

    # For who sends -----------------------------------------------------------------------------------

    def encode(self, x: Input) -> Parcel:
        """Returns an input as it is now, independent of its caller's arrays, or what is wrong with it."""
        options, version = self._options, self._options.version
        try:
            if self._keys is not None:
                options = self._with_key(self._keys)
            body: Body = self._codec.encode(self._model, version, x, None)
        except ZmqInferError as error:
            return error
        if type(body[1]) is not bytes:
            self.held += body_bytes(body[1])
            body = self._connection.own(self._model, version, body)
        return body if self._keys is None else (*body, options)

    def _with_key(self, keys: Iterator[object]) -> CallOptions:
        for key in keys:
            return self._options if key is None else CallOptions(*self._options[:-1], key_bytes(key))
        raise InvalidArgument("there are fewer keys than inputs, expected one for each; None is no key")

    def send(self, parcels: Sequence[Parcel], now: float) -> None:
        """Sends inputs; one that is refused never leaves, and its error waits for its turn."""
        connection, machine = self._connection, self._connection.machine
        submit, model, options = machine.submit, self._model, self._options
        full, tags = machine.full_blocks, []
        for parcel in parcels:
            if isinstance(parcel, tuple):
                if len(parcel) == 3:
                    *_, options = parcel
                    parcel = parcel[:2]  # noqa: PLW2901 - the body in it
                try:
                    if not connection.is_open:
                        connection.check_goes_on()
                    tag = submit(self, model, parcel, None, options, now)
                except ZmqInferError as error:
                    tag = self._refuse(error)
            else:
                tag = self._refuse(parcel)
            tags.append(tag)
            if machine.full_blocks != full:
                connection.loop.push(now)
                full = machine.full_blocks
        self.parcels.extend(parcels)
        self.tags.extend(tags)

    def _refuse(self, error: ZmqInferError) -> int:
        """Puts down an error; returns its tag, which no call has."""
        self._refused -= 1
        self._put_down([self._refused], [error])
        return self._refused

    def take(self, reply: Record, place: int, outcomes: Sequence[Result]) -> None:
        """Puts down the results of calls."""
        if self._in_flight < self._most and not reply[STATUS]:
            # After a refusal there are slowly more again.
            self._set_in_flight(self._in_flight + 1)
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

    def give_back(self, parcel: Parcel) -> None:
        """Counts the input of a call that was taken no longer."""
        if isinstance(parcel, tuple) and type(parcel[1]) is not bytes:
            self.held -= body_bytes(parcel[1])

    def goes_again(self, error: Result) -> bool:
        """Whether the next call, whose result this is, is sent again, after fewer were allowed to be in flight.

        A gateway, or the time that the calls have, may not have room for so many: that is nobody's failure. With one
        in flight it is not this stream that is too much.
        """
        tag = self.tags[0]
        is_news = tag > self._narrowed_at
        if not self._was_too_much(error, self.parcels[0]) or (self._in_flight == 1 and is_news):
            return False
        if is_news:
            self._set_in_flight(self._in_flight // 2)
            self._narrowed_at = max(self.tags)
        self.results[tag] = error
        return True

    @staticmethod
    def _was_too_much(result: Result | None, parcel: Parcel) -> bool:
        """Whether a call was refused that can be sent again; what lay in shared memory is there no more."""
        is_refusal = isinstance(result, Overloaded) and result.executed is Executed.NO
        return is_refusal and isinstance(parcel, tuple) and not isinstance(parcel[1], SharedBody)

    def send_again(self, now: float) -> None:
        """Sends those next calls again that were refused, in their places; for who sends."""
        tags, parcels, results = self.tags, self.parcels, self.results
        refused = [at for at, tag in enumerate(tags) if self._was_too_much(results.get(tag), parcels[at])]
        again = refused[: self._in_flight]
        for at in again:
            del results[tags[at]]
        self.send([parcels[at] for at in again], now)
        for at in reversed(again):
            parcels.pop()
            tags[at] = tags.pop()
