"""An engine that is stuck in a batch gets no more work, and what waits behind that goes elsewhere."""

from __future__ import annotations

from collections import deque

import pytest

from tests.machine.gateway.playbook import Playbook, card, identities, reply, request
from tests.machine.worker.playbook import NO, Shift, X, asks
from zmqinfer.config import GatewaySettings, WorkerSettings
from zmqinfer.errors import Status
from zmqinfer.machine.worker.served import ModelCard
from zmqinfer.machine.worker.task import Batch
from zmqinfer.policy.batching import BatchLimits
from zmqinfer.records import PLACES, RAN, STATUS, TAG, Kind

# The worker --------------------------------------------------------------------------------------


def credits_said(shift: Shift, number: int = 0) -> list[tuple[int, int]]:
    """Of which models which credits were told since the last time."""
    return [(record[0], record[1]) for record in shift.said(Kind.HEARTBEAT, number)]


def warm(shift: Shift) -> Shift:
    """Lets the first model run a batch of 10 ms, so that it is known how long one takes."""
    shift.hears(0, Kind.REQUEST, asks(10_000)).works()
    shift.said(Kind.REPLY)
    credits_said(shift)
    return shift


def goes_on(shift: Shift, seconds: float) -> Shift:
    """Time passes, and the gateway gives signs of life."""
    until = shift.now + seconds
    while shift.now < until:
        shift.hears(0, Kind.HEARTBEAT).waits(min(0.4, until - shift.now))
    return shift


def test_a_batch_that_takes_far_too_long_takes_the_credits_back() -> None:
    """After a second, of all gateways, and for that model alone; they come back with its end."""
    shift = warm(Shift(ModelCard("m", 1, X, BatchLimits()), ModelCard("n", 1, X, BatchLimits()), gateways=2).welcomed())
    shift.hears(0, Kind.REQUEST, asks(1))
    (batch,) = shift.begins()

    shift.waits(0.9)
    assert all(rows for _, rows in credits_said(shift) + credits_said(shift, 1))
    shift.waits(0.2)
    for number in (0, 1):
        told = credits_said(shift, number)
        assert (0, 0) in told
        assert all(rows for model, rows in told if model == 1)
    assert [event for event, _ in shift.machine.events][-1] == "stuck in a batch"

    shift.runs(batch, compute_s=3.0)
    assert [model for model, rows in credits_said(shift) if rows] == [0]


@pytest.mark.parametrize(("limit_s", "ends_after_s"), [(20.0, 20.0), (0.5, 1.0), (0.0, None)])
def test_a_worker_ends_for_a_batch_that_nobody_waits_for(limit_s: float, ends_after_s: float | None) -> None:
    """It cannot stop its model; not before that is stuck, whatever the limit, and never without one."""
    shift = warm(Shift(settings=WorkerSettings(max_batch_s=limit_s)).welcomed())
    shift.hears(0, Kind.REQUEST, asks(1)).begins()

    goes_on(shift, 60.0 if ends_after_s is None else ends_after_s - 0.05)
    assert not shift.machine.ended_by
    if ends_after_s is not None:
        goes_on(shift, 0.1)
        assert f"max_batch_s is {limit_s:g}" in shift.machine.ended_by


def handed_over(*tags: int) -> tuple[Shift, deque[Batch]]:
    """A worker whose engine, one of short batches, was handed a batch for each of these calls at once."""
    shift = Shift(limits=BatchLimits(max_rows=1), settings=WorkerSettings(max_batch_s=20.0)).welcomed()
    for tag in range(30):
        shift.hears(0, Kind.REQUEST, asks(10_000 + tag))
        for batch in shift.begins():
            shift.runs(batch, compute_s=0.0001)
    shift.hears(0, Kind.REQUEST, *(asks(tag) for tag in tags))
    shift.said(Kind.REPLY)
    credits_said(shift)
    (batches,) = shift.machine.take_batches(shift.now).values()
    assert [task.tag for batch in batches for task in batch.tasks] == list(tags)
    return shift, batches


