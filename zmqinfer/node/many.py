"""One `infer_many` of a sync client: inputs are gathered and sent by parts, and their results given out in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

from zmqinfer.errors import Cancelled, ZmqInferError
from zmqinfer.loop.inbox import Work
from zmqinfer.machine.client.codec import Input
from zmqinfer.node.io_thread import IoThread
from zmqinfer.node.stream import GATHER_S, MANY_BYTES, Parcel, Result, Stream
from zmqinfer.node.waits import Waiter

__all__ = ["Many"]


class Many:
    """Inputs under way to a model; keeps the client alive until the results are given out."""

    def __init__(self, client: object, io: IoThread, stream: Stream, xs: Iterator[Input], deadline_s: float) -> None:
        self._client = client
        self._io = io
        self._stream = stream
        self._xs = xs
        self._deadline_s = deadline_s
        self._is_over = False
        self._error: Exception | None = None

    def results(self, *, return_errors: bool) -> Iterator[Result]:
        """Yields the results; the first error is raised at its place, or takes its place."""
        stream = self._stream
        tags, parcels, results = stream.tags, stream.parcels, stream.results
        self._io.connection.check_open()
        try:
            while True:
                # The first of these alone is asked for each result: this is the hottest loop of a client.
                if len(tags) <= stream.enough and not self._is_over and stream.wants_more():
                    self._refill()
                if not tags:
                    break
                while (result := results.pop(tags[0], None)) is None:
                    self._wait()
                if isinstance(result, ZmqInferError):
                    if stream.goes_again(result):
                        self._do(stream.send_again)
                        continue
                    if not return_errors:
                        raise result
                tags.popleft()
                parcel = parcels.popleft()
                if stream.held:
                    stream.give_back(parcel)
                yield result
            if self._error is not None:
                raise self._error
        finally:
            self._io.drop(tags)

    def _refill(self) -> None:
        """Has inputs sent, and waits until they are: else this thread would keep the interpreter's lock meanwhile."""
        parcels = self._gathered()
        if parcels:
            self._do(partial(self._stream.send, parcels))

    def _do(self, work: Work) -> None:
        """Has something done on the client's thread, and waits for that."""
        waiter = Waiter()
        self._io.do(work)
        self._io.do(lambda _: waiter.set_result(None))
        self._io.wait((waiter,), self._deadline_s)

    def _gathered(self) -> list[Parcel]:
        """Asks the source for inputs, for a while or until there are enough."""
        stream, connection = self._stream, self._io.connection
        fresh: list[Parcel] = []
        most, until = stream.room(), time.monotonic() + GATHER_S
        try:
            # A source is asked for nothing that a closed client cannot send.
            connection.check_goes_on()
            for x in self._xs:
                fresh.append(stream.encode(x))
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

    def _wait(self) -> None:
        """Returns when the next result is there."""
        stream, waiter = self._stream, Waiter()
        stream.on_ready = partial(waiter.set_result, None)
        # It may have come before `on_ready` was set.
        if not stream.is_ready():
            self._io.wait((waiter,), self._deadline_s)
