"""One `infer_many` of a sync client: inputs are gathered and sent by parts, and their results given out in order."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from zmqinfer.errors import Cancelled, ZmqInferError
from zmqinfer.machine.client.call import Body, CallOptions, body_bytes
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.connection import GATHER_S, PUSH_BLOCKS, PUSH_CALLS
from zmqinfer.node.stream import MANY_BYTES, Stream
from zmqinfer.node.turns import Turns
from zmqinfer.node.waits import Waiter

__all__ = ["Many"]


class Many:
    """Inputs under way to a model, at most `in_flight` of them, and no more than 64 MiB of large ones.

    Args:
        client: kept alive until the results are given out, though its caller may have let go of it.
    """

    def __init__(
        self, client: object, turns: Turns, model: str, xs: Iterator[Input], in_flight: int, options: CallOptions
    ) -> None:
        self._client = client
        self._turns = turns
        self._model = model
        self._xs = xs
        self._in_flight = in_flight
        self._options = options
        self._stream = Stream()
        # Of the calls whose results are still to be given out, in their order.
        self._tags: deque[int] = deque()
        self._is_over = False

    def results(self, *, return_errors: bool) -> Iterator[Output | ZmqInferError]:
        """Yields the results; the first error is raised at its place, or takes its place."""
        turns, stream, tags = self._turns, self._stream, self._tags
        turns.connection.check_open()
        # Refilled by a part at a time, so that inputs leave in bundles.
        enough = self._in_flight - max(1, self._in_flight // 4)
        try:
            while True:
                if not self._is_over and len(tags) <= enough and stream.held < MANY_BYTES:
                    self._refill(self._gathered())
                    turns.watch()
                if not tags:
                    return
                tag = tags[0]
                if tag not in stream.results:
                    if turns.connection.is_forked:
                        turns.connection.check_open()
                    self._wait_for(tag)
                tags.popleft()
                if stream.held:
                    stream.give_back(tag)
                result: Output | ZmqInferError = stream.results.pop(tag)
                if not return_errors and isinstance(result, ZmqInferError):
                    raise result
                yield result
        finally:
            # Wherever the interpreter ends this generator, perhaps in a thread that has the lock.
            if turns.connection.is_usable:
                turns.drop(tags)

    def _gathered(self) -> list[Body | ZmqInferError]:
        """Asks the source for inputs, for a while or until there are enough."""
        turns, stream, version = self._turns, self._stream, self._options.version
        encode = turns.machine.codec.encode
        fresh: list[Body | ZmqInferError] = []
        most = self._in_flight - len(self._tags)
        until = time.monotonic() + GATHER_S
        try:
            # Of a closed client nothing is asked that will not leave.
            for x in self._xs if turns.connection.is_usable else ():
                try:
                    # Without the lock: the codec's tables are read and written by single steps.
                    body: Body = encode(self._model, version, x, None)
                    fresh.append(body if type(body[1]) is bytes else self._owned(body))
                except ZmqInferError as error:
                    fresh.append(error)
                if len(fresh) >= most or stream.held >= MANY_BYTES or time.monotonic() > until:
                    break
            else:
                self._is_over = True
        except BaseException:
            # They never leave, and the source's error ends all this.
            turns.drop_bodies(fresh)
            raise
        return fresh

    def _owned(self, body: Body) -> Body:
        """Makes a large input independent of its caller's arrays, and counts its bytes."""
        connection = self._turns.connection
        self._stream.held += body_bytes(body[1])

        def own() -> Body:
            connection.check_goes_on()  # in a forked child the memory is the parent's
            return connection.own(self._model, self._options.version, body)

        return self._turns.locked(own)

    def _refill(self, bodies: list[Body | ZmqInferError]) -> None:
        """Sends more inputs; one that is refused here never leaves, and its error waits for its turn."""
        try:
            self._turns.locked(lambda: self._submit(bodies))
        except Cancelled as error:
            # In the place of all that will not be sent.
            self._tags.append(self._stream.refuse(error))
            self._is_over = True
        self._turns.fulfil()

    def _submit(self, bodies: list[Body | ZmqInferError]) -> None:
        stream, options, tags = self._stream, self._options, self._tags
        connection, machine = self._turns.connection, self._turns.machine
        connection.check_goes_on()
        now = time.monotonic()
        for body in bodies:
            if isinstance(body, tuple):
                try:
                    tag = machine.submit(stream, self._model, body, None, options, now)
                except ZmqInferError as error:
                    tag = stream.refuse(error)
                if stream.held and type(body[1]) is not bytes:
                    stream.hold(tag, body_bytes(body[1]))
            else:
                tag = stream.refuse(body)
            tags.append(tag)
            if machine.full_blocks >= PUSH_BLOCKS and machine.full_blocks * PUSH_CALLS >= machine.pending:
                connection.push(now)
        self._turns.send(now)

    def _wait_for(self, tag: int) -> None:
        """Returns when the call with this tag has ended."""
        stream, waiter = self._stream, Waiter()

        def expect() -> None:
            if tag in stream.results:
                waiter.set_result(None)
            else:
                stream.expect(tag, lambda: waiter.set_result(None))

        self._turns.locked(expect)
        self._turns.wait(waiter)
        waiter.result()
