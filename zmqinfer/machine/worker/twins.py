"""Requests that a worker knows already, by their ids: under way, or answered a while ago.

A client that lost its gateway asks again under the same ids, and the key leads to the same worker. What is
under way there is joined, what has been answered is answered again; neither runs a second time. The window
is bounded: beyond it, and on another worker, a repeated request runs again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from zmqinfer.machine.block import block_of
from zmqinfer.machine.worker.task import Outcome, Task
from zmqinfer.policy.ring import key_hash
from zmqinfer.records import LAYOUT, MAX_CALLS, MODEL, MODEL_VERSION, PAYLOAD, REQUEST_ID, Record
from zmqinfer.tensor import Payload, payload_bytes

__all__ = ["TIMES", "Answer", "Twins", "is_alike", "outcome_of", "place_of"]

# Answers are kept until any of these is reached.
MAX_KEPT = 100_000
MAX_KEPT_BYTES = 64 << 20
KEPT_S = 60.0
# What one costs beside its bytes: with this a worker's memory is the same, within 1 MB of 92, whether its blocks are
# of 1, 3 or 20 calls; with 500 it was 7 MB more for 1 than for 20, and so moved with the load.
_OVERHEAD = 700
# Of a large input so much of each part is compared, at either end.
_SAMPLE = 4_096

# What became of consecutive calls of a block: the block's id, until when it is kept, the place of the first call in
# the block and how many they are; model, version and layout; the payload, or a digest of a large one; the outcomes as
# the engine gave them; rows of the batch, microseconds in the queue and in the model; its size. A plain tuple, which
# is made in a fifth of the time of an object, and through which the garbage collector does not look.
Answer: TypeAlias = tuple[Any, ...]
_BLOCK, _UNTIL, _PLACE, _CALLS, _MODEL, _VERSION, _LAYOUT, _INPUTS, _OUTCOMES, TIMES, _SIZE = range(11)

_Twin: TypeAlias = Task | Answer


class Twins:
    """All that is known of requests by their blocks' ids."""

    __slots__ = ("_by_block", "_kept", "bytes", "count")

    def __init__(self) -> None:
        # Most blocks have one; of one that came in parts there is a list.
        self._by_block: dict[bytes, _Twin | list[_Twin]] = {}
        # In the order in which they go.
        self._kept: deque[Answer] = deque()
        self.bytes = 0
        self.count = 0

    def begin(self, task: Task) -> bool:
        """Notes a request; False, and nothing is noted, if any of its calls has a twin."""
        task.block = block = block_of(task.record[REQUEST_ID])
        if self._by_block.setdefault(block, task) is task:
            return True
        # Usually other parts of the same block.
        place = place_of(task)
        known = self._known(block)
        for twin in known:
            start, calls = _span(twin)
            if start < place + task.calls and place < start + calls:
                return False
        self._by_block[block] = [*known, task]
        return True

    def _known(self, block: bytes) -> list[_Twin]:
        known = self._by_block.get(block, [])
        return known if isinstance(known, list) else [known]

    def add(self, head: Task) -> None:
        """Notes a request that was cut off from one that is known."""
        head.block = block = block_of(head.record[REQUEST_ID])
        self._by_block[block] = [*self._known(block), head]

    def find(self, task: Task) -> _Twin | None:
        """Returns what is known of a call by its id."""
        place = place_of(task)
        for twin in self._known(block_of(task.record[REQUEST_ID])):
            start, calls = _span(twin)
            if start <= place < start + calls:
                return twin
        return None

    def forget(self, task: Task) -> None:
        """Drops a request that will have no outcome here."""
        self._drop(task.block, task)

    def keep(self, task: Task, outcomes: Sequence[Outcome], times: tuple[int, int, int], now: float) -> None:
        """Puts the outcomes in the place of the request.

        Args:
            times: rows of the batch, and microseconds in the queue and in the model.
        """
        record = task.record
        block, layout, payload = task.block, record[LAYOUT], record[PAYLOAD]
        size = _OVERHEAD + len(layout) + (task.size if type(payload) is bytes else 0)
        for _, _, second in outcomes:
            size += len(second) if type(second) is bytes or type(second) is str else payload_bytes(second)  # type: ignore[arg-type]
        answer: Answer = (
            block,
            now + KEPT_S,
            record[REQUEST_ID][-1] % MAX_CALLS,
            task.calls,
            record[MODEL],
            record[MODEL_VERSION],
            layout,
            payload if type(payload) is bytes else _inputs(payload, 0, 1, 1),
            tuple(outcomes),
            times,
            size,
        )
        known = self._by_block[block]
        if known is task:
            self._by_block[block] = answer
        else:
            assert type(known) is list
            known[known.index(task)] = answer
        self._kept.append(answer)
        self.count += task.calls
        self.bytes += size

    def trim(self, now: float) -> None:
        """Lets go of answers that are too old or too many."""
        kept = self._kept
        while kept and (kept[0][_UNTIL] <= now or self.count > MAX_KEPT or self.bytes > MAX_KEPT_BYTES):
            answer = kept.popleft()
            self.count -= answer[_CALLS]
            self.bytes -= answer[_SIZE]
            self._drop(answer[_BLOCK], answer)

    def _drop(self, block: bytes, one: _Twin) -> None:
        known = self._by_block[block]
        if type(known) is list:
            rest = [twin for twin in known if twin is not one]
            self._by_block[block] = rest if len(rest) > 1 else rest[0]
        else:
            assert known is one
            del self._by_block[block]

    def _everything(self) -> Iterator[_Twin]:
        for block in self._by_block:
            yield from self._known(block)

    def followers(self) -> set[int]:
        """Returns the identities of all calls that wait for a twin."""
        return {id(one) for twin in self._everything() if isinstance(twin, Task) for one in twin.followers or ()}

    def check(self, tasks: set[int]) -> None:
        """Asserts that those under way are these, by their identities, and that the sums are right."""
        known = list(self._everything())
        assert {id(twin) for twin in known if isinstance(twin, Task)} == tasks
        answers = [twin for twin in known if not isinstance(twin, Task)]
        assert self.count == sum(answer[_CALLS] for answer in answers)
        assert self.bytes == sum(answer[_SIZE] for answer in answers)
        assert len(answers) == len(self._kept)


