"""A client's process: the turns of `node.connection` around the same machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import cast

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Executed, Status, ZmqInferError
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.records import OUTPUT, RAN, STATUS
from zmqinfer.sim.dialler import Dialler
from zmqinfer.sim.history import ANSWER_BYTES, INPUT, Call, History
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline

__all__ = ["ClientProcess"]

_RETRY_S = 0.010
_TURN_S, _RECORD_S = 40e-6, 10e-6
_NO = list(Executed).index(Executed.NO)


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
        self._dialler = Dialler(network, self, gateways)
        self._tags: dict[int, int] = {}
        self._is_stuck = True
        self.rouse()

    @property
    def open(self) -> int:
        """How many calls its program waits for."""
        return len(self._tags)

    def call(self, call: Call, options: CallOptions) -> None:
        """Submits a call; it leaves with the next turn."""
        now = self.timeline.now
        try:
            tag = self.machine.submit(call, call.model, (INPUT, call.body), None, options, now)
        except ZmqInferError as error:
            self._history.end(call, error.status, b"", _NO, now, now)
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

    def turn(self, now: float, gap: float) -> float:  # noqa: ARG002 - it charges itself no gap
        """Sends what waits to leave, takes what has come, and ends the waits for what completed."""
        machine = self.machine
        machine.seal()
        is_stuck = self._dialler.flush(machine.dirty, now)
        if self._dialler.drain(machine.on_message, now):
            self.rouse()
        due = machine.wake_at()
        if due is not None and due <= now:
            machine.on_timer(now)
        self._give_out(now)
        self._on_turn()
        if machine.dirty:
            is_stuck = self._dialler.flush(machine.dirty, now)
        self._is_stuck = is_stuck
        return self.busy_s()

    def busy_s(self) -> float:
        """Returns how long the turn has taken so far."""
        return _TURN_S + _RECORD_S * self._dialler.records

    def wake_at(self) -> float | None:
        """Returns when the machine wants to be asked, or a socket that took nothing tried."""
        due = self.machine.wake_at()
        if self._is_stuck and (due is None or due > self.timeline.now + _RETRY_S):
            return self.timeline.now + _RETRY_S
        return due

    def _give_out(self, now: float) -> None:
        completed, self.machine.completed = self.machine.completed, []
        for owners, reply, _ in completed:
            status = Status(reply[STATUS])
            for place, owner in enumerate(owners):
                call = cast("Call | None", owner)
                if call is None:
                    continue
                answer = b""
                if status is Status.OK:
                    answer = reply[OUTPUT][place * ANSWER_BYTES : (place + 1) * ANSWER_BYTES]
                self._tags.pop(call.number, None)
                self._history.end(call, status, answer, reply[RAN], now, self.resumed_at)

    def on_death(self) -> None:
        """Nobody waits any more for what it asked."""
        for number in self._tags:
            self._history.give_up(self._history.calls[number])
