"""What may have ended a worker runs alone; with a second end it is refused, unless it was only the connection."""

from __future__ import annotations

from tests.machine.gateway.playbook import Playbook, card, reply, request, session_of
from tests.machine.worker.playbook import Shift, asks
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.policy.quarantine import KEPT_S
from zmqinfer.records import ALONE, OUTPUT, PAYLOAD, PLACES, RAN, STATUS, TAG, Kind, Record

# The gateway -------------------------------------------------------------------------------------


def crashed(*, calls: int = 1) -> tuple[Playbook, list[Record]]:
    """A worker ended at once with requests; returns what the next one is sent."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(32, payload=b"bad!", calls=calls))
    play.said("w1", Kind.REQUEST)
    play.joins("w2").loses("w1")
    return play, play.said("w2", Kind.REQUEST)


def runs(play: Playbook, worker: str, record: Record) -> Playbook:
    """A worker says what it is about to run."""
    return play.hears(worker, Kind.HEARTBEAT, [0, 64, 1, 0, [record[TAG]]])


def test_what_a_worker_ended_with_runs_alone_call_by_call() -> None:
    """A block too."""
    _, moved = crashed(calls=4)

    assert [record[PLACES] for record in moved] == [0b0001, 0b0010, 0b0100, 0b1000]
    assert all(record[ALONE:] == [True] for record in moved)
    assert [record[PAYLOAD] for record in moved] == [b"bad!"] * 4


def test_only_a_batch_of_each_model_is_suspected() -> None:
    """The oldest rows; what came later had not begun."""
    play = Playbook().joins("w1", card(max_rows=2)).with_clients("c")
    play.said("w1", Kind.WELCOME)
    play.hears("c", Kind.REQUEST, *(request(tag, payload=b"%d" % tag) for tag in range(1, 6)))
    play.said("w1", Kind.REQUEST)

    play.joins("w2", card(max_rows=2)).loses("w1")
    moved = play.answers("w2").said("w2", Kind.REQUEST)
    everything = {record[PAYLOAD]: record[ALONE:] == [True] for record in moved}

    assert all(not alone for body, alone in everything.items() if body not in {b"1", b"2"})


def test_who_fell_silent_was_ended_by_nothing() -> None:
    """It is stopped or cut off; what it had runs in company."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1))
    play.said("w1", Kind.REQUEST)

    play.joins("w2").falls_silent("w1")

    assert play.says("w2", Kind.REQUEST)[ALONE:] == []


def test_a_worker_that_was_kept_from_speaking_before_its_end_was_ended_too() -> None:
    """On a busy machine its last word may be old: what closes before ZeroMQ finds it dead is no stopped process."""
    play = Playbook().with_workers("w1").with_clients("c").hears("c", Kind.REQUEST, request(1))
    play.said("w1", Kind.REQUEST)
    play.silent.add("w1")

    play.joins("w2").waits(1.4).loses("w1")

    assert play.says("w2", Kind.REQUEST)[ALONE:] == [True]


def test_slow_beats_do_not_make_the_end_of_a_stopped_workers_connection_abrupt() -> None:
    """ZeroMQ ends it after 1.5 s without a sign, whatever the gateway's own heartbeat is."""
    play = Playbook(GatewaySettings(heartbeat_ms=2_000)).with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1))
    play.said("w1", Kind.REQUEST)
    play.silent.add("w1")

    play.joins("w2").waits(1.6).loses("w1")

    assert play.says("w2", Kind.REQUEST)[ALONE:] == []


def test_who_waited_beside_what_ended_three_workers_is_not_lost_with_them() -> None:
    """A call that was accused explains the end: to the others it is no loss."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1, payload=b"bad!"), request(2, payload=b"good"))
    play.said("w1", Kind.REQUEST)
    play.joins("w2").falls_silent("w1")
    play.joins("w3").loses("w2")
    bad, _ = sorted(play.said("w3", Kind.REQUEST), key=lambda record: record[PAYLOAD])
    assert bad[ALONE:] == [True]

    runs(play, "w3", bad).joins("w4").loses("w3")

    play.answers("w4").waits(3.0)
    ends = {record[TAG]: record[STATUS] for record in play.said("c", Kind.REPLY)}
    assert ends == {1: Status.POISONED, 2: Status.OK}


def test_a_second_end_while_it_ran_alone_convicts() -> None:
    """After two seconds in which the worker might have come back; then the same input is refused unrun."""
    play, (moved, *_) = crashed()
    runs(play, "w2", moved).loses("w2")
    play.waits(1.9)
    assert play.said("c", Kind.REPLY) == []

    play.waits(0.2)
    ended = play.says("c", Kind.REPLY)
    assert (ended[STATUS], ended[RAN]) == (Status.POISONED, 1)
    play.joins("w3").hears("c", Kind.REQUEST, request(64, payload=b"bad!"), request(65, payload=b"fine"))
    refused = play.says("c", Kind.REPLY)
    assert (refused[TAG], refused[STATUS], refused[RAN]) == (64, Status.POISONED, 0)
    assert play.says("w3", Kind.REQUEST)[PAYLOAD] == b"fine"
    assert play.requests()["outcomes"] == {"POISONED": 2}


def test_a_block_with_one_input_in_quarantine_loses_that_one() -> None:
    """The others run."""
    play, (moved, *_) = crashed()
    runs(play, "w2", moved).loses("w2").waits(3.0)
    play.said("c", Kind.REPLY)
    play.joins("w3")
    block = request(96, calls=3)
    block[PAYLOAD] = b"goodbad!fine"

    play.hears("c", Kind.REQUEST, block)

    (refused,) = play.said("c", Kind.REPLY)
    assert (refused[TAG], refused[PLACES], refused[STATUS]) == (96, 0b010, Status.POISONED)
    assert [record[PAYLOAD] for record in play.said("w3", Kind.REQUEST)] == [b"goodfine"]
    # Sent again behind a greeting: those that run are not taken twice, the other one is refused twice.
    play.hears("c", Kind.REQUEST, block)
    assert play.said("w3", Kind.REQUEST) == []
    assert play.requests()["duplicates"] == 2


def test_quarantine_ends() -> None:
    """After ten minutes somebody may have mended the model."""
    play, (moved, *_) = crashed()
    runs(play, "w2", moved).loses("w2").waits(3.0)
    play.said("c", Kind.REPLY)
    play.waits(KEPT_S)

    play.joins("w3").hears("c", Kind.REQUEST, request(64, payload=b"bad!"))

    assert play.says("w3", Kind.REQUEST)[PAYLOAD] == b"bad!"


def test_a_worker_that_comes_back_was_not_ended() -> None:
    """Its connection was: the request is placed again, in company."""
    play, (moved, *_) = crashed()
    runs(play, "w2", moved).loses("w2").waits(0.5)

    play.joins("w2", peer="again", session=session_of("w2"))

    again = play.says("again", Kind.REQUEST)
    assert again[PAYLOAD] == b"bad!"
    assert again[ALONE:] == []
    play.hears("again", Kind.REPLY, reply(again, "w2")).waits(3.0)
    assert [record[STATUS] for record in play.said("c", Kind.REPLY)] == [Status.OK]


def test_a_suspect_keeps_what_else_was_asked_of_it() -> None:
    """A wish to be hedged, and fields of a later release."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, [*request(1), None, False, "later"])
    play.said("w1", Kind.REQUEST)

    play.joins("w2").loses("w1")

    assert play.says("w2", Kind.REQUEST)[ALONE:] == [True, False, "later"]


