"""A client's sessions with its gateways: greeting them, choosing among them, and leaving those that leave.

What is pending is the machine's; here is decided at which gateway it is, and that it is sent again, or
ends, when a session does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.call import Block, Question, body_bytes
from zmqinfer.machine.link import CLOSING, DRAINING, NO_SESSION, Link, LinkState
from zmqinfer.records import MAX_CALLS, Kind, Record
from zmqinfer.tensor import payload_bytes
from zmqinfer.wire import MAX_BUNDLE_BYTES

if TYPE_CHECKING:
    from zmqinfer.machine.client import ClientMachine

__all__ = ["PARTING", "Sessions"]

PARTING = (LinkState.LEAVING, LinkState.LEFT)
_RAN_NO, _RAN_MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


class Sessions:
    """What a client knows of its gateways.

    Attributes:
        links: one for each gateway.
        was_welcome: whether any gateway ever took this client in.
        held: blocks that wait for a WELCOME, by tag: large ones, and those for which there is only a gateway that
            drains.
    """

    def __init__(self, machine: ClientMachine, links: list[Link], now: float) -> None:
        self.links = links
        self.was_welcome = False
        self.held: dict[int, Block] = {}
        self._machine = machine
        # The gateways to choose from: those that are up and answer, else those that are up, else all of them.
        # Blocks take turns.
        self._choice: list[int] = list(range(len(links)))
        for link in links:
            link.greet(now)

    # Choosing ------------------------------------------------------------------------------------

    def choose(self, block: Block) -> int:
        """Returns which gateway should have a block: they take turns."""
        return self._choice[block.tag // MAX_CALLS % len(self._choice)]

    def others(self, block: Block) -> list[int]:
        """Returns the gateways to choose from that are up, without the one that a block is at."""
        return [number for number in self._choice if number != block.link and self.links[number].state is LinkState.UP]

    def place(self, block: Block) -> bool:
        """Says whether a block may leave for its gateway now, or for another one if that leaves; else it is held."""
        state = self.links[block.link].state
        if state in PARTING:
            block.link = self.choose(block)
            state = self.links[block.link].state
        if state in PARTING or (state is LinkState.GREETING and _is_too_large_unasked(block)):
            self.held[block.tag] = block
            return False
        if self.held:
            self.held.pop(block.tag, None)
        return True

    def doubt(self, link: Link) -> None:
        """Notes that a gateway did not speak in all the time that a call had."""
        link.is_doubtful = True
        self._review()

    def heard(self, link: Link, now: float) -> None:
        """Notes a sign of life."""
        link.heard(now)
        if link.is_doubtful:
            link.is_doubtful = False
            self._review()

    def _review(self) -> None:
        up = [number for number, link in enumerate(self.links) if link.state is LinkState.UP]
        self._choice = (
            [number for number in up if not self.links[number].is_doubtful] or up or [*range(len(self.links))]
        )

    def rouse(self, now: float) -> None:
        """Begins to listen again for those that nothing was asked of."""
        for link in self.links:
            if link.state is LinkState.UP:
                link.rouse(now)

    # Greeting ------------------------------------------------------------------------------------

    def on_welcome(self, link: Link, record: Record, now: float) -> None:
        """Begins to send what waited for it."""
        # One that drains may still have news; a new life of it has another session.
        if link.state not in PARTING or record[0] != link.session:
            link.welcome(record, now)
            self.was_welcome = True
            self._review()
            self._send_held()

    def _send_held(self) -> None:
        """Sends what waited for a WELCOME, unless it waits for another one, or is more than the gateway takes."""
        held, self.held = self.held, {}
        for block in held.values():
            if self.links[block.link].state is not LinkState.UP:
                block.link = self.choose(block)
            if detail := self._machine.excess(body_bytes(block.bodies[0]), block.rows):
                self._machine.fail(block, Status.TOO_LARGE, detail, None, _RAN_NO)
            else:
                self._machine.send(block)

    def greet(self, number: int, now: float, *, is_silent: bool = False) -> None:
        """Greets a gateway anew, with everything that is pending there behind the greeting.

        What a silent one has goes to those that are up. One that asks for a greeting gets all of it again: it
        may have kept answers for us.
        """
        machine = self._machine
        machine.seal()
        link = self.links[number]
        is_unsaid = link.is_unsaid
        link.greet(now)
        self._review()
        for entry in machine.pending_at(number):
            if isinstance(entry, Question):
                link.outbox.put(entry.kind, entry.record)
                continue
            if entry.is_at_rest():
                continue  # nobody has it, and its pause goes on
            entry.sends = self.times_gone(entry, is_unsaid=is_unsaid)
            if entry.sends and not machine.may_run_twice(entry):
                if link.welcomes:
                    detail = f"the session with gateway {link.address} was lost, and the request may not be run twice"
                    machine.fail(entry, Status.WORKER_LOST, detail, None, _RAN_MAYBE)
                    continue
            elif is_silent or not link.welcomes:
                entry.link = self.choose(entry)
            machine.send(entry)

    def times_gone(self, block: Block, *, is_unsaid: bool) -> int:
        """Returns how often a block may have left: its last time waits behind its gateway's greeting if that is unsaid.

        What is held waits behind none: all its times were at other gateways, or with an earlier greeting.
        """
        return max(0, block.sends - (is_unsaid and block.tag not in self.held))

    # Parting -------------------------------------------------------------------------------------

    def on_disconnect(self, number: int, reason: str, detail: str, now: float) -> None:
        """Takes a gateway's word that it has no session for us, leaves, or will have none."""
        link = self.links[number]
        if reason == NO_SESSION:
            if link.is_unwelcome(reason):
                self.greet(number, now)
            return
        if reason == DRAINING:
            self._on_draining(number, now)
            return
        # A wrong door, too many clients, a broken protocol: repeating it would be answered the same.
        status = Status.OVERLOADED if reason == "too many clients" else Status.PROTOCOL
        ran = _RAN_MAYBE if link.welcomes else _RAN_NO
        for entry in self._machine.pending_at(number):
            self._machine.fail(entry, status, f"gateway {link.address} refused this client: {detail}", None, ran)

    def _on_draining(self, number: int, now: float) -> None:
        """Sends nothing new to a gateway that is about to end; what it has it will answer."""
        link = self.links[number]
        if link.state is not LinkState.UP:
            return
        link.state = LinkState.LEAVING
        self._review()
        if link.is_unsaid:
            # It is gone already, and this is the last that it said: what waits for a connection is for others.
            self.greet(number, now, is_silent=True)

    def _owes_us(self, number: int) -> bool:
        """Whether a gateway has anything of ours."""
        return any(
            isinstance(entry, Question) or (entry.sends and entry.tag not in self.held and not entry.is_at_rest())
            for entry in self._machine.pending_at(number)
        )

    def close(self) -> None:
        """Says goodbye to all."""
        for link in self.links:
            if link.state in (LinkState.UP, LinkState.LEAVING):
                link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
            link.state = LinkState.CLOSED

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Keeps the sessions alive while calls are pending."""
        for number, link in enumerate(self.links):
            if not self._machine.pending and link.state is LinkState.UP:
                continue
            if link.is_overdue(now):
                self.greet(number, now, is_silent=True)
            elif link.state is LinkState.LEAVING and not self._owes_us(number):
                link.part(now)
            elif link.is_beat_due(now):
                link.outbox.beat()

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling."""
        earliest: float | None = None
        for link in self.links:
            if self._machine.pending or link.state is not LinkState.UP:
                due = link.wake_at()
                if due != float("inf") and (earliest is None or due < earliest):
                    earliest = due
        return earliest


def _is_too_large_unasked(block: Block) -> bool:
    """Whether its gateway should say first how much it takes: what is far too much costs the connection."""
    payload = block.bodies[0]
    return isinstance(payload, list) and payload_bytes(payload) > MAX_BUNDLE_BYTES
