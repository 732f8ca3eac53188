"""When a batch closes: full, asked for, out of patience, or about to cost a deadline."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmqinfer.policy.batching import Batcher, BatchLimits

START = 1_000.0
NEVER = float("inf")
TIMED = BatchLimits(max_rows=8, max_wait_s=0.02, is_timed=True)
ADAPTIVE = BatchLimits(max_rows=8, max_wait_s=0.02)


@dataclass(eq=False)
class Job:
    arrived_at: float = START
    rows: int = 1
    size: int = 10
    deadline: float = NEVER
    is_waiting: bool = False
    layout: Hashable = "x"
    calls: int = 1
    name: int = 0
    first: int = 0

    def cut(self, calls: int) -> Job:
        head = replace(self, rows=calls, size=self.size // self.calls * calls, calls=calls)
        self.first += calls
        self.size -= head.size
        self.calls -= calls
        self.rows -= calls
        return head


def batcher_of(limits: BatchLimits, *jobs: Job) -> Batcher[Job]:
    batcher: Batcher[Job] = Batcher(limits)
    for job in jobs:
        batcher.offer(job, job.layout)
    return batcher


def taken(batcher: Batcher[Job], now: float) -> list[Job]:
    batch = batcher.take(now)
    batcher.check()
    return [] if batch is None else batch[1]


def sleeps_until_taken(batcher: Batcher[Job], now: float) -> tuple[float, list[Job]]:
    """An engine that is free, and asks only when it is told to: when does it get which batch?"""
    for _ in range(3):
        if batch := taken(batcher, now):
            return now, batch
        due = batcher.wake_at()
        assert due < float("inf")
        assert due > now
        now = due
    raise AssertionError("woken three times for nothing")


# Both policies -----------------------------------------------------------------------------------


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_an_empty_batcher_has_no_batch_and_no_timer(limits: BatchLimits) -> None:
    """Nothing runs for nobody."""
    batcher = batcher_of(limits)

    assert (batcher.take(START), batcher.wake_at(), batcher.expire(START), batcher.rows) == (None, float("inf"), [], 0)


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_a_full_batch_runs_at_once(limits: BatchLimits) -> None:
    """In order of arrival; what is too much stays."""
    jobs = [Job(START + number / 1e6) for number in range(9)]
    batcher = batcher_of(limits, *jobs)

    assert taken(batcher, START) == jobs[:8]
    assert batcher.rows == 1
    assert [job.is_waiting for job in jobs] == [False] * 8 + [True]


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_rows_count_and_no_request_is_split(limits: BatchLimits) -> None:
    """One that does not fit begins the next batch, though a later one would fit."""
    jobs = [Job(rows=5), Job(rows=4), Job(rows=3), Job(rows=1)]
    batcher = batcher_of(limits, *jobs)

    assert taken(batcher, START + 1) == jobs[:1]
    assert taken(batcher, START + 1) == jobs[1:]


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_a_request_over_the_limits_runs_alone(limits: BatchLimits) -> None:
    """The batcher is not the place where it is refused."""
    wide, heavy, small = Job(rows=20), Job(size=2**40), Job()
    batcher = batcher_of(limits, wide, heavy, small)

    assert [taken(batcher, START), taken(batcher, START), taken(batcher, START + 1)] == [[wide], [heavy], [small]]


def test_a_batch_is_full_in_bytes_too() -> None:
    """Then it runs at once, and has no more than that."""
    jobs = [Job(size=40) for _ in range(3)]
    batcher = batcher_of(BatchLimits(max_rows=8, max_wait_s=1.0, is_timed=True, max_bytes=100), *jobs[:2])
    assert taken(batcher, START) == []

    batcher.offer(jobs[2], "x")

    assert taken(batcher, START) == jobs[:2]
    assert taken(batcher, START) == []


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_layouts_do_not_mix_and_the_oldest_goes_first(limits: BatchLimits) -> None:
    """Shapes that differ cannot be stacked."""
    a, b, c = Job(START + 0.002, layout="a"), Job(START + 0.001, layout="b"), Job(START + 0.003, layout="a")
    last = Job(START + 0.004, layout="c")
    batcher = batcher_of(limits, a, b, c, last)

    assert batcher.take(START + 1) == ("b", [b], b.rows)
    assert batcher.take(START + 1) == ("a", [a, c], a.rows + c.rows)
    assert batcher.take(START + 1) == ("c", [last], last.rows)


def test_one_who_leaves_is_not_run() -> None:
    """Its rows and bytes no longer count, and its layout goes with the last."""
    jobs = [Job(rows=4), Job(rows=4), Job(layout="y")]
    batcher = batcher_of(TIMED, *jobs)

    batcher.remove(jobs[0], "x")
    batcher.remove(jobs[2], "y")

    batcher.check()
    assert (batcher.rows, jobs[0].is_waiting) == (4, False)
    assert taken(batcher, START) == []
    assert taken(batcher, START + 1) == [jobs[1]]
    assert batcher.wake_at() == float("inf")


def test_those_whose_time_is_up_are_taken_out() -> None:
    """At their deadline, from every layout, and once."""
    late = [Job(deadline=START + 1), Job(deadline=START + 2, layout="y")]
    rest = [Job(deadline=START + 9), Job(layout="y")]
    batcher = batcher_of(TIMED, late[0], rest[0], late[1], rest[1])

    assert batcher.expire(START + 0.999) == []
    assert batcher.expire(START + 2) == late
    assert batcher.expire(START + 2) == []

    batcher.check()
    assert [job.is_waiting for job in late + rest] == [False, False, True, True]
    assert batcher.rows == 2


# Requests of several calls -----------------------------------------------------------------------


def block(calls: int, arrived_at: float = START, deadline: float = NEVER) -> Job:
    """A request of several calls, each of one row and of size 10."""
    return Job(arrived_at, calls, 10 * calls, deadline, calls=calls)


def shape(batch: list[Job]) -> list[tuple[int, int, int]]:
    return [(job.calls, job.rows, job.size) for job in batch]


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_block_is_cut_where_the_batch_is_full(limits: BatchLimits) -> None:
    """What is left of it keeps its place and its arrival."""
    single, whole, last = Job(START), block(10, START + 0.001), Job(START + 0.002)
    batcher = batcher_of(limits, single, whole, last)

    batch = taken(batcher, START + 0.002)

    assert (batch[0], shape(batch)) == (single, [(1, 1, 10), (7, 7, 70)])
    assert [job.is_waiting for job in (*batch, whole, last)] == [False, False, True, True]
    assert (whole.calls, whole.arrived_at, batcher.rows) == (3, START + 0.001, 4)
    assert taken(batcher, START + 1) == [whole, last]
    assert batcher.rows == 0


@pytest.mark.parametrize("limits", [TIMED, ADAPTIVE])
def test_block_larger_than_a_batch_runs_in_several(limits: BatchLimits) -> None:
    """Each full, and the last with what is left."""
    batcher = batcher_of(limits, block(20))

    batches = [taken(batcher, START + 1) for _ in range(4)]

    assert [[job.calls for job in batch] for batch in batches] == [[8], [8], [4], []]


def test_block_that_fills_a_batch_exactly_is_not_cut() -> None:
    """Nor is one that fits beside others."""
    jobs = [block(5), block(3), block(8), block(1)]
    batcher = batcher_of(TIMED, *jobs)

    assert [taken(batcher, START), taken(batcher, START), taken(batcher, START + 1)] == [jobs[:2], jobs[2:3], jobs[3:]]


def test_deadline_of_a_block_that_was_cut_is_that_of_the_rest() -> None:
    """It still closes the next batch in time, and expires as a whole."""
    whole = block(10, deadline=START + 0.012)
    batcher = batcher_of(TIMED, whole)
    assert len(taken(batcher, START)) == 1

    at, batch = sleeps_until_taken(batcher, START)
    assert (at, batch) == (pytest.approx(START + 0.012), [whole])
    batcher.offer(whole, "x")
    assert batcher.expire(START + 0.012) == [whole]
    assert batcher.rows == 0


def test_part_that_was_cut_off_a_waiting_block_waits_in_front_of_it() -> None:
    """Nothing is counted twice, and each of them can be removed alone."""
    first, whole, last = Job(START), block(6, START + 0.001), Job(START + 0.002)
    batcher = batcher_of(TIMED, first, whole, last)

    head = whole.cut(2)
    batcher.divide(whole, head, "x")
    batcher.check()
    middle = whole.cut(1)
    batcher.divide(whole, middle, "x")
    batcher.check()
    assert batcher.rows == 8
    batcher.remove(middle, "x")

    assert taken(batcher, START + 1) == [first, head, whole, last]
    assert shape([head, whole]) == [(2, 2, 20), (3, 3, 30)]


# Timed -------------------------------------------------------------------------------------------


def test_the_window_is_counted_from_the_first_request() -> None:
    """A trickle must not hold a batch open."""
    batcher = batcher_of(TIMED, Job(START))
    for step in range(1, 4):
        batcher.offer(Job(START + step * 0.006), "x")
        assert taken(batcher, START + step * 0.006) == []

    at, batch = sleeps_until_taken(batcher, START + 0.018)

    assert at == pytest.approx(START + 0.02)
    assert len(batch) == 4


def test_those_left_over_keep_their_own_arrival() -> None:
    """They have waited already."""
    jobs = [Job(START + number * 0.001) for number in range(10)]
    batcher = batcher_of(TIMED, *jobs)
    assert taken(batcher, START + 0.015) == jobs[:8]

    at, batch = sleeps_until_taken(batcher, START + 0.015)

    assert (at, batch) == (pytest.approx(START + 0.028), jobs[8:])


def test_a_batch_closes_before_it_costs_a_deadline() -> None:
    """Time is left for two runs: its own, and one that may just have begun."""
    batcher = batcher_of(TIMED, Job(START, deadline=START + 0.012), Job(START, deadline=START + 5))
    for rows in (1, 4, 8) * 5:
        batcher.curve.learn(rows, 0.002 + 0.0005 * rows)

    at, batch = sleeps_until_taken(batcher, START)

    assert at == pytest.approx(START + 0.012 - 2 * 0.003)
    assert len(batch) == 2


def test_a_deadline_that_cannot_be_kept_is_tried_at_once() -> None:
    """Not in the past, and not after the window."""
    batcher = batcher_of(TIMED, Job(START, deadline=START + 0.001))
    batcher.curve.learn(1, 1.0)

    assert len(taken(batcher, START)) == 1


def test_no_wait_runs_everything_at_once() -> None:
    """The window may be 0."""
    batcher = batcher_of(BatchLimits(max_wait_s=0.0, is_timed=True), Job())

    assert len(taken(batcher, START)) == 1


# Adaptive ----------------------------------------------------------------------------------------


def test_an_idle_engine_runs_what_comes_at_once() -> None:
    """However fast rows arrived before: it has no reason to expect company."""
    batcher = batcher_of(ADAPTIVE, Job())
    loaded(batcher, rate=800.0, a_s=0.008)

    assert len(taken(batcher, START)) == 1


def loaded(batcher: Batcher[Job], *, rate: float, a_s: float, b_s: float = 0.0) -> None:
    """Lets the batcher know a curve and a rate."""
    for rows in (1, 8) * 10:
        batcher.curve.learn(rows, a_s + b_s * rows)
    batcher.rate.rows_per_s = rate


def busy(*, rate: float, a_s: float, b_s: float = 0.0, limits: BatchLimits = ADAPTIVE) -> Batcher[Job]:
    """A batcher whose engine just finished a batch, and has one request waiting."""
    batcher = batcher_of(limits, Job())
    loaded(batcher, rate=rate, a_s=a_s, b_s=b_s)
    assert len(taken(batcher, START)) == 1
    batcher.offer(Job(), "x")
    return batcher


def test_a_free_engine_runs_at_once_while_it_keeps_up() -> None:
    """Small batches do, so nothing is gained by waiting."""
    assert len(taken(busy(rate=50.0, a_s=0.008), START)) == 1


def test_a_model_without_a_fixed_cost_never_waits() -> None:
    """There is nothing to share."""
    assert len(taken(busy(rate=10_000.0, a_s=0.0, b_s=0.001), START)) == 1


def test_a_batch_that_cannot_keep_up_waits_for_the_missing_rows() -> None:
    """And goes on waiting however often it is asked: 800 rows/s at 8 ms a batch need batches of 7."""
    batcher = busy(rate=800.0, a_s=0.008)

    for step in range(7):
        assert taken(batcher, START + step * 0.001) == [], step

    at, batch = sleeps_until_taken(batcher, START + 0.006)
    assert at == pytest.approx(START + 5.74 / 800, abs=1e-4)
    assert len(batch) == 1


def test_company_that_comes_ends_the_wait() -> None:
    """When the batch can keep up there is no more to wait for."""
    batcher = busy(rate=800.0, a_s=0.008)
    assert taken(batcher, START) == []

    for _ in range(6):
        batcher.offer(Job(START + 0.001), "x")

    assert len(taken(batcher, START + 0.001)) == 7


def test_nobody_waits_longer_than_the_cost_that_would_be_shared() -> None:
    """Nor than `max_wait_s`."""
    slow = BatchLimits(max_rows=1_000, max_wait_s=0.02)

    assert sleeps_until_taken(busy(rate=100_000.0, a_s=0.001, limits=slow), START)[0] <= START + 0.001 + 1e-9
    assert sleeps_until_taken(busy(rate=100.0, a_s=5.0, limits=slow), START)[0] <= START + 0.02 + 1e-9


def test_an_engine_that_found_nothing_is_idle_again() -> None:
    """The next request runs at once."""
    batcher = busy(rate=800.0, a_s=0.008)
    sleeps_until_taken(batcher, START)
    assert taken(batcher, START + 1) == []

    batcher.offer(Job(START + 2), "x")

    assert len(taken(batcher, START + 2)) == 1


# Laws --------------------------------------------------------------------------------------------


def calls_of(jobs: list[Job]) -> list[tuple[int, int]]:
    """The calls of jobs in their order, each by its job's name and its place there."""
    return [(job.name, job.first + place) for job in jobs for place in range(job.calls)]