def test_an_end_before_it_ran_convicts_nobody() -> None:
    """The worker had not said that it runs it."""
    play, _ = crashed()

    play.joins("w3").loses("w2")

    assert play.says("w3", Kind.REQUEST)[ALONE:] == [True]
    play.answers("w3")
    play.waits(3.0)
    assert play.requests()["outcomes"] == {}


def test_an_end_after_it_was_answered_convicts_nobody() -> None:
    """It is no longer there."""
    play, (moved, *_) = crashed()
    runs(play, "w2", moved).hears("w2", Kind.REPLY, reply(moved, "w2")).loses("w2").waits(3.0)

    assert play.requests()["outcomes"] == {"OK": 1}


def test_an_accused_call_may_be_cancelled_or_run_out_of_time() -> None:
    """Nobody waits for the sentence then, which is passed all the same."""
    for budget_s, words in ((30.0, "cancel"), (1.0, "wait")):
        play = Playbook().with_workers("w1").with_clients("c")
        play.hears("c", Kind.REQUEST, request(1, budget_s=budget_s, payload=b"bad!"))
        play.said("w1", Kind.REQUEST)
        play.joins("w2").loses("w1")
        runs(play, "w2", play.says("w2", Kind.REQUEST)).loses("w2")
        if words == "cancel":
            play.hears("c", Kind.CANCEL, [1, 1])
        play.waits(4.0)
        ended = play.said("c", Kind.REPLY)
        assert [record[STATUS] for record in ended] == ([Status.DEADLINE_EXCEEDED] if words == "wait" else [])
        assert play.requests()["pending"] == 0
        play.joins("w3").hears("c", Kind.REQUEST, request(64, payload=b"bad!"))
        assert play.says("c", Kind.REPLY)[STATUS] == Status.POISONED
        assert play.said("w3", Kind.REQUEST) == []


def test_a_worker_may_convict_by_itself() -> None:
    """One that runs its model in a process of its own."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1, payload=b"bad!"))
    play.answers("w1", status=Status.POISONED)
    assert play.says("c", Kind.REPLY)[STATUS] == Status.POISONED

    play.hears("c", Kind.REQUEST, request(2, payload=b"bad!"))

    assert play.says("c", Kind.REPLY)[RAN] == 0
    assert play.said("w1", Kind.REQUEST) == []


def test_an_input_in_shared_memory_is_not_kept_out() -> None:
    """The gateway has not seen it; it ends as any other."""
    place = ([1, 2], 0, 4)
    play = Playbook().joins("w1", host=b"here").greets("c", host=b"here")
    play.said("w1", Kind.WELCOME), play.said("c", Kind.WELCOME)
    play.hears("c", Kind.REQUEST, request(1, payload=place))
    play.answers("w1", status=Status.POISONED)

    play.hears("c", Kind.REQUEST, request(2, payload=place))

    assert len(play.said("w1", Kind.REQUEST)) == 1


# The worker --------------------------------------------------------------------------------------


def test_a_suspect_is_a_batch_of_its_own_that_is_told_before_it_runs() -> None:
    """Whatever else waits, and the shell is to send that first."""
    shift = Shift().welcomed()
    alone = [*asks(64), True]
    shift.hears(0, Kind.REQUEST, asks(1), alone, [*asks(96), True], asks(2))
    order = []

    while batches := shift.begins():
        for batch in batches:
            tags = [task.tag for task in batch.tasks]
            order.append(tags)
            told = [record[4] for record in shift.said(Kind.HEARTBEAT) if record[3] == 0]
            assert told == ([tags] if tags in ([64], [96]) else [])
            assert shift.machine.is_in_danger == bool(told)
            shift.machine.is_in_danger = False
            shift.runs(batch)

    assert sorted(order) == [[1, 2], [64], [96]]
    assert [record[OUTPUT] for record in shift.said(Kind.REPLY)] == [b"yyyy"] * 4