def test_batches_that_were_handed_over_together_each_have_their_own_time() -> None:
    """What those in front took counts for none of them; the third as little as the second."""
    shift, batches = handed_over(1, 2, 3)

    for batch in batches.copy():
        assert batches.popleft() is batch
        goes_on(shift, 0.9)
        shift.runs(batch, compute_s=0.9)

    assert all(rows for _, rows in credits_said(shift))


@pytest.mark.parametrize("begun", [0, 1, 2])
def test_what_was_handed_over_and_has_not_begun_can_be_taken_back(begun: int) -> None:
    """It cannot have run, and is answered so; the first is taken for begun, for it is that which lasts."""
    shift, batches = handed_over(1, 2, 3, 4)
    for _ in range(begun):
        batches.popleft()

    goes_on(shift, 1.1)
    assert credits_said(shift)[-1] == (0, 0)
    shift.hears(0, Kind.CANCEL, *([tag, 1] for tag in (1, 2, 3, 4)))

    kept = max(1, begun)
    replies = shift.said(Kind.REPLY)
    assert [record[TAG] for record in replies] == [1, 2, 3, 4][kept:]
    assert {(record[STATUS], record[RAN]) for record in replies} == {(Status.CANCELLED, NO)}
    assert len(batches) == 1 - min(1, begun)


def test_what_nobody_takes_back_runs_when_the_stuck_batch_has_ended() -> None:
    """It waits as if it had never been handed over."""
    shift, batches = handed_over(1, 2, 3)
    first = batches.popleft()
    goes_on(shift, 1.1)

    shift.runs(first, compute_s=1.1)

    assert sorted(record[TAG] for record in shift.works().said(Kind.REPLY)) == [1, 2, 3]


def test_a_model_that_was_taken_away_gives_back_what_is_behind_a_stuck_batch() -> None:
    """Nobody would run it, and its gateways asked for nothing: they are told."""
    shift, batches = handed_over(1, 2, 3)
    first = batches.popleft()
    shift.machine.remove_model(0)

    goes_on(shift, 1.1)

    assert [(record[TAG], record[RAN]) for record in shift.said(Kind.REPLY)] == [(2, NO), (3, NO)]
    shift.runs(first, compute_s=1.1)
    assert [record[TAG] for record in shift.said(Kind.REPLY)] == [1]


def test_what_a_gateway_gave_that_has_gone_is_dropped_behind_a_stuck_batch() -> None:
    """Its session has ended: it is for others now, and must not run here."""
    shift, batches = handed_over(1, 2)
    first = batches.popleft()
    shift.hears(0, Kind.DISCONNECT, ["no session", ""]).hears(
        0, Kind.WELCOME, [b"%016d" % 1, "gateway", 500, 2**27, []]
    )

    goes_on(shift, 1.1)
    shift.runs(first, compute_s=1.1)

    assert not shift.begins()
    assert not shift.said(Kind.REPLY)


def test_a_long_batch_of_a_model_with_long_batches_is_not_stuck() -> None:
    """Four times as long as expected is; and nobody knows how long a first one should take."""
    shift = Shift().welcomed()
    shift.hears(0, Kind.REQUEST, asks(1))
    (batch,) = shift.begins()
    goes_on(shift, 10.0)
    assert all(rows for _, rows in credits_said(shift))
    shift.runs(batch, compute_s=10.0)
    (batch,) = shift.hears(0, Kind.REQUEST, asks(2, budget_s=100.0)).begins()

    goes_on(shift, 39.0)
    assert all(rows for _, rows in credits_said(shift))
    goes_on(shift, 2.0)
    assert credits_said(shift)[-1] == (0, 0)


