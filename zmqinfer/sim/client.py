"""A client's process: production's loop and machine on the virtual network, and a program that calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from typing import Any

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Executed, Status, ZmqInferError
from zmqinfer.loop.client import ClientLoop, Taker
from zmqinfer.loop.dialler import Dialler
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.records import Record
from zmqinfer.scenario import TimedModel
from zmqinfer.sim.history import INPUT, Call, History
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process

__all__ = ["ClientProcess"]


class ClientProcess(Process, Taker):
    """One client in a process of its own, whose program waits for all calls."""

    turn_s, record_s = 40e-6, 10e-6

    def __init__(
        self, name: str, network: Network, random: Random, gateways: Sequence[str], settings: ClientSettings,
        history: History, on_turn: Callable[[], None],
    ) -> None:  # fmt: skip
        """Starts a client; its program does `on_turn` at the end of each turn."""
        super().__init__(name, network.timeline)
        self.machine = ClientMachine(
            settings,
            session=random.randbytes(16),
            id_prefix=random.randbytes(8),
            agent="simulated",
            gateways=list(gateways),
            now=self.timeline.now,
        )
        self._history = history
        self._on_turn = on_turn
        self.dialler = self.counted = Dialler(self.machine, partial(network.dial, self))
        self._loop = ClientLoop(self.machine, self.dialler)
        # Those that the program waits for, by tag.
        self._calls: dict[int, Call] = {}
        self.rouse()

    @property
    def open(self) -> int:
        """How many calls its program waits for."""
        return len(self._calls)

    def call(self, model: TimedModel, options: CallOptions, *, is_poison: bool = False) -> Call:
        """Makes a call; it leaves with the next turn."""
        call = self._history.begin(model, options.deadline_s, self.timeline.now, is_poison=is_poison)
        try:
            call.tag = self.machine.submit(self, model.name, (INPUT, call.body), None, options, self.timeline.now)
        except ZmqInferError as error:
            self._end(call, error)
        else:
            self._calls[call.tag] = call
            self.rouse()
        return call

    def cancel(self, call: Call) -> bool:
        """Takes a call back; False if it has ended already, or the program is stopped."""
        is_open = self.is_alive and not self.is_frozen and self._calls.get(call.tag) is call
        if not is_open or not self.machine.cancel(call.tag):
            return False
        del self._calls[call.tag]
        self._history.give_up(call)
        self.rouse()
        return True

    def take(self, reply: Record, place: int, outcomes: Sequence[Any]) -> None:
        """Ends the program's wait for calls."""
        for tag, outcome in zip(numbers_of(reply)[place : place + len(outcomes)], outcomes, strict=True):
            self._end(self._calls.pop(tag), outcome)

    def _end(self, call: Call, outcome: Any) -> None:
        if isinstance(outcome, ZmqInferError):
            status, answer, executed = outcome.status, b"", outcome.executed
        else:
            status, answer, executed = Status.OK, outcome.tobytes(), Executed.YES
        self._history.end(call, status, answer, executed, self.timeline.now, self.resumed_at)

    def turn(self, now: float, gap: float) -> float | None:  # noqa: ARG002 - a client charges itself no gap
        """Does a turn of the loop, and what the program makes of it."""
        due = self._loop.turn(now)
        self.dialler.settle(lambda _: None, lambda _: None)
        self._on_turn()
        if due is not None and due <= now:
            self.rouse()
        return due

    def on_death(self) -> None:
        """Nobody waits any more for what it asked."""
        for call in self._calls.values():
            self._history.give_up(call)
