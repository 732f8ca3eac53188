"""A client's sessions with its gateways: greeting them, choosing among them, and leaving those that leave.

What is pending is the machine's; here is decided at which gateway it is, and that it is sent again, or
ends, when a session does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Status
from zmqinfer.machine.client.call import Block, Question, body_bytes
from zmqinfer.machine.client.codec import Codec
from zmqinfer.machine.client.pending import Pending
from zmqinfer.machine.link import Leave, Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.twice import may_run_twice
from zmqinfer.records import CLOSING, DRAINING, MAX_CALLS, MAX_COUNT, NO_SESSION, RAN_MAYBE, RAN_NO, Kind, Record
from zmqinfer.tensor import payload_bytes
from zmqinfer.wire import MAX_BUNDLE_BYTES

__all__ = ["PARTING", "Sessions"]

PARTING = (LinkState.LEAVING, LinkState.LEFT)


class Sessions:
    """What a client knows of its gateways, and what it sends to them.

    Attributes:
        links: one for each gateway, by numbers that are not used again.
        was_welcome: whether any gateway ever took this client in.
        left: numbers of gateways that were left for good; the shell closes their sockets, and clears it.
    """

    def __init__(
        self,
        settings: ClientSettings,
        pending: Pending,
        codec: Codec,
        greeting: Record,
        dirty: list[Outbox],
        seal: Callable[[], None],
        now: float,
    ) -> None:
        """Makes what is known of no gateway; `seal` puts into outboxes what waits to leave."""
        self.links: dict[int, Link] = {}
        self.was_welcome = False
        self.left: list[int] = []
        self._pending = pending
        self._codec = codec
        self._greeting = greeting
        self._heartbeat_s = settings.heartbeat_ms / 1000
        self._fail_fast_s = settings.fail_fast_s
        self._dirty = dirty
        self._seal = seal
        self._dialled = -1
        self._max_body_bytes = MAX_COUNT
        # The gateways to choose from: those that are up and answer, else those that are up, else all of them.
        # Blocks take turns.
        self._choice: list[int] = []
        # When any gateway was heard, and when this client listened last.
        self._heard_at = self._looked_at = now

    # Gateways ------------------------------------------------------------------------------------

    def add_link(self, address: str, now: float) -> int:
        """Dials one more gateway; returns its number."""
        self._dialled += 1
        number = self._dialled
        link = self.links[number] = Link(number, address, Kind.HELLO, self._greeting, self._heartbeat_s, self._dirty)
        link.greet(now)
        self._review()
        return number

    def remove_link(self, number: int, now: float) -> None:
        """Sends nothing new to a gateway as soon as another one is there, and leaves it when it has answered all."""
        self.links[number].leave = Leave.WANTED
        self._leave_unwanted(now)

    def _leave_unwanted(self, now: float) -> None:
        """Begins to leave those for which there is another: one that is up, or any for one that is not up itself."""
        for number, link in list(self.links.items()):
            if link.leave is Leave.WANTED:
                others = [other.state for other in self.links.values() if other.leave is None]
                if others and (link.state is not LinkState.UP or LinkState.UP in others):
                    self._leave(number, now)

    def _leave(self, number: int, now: float) -> None:
        self._seal()
        link = self.links[number]
        link.leave = Leave.BEGUN
        if link.state is LinkState.UP:
            link.state = LinkState.LEAVING
        self._review()
        if link.state is not LinkState.LEAVING:
            # It is not there: what waits for it is for others.
            unsent = link.outbox.unsent()
            link.outbox.discard(Kind.REQUEST)
            self._move(number, unsent, is_silent=True)
        if self._may_part(number, link):
            self._part(number, link, now)

    def _may_part(self, number: int, link: Link) -> bool:
        """Whether a gateway that leaves, or is to be left, has nothing of ours any more."""
        return (link.state is LinkState.LEAVING or link.leave is Leave.BEGUN) and not self._owes_us(number)

    def _part(self, number: int, link: Link, now: float) -> None:
        """Says goodbye to a gateway; to one that only drains until it is there again."""
        if link.leave is not Leave.BEGUN:
            link.part(now)
            return
        link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
        del self.links[number]
        self.left.append(number)
        self._review()
        for entry in self._pending.at(number):  # at rest, or it would be owed
            entry.link = self._choice[0]

    # Choosing ------------------------------------------------------------------------------------

    def choose(self, block: Block) -> int:
        """Returns which gateway should have a block: they take turns."""
        return self._choice[block.tag % len(self._choice)]

    def others(self, block: Block) -> list[int]:
        """Returns the gateways to choose from that are up, without the one that a block is at."""
        return [number for number in self._choice if number != block.link and self.links[number].state is LinkState.UP]

    def doubt(self, link: Link) -> None:
        """Notes that a gateway did not speak in all the time that a call had."""
        link.is_doubtful = True
        self._review()

    def heard(self, link: Link, now: float) -> None:
        """Notes a sign of life."""
        self._heard_at = now
        link.heard(now)
        if link.is_doubtful:
            link.is_doubtful = False
            self._review()

    def _review(self) -> None:
        there = [number for number, link in self.links.items() if link.leave is not Leave.BEGUN]
        up = [number for number in there if self.links[number].state is LinkState.UP]
        self._choice = [number for number in up if not self.links[number].is_doubtful] or up or there

    def rouse(self, now: float) -> None:
        """Begins to listen again for those that nothing was asked of."""
        self.look(now)
        for link in self.links.values():
            if link.state is LinkState.UP:
                link.rouse(now)

    def look(self, now: float) -> None:
        """Notes that the client listens, as it does at every heartbeat while it waits for anything.

        After a pause of its own the gateways have all of `fail_fast_s` again.
        """
        if now - self._looked_at > 2 * self._heartbeat_s:
            self._heard_at = now
        self._looked_at = now

    def lost_at(self) -> float:
        """Returns when there has been no gateway for `fail_fast_s`, which may be past; infinity while one is up."""
        # Without a generator: this is asked in each turn.
        if not self._fail_fast_s:
            return float("inf")
        for link in self.links.values():
            if link.state is LinkState.UP:
                return float("inf")
        return self._heard_at + self._fail_fast_s

    # Sending -------------------------------------------------------------------------------------

    def send(self, block: Block) -> None:
        """Sends what has not ended of a block, unless that has to wait for a WELCOME."""
        if not self._may_leave(block):
            return
        block.sends += 1
        block.unrun &= block.resting
        self.send_calls(block, block.pending())

    def send_calls(self, block: Block, places: int) -> None:
        """Sends some calls of a block to its gateway."""
        if places:
            record, size = block.request(places, self._pending.request_id(block.tag * MAX_CALLS))
            self.links[block.link].outbox.put_request(record, block.deadline, size)

    def _may_leave(self, block: Block) -> bool:
        """Whether a block may leave for its gateway now, or for another one if that leaves; else it is held."""
        link = self.links[block.link]
        if link.state in PARTING:
            block.link = self.choose(block)
            link = self.links[block.link]
        # One that was never welcomed may have found a gateway that drains, which answers nobody new; what may not run
        # twice could then not be sent again. Before the first WELCOME of all nothing is known of the models.
        is_unsafe = self.was_welcome and not link.welcomes and not self.may_run_twice(block)
        has_to_ask = link.state is LinkState.GREETING and (is_unsafe or _is_too_large_unasked(block))
        block.is_held = link.state in PARTING or has_to_ask
        return not block.is_held

    def excess(self, size: int, rows: int | None) -> str:
        """Returns what is wrong with a body of so many bytes, or nothing."""
        if size <= self._max_body_bytes:
            return ""
        fewer = "send fewer rows, or " if rows is not None and rows > 1 else ""
        return (
            f"the request's body has {size:,} bytes, the gateway takes {self._max_body_bytes:,};"
            f" {fewer}raise --max-body-bytes of the gateway"
        )

    def may_run_twice(self, block: Block) -> bool:
        """Whether a block's calls may run again, as far as is known here."""
        options = block.options
        return may_run_twice(options.idempotent, self._codec.is_idempotent(block.model, options.version))

    # Greeting ------------------------------------------------------------------------------------

    def on_welcome(self, link: Link, record: Record, now: float) -> None:
        """Sends what waited for it, unless that waits for another one, or is more than the gateway takes."""
        self._codec.learn(record[4])
        self._max_body_bytes = record[3]
        # One that drains may still have news; a new life of it has another session.
        if link.state not in PARTING or record[0] != link.session:
            link.welcome(record, now)
            self.was_welcome = True
            self._review()
            self._leave_unwanted(now)
            for block in self._pending.held():
                if self.links[block.link].state is not LinkState.UP:
                    block.link = self.choose(block)
                if detail := self.excess(body_bytes(block.bodies[0]), block.rows):
                    self._pending.fail(block, Status.TOO_LARGE, detail, RAN_NO)
                else:
                    self.send(block)

    def greet(self, number: int, now: float, *, is_silent: bool = False) -> None:
        """Greets a gateway anew, with everything that is pending there behind the greeting.

        What a silent one has goes to those that are up. One that asks for a greeting gets all of it again: it
        may have kept answers for us.
        """
        # What waits to leave belongs behind the greeting.
        self._seal()
        link = self.links[number]
        unsent = link.outbox.unsent()
        link.greet(now)
        self._review()
        self._move(number, unsent, is_silent=is_silent)

    def _move(self, number: int, unsent: Mapping[int, int], *, is_silent: bool) -> None:
        """Sends again what a gateway has, or ends what may not run twice; `unsent` is what had not left for it."""
        link = self.links[number]
        for entry in self._pending.at(number):
            if isinstance(entry, Question):
                link.outbox.put(entry.kind, entry.record)
                continue
            if entry.is_at_rest():
                continue  # nobody has it, and its pause goes on
            entry.sends = self.times_gone(entry, unsent)
            if entry.sends and not self.may_run_twice(entry):
                if link.welcomes:
                    detail = f"the session with gateway {link.address} was lost, and the request may not be run twice"
                    self._pending.fail(entry, Status.WORKER_LOST, detail, RAN_MAYBE, but_resting=True)
                    continue
            elif is_silent or not link.welcomes:
                entry.link = self.choose(entry)
            self.send(entry)

    @staticmethod
    def times_gone(block: Block, unsent: Mapping[int, int]) -> int:
        """Returns how often a block may have left: its last time has not if all of it is in its gateway's outbox."""
        return block.sends - (block.tag in unsent and not block.pending() & ~unsent[block.tag])

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
        ran = RAN_MAYBE if link.welcomes else RAN_NO
        for entry in self._pending.at(number):
            self._pending.fail(entry, status, f"gateway {link.address} refused this client: {detail}", ran)

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
            isinstance(entry, Question) or (entry.sends and not entry.is_held and not entry.is_at_rest())
            for entry in self._pending.at(number)
        )

    def close(self) -> None:
        """Says goodbye to all."""
        for link in self.links.values():
            if link.state in (LinkState.UP, LinkState.LEAVING):
                link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
            link.state = LinkState.CLOSED

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Keeps the sessions alive while calls are pending."""
        self._leave_unwanted(now)
        for number, link in list(self.links.items()):
            if not self._pending.count and link.state is LinkState.UP:
                continue
            if link.is_overdue(now):
                self.greet(number, now, is_silent=True)
            elif self._may_part(number, link):
                self._part(number, link, now)
            elif link.is_beat_due(now):
                link.outbox.beat()

    def wake_at(self) -> float:
        """Returns when `on_timer` is worth calling, or infinity."""
        earliest = float("inf")
        for link in self.links.values():
            if self._pending.count or link.state is not LinkState.UP:
                earliest = min(earliest, link.wake_at())
        return earliest


def _is_too_large_unasked(block: Block) -> bool:
    """Whether its gateway should say first how much it takes: what is far too much costs the connection."""
    payload = block.bodies[0]
    return isinstance(payload, list) and payload_bytes(payload) > MAX_BUNDLE_BYTES
