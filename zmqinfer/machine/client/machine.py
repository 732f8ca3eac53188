"""The client: calls pending at one or more gateways.

Both clients, sync and asyncio, are shells around this machine. Calls of one moment that are alike
are put into one block, which leaves as one record. A block's calls end together or one by one, each
with a REPLY record, the gateway's or one made here, that comes out of `completed` beside the owner.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zmqinfer.config import ClientSettings
from zmqinfer.errors import Status, TooLarge
from zmqinfer.machine.client.call import Alike, Block, Body, CallOptions, Question, SharedBody, body_bytes
from zmqinfer.machine.client.codec import Codec
from zmqinfer.machine.client.pending import Pending
from zmqinfer.machine.client.repeats import Repeats
from zmqinfer.machine.client.sessions import Sessions
from zmqinfer.machine.link import Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.wheel import SLOTS_PER_S
from zmqinfer.records import INLINE, MAX_CALLS, OUTPUT, PLACES, RAN, RAN_MAYBE, RAN_NO, STATUS, TAG, Kind, Record
from zmqinfer.tensor import INLINE_BYTES

__all__ = ["ClientMachine"]

# The gateway knows better than we do where the time went; so much longer than the deadline its word is waited for.
GRACE_S = 0.05


class ClientMachine:
    """All that a client decides. Its shell owns one DEALER for each gateway and a clock.

    Attributes:
        dirty: outboxes with something to send; the shell calls `seal` and empties them once a turn.
        answered: owners of questions and the records that answer them. The shell clears it.
        completed: calls that ended, and questions that failed: the owners, None where one had lost interest; the REPLY
            that is for so many; and the rows of the call, None for one without a batch axis. The shell clears it.
        released: where payloads lay in shared memory whose calls have ended. The shell gives it back, and clears it.
        left: numbers of gateways that were left for good. The shell closes their sockets, and clears it.
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
        # The block that took the last call, if it takes more.
        self._last: Block | None = None
        self._unsent: list[Block] = []
        self._pending = pending = Pending(id_prefix)
        self.completed, self.released, self.request_id = pending.completed, pending.released, pending.request_id
        greeting = [session, agent, None, host]
        self._sessions = sessions = Sessions(settings, pending, self.codec, greeting, self.dirty, self.seal, now)
        self.links: Mapping[int, Link] = sessions.links
        self.left, self.add_link, self.remove_link = sessions.left, sessions.add_link, sessions.remove_link
        self._repeats = Repeats(pending, sessions, now)
        for address in gateways:
            sessions.add_link(address, now)

    @property
    def pending(self) -> int:
        """How many calls and questions have not ended."""
        return self._pending.count

    # Calls ---------------------------------------------------------------------------------------

    def submit(self, owner: object, model: str, body: Body, rows: int | None, options: CallOptions, now: float) -> int:
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
            block = self._block_for(model, body, rows, options, deadline, now)
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
        self, model: str, body: Body, rows: int | None, options: CallOptions, deadline: float, now: float
    ) -> Block:
        """Returns the block that fills with calls like this one, or a new one."""
        layout, payload = body
        # Deadlines are kept in slots of 10 ms, and those of a block are in one of them.
        alike = (model, layout, options.but_key(), int(deadline * SLOTS_PER_S))
        block = self._filling.get(alike)
        if block is None or deadline >= block.closes_at or rows is not None or type(payload) is not bytes:
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
        self._last = block if block.most > 1 else None
        return block

    def _add(self, entry: Block | Question, now: float) -> None:
        if not self._pending.count:
            self._sessions.rouse(now)
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
                self._repeats.budget.earn(block.left)
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
        self._end_all(Status.CANCELLED, detail)
        self._sessions.close()

    def _end_all(self, status: Status, detail: str) -> None:
        unsent = self._unsent_of(self.links)
        for entry in self._pending.everything():
            self._pending.fail(entry, status, detail, self._ran(entry, unsent))
        for link in self.links.values():
            # Its callers are told that it has not left.
            link.outbox.discard(Kind.REQUEST)

    # Messages ------------------------------------------------------------------------------------

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links.get(number)
        if link is None:
            return
        self._sessions.heard(link, now)
        if kind is Kind.REPLY:
            for record in records:
                places = record[PLACES]
                block = self._pending.block(record[TAG])
                if block is None or places >> len(block.owners):
                    self.unmatched += places.bit_count()
                    continue
                if record[OUTPUT] == INLINE and self._goes_inline(block):
                    continue
                if record[STATUS] and self._repeats.takes(block, record, now):
                    continue
                if record[RAN] == RAN_NO and block.is_again(places):
                    # Who says so speaks of one of the times it was sent.
                    record[RAN] = RAN_MAYBE
                owners = self._pending.take(block, places)
                self.unmatched += owners.count(None)
                self.completed.append((owners, record, block.rows))
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

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Ends calls whose time is up, and keeps the sessions alive while calls are pending."""
        self._repeats.timers.run(now)
        expired = self._pending.wheel.expire(now)
        numbers = dict.fromkeys(entry.link for entry in expired)
        unsent = self._unsent_of(numbers)
        for entry in expired:
            self._expire(entry, unsent, now)
        for number in numbers:
            if self.links[number].is_unsaid:
                # Else those that have just ended would leave with the others.
                self._sessions.greet(number, now)
        self._sessions.on_timer(now)
        self._sessions.look(now)
        if self._sessions.lost_at() <= now:
            self._give_up(now)

    def _give_up(self, now: float) -> None:
        """Ends everything, for there is no gateway."""
        detail = (
            f"no gateway could be reached at {self._addresses()} for {self._settings.fail_fast_s:g} s,"
            " which is fail_fast_s; start one with: zmqinfer up"
        )
        self._end_all(Status.UNAVAILABLE, detail)
        for number, link in list(self.links.items()):
            if link.is_unsaid:
                self._sessions.greet(number, now)

    def _addresses(self) -> str:
        return ", ".join(link.address for link in self.links.values())

    def _unsent_of(self, numbers: Iterable[int]) -> dict[int, dict[int, int]]:
        return {number: self.links[number].outbox.unsent() for number in numbers}

    def _ran(self, entry: Block | Question, unsent: dict[int, dict[int, int]]) -> int:
        """Whether what nobody answered may have run; `unsent` is what has not left, by the numbers of the gateways."""
        has_left = not self.links[entry.link].is_unsaid
        if isinstance(entry, Block):
            has_left = self._sessions.times_gone(entry, unsent[entry.link]) > 0
        return RAN_MAYBE if has_left else RAN_NO

    def _expire(self, entry: Block | Question, unsent: dict[int, dict[int, int]], now: float) -> None:
        entry.slot = self._pending.wheel.add(entry, entry.deadline + GRACE_S)
        link = self.links[entry.link]
        if now < entry.deadline and self._sessions.was_welcome:
            return
        if isinstance(entry, Block) and not link.has_spoken_since(entry.deadline - entry.options.deadline_s):
            # To those who ask one thing after another no silence is long enough: each call has its own.
            self._sessions.doubt(link)
        ran = self._ran(entry, unsent)
        if not self._sessions.was_welcome:
            limit = "its deadline" if now >= entry.deadline else "connect_timeout_s"
            detail = (
                f"no gateway answered at {self._addresses()} in time, which is {limit}; start one with: zmqinfer up"
            )
            self._pending.fail(entry, Status.UNAVAILABLE, detail, ran)
        elif link.state is LinkState.UP:
            detail = f"the time was up before gateway {link.address} answered"
            # What has not left yet leaves without time, and nobody runs that.
            self._pending.fail(entry, Status.DEADLINE_EXCEEDED, detail, ran, "network")
        else:
            detail = f"the time was up while the connection to gateway {link.address} was lost"
            self._pending.fail(entry, Status.DEADLINE_EXCEEDED, detail, ran, "network")

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, None for a client at rest."""
        pending, sessions = self._pending, self._sessions
        earliest = min(pending.wheel.wake_at(), self._repeats.timers.wake_at(), sessions.wake_at())
        if pending.count:
            earliest = min(earliest, sessions.lost_at())
        return None if earliest == float("inf") else earliest

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        self._pending.check()
