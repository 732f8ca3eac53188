"""A client's turn: DEALERs around a ClientMachine, and an end to the wait for each call that has ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Protocol, cast

from zmqinfer.errors import ZmqInferError
from zmqinfer.loop.dialler import Dialler
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.codec import Output
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.records import MAX_CALLS, PLACES, STATUS, Record
from zmqinfer.tensor import SharedPayload

__all__ = ["ClientLoop", "Owner", "Taker", "end"]

# A socket that is full, or not connected yet, does not say when it will take something: it is tried so often.
_RETRY_S = 0.010
# Turns in a row in which timers may wait for what is unread.
_MOST_BEHIND = 100
# Full blocks leave before the turn ends, so that gateway and workers have something to do meanwhile: at least so
# many, and at least half of what is pending. Smaller bundles cost gateway and workers more than the overlap brings:
# with 2 blocks whatever is pending, 0.91 of the calls a second at 200 and 1,000 in flight.
_PUSH_BLOCKS = 2
_PUSH_CALLS = 2 * MAX_CALLS


class Owner(Protocol):
    """What waits for a call: an `asyncio.Future`, or something with a future's face."""

    def done(self) -> bool:
        """Whether it waits no more, as after a cancellation."""

    def set_result(self, result: Any, /) -> None:
        """Ends the wait with an output, or the record that answers a question."""

    def set_exception(self, error: BaseException, /) -> None:
        """Ends the wait with an error."""


class Taker:
    """What waits for calls and wants to see the reply, or has several calls of a block.

    Attributes:
        kinds: its classes, to find in one step that a block's calls have no such owner.
    """

    __slots__ = ()
    kinds: ClassVar[set[type]] = set()

    def __init_subclass__(cls) -> None:
        Taker.kinds.add(cls)

    def take(self, reply: Record, place: int, outcomes: Sequence[Output | ZmqInferError]) -> None:
        """Takes the outcomes of its calls, the first of which is at this place of the reply."""
        raise NotImplementedError


class ClientLoop:
    """Turns a client.

    Args:
        free: gives back where the payload of a call that has ended lay in shared memory.
    """

    def __init__(
        self, machine: ClientMachine, dialler: Dialler[Any], free: Callable[[SharedPayload], None] = lambda _: None
    ) -> None:
        self._machine = machine
        self._dialler = dialler
        self._free = free
        self._behind = 0

    def push(self, now: float) -> None:
        """Sends the full blocks in the middle of many calls, if they are enough; a turn must follow."""
        machine = self._machine
        if machine.full_blocks >= _PUSH_BLOCKS and machine.full_blocks * _PUSH_CALLS >= machine.pending:
            machine.seal()
            if machine.dirty:
                self._dialler.flush(now)

    def turn(self, now: float) -> float | None:
        """Sends what waits to leave, takes what has come, and ends the waits for what completed.

        Returns:
            when to call again if nothing comes before: at or before `now` means at once. The sockets'
            descriptors are edge-triggered, so one must not wait for them while there is more to read.
        """
        machine, dialler = self._machine, self._dialler
        machine.seal()
        is_stuck = dialler.flush(now) if machine.dirty else False
        is_readable = dialler.drain(machine.on_message, now)
        if machine.completed or machine.answered:
            self._give_out()
        due = machine.wake_at()
        if due is not None and due <= now and not self._is_behind(is_readable=is_readable):
            machine.on_timer(now)
            self._give_out()
            due = machine.wake_at()
        if machine.released:
            for place in machine.released:
                self._free(place)
            machine.released.clear()
        if machine.dirty:
            is_stuck = dialler.flush(now)
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

    def _give_out(self) -> None:
        """Ends the waits for what the machine has completed."""
        machine = self._machine
        completed = machine.completed.copy()
        machine.completed.clear()
        for found, reply, rows in completed:
            owners: list[Any] = found  # each of them an Owner, a Taker or None
            outcomes = self._outcomes(reply, rows)
            if not Taker.kinds.isdisjoint(map(type, owners)):
                _hand_over(owners, reply, outcomes)
            elif isinstance(outcomes[0], ZmqInferError):
                for owner, outcome in zip(owners, outcomes, strict=True):
                    end(owner, outcome)
            else:
                # 0.07 us a call with what precedes, where a look at each owner's kind takes 0.1.
                for owner, output in zip(owners, outcomes, strict=True):
                    if owner is not None and not owner.done():
                        owner.set_result(output)
        for asker, record in machine.answered:
            end(cast("Owner", asker), record)
        machine.answered.clear()

    def _outcomes(self, reply: Record, rows: int | None) -> Sequence[Output | ZmqInferError]:
        """Returns what became of each call that a reply is for."""
        machine = self._machine
        if reply[STATUS]:
            return [machine.codec.error(reply, machine.request_id(number)) for number in numbers_of(reply)]
        try:
            return machine.codec.decode(reply, rows)
        except ZmqInferError as error:
            return [error] * reply[PLACES].bit_count()


def _hand_over(owners: list[Any], reply: Record, outcomes: Sequence[Output | ZmqInferError]) -> None:
    """Gives outcomes to calls of which some at least have a taker."""
    first = owners[0]
    if isinstance(first, Taker) and owners.count(first) == len(owners):
        first.take(reply, 0, outcomes)
        return
    for place, (owner, outcome) in enumerate(zip(owners, outcomes, strict=True)):
        if isinstance(owner, Taker):
            owner.take(reply, place, [outcome])
        else:
            end(owner, outcome)


def end(owner: Owner | None, outcome: Any) -> None:
    """Ends one wait, if anybody still waits."""
    if owner is None or owner.done():
        return
    if isinstance(outcome, ZmqInferError):
        owner.set_exception(outcome)
    else:
        owner.set_result(outcome)
