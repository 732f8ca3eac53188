"""Requests that a worker knows already, by their ids: under way, or answered a while ago.

A client that lost its gateway asks again under the same ids, and the key leads to the same worker. What is
under way there is joined, what has been answered is answered again; neither runs a second time. The window
is bounded: beyond it, and on another worker, a repeated request runs again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from zmqinfer.machine.worker.task import Outcome, Task
from zmqinfer.policy.ring import key_hash
from zmqinfer.records import LAYOUT, MODEL, MODEL_VERSION, PAYLOAD, Record
from zmqinfer.tensor import Payload, payload_bytes

__all__ = ["TIMES", "Answer", "Twins", "is_alike", "outcome_of"]

# Answers are kept until any of these is reached.
MAX_KEPT = 100_000
MAX_KEPT_BYTES = 64 << 20
KEPT_S = 60.0
# What one costs beside its bytes: with this a worker's memory is the same, within 1 MB of 92, whether its blocks are
# of 1, 3 or 20 calls; with 500 it was 7 MB more for 1 than for 20, and so moved with the load.
_OVERHEAD = 700
# So much of each part of a large input is compared, at either end.
_SAMPLE = 4_096

# What became of calls of a block: the block's id, until when it is kept, the calls' places as a bit set; model,
# version and layout; the payload, or a digest of a large one; the outcomes as the engine gave them; rows of the batch,
# microseconds in the queue and in the model; its size. A plain tuple, which is made in a fifth of the time of an
# object, and through which the garbage collector does not look.
Answer: TypeAlias = tuple[Any, ...]
_BLOCK, _UNTIL, _PLACES, _MODEL, _VERSION, _LAYOUT, _INPUTS, _OUTCOMES, TIMES, _SIZE = range(10)

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
        block = task.block
        if self._by_block.setdefault(block, task) is task:
            return True
        # Usually other parts of the same block.
        known = self._known(block)
        if any(_places(twin) & task.places for twin in known):
            return False
        self._by_block[block] = [*known, task]
        return True

    def _known(self, block: bytes) -> list[_Twin]:
        known = self._by_block.get(block, [])
        return known if isinstance(known, list) else [known]

    def add(self, head: Task) -> None:
        """Notes a request that was cut off from one that is known."""
        self._by_block[head.block] = [*self._known(head.block), head]

    def find(self, task: Task) -> _Twin | None:
        """Returns what is known of a call by its id."""
        return next((twin for twin in self._known(task.block) if _places(twin) & task.places), None)

    def forget(self, task: Task) -> None:
        """Drops a request that will have no outcome here."""
        self._drop(task.block, task)

    def keep(self, task: Task, outcomes: Sequence[Outcome], times: tuple[int, int, int], now: float) -> None:
        """Puts outcomes in the place of a request; `times`: rows of the batch, and us in the queue and the model."""
        record = task.record
        block, layout, payload = task.block, record[LAYOUT], record[PAYLOAD]
        size = _OVERHEAD + len(layout) + (task.size if type(payload) is bytes else 0)
        for _, _, second in outcomes:
            size += len(second) if type(second) is bytes or type(second) is str else payload_bytes(second)  # type: ignore[arg-type]
        inputs = payload if type(payload) is bytes else _inputs(payload, 0, 1)
        what = record[MODEL], record[MODEL_VERSION]
        answer: Answer = (block, now + KEPT_S, task.places, *what, layout, inputs, tuple(outcomes), times, size)
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
            self.count -= answer[_PLACES].bit_count()
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
        assert self.count == sum(answer[_PLACES].bit_count() for answer in answers)
        assert self.bytes == sum(answer[_SIZE] for answer in answers)
        assert len(answers) == len(self._kept)


def _places(twin: _Twin) -> int:
    """Returns the places of its calls, as a bit set."""
    return twin.places if isinstance(twin, Task) else twin[_PLACES]


def _rank(task: Task, twin: _Twin) -> int:
    """Returns how many of a twin's calls come before the one that a task is for."""
    return (_places(twin) & (task.places - 1)).bit_count()


def outcome_of(answer: Answer, task: Task) -> Outcome:
    """Returns what became of the call that has the same id as this one."""
    at = _rank(task, answer)
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
    own = _inputs(task.record[PAYLOAD], 0, 1)
    if isinstance(twin, Task):
        what, inputs = _what(twin.record), twin.record[PAYLOAD]
    else:
        what, inputs = twin[_MODEL : _LAYOUT + 1], twin[_INPUTS]
    theirs = inputs if type(inputs) is int else _inputs(inputs, _rank(task, twin), _places(twin).bit_count())
    return _what(task.record) == what and own == theirs


def _what(record: Record) -> tuple[object, ...]:
    return record[MODEL], record[MODEL_VERSION], record[LAYOUT]


def _inputs(payload: Payload, at: int, calls: int) -> bytes | int:
    """Returns what the input of one of a payload's calls is compared by."""
    if type(payload) is bytes:
        size = len(payload) // calls
        return payload[at * size : (at + 1) * size]
    assert isinstance(payload, list)
    parts = [memoryview(part) for part in payload]
    sampled = [bytes(end) for part in parts for end in (part[:_SAMPLE], part[-_SAMPLE:])]
    return key_hash(b"".join([*(b"%d " % len(part) for part in parts), *sampled]))