class Engine(RuleBasedStateMachine):
    """A free engine that takes every batch it is given, and asks when anything came or it is woken."""

    limits = TIMED

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[Job] = Batcher(self.limits)
        self.now = START
        self.waiting: list[Job] = []
        self.count = 0

    @rule(
        calls=st.sampled_from([2, 5, 12, 32]),
        size=st.sampled_from([0, 10, 60]),
        budget_s=st.sampled_from([0.0, 0.005, 0.05, 10.0]),
        layout=st.sampled_from("ab"),
    )
    def offer_block(self, calls: int, size: int, budget_s: float, layout: str) -> None:
        job = Job(self.now, calls, calls * size, self.now + budget_s, layout=layout, calls=calls)
        self._offer(job)

    @precondition(lambda self: any(job.calls > 1 for job in self.waiting))
    @rule(which=st.integers(0), calls=st.integers(1, 31))
    def divide(self, which: int, calls: int) -> None:
        blocks = [job for job in self.waiting if job.calls > 1]
        job = blocks[which % len(blocks)]
        head = job.cut(min(calls, job.calls - 1))
        self.batcher.divide(job, head, job.layout)
        self.waiting.insert(self.waiting.index(job), head)

    @rule(
        rows=st.sampled_from([1, 1, 1, 2, 5, 8]),
        size=st.sampled_from([0, 10, 60, 100]),
        budget_s=st.sampled_from([0.0, 0.005, 0.05, 10.0]),
        layout=st.sampled_from("ab"),
    )
    def offer(self, rows: int, size: int, budget_s: float, layout: str) -> None:
        self._offer(Job(self.now, rows, size, self.now + budget_s, layout=layout))

    def _offer(self, job: Job) -> None:
        self.count += 1
        job.name = self.count
        self.batcher.offer(job, job.layout)
        self.batcher.rate.count(job.rows, self.now)
        self.waiting.append(job)

    @rule(seconds=st.sampled_from([0.0001, 0.003, 0.5]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        late = [job for job in self.waiting if job.deadline <= self.now]

        assert sorted(map(id, self.batcher.expire(self.now))) == sorted(map(id, late))

        self.waiting = [job for job in self.waiting if job not in late]

    @precondition(lambda self: self.waiting)
    @rule(which=st.integers(0))
    def remove(self, which: int) -> None:
        job = self.waiting.pop(which % len(self.waiting))
        self.batcher.remove(job, job.layout)

    @rule(rows=st.integers(1, 8), seconds=st.sampled_from([0.0001, 0.002, 0.02]))
    def learn(self, rows: int, seconds: float) -> None:
        self.batcher.curve.learn(rows, seconds)

    @rule()
    def take(self) -> None:
        there = {layout: [job for job in self.waiting if job.layout == layout] for layout in "ab"}
        before = {layout: calls_of(jobs) for layout, jobs in there.items()}
        taken = self.batcher.take(self.now)
        if taken is None:
            due = self.batcher.wake_at()
            assert (due == float("inf")) == (not self.waiting)
            assert due == float("inf") or self.now < due <= self.waiting[0].arrived_at + self.limits.max_wait_s
            return
        layout, batch, rows = taken
        assert isinstance(layout, str)
        self.waiting = [job for job in self.waiting if job.is_waiting]
        left = calls_of([job for job in self.waiting if job.layout == layout])
        assert calls_of(batch) + left == before[layout], "not in order of arrival"
        assert not any(job.is_waiting for job in batch)
        assert rows == sum(job.rows for job in batch)
        whole = [job for job in batch if job in there[layout]]
        assert rows <= self.limits.max_rows or [job.calls for job in batch] == [1]
        size = sum(job.size for job in batch)
        assert size <= self.limits.max_bytes or len(batch) == batch[0].calls == 1
        if whole != batch:
            assert whole == batch[:-1]
            one_more = batch[-1].size // batch[-1].calls
            is_full = rows == self.limits.max_rows or size + one_more > self.limits.max_bytes
            assert is_full, "cut without need"

    @precondition(lambda self: self.waiting)
    @rule()
    def sleep_until_woken(self) -> None:
        if self.batcher.take(self.now + 0.0) is not None:
            self.waiting = [job for job in self.waiting if job.is_waiting]
            return
        due = self.batcher.wake_at()
        assert due < float("inf")
        self.now = due
        assert self.batcher.take(due) is not None, "woken for nothing"
        self.waiting = [job for job in self.waiting if job.is_waiting]

    @invariant()
    def agrees(self) -> None:
        self.batcher.check()
        assert self.batcher.rows == sum(job.rows for job in self.waiting)
        assert all(job.is_waiting for job in self.waiting)


class TimedEngine(Engine):
    limits = BatchLimits(max_rows=8, max_wait_s=0.02, is_timed=True, max_bytes=200)


class AdaptiveEngine(Engine):
    limits = BatchLimits(max_rows=8, max_wait_s=0.02, max_bytes=200)


TestTimed = TimedEngine.TestCase
TestAdaptive = AdaptiveEngine.TestCase
TestTimed.settings = TestAdaptive.settings = settings(max_examples=40, stateful_step_count=30)
TestTimed = pytest.mark.slow(TestTimed)
TestAdaptive = pytest.mark.slow(TestAdaptive)


@settings(max_examples=50)
@given(
    gaps_ms=st.lists(st.floats(0, 10), min_size=1, max_size=40),
    limits=st.sampled_from([TIMED, ADAPTIVE]),
    cost_s=st.sampled_from([0.0, 0.001, 0.015]),
)
def test_a_loop_that_sleeps_until_it_is_woken_runs_everything_in_time(
    gaps_ms: list[float], limits: BatchLimits, cost_s: float
) -> None:
    """Nobody waits longer than the window while the engine is free, and nobody is forgotten."""
    batcher: Batcher[Job] = Batcher(limits)
    arrivals = []
    at = START
    for gap_ms in gaps_ms:
        at += gap_ms / 1e3
        arrivals.append(at)
    free_at = now = START
    ran: list[Job] = []
    coming = [Job(at) for at in arrivals]
    while coming or batcher.rows:
        due = batcher.wake_at() if now >= free_at else free_at
        instants = [coming[0].arrived_at] if coming else []
        now = max(now, min([*instants, due]))
        while coming and coming[0].arrived_at <= now:
            job = coming.pop(0)
            batcher.offer(job, "x")
            batcher.rate.count(1, now)
        if now >= free_at and (batch := batcher.take(now)) is not None:
            waited_s = now - max(batch[1][0].arrived_at, free_at)
            assert waited_s <= limits.max_wait_s + 1e-9
            ran += batch[1]
            batcher.curve.learn(len(batch[1]), cost_s)
            free_at = now + cost_s
        batcher.check()

    assert [job.arrived_at for job in ran] == arrivals