def place_of(task: Task) -> int:
    """Returns the place in its block of a request's first call."""
    place: int = task.record[REQUEST_ID][-1] % MAX_CALLS
    return place


def _span(twin: _Twin) -> tuple[int, int]:
    """Returns the place in its block of the first call, and how many they are."""
    return (place_of(twin), twin.calls) if isinstance(twin, Task) else (twin[_PLACE], twin[_CALLS])


def outcome_of(answer: Answer, task: Task) -> Outcome:
    """Returns what became of the call that has the same id as this one."""
    at = place_of(task) - answer[_PLACE]
    for calls, first, second in answer[_OUTCOMES]:
        if at < calls:
            if calls == 1 or type(first) is not bytes:
                return (1, first, second)
            assert type(second) is bytes
            size = len(second) // calls
            return (1, first, second[at * size : (at + 1) * size])
        at -= calls
    raise AssertionError("an answer has an outcome for each of its calls")


def is_alike(task: Task, twin: _Twin) -> bool:
    """Whether a call asks for the same as another one of the same id."""
    own = _inputs(task.record[PAYLOAD], 0, 1, 1)
    start, calls = _span(twin)
    if isinstance(twin, Task):
        what, inputs = _what(twin.record), twin.record[PAYLOAD]
    else:
        what, inputs = twin[_MODEL : _LAYOUT + 1], twin[_INPUTS]
    theirs = inputs if type(inputs) is int else _inputs(inputs, place_of(task) - start, 1, calls)
    return _what(task.record) == what and own == theirs


def _what(record: Record) -> tuple[object, ...]:
    return record[MODEL], record[MODEL_VERSION], record[LAYOUT]


def _inputs(payload: Payload, first: int, calls: int, of: int) -> bytes | int:
    """Returns what the inputs of some of a payload's calls are compared by."""
    if type(payload) is bytes:
        if calls == of:
            return payload
        size = len(payload) // of
        return payload[first * size : (first + calls) * size]
    assert isinstance(payload, list)
    parts = [memoryview(part) for part in payload]
    sampled = [bytes(end) for part in parts for end in (part[:_SAMPLE], part[-_SAMPLE:])]
    return key_hash(b"".join([*(b"%d " % len(part) for part in parts), *sampled]))
