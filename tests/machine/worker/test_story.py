"""A worker among random gateways: whatever they ask, each call gets one reply, and runs once."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from tests.machine.worker.playbook import YES, Shift, asks
from zmqinfer.errors import Status
from zmqinfer.machine.block import listed
from zmqinfer.machine.worker.task import Batch, Outcome
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import MAX_CALLS, OUTPUT, PAYLOAD, PLACES, RAN, REQUEST_ID, STATUS, TAG, Kind

gateways = st.integers(0, 1)
# What may become of a call that has nothing wrong.
_ENDS = (Status.OK, Status.MODEL_ERROR, Status.CANCELLED, Status.DEADLINE_EXCEEDED)
any_places = st.sampled_from((0b1, 0b110, 0b101, 0b111111, 0b1010100)) | st.integers(1, 2**9 - 1)


def inputs(block: int, places: Iterable[int]) -> bytes:
    """The payloads of calls of a block, each of which has its own."""
    return b"".join(b"%03d" % block + bytes([place]) for place in places)


class WorkerStory(RuleBasedStateMachine):
    """Gateways ask for, and take back, any parts of blocks, also of such as are known; batches end in any way."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = Shift(gateways=2, limits=BatchLimits(max_rows=4)).welcomed()
        self.running: list[Batch] = []
        self.tag = 0
        # Each by the tag of the first request for it, which its id is made of.
        self.blocks: list[int] = []
        # By gateway and tag: the block, and the places that are owed a reply; and what was taken back.
        self.owed: dict[tuple[int, int], tuple[int, set[int]]] = {}
        self.unwanted: set[tuple[int, int, int]] = set()
        # Calls, by block and place, that run or have run.
        self.ran: set[tuple[int, int]] = set()

    # Gateways

    @rule(
        gateway=gateways,
        rows=st.integers(1, 5),
        budget_s=st.sampled_from((0.0, 0.01, 5.0)),
        payload=st.sampled_from((b"", bytes(4), bytes(12))),
    )
    def asks_alone(self, gateway: int, rows: int, budget_s: float, payload: bytes) -> None:
        """One call, perhaps with more rows than a batch has, or with others than it says."""
        self._ask(gateway, self.tag + 1, 1, budget_s, payload, rows)

    @rule(gateway=gateways, places=any_places, budget_s=st.sampled_from((0.01, 5.0, 5.0)))
    def asks_anew(self, gateway: int, places: int, budget_s: float) -> None:
        """What a gateway has for this worker of a block."""
        self.blocks.append(self.tag + 1)
        self._ask_block(gateway, self.tag + 1, places, budget_s)

    @precondition(lambda self: self.blocks)
    @rule(gateway=gateways, which=st.integers(0), places=any_places, budget_s=st.sampled_from((0.0, 5.0, 5.0)))
    def asks_again(self, gateway: int, which: int, places: int, budget_s: float) -> None:
        """Any part of a block that was asked for, here or there: each of its calls may have a twin."""
        self._ask_block(gateway, self.blocks[-1 - which % len(self.blocks)], places, budget_s)

    def _ask_block(self, gateway: int, block: int, places: int, budget_s: float) -> None:
        self._ask(gateway, block, places, budget_s, inputs(block, listed(places)), places.bit_count())

    def _ask(self, gateway: int, block: int, places: int, budget_s: float, payload: bytes, rows: int) -> None:
        self.tag += 1
        request = asks(self.tag, places=places, rows=rows, budget_s=budget_s, payload=payload)
        request[REQUEST_ID] = asks(block)[REQUEST_ID]
        self.owed[gateway, self.tag] = (block, set(listed(places)))
        self.shift.hears(gateway, Kind.REQUEST, request)
        self.read()

    @precondition(lambda self: self.tag)
    @rule(gateway=gateways, which=st.integers(0), places=any_places)
    def takes_back(self, gateway: int, which: int, places: int) -> None:
        tags = [tag for number, tag in self.owed if number == gateway] or [self.tag]
        tag = tags[which % len(tags)]
        self.unwanted.update((gateway, tag, place) for place in listed(places))
        self.shift.hears(gateway, Kind.CANCEL, [tag, places])
        self.read()

    @rule(gateway=gateways)
    def forgets(self, gateway: int) -> None:
        """A session ends, and nothing is owed; who waited for what was asked there goes on."""
        self.shift.hears(gateway, Kind.DISCONNECT, ["no session", ""])
        self.owed = {key: owed for key, owed in self.owed.items() if key[0] != gateway}
        self.shift.welcomed()

    # Engines

    @rule()
    def begins(self) -> None:
        for batch in self.shift.begins():
            for task in batch.tasks:
                block = int.from_bytes(task.block[-8:], "big") // MAX_CALLS
                asked = {(block, place) for place in listed(task.places)}
                assert not asked & self.ran, "a call that ran already"
                self.ran |= asked
                if block in self.blocks:
                    assert task.record[PAYLOAD] == inputs(block, listed(task.places))
            self.running.append(batch)
        self.read()

    @precondition(lambda self: self.running)
    @rule(sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3), bad=st.sampled_from((None, None, 0, 1)))
    def ends(self, sizes: list[int], bad: int | None) -> None:
        """Each task has outcomes for some calls after the other; what ran well gives back its input."""
        batch = self.running.pop(0)
        outcomes: list[Outcome] = []
        each = itertools.cycle(sizes)
        for task in batch.tasks:
            if task.calls != task.rows:
                outcomes.append((1, b"layout", task.record[PAYLOAD]))
                continue
            left, payload = task.calls, task.record[PAYLOAD]
            while left:
                calls = min(left, next(each))
                outcomes.append((calls, b"layout", payload[: 4 * calls]))
                left, payload = left - calls, payload[4 * calls :]
        if bad is not None and bad < len(outcomes):
            outcomes[bad] = (outcomes[bad][0], Status.MODEL_ERROR, "no")
        self.shift.runs(batch, *outcomes)
        self.read()

    @rule(seconds=st.sampled_from((0.001, 0.02)))
    def time_passes(self, seconds: float) -> None:
        self.shift.now += seconds

    # What must hold

    def read(self) -> None:
        """Each reply is to calls that are owed one, and gives to each call what belongs to its own input."""
        for gateway in range(2):
            for record in self.shift.said(Kind.REPLY, gateway):
                block, owed = self.owed[gateway, record[TAG]]
                places = listed(record[PLACES])
                assert owed.issuperset(places)
                owed.difference_update(places)
                if not owed:
                    del self.owed[gateway, record[TAG]]
                if block in self.blocks and record[STATUS] == Status.OK:
                    assert record[OUTPUT] == inputs(block, places)
                if record[STATUS] == Status.CANCELLED:
                    assert {(gateway, record[TAG], place) for place in places} <= self.unwanted
                assert record[STATUS] in _ENDS or block not in self.blocks
                assert (record[RAN] == YES) is (record[STATUS] in (Status.OK, Status.MODEL_ERROR))

    def teardown(self) -> None:
        for _ in range(self.tag * MAX_CALLS):
            self.begins()
            if self.running:
                self.ends([4], None)
            self.time_passes(0.01)  # an engine may wait a little for more
        assert self.owed == {}
        assert self.shift.machine.held == 0


TestWorkerStory = pytest.mark.slow(WorkerStory.TestCase)
TestWorkerStory.settings = settings(max_examples=100, stateful_step_count=40)
