"""Requests that a worker knows already, by their ids: under way, or answered a while ago.

A client that lost its gateway asks again under the same ids, and the key leads to the same worker. What is
under way there is joined, what has been answered is answered again; neither runs a second time. The window
is bounded: beyond it, and on another worker, a repeated request runs again.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from zmqinfer.machine.block import block_of
from zmqinfer.machine.task import Outcome, Task
from zmqinfer.policy.ring import key_hash
from zmqinfer.records import LAYOUT, MAX_CALLS, MODEL, MODEL_VERSION, PAYLOAD, REQUEST_ID, Record
from zmqinfer.tensor import Payload, payload_bytes

__all__ = ["Answer", "Twins", "is_alike", "place_of"]

# Answers are kept until any of these is reached.
MAX_KEPT = 100_000
MAX_KEPT_BYTES = 64 << 20
KEPT_S = 60.0
# What one costs beside its bytes.
_OVERHEAD = 500
# Of a large input so much of each part is compared, at either end.
_SAMPLE = 4_096


class Answer(NamedTuple):
    """What became of consecutive calls of a block; a plain tuple, which the garbage collector need not look through.

    Attributes:
        place: of the first call in its block.
        what: model, version and layout that were asked for.
        inputs: the payload, or a digest of a large one.
        outcome: as the engine gave it.
    """

    place: int
    calls: int
    what: tuple[str, int, bytes]
    inputs: bytes | int
    outcome: Outcome
    rows: int
    queue_us: int
    compute_us: int
    size: int

    def of(self, place: int) -> Outcome:
        """Returns the outcome of one call."""
        _, first, second = self.outcome
        if self.calls == 1 or type(first) is not bytes:
            return (1, first, second)  # type: ignore[return-value]
        assert type(second) is bytes
        size = len(second) // self.calls
        at = (place - self.place) * size
        return (1, first, second[at : at + size])


class Twins:
    """All that is known of requests by their blocks' ids."""

    __slots__ = ("_by_block", "_kept", "bytes", "count")

    def __init__(self) -> None:
        self._by_block: dict[bytes, list[Task | Answer]] = {}
        # Answers in the order in which they go, with the instants at which they are too old.
        self._kept: deque[tuple[float, bytes, Answer]] = deque()
        self.bytes = 0
        self.count = 0

    def begin(self, task: Task) -> bool:
        """Notes a request; False, and nothing is noted, if any of its calls has a twin."""
        known = self._by_block.setdefault(block_of(task.record[REQUEST_ID]), [])
        if known:
            # Usually other parts of the same block.
            place = place_of(task)
            if any(start_of(twin) < place + task.calls and place < start_of(twin) + twin.calls for twin in known):
                return False
        known.append(task)
        return True

    def add(self, head: Task) -> None:
        """Notes a request that was cut off from one that is known."""
        self._by_block[block_of(head.record[REQUEST_ID])].append(head)

    def find(self, task: Task) -> Task | Answer | None:
        """Returns what is known of a call by its id."""
        place = place_of(task)
        for twin in self._by_block.get(block_of(task.record[REQUEST_ID]), ()):
            if start_of(twin) <= place < start_of(twin) + twin.calls:
                return twin
        return None

    def forget(self, task: Task) -> None:
        """Drops a request that will have no outcome here."""
        self._drop(block_of(task.record[REQUEST_ID]), task)

    def keep(self, task: Task, outcomes: list[Outcome], rows: int, queue_us: int, compute_us: int, now: float) -> None:
        """Puts the outcomes in the place of the request."""
        block = block_of(task.record[REQUEST_ID])
        known = self._by_block[block]
        known.remove(task)
        place, what, inputs = place_of(task), _what(task.record), task.record[PAYLOAD]
        for outcome in outcomes:
            calls, _, second = outcome
            own = _inputs(inputs, place - place_of(task), calls, task.calls)
            size = _OVERHEAD + len(what[2]) + (len(own) if type(own) is bytes else 8) + _size(second)
            answer = Answer(place, calls, what, own, outcome, rows, queue_us, compute_us, size)
            known.append(answer)
            self._kept.append((now + KEPT_S, block, answer))
            self.count += calls
            self.bytes += size
            place += calls

    def trim(self, now: float) -> None:
        """Lets go of answers that are too old or too many."""
        kept = self._kept
        while kept and (kept[0][0] <= now or self.count > MAX_KEPT or self.bytes > MAX_KEPT_BYTES):
            _, block, answer = kept.popleft()
            self.count -= answer.calls
            self.bytes -= answer.size
            self._drop(block, answer)

    def _drop(self, block: bytes, one: Task | Answer) -> None:
        known = self._by_block[block]
        for number, twin in enumerate(known):
            if twin is one:
                del known[number]
                break
        if not known:
            del self._by_block[block]

    def followers(self) -> set[int]:
        """Returns the identities of all calls that wait for a twin."""
        known = [twin for twins in self._by_block.values() for twin in twins]
        return {id(one) for twin in known if isinstance(twin, Task) for one in twin.followers or ()}

    def check(self, tasks: set[int]) -> None:
        """Asserts that those under way are these, by their identities, and that the sums are right."""
        known = [twin for twins in self._by_block.values() for twin in twins]
        assert {id(twin) for twin in known if isinstance(twin, Task)} == tasks
        answers = [twin for twin in known if not isinstance(twin, Task)]
        assert self.count == sum(answer.calls for answer in answers)
        assert self.bytes == sum(answer.size for answer in answers)
        assert len(answers) == len(self._kept)


def place_of(task: Task) -> int:
    """Returns the place in its block of a request's first call."""
    place: int = task.record[REQUEST_ID][-1] % MAX_CALLS
    return place


def start_of(twin: Task | Answer) -> int:
    """Returns the place of the first call in its block."""
    return place_of(twin) if isinstance(twin, Task) else twin.place


def is_alike(task: Task, twin: Task | Answer) -> bool:
    """Whether a call asks for the same as another one of the same id."""
    own = _inputs(task.record[PAYLOAD], 0, 1, 1)
    if isinstance(twin, Task):
        theirs = _inputs(twin.record[PAYLOAD], place_of(task) - place_of(twin), 1, twin.calls)
        return _what(task.record) == _what(twin.record) and own == theirs
    inputs = twin.inputs
    if type(inputs) is bytes:
        inputs = _inputs(inputs, place_of(task) - twin.place, 1, twin.calls)
    return _what(task.record) == twin.what and own == inputs


def _what(record: Record) -> tuple[str, int, bytes]:
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


def _size(output: Payload | str) -> int:
    return len(output) if isinstance(output, str) else payload_bytes(output)
