"""The client: calls pending at one or more gateways.

Both clients, sync and asyncio, are shells around this machine. Calls of one moment that are alike
are put into one block, which leaves as one record. A block's calls end together or one by one, each
with a REPLY record, the gateway's or one made here, that comes out of `completed` beside the owner.
"""

from __future__ import annotations

from collections.abc import Mapping

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Status, TooLarge
from zmqinfer.machine.client.call import Alike, Block, Body, CallOptions, Question, SharedBody, body_bytes
from zmqinfer.machine.client.codec import Codec
from zmqinfer.machine.client.pending import Pending
from zmqinfer.machine.client.reach import Reach
from zmqinfer.machine.client.repeats import Repeats
from zmqinfer.machine.client.sessions import PARTING, Sessions
from zmqinfer.machine.link import Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.wheel import SLOTS_PER_S
from zmqinfer.records import (
    CALLS,
    INLINE,
    MAX_CALLS,
    OUTPUT,
    RAN,
    RAN_MAYBE,
    RAN_NO,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import INLINE_BYTES, Payload, SharedPayload

__all__ = ["ClientMachine"]

# The gateway knows better than we do where the time went; so much longer than the deadline its word is waited for.
GRACE_S = 0.05


class ClientMachine:
    """All that a client decides. Its shell owns one DEALER for each gateway and a clock.

    Attributes:
        dirty: outboxes with something to send; the shell calls `seal` and empties them once a turn.
        answered: owners of questions and the records that answer them. The shell clears it.
        unmatched: replies to calls that had ended already.
        full_blocks: blocks that wait to leave and take no more calls.
    """

    def __init__(
        self,
        settings: ClientSettings,
        *,
        session: bytes,
        id_prefix: bytes,
        agent: str,
        gateways: list[str],
        now: float,
        host: bytes | None = None,
    ) -> None:
        self.dirty: list[Outbox] = []
        self.answered: list[tuple[object, Record]] = []
        self.codec = Codec()
        self.unmatched = 0
        self.full_blocks = 0
        self._settings = settings
        self._tag = 0
        self._filling: dict[Alike, Block] = {}
        # Of those the one that took the last call, if it takes more.
        self._last: Block | None = None
        self._unsent: list[Block] = []
        self._repeats = Repeats(now)
        self._pending = Pending(id_prefix)
        greeting = [session, agent, None, host]
        heartbeat_s = settings.heartbeat_ms / 1000
        self._sessions = Sessions(self._pending, self.codec, greeting, heartbeat_s, self.dirty, self.seal)
        self._reach = Reach(self._sessions.links, settings.fail_fast_s, heartbeat_s, now)
        for address in gateways:
            self._sessions.add_link(address, now)

    @property
    def pending(self) -> int:
        """How many calls and questions have not ended."""
        return self._pending.count

    @property
    def links(self) -> Mapping[int, Link]:
        """One for each gateway, by numbers that are not used again."""
        return self._sessions.links

    @property
    def released(self) -> list[SharedPayload]:
        """Where payloads lay in shared memory whose calls have ended. The shell gives it back, and clears it."""
        return self._pending.released

    @property
    def completed(self) -> list[tuple[list[object], Record, int | None]]:
        """Calls that ended, and questions that failed. The shell takes it, and puts an empty one in its place.

        Of each the owners, None where one had lost interest; the REPLY that is for so many; and the rows of the
        call, None for one without a batch axis.
        """
        return self._pending.completed

    @completed.setter
    def completed(self, completed: list[tuple[list[object], Record, int | None]]) -> None:
        self._pending.completed = completed

    # Gateways ------------------------------------------------------------------------------------

    def add_link(self, address: str, now: float) -> int:
        """Dials one more gateway; returns its number, which no other one gets."""
        return self._sessions.add_link(address, now)

    def remove_link(self, number: int, now: float) -> None:
        """Leaves a gateway once another one is there: it gets nothing new, answers what it has, and is gone then."""
        self._sessions.remove_link(number, now)

    @property
    def left(self) -> list[int]:
        """Numbers of gateways that were left for good. The shell closes their sockets, and clears it."""
        return self._sessions.left

    # Calls ---------------------------------------------------------------------------------------

    def submit(
        self,
        owner: object,
        model: str,
        body: Body,
        rows: int | None,
        options: CallOptions,
        now: float,
    ) -> int:
        """Sends a call with the next turn, and returns its number.

        Args:
            owner: whatever the shell wants back beside the reply; not None.
            rows: None for a call of one row without a batch axis; only these travel in blocks.

        Raises:
            TooLarge: the body is over the limit that the gateway's WELCOME named.
        """
        layout, payload = body
        deadline = now + options.deadline_s
        block = self._last
        # The usual case is one more like the last one: 0.1 us, where building the key and looking it up takes 0.4.
        if (
            block is None
            or layout is not block.layout
            or options is not block.options
            or model != block.model
            or deadline >= block.closes_at
            or rows is not None
        ):
            block = self._block_for(model, layout, payload, rows, options, deadline, now)
        owners = block.owners
        place = len(owners)
        owners.append(owner)
        block.bodies.append(payload)
        if block.keys is not None:
            block.keys.append(options.key or b"")
        block.deadline = deadline
        block.left += 1
        self._pending.count += 1
        if place and place + 1 == block.most:
            del self._filling[block.alike]
            self._last = None
            self.full_blocks += 1
        return block.tag * MAX_CALLS + place

    def _block_for(
        self,
        model: str,
        layout: bytes,
        payload: Payload | SharedBody,
        rows: int | None,
        options: CallOptions,
        deadline: float,
        now: float,
    ) -> Block:
        # Deadlines are kept in slots of 10 ms, and those of a block are in one of them.
        alike = (model, layout, options.but_key(), int(deadline * SLOTS_PER_S))
        block = self._filling.get(alike)
        if block is None or deadline >= block.closes_at or rows is not None or type(payload) is not bytes:
            block = self._begin(alike, options, payload, rows, deadline, now)
        self._last = block if block.most > 1 else None
        return block

    def _begin(
        self,
        alike: Alike,
        options: CallOptions,
        payload: Payload | SharedBody,
        rows: int | None,
        deadline: float,
        now: float,
    ) -> Block:
        model = alike[0]
        size = body_bytes(payload)
        if detail := self._sessions.excess(size, rows):
            if isinstance(payload, SharedBody):
                self.released.append(payload.place)
            raise TooLarge(detail)
        self._tag += 1
        block = Block(self._tag, 0, alike, options, rows, deadline)
        block.link = self._sessions.choose(block)
        card = self.codec.card(model, options.version)
        if rows is None and type(payload) is bytes and card is not None:
            block.most = max(1, min(MAX_CALLS, card[1], INLINE_BYTES // max(1, size)))
            if block.most > 1:
                self._filling[alike] = block
        self._unsent.append(block)
        self._add(block, now)
        return block

    def _add(self, entry: Block | Question, now: float) -> None:
        if not self._pending.count:
            self._sessions.rouse(now)
            self._reach.look(now)
        limit = entry.deadline + GRACE_S
        if not self._sessions.was_welcome:
            limit = min(limit, now + self._settings.connect_timeout_s)
        self._pending.add(entry, limit)

    def seal(self) -> None:
        """Puts the calls of this turn into the outboxes; later ones begin new blocks."""
        if not self._unsent:
            return
        for block in self._unsent:
            if block.left:
                self._sessions.send(block)
                self._repeats.earn(block.left)
        self._unsent.clear()
        self._filling.clear()
        self._last = None
        self.full_blocks = 0

    def ask(self, owner: object, kind: Kind, words: Record, number: int, deadline: float, now: float) -> None:
        """Sends a STATS or ADMIN question to the gateway with this number with the next turn."""
        assert deadline < float("inf"), deadline
        self._tag += 1
        question = Question(owner, kind, [self._tag, *words], number, deadline)
        self._add(question, now)
        self.links[number].outbox.put(kind, question.record)

    def cancel(self, number: int) -> bool:
        """Takes back the call with this number; False if it had ended already. Its owner hears nothing of it."""
        tag, place = divmod(number, MAX_CALLS)
        block = self._pending.block(tag)
        if block is None or block.owners[place] is None:
            return False
        self._pending.take(block, 1 << place)
        if block.sends:
            self.links[block.link].outbox.put(Kind.CANCEL, [tag, 1 << place])
        return True

    def fail_all(self, detail: str) -> None:
        """Ends every call as CANCELLED, as when the client is closed, and says goodbye."""
        for entry in self._pending.everything():
            self._pending.fail(entry, Status.CANCELLED, detail, None, RAN_MAYBE)
        self._sessions.close()

    def request_id(self, number: int) -> bytes:
        """Returns the id of the call with this number."""
        return self._pending.request_id(number)

    # Messages ------------------------------------------------------------------------------------

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links.get(number)
        if link is None:
            return
        self._sessions.heard(link, now)
        self._reach.heard(now)
        if kind is Kind.REPLY:
            for record in records:
                places = record[CALLS]
                block = self._pending.block(record[TAG])
                if block is None or places >> len(block.owners):
                    self.unmatched += places.bit_count()
                    continue
                if record[OUTPUT] == INLINE and self._goes_inline(block):
                    continue
                if record[STATUS] and self._is_repeated(block, record, now):
                    continue
                if block.sends > 1 and record[RAN] == RAN_NO:
                    # Who says so speaks of one of the times it was sent.
                    record[RAN] = RAN_MAYBE
                owners = self._pending.take(block, places)
                self.unmatched += owners.count(None)
                self._pending.completed.append((owners, record, block.rows))
        elif kind is Kind.WELCOME:
            self._sessions.on_welcome(link, records[-1], now)
        elif kind in {Kind.STATS, Kind.ADMIN}:
            for record in records:
                question = self._pending.question(record[TAG])
                if question is not None and question.takes(record):
                    self._pending.forget(question)
                    self.answered.append((question.owner, question.answer))
        elif kind is Kind.DISCONNECT:
            for record in records:
                self._sessions.on_disconnect(number, record[0], record[1], now)
        if link.state is LinkState.LEAVING and not self.pending:
            self._sessions.on_timer(now)

    def _goes_inline(self, block: Block) -> bool:
        """Sends a payload again, as frames, that its worker could not read; False if it came as frames.

        Its place is kept until the call ends: it may have been sent twice, and another worker read it there.
        """
        body = block.bodies[0]
        if not isinstance(body, SharedBody):
            return False
        if not body.goes_inline:
            body.goes_inline = True
            if block.sends == 1:
                block.sends = 0  # the only time that it was sent it did not run
            self._sessions.send(block)
        return True

    def _is_repeated(self, block: Block, record: Record, now: float) -> bool:
        """Whether calls that were refused are asked for again, rather than ended."""
        has_others = bool(self._sessions.others(block))
        request_id = self._pending.request_id(block.tag * MAX_CALLS)
        # One of the times that it was sent says nothing of the others.
        if record[RAN] != RAN_NO or (block.sends > 1 and not self._sessions.may_run_twice(block)):
            return False
        if not self._repeats.takes(block, record, request_id, now, has_others=has_others):
            return False
        block.resting |= record[CALLS]
        return True

    def _repeat(self, now: float) -> None:
        """Asks again for what has rested long enough: another gateway, if nothing of the block is at this one."""
        for block, places in self._repeats.due(now):
            if self._pending.block(block.tag) is not block:
                continue  # all of its calls have ended
            others = self._sessions.others(block)
            has_nothing = block.is_at_rest()
            if others and has_nothing:
                block.link = others[block.tag % len(others)]
            block.asks_again(places)
            if block.is_held:
                continue  # it leaves with what is held
            if has_nothing and self.links[block.link].state in PARTING:
                block.is_held = True
                if block.sends == 1:
                    block.sends = 0  # the only time that it was sent it did not run
                continue
            self._sessions.send_calls(block, places & block.pending())

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Ends calls whose time is up, and keeps the sessions alive while calls are pending."""
        self._repeat(now)
        expired = self._pending.expire(now)
        for entry in expired:
            self._expire(entry, now)
        for number in dict.fromkeys(entry.link for entry in expired):
            if self.links[number].is_unsaid:
                # Else those that have just ended would leave with the others.
                self._sessions.greet(number, now)
        self._sessions.on_timer(now)
        self._reach.look(now)
        lost_at = self._reach.lost_at()
        if lost_at is not None and lost_at <= now:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """Ends everything, for there is no gateway."""
        looked = ", ".join(link.address for link in self.links.values())
        detail = (
            f"no gateway could be reached at {looked} for {self._settings.fail_fast_s:g} s, which is fail_fast_s;"
            " start one with: zmqinfer up"
        )
        for entry in self._pending.everything():
            self._pending.fail(entry, Status.UNAVAILABLE, detail, None, self._ran(entry))
        for number, link in list(self.links.items()):
            if link.is_unsaid:
                self._sessions.greet(number, now)

    def _ran(self, entry: Block | Question) -> int:
        """Whether what nobody answered may have run."""
        is_unsaid = self.links[entry.link].is_unsaid
        if isinstance(entry, Block):
            has_gone = self._sessions.times_gone(entry, is_unsaid=is_unsaid) > 0
        else:
            has_gone = not is_unsaid
        return RAN_MAYBE if has_gone else RAN_NO

    def _expire(self, entry: Block | Question, now: float) -> None:
        self._pending.put_off(entry, entry.deadline + GRACE_S)
        link = self.links[entry.link]
        if now < entry.deadline and self._sessions.was_welcome:
            return
        if isinstance(entry, Block) and not link.has_spoken_since(entry.deadline - entry.options.deadline_s):
            # To those who ask one thing after another no silence is long enough: each call has its own.
            self._sessions.doubt(link)
        ran = self._ran(entry)
        if not self._sessions.was_welcome:
            looked = ", ".join(link.address for link in self.links.values())
            limit = "its deadline" if now >= entry.deadline else "connect_timeout_s"
            detail = f"no gateway answered at {looked} in time, which is {limit}; start one with: zmqinfer up"
            self._pending.fail(entry, Status.UNAVAILABLE, detail, None, ran)
        elif link.state is LinkState.UP:
            detail = f"the time was up before gateway {link.address} answered"
            self._pending.fail(entry, Status.DEADLINE_EXCEEDED, detail, "network", RAN_MAYBE)
        else:
            detail = f"the time was up while the connection to gateway {link.address} was lost"
            self._pending.fail(entry, Status.DEADLINE_EXCEEDED, detail, "network", ran)

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, None for a client at rest."""
        earliest = self._pending.wake_at()
        lost_at = self._reach.lost_at() if self._pending.count else None
        for due in (self._repeats.wake_at(), self._sessions.wake_at(), lost_at):
            if due is not None and (earliest is None or due < earliest):
                earliest = due
        return earliest

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        self._pending.check()
