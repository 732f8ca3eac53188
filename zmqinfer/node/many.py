"""One `infer_many` of a sync client: inputs are gathered and sent by parts, and their results given out in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from zmqinfer.errors import Cancelled, ZmqInferError
from zmqinfer.machine.client.call import Body, CallOptions, body_bytes
from zmqinfer.machine.client.codec import Input, Output
from zmqinfer.node.connection import GATHER_S, PUSH_BLOCKS, PUSH_CALLS
from zmqinfer.node.io_thread import IoThread
from zmqinfer.node.stream import MANY_BYTES, Stream
from zmqinfer.node.waits import Waiter

__all__ = ["Many"]


class Many:
    """Inputs under way to a model, at most `in_flight` of them, and no more than 64 MiB of large ones.

    Args:
        client: kept alive until the results are given out, though its caller may have let go of it.
    """

    def __init__(
        self, client: object, io: IoThread, model: str, xs: Iterator[Input], in_flight: int, options: CallOptions
    ) -> None:
        self._client = client
        self._io = io
        self._connection = io.connection
        self._model = model
        self._xs = xs
        self._in_flight = in_flight
        self._options = options
        self._stream = Stream()
        self._is_over = False
        self._error: Exception | None = None

    def results(self, *, return_errors: bool) -> Iterator[Output | ZmqInferError]:
        """Yields the results; the first error is raised at its place, or takes its place."""
        stream, tags = self._stream, self._stream.tags
        self._connection.check_open()
        # Refilled by a part at a time, so that inputs leave in bundles.
        enough = self._in_flight - max(1, self._in_flight // 4)
        try:
            while True:
                if not self._is_over and len(tags) <= enough and stream.held < MANY_BYTES:
                    self._refill(self._gathered())
                if not tags:
                    break
                tag = tags[0]
                if tag not in stream.results:
                    self._wait()
                tags.popleft()
                if stream.held:
                    stream.give_back(tag)
                result: Output | ZmqInferError = stream.results.pop(tag)
                if not return_errors and isinstance(result, ZmqInferError):
                    raise result
                yield result
            if self._error is not None:
                raise self._error
        finally:
            self._io.drop(tags)

    def _gathered(self) -> list[Body | ZmqInferError]:
        """Asks the source for inputs, for a while or until there are enough."""
        stream, connection = self._stream, self._connection
        encode, version = connection.machine.codec.encode, self._options.version
        fresh: list[Body | ZmqInferError] = []
        most = self._in_flight - len(stream.tags)
        until = time.monotonic() + GATHER_S
        try:
            # Of a closed client nothing is asked that will not leave.
            connection.check_goes_on()
            for x in self._xs:
                try:
                    body: Body = encode(self._model, version, x, None)
                    fresh.append(body if type(body[1]) is bytes else self._owned(body))
                except ZmqInferError as error:
                    fresh.append(error)
                if len(fresh) >= most or stream.held >= MANY_BYTES or time.monotonic() > until:
                    return fresh
        except Cancelled as error:
            fresh.append(error)
        except Exception as error:  # noqa: BLE001 - of its caller's own code: raised at its place
            self._error = error
        except BaseException:
            # They never leave.
            connection.give_back(fresh)
            raise
        self._is_over = True
        return fresh

    def _owned(self, body: Body) -> Body:
        """Makes a large input independent of its caller's arrays, and counts its bytes."""
        self._stream.held += body_bytes(body[1])
        return self._connection.own(self._model, self._options.version, body)

    def _refill(self, bodies: list[Body | ZmqInferError]) -> None:
        """Has inputs sent, and waits until they are: else this thread would keep the interpreter's lock meanwhile."""
        if bodies:
            waiter = Waiter()
            self._io.do(partial(self._send, bodies, waiter))
            self._io.wait((waiter,), self._options.deadline_s)

    def _send(self, bodies: list[Body | ZmqInferError], waiter: Waiter, now: float) -> None:
        """Sends inputs, on the client's thread; one that is refused never leaves, and its error takes its place."""
        stream, connection = self._stream, self._connection
        machine = connection.machine
        for body in bodies:
            if not isinstance(body, tuple):
                stream.refuse(body)
                continue
            try:
                connection.check_goes_on()
                tag = machine.submit(stream, self._model, body, None, self._options, now)
            except ZmqInferError as error:
                stream.refuse(error)
                continue
            if type(body[1]) is bytes:
                stream.tags.append(tag)
            else:
                stream.add_large(tag, body_bytes(body[1]))
            if machine.full_blocks >= PUSH_BLOCKS and machine.full_blocks * PUSH_CALLS >= machine.pending:
                connection.push(now)
        waiter.set_result(None)

    def _wait(self) -> None:
        """Returns when the next result is there."""
        stream, waiter = self._stream, Waiter()
        stream.on_ready = partial(waiter.set_result, None)
        # It may have come before anybody was told that somebody waits.
        if not stream.is_ready():
            self._io.wait((waiter,), self._options.deadline_s)
