"""What must be sent to one peer.

Records collect here while a turn is worked through; then the shell sends one message for each
kind, or as many as the protocol's bounds ask for. At rest that is immediate; under load the
bundles grow by themselves. What a full socket does not take stays, in order.
"""

from __future__ import annotations

from collections.abc import Iterator

from zmqinfer.records import BUDGET_US, MAX_BUDGET_US, PAYLOAD_AT, Kind, Record
from zmqinfer.tensor import Buffer, payload_bytes
from zmqinfer.wire import encode, encode_whole

__all__ = ["Outbox"]

# Greetings first, for nothing else is heard without a session; partings last.
_ORDER = (
    Kind.HELLO,
    Kind.READY,
    Kind.MODELS,
    Kind.WELCOME,
    Kind.REPLY,
    Kind.REQUEST,
    Kind.CANCEL,
    Kind.HEARTBEAT,
    Kind.STATS,
    Kind.ADMIN,
    Kind.DISCONNECT,
)

# What a record without a payload takes.
_RECORD_BYTES = 100


class Outbox:
    """Records for one peer, by kind.

    Attributes:
        address: what the shell sends to: a routing id at a ROUTER, the number of a link elsewhere.
        size: about how many bytes are inside.
        is_owed: whether what a full socket does not take is kept.
    """

    __slots__ = ("_deadlines", "_dirty", "_is_listed", "_passed", "_records", "address", "is_owed", "size")

    def __init__(self, address: bytes | int | None, dirty: list[Outbox], *, is_owed: bool = True) -> None:
        """Makes an empty outbox that enters itself in `dirty`, the machine's list, when it is filled."""
        self.address = address
        self.is_owed = is_owed
        self.size = 0
        self._dirty = dirty
        self._is_listed = False
        self._records: dict[Kind, list[Record]] = {}
        self._deadlines: list[float] = []
        # How many of the REQUESTs inside have left already, while messages of them are being sent.
        self._passed = 0

    def __len__(self) -> int:
        return sum(len(records) for records in self._records.values())

    def holds(self, kind: Kind) -> bool:
        """Whether records of this kind wait to leave."""
        return kind in self._records

    def unsent(self) -> dict[int, int]:
        """Returns the calls that have not left, by the tags of their REQUESTs, as the places in their block."""
        unsent: dict[int, int] = {}
        for tag, places, *_ in self._records.get(Kind.REQUEST, [])[self._passed :]:
            unsent[tag] = unsent.get(tag, 0) | places
        return unsent

    def put(self, kind: Kind, record: Record, size: int = 0) -> None:
        """Adds a record whose payload, answer or sentence has `size` bytes."""
        records = self._records.get(kind)
        if records is None:
            records = self._records[kind] = []
        records.append(record)
        self.size += size + _RECORD_BYTES
        if not self._is_listed:
            self._list()

    def _list(self) -> None:
        self._is_listed = True
        self._dirty.append(self)

    def put_request(self, record: Record, deadline: float, size: int) -> None:
        """Adds a REQUEST; its budget is reckoned when it leaves, from what is then left to `deadline`."""
        self._deadlines.append(deadline)
        self.put(Kind.REQUEST, record, size)

    def beat(self) -> None:
        """Makes sure that something is sent: a bare HEARTBEAT, unless there are records already."""
        if not self._records:
            self._records[Kind.HEARTBEAT] = []
            if not self._is_listed:
                self._list()

    def readdress(self, address: bytes | None) -> None:
        """Sends what is inside to another connection from now on, or, with None, keeps it."""
        self.address = address
        if address is None:
            # The shell drops it from its list when it learns that the peer is gone.
            self._is_listed = False
        elif self._records and not self._is_listed:
            self._list()

    def discard(self, kind: Kind) -> None:
        """Drops the records of one kind, as when their session is over."""
        if self._records.pop(kind, None) is not None:
            self._weigh()
        if kind is Kind.REQUEST:
            self._deadlines.clear()

    def clear(self) -> None:
        """Drops everything."""
        self._records.clear()
        self._deadlines.clear()
        self.size = 0

    def _weigh(self) -> None:
        """Reckons the size anew: a socket that is full each turn, but moves, must not count what it took long ago."""
        self.size = 0
        for kind, records in self._records.items():
            at = PAYLOAD_AT.get(kind, 0)
            for record in records:
                self.size += _RECORD_BYTES + sum(len(field) for field in record if type(field) in (bytes, str))
                if at and type(record[at]) is list:
                    self.size += payload_bytes(record[at])

    def messages(self, now: float) -> Iterator[list[Buffer]]:
        """Yields messages to send, in order; asking for the next one says that the last one was taken.

        The shell stops asking when the socket is full, and asks anew from where it stopped later.
        """
        if self.address is None:
            self._is_listed = False
            return
        kinds = list(self._records)
        if len(kinds) > 1:
            kinds.sort(key=_ORDER.index)
        for kind in kinds:
            records = self._records.get(kind)
            if records is None:  # emptied meanwhile: an attempt to send showed that the peer is gone
                continue
            if kind is Kind.REQUEST:
                for record, deadline in zip(records, self._deadlines, strict=True):
                    left_us = int((deadline - now) * 1e6)
                    record[BUDGET_US] = 0 if left_us < 0 else min(left_us, MAX_BUDGET_US)
            head = encode_whole(kind, records, self.size)
            if head is None:
                yield from self._one_after_another(kind, records)
            else:
                yield [head]
                self._sent(kind, records, len(records))
        self._is_listed = False

    def _one_after_another(self, kind: Kind, records: list[Record]) -> Iterator[list[Buffer]]:
        sent = 0
        try:
            for count, frames in encode(kind, records, self.size):
                yield frames
                sent += count
                if kind is Kind.REQUEST:
                    self._passed = sent
        finally:
            self._passed = 0
            self._sent(kind, records, sent)

    def _sent(self, kind: Kind, records: list[Record], count: int) -> None:
        # The outbox may have been emptied meanwhile: the attempt showed that the peer is gone.
        if self._records.get(kind) is not records:
            return
        if count == len(records):
            del self._records[kind]
        else:
            del records[:count]
        if kind is Kind.REQUEST:
            del self._deadlines[:count]
        if self._records:
            self._weigh()
        else:
            self.size = 0