def test_one_that_is_stuck_greets_without_credits() -> None:
    """A gateway that comes back must not fill it."""
    shift = warm(Shift().welcomed())
    shift.hears(0, Kind.REQUEST, asks(1))
    shift.begins()
    shift.waits(1.5)
    shift.said(Kind.MODELS)

    shift.hears(0, Kind.DISCONNECT, ["no session", ""])

    assert shift.says(Kind.MODELS)[1][4] == 0


# The gateway -------------------------------------------------------------------------------------


def stuck(play: Playbook, worker: str, *, rows: int = 0) -> Playbook:
    """A worker says how many rows it may be given."""
    return play.hears(worker, Kind.HEARTBEAT, [0, rows, 5, 1_200_000, []])


def test_what_waits_behind_a_stuck_batch_is_taken_back_and_runs_elsewhere() -> None:
    """A worker gives back what has not begun, which then may run elsewhere whatever it is."""
    play = Playbook().with_workers("w1", "w2").with_clients("c")
    keys = {name: play.key_of(name) for name in ("w1", "w2")}
    play.hears("c", Kind.REQUEST, *(request(tag, key=keys["w1"], idempotent=False) for tag in (1, 2)))
    running, waiting = play.said("w1", Kind.REQUEST)

    stuck(play, "w1")

    assert sorted(record[TAG] for record in play.said("w1", Kind.CANCEL)) == [running[TAG], waiting[TAG]]
    play.hears("w1", Kind.REPLY, reply(waiting, "w1", status=Status.CANCELLED, ran=0))
    play.says_nothing("c")
    moved = play.says("w2", Kind.REQUEST)
    play.hears("w2", Kind.REPLY, reply(moved, "w2"))
    play.hears("w1", Kind.REPLY, reply(running, "w1"))
    assert [record[STATUS] for record in play.said("c", Kind.REPLY)] == [Status.OK, Status.OK]
    assert play.requests()["moved"] == 1
    assert play.held("w1") == play.held("w2") == 0


def test_who_waited_for_a_stuck_engine_goes_to_one_that_is_idle_at_once() -> None:
    """Though nothing comes back that would free anything: its home is gone, and others have had room all along."""
    play = Playbook(GatewaySettings(affinity_wait_ms=1_000)).with_workers("w1", "w2", credits_rows=1).with_clients("c")
    key, other = play.key_of("w1"), play.key_of("w2")
    play.hears("c", Kind.REQUEST, request(1, key=key), request(2, key=other), request(3, key=key))
    play.answers("w2").says_nothing("w2")

    stuck(play, "w1")

    assert identities(play.said("w2", Kind.REQUEST)) == [b"id3"]


def test_a_stuck_engine_is_off_the_ring_until_it_has_credits() -> None:
    """Its keys have another home meanwhile."""
    play = Playbook().with_workers("w1", "w2").with_clients("c")
    key = play.key_of("w1")

    stuck(play, "w1")
    play.hears("c", Kind.REQUEST, request(1, key=key))
    assert play.says("w2", Kind.REQUEST)
    stuck(play, "w1", rows=64)
    play.hears("c", Kind.REQUEST, request(2, key=key))
    assert play.says("w1", Kind.REQUEST)


def test_with_everyone_stuck_requests_wait_and_are_served_by_the_first_that_goes_on() -> None:
    """In the gateway's queue, where they can be cancelled and keep their deadlines; with a key, too."""
    play = Playbook().with_workers("w1", "w2").with_clients("c")
    for worker in ("w1", "w2"):
        stuck(play, worker)

    play.hears("c", Kind.REQUEST, request(1), request(2, key=b"key"), request(3, budget_s=0.5))
    play.waits(1.0)
    (ended,) = play.said("c", Kind.REPLY)
    assert (ended[TAG], ended[STATUS]) == (3, Status.DEADLINE_EXCEEDED)
    assert "2 of 2 are stuck in a batch" in ended[STATUS + 1]
    stuck(play, "w2", rows=64)

    assert sum(record[PLACES] for record in play.said("w2", Kind.REQUEST)) == 2


