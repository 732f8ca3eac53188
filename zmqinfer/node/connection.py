"""What both clients share: the machine and its sockets."""

from __future__ import annotations

import os
import time
import warnings
import weakref
from collections.abc import Iterable, Sequence
from typing import Any, Protocol, cast

import zmq

from zmqinfer import __version__
from zmqinfer.config import ClientSettings
from zmqinfer.errors import Cancelled, Executed, UsageError, ZmqInferError
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.call import Body, CallOptions, SharedBody
from zmqinfer.machine.client.codec import Output
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.node import sockets
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.answers import KeepsReply
from zmqinfer.node.dialler import Dialler
from zmqinfer.node.shared import SHARED_ABOVE_BYTES, SharedMemory, host_token
from zmqinfer.node.stream import Stream
from zmqinfer.records import MAX_CALLS, STATUS, Record
from zmqinfer.tensor import payload_bytes

__all__ = [
    "DEFAULTS",
    "GATHER_S",
    "PUSH_BLOCKS",
    "PUSH_CALLS",
    "UNCLOSED",
    "Connection",
    "Owner",
]

# A socket that is full, or not connected yet, does not say when it will take something: it is tried so often.
_RETRY_S = 0.010
# Turns in a row in which timers may wait for what is unread.
_MOST_BEHIND = 100
# `infer_many` asks its source for more inputs no longer than this before it sends those it has.
GATHER_S = 0.005
# Full blocks leave before the turn ends, so that gateway and workers have something to do meanwhile: at least so
# many, and at least half of what is pending. Smaller bundles cost gateway and workers more than the overlap brings:
# with 2 blocks whatever is pending, 0.91 of the calls a second at 200 and 1,000 in flight.
PUSH_BLOCKS = 2
PUSH_CALLS = 2 * MAX_CALLS

UNCLOSED = "a zmqinfer client was never closed; use it in `with`, or close it"

# The keyword defaults of both clients.
DEFAULTS = ClientSettings()


class Owner(Protocol):
    """What waits for a call: an `asyncio.Future`, or something with a future's face."""

    def done(self) -> bool:
        """Whether it waits no more, as after a cancellation."""

    def set_result(self, result: Any, /) -> None:
        """Ends the wait with an output, or the record that answers a question."""

    def set_exception(self, error: BaseException, /) -> None:
        """Ends the wait with an error."""


