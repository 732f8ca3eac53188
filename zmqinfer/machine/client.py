"""The client: calls pending at one or more gateways.

Both clients, sync and asyncio, are shells around this machine. Calls of one moment that are alike
are put into one block, which leaves as one record. A block's calls end together or one by one, each
with a REPLY record, the gateway's or one made here, that comes out of `completed` beside the owner.
"""

from __future__ import annotations

import itertools

from zmqinfer.config import ClientSettings
from zmqinfer.errors import EXECUTED, Executed, Status, TooLarge
from zmqinfer.machine.call import Block, Body, CallOptions, Question, SharedBody, body_bytes
from zmqinfer.machine.codec import Codec
from zmqinfer.machine.ledger import INLINE
from zmqinfer.machine.link import CLOSING, DRAINING, NO_SESSION, Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.repeats import Repeats
from zmqinfer.policy.wheel import SLOTS_PER_S, TimingWheel
from zmqinfer.records import CALLS, MAX_CALLS, MAX_COUNT, OUTPUT, RAN, STATUS, TAG, Kind, Record
from zmqinfer.tensor import INLINE_BYTES, Payload, SharedPayload, payload_bytes
from zmqinfer.wire import MAX_BUNDLE_BYTES

__all__ = ["ClientMachine"]

# The gateway knows better than we do where the time went; so much longer than the deadline its word is waited for.
GRACE_S = 0.05

_PARTING = (LinkState.LEAVING, LinkState.LEFT)
_RAN_NO, _RAN_MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