def test_one_that_joins_stuck_gets_nothing() -> None:
    """READY may say so."""
    play = Playbook().joins("w1", card(credits_rows=0)).with_clients("c")
    play.said("w1", Kind.WELCOME)
    play.hears("c", Kind.REQUEST, request(1))
    play.says_nothing("w1")

    stuck(play, "w1", rows=8)

    assert play.says("w1", Kind.REQUEST)


def test_a_call_cancelled_while_it_is_taken_back_is_not_placed_again() -> None:
    """Its worker's word is then only the credit."""
    play = Playbook().with_workers("w1", "w2").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1, key=play.key_of("w1")))
    (asked,) = play.said("w1", Kind.REQUEST)
    stuck(play, "w1")
    play.hears("c", Kind.CANCEL, [1, 1])

    play.hears("w1", Kind.REPLY, reply(asked, "w1", status=Status.CANCELLED, ran=0))

    assert play.said("w2", Kind.REQUEST) == []
    assert play.requests()["pending"] == 0


def test_a_worker_that_was_lost_may_have_run_what_it_gives_back_elsewhere() -> None:
    """`executed` of a call stays what it was by its first worker's loss."""
    play = Playbook().with_workers("w1", "w2").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1, key=play.key_of("w1"), budget_s=0.4))
    play.said("w1", Kind.REQUEST)
    play.loses("w1")
    (asked,) = play.said("w2", Kind.REQUEST)
    stuck(play, "w2")
    play.hears("w2", Kind.REPLY, reply(asked, "w2", status=Status.CANCELLED, ran=0))

    play.waits(1.0)

    (ended,) = play.said("c", Kind.REPLY)
    assert ended[STATUS] == Status.DEADLINE_EXCEEDED
    assert ended[RAN] == 2


# Failing and slow ones ----------------------------------------------------------------------------


def answers(play: Playbook, worker: str, first: int, *, status: Status, key: bytes) -> None:
    """Twelve calls to a worker, and what becomes of them."""
    play.hears("c", Kind.REQUEST, *(request(first + n, key=key) for n in range(12)))
    for name in ("w1", "w2", "w3"):
        for record in play.said(name, Kind.REQUEST):
            play.hears(name, Kind.REPLY, reply(record, name, status=status if name == worker else Status.OK))
    play.said("c", Kind.REPLY)


def test_a_worker_whose_model_fails_gets_no_work_for_a_while() -> None:
    """As the others' does not; then one call at a time, and all that it is due after three that were in order."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("c")
    keys = {name: play.key_of(name) for name in ("w1", "w2", "w3")}
    for turn in range(3):
        for place, name in enumerate(keys):
            answers(play, "w1", 1_000 * turn + 100 * place, status=Status.MODEL_ERROR, key=keys[name])
        play.waits(0.6)

    assert [values["worker"] for event, values in play.machine.workers.events if event == "worker out"] == ["w1"]
    assert play.status()["workers"][0]["models"][0]["standing"] == "out"
    play.hears("c", Kind.REQUEST, request(9_000, key=keys["w1"]))
    assert play.said("w1", Kind.REQUEST) == []
    for name in ("w2", "w3"):
        play.answers(name)

    play.waits(7.0)
    assert play.status()["workers"][0]["models"][0]["standing"] == "trial"
    play.hears("c", Kind.REQUEST, *(request(9_100 + n, key=keys["w1"]) for n in range(3)))
    (asked,) = play.said("w1", Kind.REQUEST)
    for _ in range(3):
        play.hears("w1", Kind.REPLY, reply(asked, "w1"))
        for name in ("w2", "w3"):
            play.answers(name)
        play.hears("c", Kind.REQUEST, request(9_200 + asked[TAG] % 100_000, key=keys["w1"]))
        (asked,) = play.said("w1", Kind.REQUEST)
    play.waits(0.6)
    assert play.status()["workers"][0]["models"][0]["standing"] == "in"
