"""A client's process: production's loop and machine on the virtual network, and a program that calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any, cast

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Executed, Status, ZmqInferError
from zmqinfer.loop.client import ClientLoop
from zmqinfer.loop.dialler import Dialler
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.sim.history import INPUT, Call, History
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline

__all__ = ["ClientProcess"]

_TURN_S, _RECORD_S = 40e-6, 10e-6


class _Wait:
    """A program's wait for a call."""

    __slots__ = ("_call", "_client")

    def __init__(self, client: ClientProcess, call: Call) -> None:
        self._client = client
        self._call = call

    def done(self) -> bool:
        """Whether the program waits no more; who takes a call back tells the machine."""
        return False

    def set_result(self, output: Any, /) -> None:
        """Ends the call with an output."""
        self._client.end(self._call, Status.OK, output.tobytes(), Executed.YES)

    def set_exception(self, error: BaseException, /) -> None:
        """Ends the call with an error."""
        failed = cast("ZmqInferError", error)
        self._client.end(self._call, failed.status, b"", failed.executed)


class ClientProcess(Process):
    """One client in a process of its own."""

    def __init__(
        self, name: str, timeline: Timeline, network: Network, random: Random, gateways: Sequence[str],
        settings: ClientSettings, history: History, on_turn: Callable[[], None] = lambda: None,
    ) -> None:  # fmt: skip
        """Starts a client; its program does `on_turn` at the end of each turn."""
        super().__init__(name, timeline)
        self.machine = ClientMachine(
            settings,
            session=random.randbytes(16),
            id_prefix=random.randbytes(8),
            agent="simulated",
            gateways=list(gateways),
            now=timeline.now,
        )
        self._history = history
        self._on_turn = on_turn
        self.dialler = Dialler(self.machine, partial(network.dial, self))
        self._loop = ClientLoop(self.machine, self.dialler)
        self._tags: dict[int, int] = {}
        self.rouse()

    @property
    def open(self) -> int:
        """How many calls its program waits for."""
        return len(self._tags)

    def call(self, call: Call, options: CallOptions) -> None:
        """Submits a call; it leaves with the next turn."""
        now = self.timeline.now
        try:
            tag = self.machine.submit(_Wait(self, call), call.model, (INPUT, call.body), None, options, now)
        except ZmqInferError as error:
            self._history.end(call, error.status, b"", error.executed, now, now)
            return
        self._tags[call.number] = tag
        self.rouse()

    def cancel(self, call: Call) -> bool:
        """Takes a call back; False if it has ended already."""
        tag = self._tags.get(call.number)
        if tag is None or not self.machine.cancel(tag):
            return False
        del self._tags[call.number]
        self._history.give_up(call)
        self.rouse()
        return True

    def end(self, call: Call, status: Status, answer: bytes, executed: Executed) -> None:
        """Ends the program's wait for a call."""
        self._tags.pop(call.number, None)
        self._history.end(call, status, answer, executed, self.timeline.now, self.resumed_at)

    def turn(self, now: float, gap: float) -> float | None:  # noqa: ARG002 - a client charges itself no gap
        """Does a turn of the loop, and what the program makes of it."""
        due = self._loop.turn(now)
        self.dialler.settle(lambda _: None, lambda _: None)
        self._on_turn()
        if due is not None and due <= now:
            self.rouse()
        return due

    def busy_s(self) -> float:
        """Returns how long the turn has taken so far."""
        return _TURN_S + _RECORD_S * self.dialler.records

    def on_death(self) -> None:
        """Nobody waits any more for what it asked."""
        for number in self._tags:
            self._history.give_up(self._history.calls[number])