class ClientMachine:
    """All that a client decides. Its shell owns one DEALER for each gateway and a clock.

    Attributes:
        dirty: outboxes with something to send; the shell calls `seal` and empties them once a turn.
        completed: calls that ended, and questions that failed: their owners, None where one had lost
            interest; the REPLY that is for so many; the rows of the call, None for one without a batch
            axis. The shell clears it.
        answered: owners of questions and the records that answer them. The shell clears it.
        pending: how many calls and questions have not ended.
        unmatched: replies to calls that had ended already.
        released: where payloads lay in shared memory whose calls have ended. The shell gives it back, and clears it.
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
        self.completed: list[tuple[list[object], Record, int | None]] = []
        self.answered: list[tuple[object, Record]] = []
        self.codec = Codec()
        self.pending = 0
        self.unmatched = 0
        self.full_blocks = 0
        self.released: list[SharedPayload] = []
        self._settings = settings
        self._id_prefix = id_prefix
        self._tag = 0
        # By the number of their tags' block, which is what a tag is without its last five bits.
        self._blocks: dict[int, Block] = {}
        self._filling: dict[tuple[str, bytes, CallOptions, int], Block] = {}
        # Of those the one that took the last call, if it takes more.
        self._last: Block | None = None
        self._unsent: list[Block] = []
        # Blocks that wait for a WELCOME, by tag: large ones, and those for which there is only a gateway that drains.
        self._held: dict[int, Block] = {}
        self._repeats = Repeats(now)
        self._questions: dict[int, Question] = {}
        self._wheel: TimingWheel[Block | Question] = TimingWheel()
        heartbeat_s = settings.heartbeat_ms / 1000
        self.links = [
            Link(number, address, Kind.HELLO, [session, agent, None, host], heartbeat_s, self.dirty)
            for number, address in enumerate(gateways)
        ]
        self._was_welcome = False
        self._max_body_bytes = MAX_COUNT
        # The gateways to choose from: those that are up and answer, else those that are up, else all of them.
        # Blocks take turns.
        self._choice: list[int] = list(range(len(gateways)))
        for link in self.links:
            link.greet(now)

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
        """Sends a call with the next turn, and returns its tag.

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
        block.deadline = deadline
        block.left += 1
        self.pending += 1
        if place and place + 1 == block.most:
            del self._filling[block.alike]
            self._last = None
            self.full_blocks += 1
        return block.tag + place

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
        alike = (model, layout, options, int(deadline * SLOTS_PER_S))
        block = self._filling.get(alike)
        if block is None or rows is not None or type(payload) is not bytes:
            block = self._begin(alike, payload, rows, deadline, now)
        self._last = block if block.most > 1 else None
        return block

    def _begin(
        self,
        alike: tuple[str, bytes, CallOptions, int],
        payload: Payload | SharedBody,
        rows: int | None,
        deadline: float,
        now: float,
    ) -> Block:
        model, _, options, _ = alike
        size = body_bytes(payload)
        if detail := self._excess(size, rows):
            if isinstance(payload, SharedBody):
                self.released.append(payload.place)
            raise TooLarge(detail)
        self._tag += MAX_CALLS
        number = self._tag // MAX_CALLS
        block = Block(self._tag, 0, alike, rows, deadline)
        block.link = self._choose(block)
        card = self.codec.card(model, options.version)
        if rows is None and type(payload) is bytes and card is not None:
            block.most = max(1, min(MAX_CALLS, card[1], INLINE_BYTES // max(1, size)))
            if block.most > 1:
                self._filling[alike] = block
        self._unsent.append(block)
        self._rouse(now)
        self._blocks[number] = block
        self._watch(block, now)
        return block

    def _choose(self, block: Block) -> int:
        """Returns which gateway should have a block: they take turns."""
        return self._choice[block.tag // MAX_CALLS % len(self._choice)]

    def seal(self) -> None:
        """Puts the calls of this turn into the outboxes; later ones begin new blocks."""
        if not self._unsent:
            return
        for block in self._unsent:
            if block.left:
                self._send(block)
                self._repeats.earn(block.left)
        self._unsent.clear()
        self._filling.clear()
        self._last = None
        self.full_blocks = 0

    def _send(self, block: Block) -> None:
        state = self.links[block.link].state
        if state in _PARTING:
            block.link = self._choose(block)
            state = self.links[block.link].state
        if state in _PARTING or (state is LinkState.GREETING and self._is_too_large_unasked(block)):
            self._held[block.tag] = block
            return
        if self._held:
            self._held.pop(block.tag, None)
        block.sends += 1
        is_whole = block.left == len(block.owners) and not block.resting
        for first, calls in ((0, block.left),) if is_whole else block.runs():
            self._send_calls(block, first, calls)

    @staticmethod
    def _is_too_large_unasked(block: Block) -> bool:
        """Whether its gateway should say first how much it takes: what is far too much costs the connection."""
        payload = block.bodies[0]
        return isinstance(payload, list) and payload_bytes(payload) > MAX_BUNDLE_BYTES

    def _send_held(self) -> None:
        """Sends what waited for a WELCOME, unless it waits for another one, or is more than the gateway takes."""
        held, self._held = self._held, {}
        for block in held.values():
            if self.links[block.link].state is not LinkState.UP:
                block.link = self._choose(block)
            if detail := self._excess(body_bytes(block.bodies[0]), block.rows):
                self._fail(block, Status.TOO_LARGE, detail, None, _RAN_NO)
            else:
                self._send(block)

    def _excess(self, size: int, rows: int | None) -> str:
        """Returns what is wrong with a body of so many bytes, or nothing."""
        if size <= self._max_body_bytes:
            return ""
        fewer = "send fewer rows, or " if rows is not None and rows > 1 else ""
        return (
            f"the request's body has {size:,} bytes, the gateway takes {self._max_body_bytes:,};"
            f" {fewer}raise --max-body-bytes of the gateway"
        )

    def _send_calls(self, block: Block, first: int, calls: int) -> None:
        options = block.options
        bodies = block.bodies[first : first + calls]
        # Only inline payloads have company.
        payload = bodies[0] if calls == 1 else b"".join(bodies)  # type: ignore[arg-type]
        size = body_bytes(payload)
        if isinstance(payload, SharedBody):
            payload, size = (payload.parts, size) if payload.goes_inline else (payload.place, 0)
        tag = block.tag + first
        record = [
            tag,
            calls,
            self.request_id(tag),
            block.model,
            options.version,
            options.key,
            0,
            options.priority,
            block.attempt_of(first),
            options.idempotent,
            calls if block.rows is None else block.rows,
            block.layout,
            payload,
        ]
        if block.sends > 1:
            record += [None, options.hedge, True]
        elif options.hedge is not None:
            record += [None, options.hedge]
        self.links[block.link].outbox.put_request(record, block.deadline, size)

    def request_id(self, tag: int) -> bytes:
        """Returns the id of the call with this tag."""
        return self._id_prefix + tag.to_bytes(8, "big")

    def ask(self, owner: object, kind: Kind, words: Record, number: int, deadline: float, now: float) -> None:
        """Sends a STATS or ADMIN question to the gateway with this number with the next turn."""
        assert deadline < float("inf"), deadline
        self._tag += MAX_CALLS
        question = Question(owner, kind, [self._tag, *words], number, deadline)
        self._rouse(now)
        self._questions[self._tag] = question
        self.pending += 1
        self._watch(question, now)
        self.links[number].outbox.put(kind, question.record)

    def _rouse(self, now: float) -> None:
        if not self.pending:
            for link in self.links:
                if link.state is LinkState.UP:
                    link.rouse(now)

    def _watch(self, entry: Block | Question, now: float) -> None:
        limit = entry.deadline + GRACE_S
        if not self._was_welcome:
            limit = min(limit, now + self._settings.connect_timeout_s)
        entry.slot = self._wheel.add(entry, limit)

    def cancel(self, tag: int) -> bool:
        """Takes a call back; False if it had ended already. Its owner hears nothing of it."""
        block = self._blocks.get(tag // MAX_CALLS)
        if block is None or block.owners[tag % MAX_CALLS] is None:
            return False
        self._take(block, tag % MAX_CALLS, 1)
        if block.sends:
            self.links[block.link].outbox.put(Kind.CANCEL, [tag, 1])
        return True

    def _take(self, block: Block, place: int, calls: int) -> list[object]:
        """Ends calls of a block and returns their owners, None where one had ended before."""
        owners = block.owners[place : place + calls]
        ended = len(owners) - owners.count(None)
        self.pending -= ended
        block.left -= ended
        block.owners[place : place + calls] = [None] * len(owners)
        if not block.left:
            body = block.bodies[0]
            if isinstance(body, SharedBody):
                self.released.append(body.place)
            del self._blocks[block.tag // MAX_CALLS]
            self._wheel.remove(block, block.slot)
            if self._filling.get(block.alike) is block:
                del self._filling[block.alike]
            if self._last is block:
                self._last = None
            if self._held:
                self._held.pop(block.tag, None)
        return owners

    def fail_all(self, detail: str) -> None:
        """Ends every call as CANCELLED, as when the client is closed, and says goodbye."""
        for entry in self._everything():
            self._fail(entry, Status.CANCELLED, detail, None, _RAN_MAYBE)
        for link in self.links:
            if link.state in (LinkState.UP, LinkState.LEAVING):
                link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
            link.state = LinkState.CLOSED

    def _fail(self, entry: Block | Question, status: Status, detail: str, where: str | None, ran: int) -> None:
        """Ends all that is left of a block, or a question, with an outcome that this client decides."""
        if isinstance(entry, Question):
            self._forget(entry)
            tag, owners, rows = entry.record[TAG], [entry.owner], None
        else:
            tag, owners, rows = entry.tag, self._take(entry, 0, len(entry.owners)), entry.rows
        self.completed.append((owners, [tag, len(owners), status, detail, where, "", 0, 1, ran, None, 0, 0, 0], rows))

    def _forget(self, question: Question) -> None:
        del self._questions[question.record[TAG]]
        self._wheel.remove(question, question.slot)
        self.pending -= 1

    # Messages ------------------------------------------------------------------------------------

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links[number]
        link.heard(now)
        if link.is_doubtful:
            link.is_doubtful = False
            self._review_choice()
        if kind is Kind.REPLY:
            for record in records:
                tag, calls = record[TAG], record[CALLS]
                block = self._blocks.get(tag // MAX_CALLS)
                place = tag % MAX_CALLS
                if block is None or place + calls > len(block.owners):
                    self.unmatched += calls
                    continue
                if record[OUTPUT] == INLINE and self._goes_inline(block):
                    continue
                if record[STATUS] and self._is_repeated(block, record, now):
                    continue
                if block.sends > 1 and record[RAN] == _RAN_NO:
                    # Who says so speaks of one of the times it was sent.
                    record[RAN] = _RAN_MAYBE
                owners = self._take(block, place, calls)
                self.unmatched += owners.count(None)
                self.completed.append((owners, record, block.rows))
        elif kind is Kind.WELCOME:
            self.codec.learn(records[-1][4])
            self._max_body_bytes = records[-1][3]
            # One that drains may still have news; a new life of it has another session.
            if link.state not in _PARTING or records[-1][0] != link.session:
                link.welcome(records[-1], now)
                self._was_welcome = True
                self._review_choice()
                self._send_held()
        elif kind in {Kind.STATS, Kind.ADMIN}:
            for record in records:
                question = self._questions.get(record[TAG])
                if question is not None:
                    self._forget(question)
                    self.answered.append((question.owner, record))
        elif kind is Kind.DISCONNECT:
            for record in records:
                self._on_disconnect(link, number, record[0], record[1], now)
        if link.state is LinkState.LEAVING and not self.pending:
            link.part(now)

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
            self._send(block)
        return True

    def _is_repeated(self, block: Block, record: Record, now: float) -> bool:
        """Whether calls that were refused are asked for again, rather than ended."""
        has_others = bool(self._others(block))
        request_id = self.request_id(record[TAG])
        # One of the times that it was sent says nothing of the others.
        if record[RAN] != _RAN_NO or (block.sends > 1 and not self._may_run_twice(block)):
            return False
        if not self._repeats.takes(block, record, request_id, now, has_others=has_others):
            return False
        place = record[TAG] % MAX_CALLS
        block.resting = block.resting.union(range(place, place + record[CALLS]))
        return True

    def _others(self, block: Block) -> list[int]:
        """Returns the gateways to choose from that are up, without the one that a block is at."""
        return [number for number in self._choice if number != block.link and self.links[number].state is LinkState.UP]

    def _repeat(self, now: float) -> None:
        """Asks again for what has rested long enough: another gateway, if nothing of the block is at this one."""
        for block, first, calls in self._repeats.due(now):
            if self._blocks.get(block.tag // MAX_CALLS) is not block:
                continue  # all of its calls have ended
            others = self._others(block)
            has_nothing = block.is_at_rest()
            if others and has_nothing:
                block.link = others[block.tag // MAX_CALLS % len(others)]
            block.asks_again(first, calls)
            if has_nothing and self.links[block.link].state in _PARTING:
                self._held[block.tag] = block
                continue
            for place, run in block.runs(first, first + calls):
                self._send_calls(block, place, run)

    def _everything(self) -> list[Block | Question]:
        return list(itertools.chain(self._blocks.values(), self._questions.values()))

    def _pending_at(self, number: int) -> list[Block | Question]:
        return [entry for entry in self._everything() if entry.link == number]

    def _on_disconnect(self, link: Link, number: int, reason: str, detail: str, now: float) -> None:
        if reason == NO_SESSION:
            if link.is_unwelcome(reason):
                self._greet(number, now)
            return
        if reason == DRAINING:
            self._on_draining(link, number, now)
            return
        # A wrong door, too many clients, a broken protocol: repeating it would be answered the same.
        status = Status.OVERLOADED if reason == "too many clients" else Status.PROTOCOL
        ran = _RAN_MAYBE if link.welcomes else _RAN_NO
        for entry in self._pending_at(number):
            self._fail(entry, status, f"gateway {link.address} refused this client: {detail}", None, ran)

    def _on_draining(self, link: Link, number: int, now: float) -> None:
        """Sends nothing new to a gateway that is about to end; what it has it will answer."""
        if link.state is not LinkState.UP:
            return
        link.state = LinkState.LEAVING
        self._review_choice()
        if link.is_unsaid:
            # It is gone already, and this is the last that it said: what waits for a connection is for others.
            self._greet(number, now, is_silent=True)

    def _owes_us(self, number: int) -> bool:
        """Whether a gateway has anything of ours."""
        return any(
            isinstance(entry, Question) or (entry.sends and entry.tag not in self._held and not entry.is_at_rest())
            for entry in self._pending_at(number)
        )

    def _greet(self, number: int, now: float, *, is_silent: bool = False) -> None:
        """Greets a gateway anew, with everything that is pending there behind the greeting.

        What a silent one has goes to those that are up. One that asks for a greeting gets all of it again: it
        may have kept answers for us.
        """
        self.seal()
        link = self.links[number]
        is_unsaid = link.is_unsaid
        link.greet(now)
        self._review_choice()
        for entry in self._pending_at(number):
            if isinstance(entry, Question):
                link.outbox.put(entry.kind, entry.record)
                continue
            if entry.is_at_rest():
                continue  # nobody has it, and its pause goes on
            entry.sends = self._times_gone(entry, is_unsaid=is_unsaid)
            if entry.sends and not self._may_run_twice(entry):
                if link.welcomes:
                    detail = f"the session with gateway {link.address} was lost, and the request may not be run twice"
                    self._fail(entry, Status.WORKER_LOST, detail, None, _RAN_MAYBE)
                    continue
            elif is_silent or not link.welcomes:
                entry.link = self._choose(entry)
            self._send(entry)

    def _times_gone(self, block: Block, *, is_unsaid: bool) -> int:
        """Returns how often a block may have left: its last time waits behind its gateway's greeting if that is unsaid.

        What is held waits behind none: all its times were at other gateways, or with an earlier greeting.
        """
        return max(0, block.sends - (is_unsaid and block.tag not in self._held))

    def _may_run_twice(self, block: Block) -> bool:
        declared = block.options.idempotent
        return self.codec.may_run_twice(block.model, block.options.version) if declared is None else declared

    def _review_choice(self) -> None:
        up = [number for number, link in enumerate(self.links) if link.state is LinkState.UP]
        self._choice = (
            [number for number in up if not self.links[number].is_doubtful] or up or [*range(len(self.links))]
        )

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Ends calls whose time is up, and keeps the sessions alive while calls are pending."""
        self._repeat(now)
        expired = self._wheel.expire(now)
        for entry in expired:
            self._expire(entry, now)
        for number in dict.fromkeys(entry.link for entry in expired):
            if self.links[number].is_unsaid:
                # Else those that have just ended would leave with the others.
                self._greet(number, now)
        for number, link in enumerate(self.links):
            if not self.pending and link.state is LinkState.UP:
                continue
            if link.is_overdue(now):
                self._greet(number, now, is_silent=True)
            elif link.state is LinkState.LEAVING and not self._owes_us(number):
                link.part(now)
            elif link.is_beat_due(now):
                link.outbox.beat()

    def _expire(self, entry: Block | Question, now: float) -> None:
        entry.slot = self._wheel.add(entry, entry.deadline + GRACE_S)
        link = self.links[entry.link]
        if now < entry.deadline and self._was_welcome:
            return
        if isinstance(entry, Block) and not link.has_spoken_since(entry.deadline - entry.options.deadline_s):
            # To those who ask one thing after another no silence is long enough: each call has its own.
            link.is_doubtful = True
            self._review_choice()
        is_unsaid = link.is_unsaid
        has_gone = not is_unsaid if isinstance(entry, Question) else self._times_gone(entry, is_unsaid=is_unsaid) > 0
        ran = _RAN_MAYBE if has_gone else _RAN_NO
        if not self._was_welcome:
            looked = ", ".join(link.address for link in self.links)
            limit = "its deadline" if now >= entry.deadline else "connect_timeout_s"
            detail = f"no gateway answered at {looked} in time, which is {limit}; start one with: zmqinfer up"
            self._fail(entry, Status.UNAVAILABLE, detail, None, ran)
        elif link.state is LinkState.UP:
            detail = f"the time was up before gateway {link.address} answered"
            self._fail(entry, Status.DEADLINE_EXCEEDED, detail, "network", _RAN_MAYBE)
        else:
            detail = f"the time was up while the connection to gateway {link.address} was lost"
            self._fail(entry, Status.DEADLINE_EXCEEDED, detail, "network", ran)

    def is_greeting(self) -> bool:
        """Whether a gateway has still to welcome this client, or to let it go."""
        # Without a generator: this is asked at the end of each call.
        for link in self.links:  # noqa: SIM110
            if link.state is not LinkState.UP and link.state is not LinkState.CLOSED:
                return True
        return False

    def is_at_rest(self) -> bool:
        """Whether nothing is pending and nothing has to be said."""
        return not self.pending and not self.is_greeting()

    def wake_at(self) -> float | None:
        """Returns when `on_timer` is worth calling, None for a client at rest."""
        earliest = self._wheel.wake_at()
        due = self._repeats.wake_at()
        if due is not None and (earliest is None or due < earliest):
            earliest = due
        for link in self.links:
            if self.pending or link.state is not LinkState.UP:
                due = link.wake_at()
                if due == float("inf"):
                    continue
                if earliest is None or due < earliest:
                    earliest = due
        return earliest

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        assert len(self._wheel) == len(self._blocks) + len(self._questions)
        assert self.pending == sum(block.left for block in self._blocks.values()) + len(self._questions)
        self._wheel.check()
        assert all(block.left for block in self._held.values())
        for number, block in self._blocks.items():
            assert block.tag == number * MAX_CALLS
            assert 0 < block.left == len(block.owners) - block.owners.count(None)
            assert len(block.owners) == len(block.bodies) <= block.most <= MAX_CALLS