class Connection:
    """One client's machine and sockets.

    Attributes:
        is_usable: whether `check_open` would let a caller pass.
        plain: the options of a call of which nothing was said.
    """

    def __init__(self, endpoints: str | Iterable[str], **words: float) -> None:
        """Begins to dial; `words` are the `ClientSettings`, of which a time in seconds may be a whole number."""
        addresses = addresses_of(endpoints)
        settings = ClientSettings(**{name: _as_time(name, value) for name, value in words.items()})  # type: ignore[arg-type]
        self.is_open = self.is_usable = True
        self._behind = 0
        self.is_forked = False
        self.plain = CallOptions(settings.deadline_s)
        self._context = sockets.new_context(len(addresses))
        try:
            self.dialler = Dialler(self._context, addresses)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        session = os.urandom(16)
        host = host_token() if settings.shared_memory_mb else None
        self._memory = None if host is None else SharedMemory(session, settings.shared_memory_mb * 2**20)
        self.machine = ClientMachine(
            settings,
            session=session,
            id_prefix=os.urandom(8),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            gateways=addresses,
            now=time.monotonic(),
            host=host,
        )
        _OPEN.add(self)
        self._finalizer = weakref.finalize(self, _let_go, self._context, self.dialler, self._memory, os.getpid())
        self._finalizer.atexit = False

    def check_open(self) -> None:
        """Raises `UsageError` in a forked child, whose sends would vanish, and after `close`."""
        if self.is_forked:
            raise UsageError("this client was made before a fork; make a new one in the child process")
        if not self.is_open:
            raise UsageError("this client is closed; make a new one")

    def check_goes_on(self) -> None:
        """Raises as `check_open` does, but `Cancelled` after `close`: for who was in the middle of sending."""
        if not self.is_open and not self.is_forked:
            raise Cancelled("the client was closed, before this was sent", executed=Executed.NO)
        self.check_open()

    def forbid(self) -> None:
        """Marks the copy in a forked child as unusable."""
        self.is_forked = True
        self.is_usable = False

    def shut(self) -> None:
        """Lets no more callers pass."""
        self.is_open = self.is_usable = False

    def close(self) -> None:
        """Closes the sockets. In a forked child they belong to the parent and are left alone."""
        self.shut()
        self._finalizer.detach()
        if not self.is_forked:
            if self._memory is not None:
                self._memory.close()
            self.dialler.close()
            self._context.destroy(linger=sockets.LINGER_MS)

    def share(self, model: str, version: int | None, body: Body) -> Body:
        """Lays a body that is large enough into shared memory, if all workers of the model can read it there."""
        layout, payload = body
        if self._memory is None or not isinstance(payload, list) or payload_bytes(payload) < SHARED_ABOVE_BYTES:
            return body
        card = self.machine.codec.card(model, version)
        place = self._memory.lay(payload) if card is not None and card[3] else None
        return layout, payload if place is None else SharedBody(place, self._memory.parts(place))

    def own(self, model: str, version: int | None, body: Body) -> Body:
        """Makes a large body independent of its caller's arrays: in shared memory, else by a copy."""
        layout, payload = self.share(model, version, body)
        if isinstance(payload, list):
            payload = [bytes(part) for part in payload]
        return layout, payload

    def give_back(self, bodies: Iterable[object]) -> None:
        """Gives back where bodies lie that will not be submitted."""
        for body in bodies:
            if self._memory is not None and isinstance(body, tuple) and isinstance(body[1], SharedBody):
                self._memory.free(body[1].place)

    def push(self, now: float) -> None:
        """Sends what waits to leave, in the middle of many calls; a turn must follow."""
        machine = self.machine
        machine.seal()
        if machine.dirty:
            self.dialler.flush(machine.dirty, now)

    def turn(self, now: float) -> float | None:
        """Sends what waits to leave, takes what has come, and ends the waits for what completed.

        Returns:
            when to call again if nothing comes before: at or before `now` means at once. The sockets'
            descriptors are edge-triggered, so one must not wait for them while there is more to read.
        """
        machine, dialler = self.machine, self.dialler
        machine.seal()
        is_stuck = dialler.flush(machine.dirty, now) if machine.dirty else False
        is_readable = dialler.drain(machine.on_message, now)
        if machine.completed or machine.answered:
            self.give_out()
        due = machine.wake_at()
        if due is not None and due <= now and not self._is_behind(is_readable=is_readable):
            machine.on_timer(now)
            self.give_out()
            due = machine.wake_at()
        if machine.released and self._memory is not None:
            for place in machine.released:
                self._memory.free(place)
            machine.released.clear()
        if machine.dirty:
            is_stuck = dialler.flush(machine.dirty, now)
            # Sending takes in what has arrived meanwhile, and with it the signal.
            is_readable = dialler.is_readable() or is_readable
        if is_readable:
            return now
        if is_stuck and (due is None or due > now + _RETRY_S):
            return now + _RETRY_S
        return due

    def _is_behind(self, *, is_readable: bool) -> bool:
        """Whether what is still unread comes before the timers: after a pause the answers are there, and only late."""
        self._behind = self._behind + 1 if is_readable else 0
        return 0 < self._behind < _MOST_BEHIND

    def give_out(self) -> None:
        """Ends the waits for what the machine has completed."""
        machine = self.machine
        if machine.completed:
            completed, machine.completed = machine.completed, []
            for owners, reply, rows in completed:
                waiting: list[Any] = owners  # of Owner, Stream or None
                if reply[STATUS]:
                    self._fail(waiting, reply, None)
                    continue
                try:
                    outputs = machine.codec.decode(reply, rows)
                except ZmqInferError as error:
                    self._fail(waiting, reply, error)
                    continue
                # All of a block at once: 0.07 us a call with what follows, where a look at each owner takes 0.1.
                kinds = set(map(type, waiting))
                if Stream in kinds or not kinds.isdisjoint(KeepsReply.kinds):
                    self._put_down(waiting, reply, outputs)
                    continue
                for owner, output in zip(waiting, outputs, strict=True):
                    if owner is not None and not owner.done():
                        owner.set_result(output)
        if machine.answered:
            answered, machine.answered = machine.answered, []
            for asker, record in answered:
                owner = cast("Owner", asker)
                if not owner.done():
                    owner.set_result(record)

    @staticmethod
    def _put_down(owners: list[Owner | Stream | None], reply: Record, outputs: Sequence[Output]) -> None:
        """Gives outputs to calls, of which some at least are a stream's or keep the reply."""
        stream, numbers = owners[0], numbers_of(reply)
        if isinstance(stream, Stream) and owners.count(stream) == len(owners):
            stream.take(numbers, outputs)
            return
        for place, (owner, output) in enumerate(zip(owners, outputs, strict=True)):
            if isinstance(owner, Stream):
                owner.take(numbers[place : place + 1], [output])
            elif owner is not None and not owner.done():
                if isinstance(owner, KeepsReply):
                    owner.keep(reply, place)
                owner.set_result(output)

    def _fail(self, owners: list[Owner | Stream | None], reply: Record, error: ZmqInferError | None) -> None:
        machine = self.machine
        for place, (owner, number) in enumerate(zip(owners, numbers_of(reply), strict=True)):
            if owner is None or (not isinstance(owner, Stream) and owner.done()):
                continue
            found = error or machine.codec.error(reply, machine.request_id(number))
            if isinstance(owner, Stream):
                owner.take([number], [found])
                continue
            if isinstance(owner, KeepsReply):
                owner.keep(reply, place)
            owner.set_exception(found)


def _as_time(name: str, value: float) -> float:
    """Returns a whole number of seconds as the settings want it; they complain of everything else."""
    return float(value) if type(value) is int and name.endswith("_s") else value


def _let_go(context: zmq.Context[zmq.Socket[bytes]], dialler: Dialler, memory: SharedMemory | None, owner: int) -> None:
    """Closes what a client leaves that nobody closed.

    It is kept alive for this: of a context and its sockets that are collected together the context may come first,
    and then waits for ever for sockets that it no longer knows.
    """
    if os.getpid() != owner:  # a copy in a forked child; the sockets are the parent's
        return
    if memory is not None:
        memory.close()
    # Whoever collects shall not wait for what was to leave.
    dialler.close(0)
    context.destroy(linger=0)
    # Last, for where warnings are errors it raises.
    warnings.warn(UNCLOSED, ResourceWarning, stacklevel=2)


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_OPEN):
        connection.forbid()


os.register_at_fork(after_in_child=_after_fork)
