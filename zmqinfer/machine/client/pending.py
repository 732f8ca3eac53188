"""What a client waits for, until it has ended: blocks of calls, and questions to gateways."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.block import listed
from zmqinfer.machine.client.call import Block, Question, SharedBody
from zmqinfer.machine.replies import failure
from zmqinfer.policy.wheel import TimingWheel
from zmqinfer.records import MAX_CALLS, Record
from zmqinfer.tensor import SharedPayload

__all__ = ["Pending"]


class Pending:
    """All calls and questions that have not ended.

    Attributes:
        completed: those that have: their owners, None where one had lost interest; the REPLY that is for so many;
            the rows of the call, None for one without a batch axis.
        released: where payloads lay in shared memory whose calls have ended.
        count: how many have not ended.
        wheel: when each is to be looked at; then it is put in again, or ends.
    """

    __slots__ = ("_entries", "_id_prefix", "completed", "count", "released", "wheel")

    def __init__(self, id_prefix: bytes) -> None:
        self.completed: list[tuple[list[object], Record, int | None]] = []
        self.released: list[SharedPayload] = []
        self.count = 0
        self._id_prefix = id_prefix
        self._entries: dict[int, Block | Question] = {}
        self.wheel: TimingWheel[Block | Question] = TimingWheel()

    def request_id(self, number: int) -> bytes:
        """Returns the id of the call with this number; of a block's first place it is that of the block."""
        return self._id_prefix + number.to_bytes(8, "big")

    # In ------------------------------------------------------------------------------------------

    def add(self, entry: Block | Question, until: float) -> None:
        """Begins to wait for a block without calls yet, or for a question; `wheel` tells when to look at it."""
        self._entries[entry.tag] = entry
        self.count += isinstance(entry, Question)
        entry.slot = self.wheel.add(entry, until)

    def block(self, tag: int) -> Block | None:
        """Returns the block with this tag, unless all of it has ended."""
        entry = self._entries.get(tag)
        return entry if type(entry) is Block else None

    def question(self, tag: int) -> Question | None:
        """Returns the question with this tag, unless it has ended."""
        entry = self._entries.get(tag)
        return entry if type(entry) is Question else None

    def everything(self) -> list[Block | Question]:
        """Returns all blocks and questions."""
        return list(self._entries.values())

    def at(self, number: int) -> list[Block | Question]:
        """Returns what the gateway with this number has, or should have."""
        return [entry for entry in self._entries.values() if entry.link == number]

    def held(self) -> list[Block]:
        """Returns the blocks that wait for a WELCOME."""
        return [entry for entry in self._entries.values() if isinstance(entry, Block) and entry.is_held]

    # Out -----------------------------------------------------------------------------------------

    def take(self, block: Block, places: int) -> list[object]:
        """Ends calls of a block and returns their owners, None where one had ended before."""
        owners = block.owners
        if places.bit_count() == len(owners):
            taken, block.owners = owners, [None] * len(owners)
        else:
            chosen = listed(places)
            taken = [owners[place] for place in chosen]
            for place in chosen:
                owners[place] = None
        ended = len(taken) - taken.count(None)
        self.count -= ended
        block.left -= ended
        if not block.left:
            body = block.bodies[0]
            if isinstance(body, SharedBody):
                self.released.append(body.place)
            block.closes_at = float("-inf")
            del self._entries[block.tag]
            self.wheel.remove(block, block.slot)
        return taken

    def forget(self, question: Question) -> None:
        """Ends a question."""
        del self._entries[question.tag]
        self.wheel.remove(question, question.slot)
        self.count -= 1

    def fail(
        self,
        entry: Block | Question,
        status: Status,
        detail: str,
        ran: int,
        where: str | None = None,
        *,
        but_resting: bool = False,
    ) -> None:
        """Ends all that is left of a block, or a question, with an outcome that this client decides.

        Args:
            but_resting: leave those calls of a block that no gateway has, for they wait to be asked for again.
        """
        if isinstance(entry, Question):
            self.forget(entry)
            places, owners, rows = 1, [entry.owner], None
        else:
            places = entry.pending() if but_resting else (1 << len(entry.owners)) - 1
            owners, rows = self.take(entry, places), entry.rows
        self.completed.append((owners, failure(entry.tag, places, status, detail, where, ran=ran), rows))

    def check(self) -> None:
        """Asserts that tables and counts agree."""
        blocks = [entry for entry in self._entries.values() if isinstance(entry, Block)]
        assert len(self.wheel) == len(self._entries)
        assert self.count == sum(block.left for block in blocks) + len(self._entries) - len(blocks)
        self.wheel.check()
        assert all(entry.tag == tag for tag, entry in self._entries.items())
        for block in blocks:
            assert 0 < block.left == len(block.owners) - block.owners.count(None)
            assert len(block.owners) == len(block.bodies) <= block.most <= MAX_CALLS
