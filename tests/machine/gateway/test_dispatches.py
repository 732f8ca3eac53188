"""Which calls a worker's replies answer, and where blocks go, told as dialogues with a gateway."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.machine.gateway.playbook import Playbook, card, reply, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.block import block_of
from zmqinfer.records import CALLS, MAX_CALLS, OUTPUT, PAYLOAD, RAN, REQUEST_ID, ROWS, STATUS, TAG, Kind, Record

NO, MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


def block(tag: int, calls: int, **how: Any) -> Record:
    """A REQUEST for calls whose inputs tell them apart."""
    record = request(tag, calls=calls, payload=b"....", **how)
    record[PAYLOAD] = b"".join(body(tag + place) for place in range(calls))
    return record


def body(tag: int) -> bytes:
    """The input of the call that the client gave this tag."""
    return b"%04d" % tag


def echo(asked: Record, first: int = 0, calls: int = 0, worker: str = "w1", **how: Any) -> Record:
    """A worker's REPLY to calls of a REQUEST, by default to all of them, whose output is their input."""
    calls = calls or asked[CALLS]
    answer = reply([asked[TAG] + first, calls], worker, **how)
    if answer[STATUS] == Status.OK:
        answer[OUTPUT] = asked[PAYLOAD][first * 4 : (first + calls) * 4]
    return answer


def inputs(*records: Record) -> list[tuple[bytes, bytes]]:
    """The id and the input of each call that requests ask for."""
    found: list[tuple[bytes, bytes]] = []
    for record in records:
        prefix, number = record[REQUEST_ID][:-1], record[REQUEST_ID][-1]
        found += [(prefix + bytes([number + n]), record[PAYLOAD][n * 4 :][:4]) for n in range(record[CALLS])]
    return found


def own_inputs(*tags: int) -> list[tuple[bytes, bytes]]:
    return [(b"id" + tag.to_bytes(8, "big"), body(tag)) for tag in tags]


def stretches(records: list[Record]) -> list[tuple[int, int]]:
    """The first tags of records, and how many calls they are about."""
    return [(record[TAG], record[CALLS]) for record in records]


def outcomes(records: list[Record]) -> dict[int, bytes | Status]:
    """What a client learns of each of its calls: the output, or why there is none; no call twice."""
    found: dict[int, bytes | Status] = {}
    for record in records:
        for place in range(record[CALLS]):
            assert record[TAG] + place not in found, "a second outcome"
            is_ok = record[STATUS] == Status.OK
            found[record[TAG] + place] = record[OUTPUT][place * 4 :][:4] if is_ok else Status(record[STATUS])
    return found


def own_answers(*tags: int) -> dict[int, bytes]:
    return {tag: body(tag) for tag in tags}


# Replies ---------------------------------------------------------------------------------------------


def test_block_goes_out_and_comes_back_as_one_record() -> None:
    """Under the gateway's tags there and the client's here; all else is left as it is."""
    play = Playbook().with_workers("w1").with_clients("alice")
    said = block(37, 5)

    asked = play.hears("alice", Kind.REQUEST, said).says("w1", Kind.REQUEST)
    assert play.held("w1") == 5
    answer = play.hears("w1", Kind.REPLY, echo(asked)).says("alice", Kind.REPLY)

    assert (asked[CALLS], asked[ROWS], asked[REQUEST_ID], asked[PAYLOAD]) == (5, 5, said[REQUEST_ID], said[PAYLOAD])
    assert (answer[TAG], answer[CALLS], answer[STATUS], answer[OUTPUT]) == (37, 5, Status.OK, said[PAYLOAD])
    assert play.held("w1") == 0
    assert play.requests()["outcomes"] == {"OK": 5}
    play.says_nothing()


def test_block_may_be_answered_in_parts_and_out_of_order() -> None:
    """Each part goes on under its own calls' tags, and gives back its own credit."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(33, 6)).says("w1", Kind.REQUEST)

    play.hears("w1", Kind.REPLY, echo(asked, 4, 2), echo(asked, 1, 1, status=Status.MODEL_ERROR))
    assert play.held("w1") == 3
    play.hears("w1", Kind.REPLY, echo(asked, 2, 2)).hears("w1", Kind.REPLY, echo(asked, 0, 1))

    answers = play.said("alice", Kind.REPLY)
    assert stretches(answers) == [(37, 2), (34, 1), (35, 2), (33, 1)]
    assert outcomes(answers) == {**own_answers(33, 35, 36, 37, 38), 34: Status.MODEL_ERROR}
    assert play.held("w1") == 0
    assert play.requests()["outcomes"] == {"OK": 5, "MODEL_ERROR": 1}
    assert (play.status()["late_replies"], play.status()["stray_replies"]) == (0, 0)


def test_one_reply_answers_the_parts_that_the_gateway_made_meanwhile() -> None:
    """The worker does not know that a call in the middle was taken back: its answer is late, the others' are not."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 5)).says("w1", Kind.REQUEST)

    play.hears("alice", Kind.CANCEL, [34, 1])
    assert stretches([play.says("w1", Kind.CANCEL)]) == [(asked[TAG] + 2, 1)]
    assert play.held("w1") == 5
    play.hears("w1", Kind.REPLY, echo(asked))

    answers = play.said("alice", Kind.REPLY)
    assert stretches(answers) == [(32, 2), (35, 2)]
    assert outcomes(answers) == own_answers(32, 33, 35, 36)
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 1)
    assert play.requests()["outcomes"] == {"OK": 4, "CANCELLED": 1}


def test_parts_of_the_worker_and_parts_of_the_gateway_need_not_agree() -> None:
    """Both are cut until they do."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 8)).says("w1", Kind.REQUEST)
    play.hears("alice", Kind.CANCEL, [34, 2], [38, 1])
    assert stretches(play.said("w1", Kind.CANCEL)) == [(asked[TAG] + 2, 2), (asked[TAG] + 6, 1)]

    play.hears("w1", Kind.REPLY, echo(asked, 3, 4))
    assert play.held("w1") == 4
    play.hears("w1", Kind.REPLY, echo(asked, 0, 3, status=Status.MODEL_ERROR), echo(asked, 7, 1))

    assert outcomes(play.said("alice", Kind.REPLY)) == {
        **own_answers(36, 37, 39),
        **dict.fromkeys((32, 33), Status.MODEL_ERROR),
    }
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 3)


@pytest.mark.parametrize(
    ("tag", "calls", "left"), [(32, 2, (34, 35, 36)), (34, 1, (32, 33, 35, 36)), (35, 5, (32, 33, 34)), (32, 5, ())]
)
def test_calls_taken_back_in_the_turn_of_their_request(tag: int, calls: int, left: tuple[int, ...]) -> None:
    """The whole block is in the outbox already: the worker gets it, answers it, and its credit comes back."""
    play = Playbook().with_workers("w1").with_clients("alice")
    said = block(32, 5)

    play.hears_at_once("alice", (Kind.REQUEST, [said]), (Kind.CANCEL, [[tag, calls]]))

    asked = play.says("w1", Kind.REQUEST)
    gone = [n for n in range(32, 37) if n not in left]
    assert (asked[CALLS], asked[PAYLOAD]) == (5, said[PAYLOAD])
    assert stretches([play.says("w1", Kind.CANCEL)]) == [(asked[TAG] + gone[0] - 32, len(gone))]
    assert play.held("w1") == 5
    play.hears("w1", Kind.REPLY, echo(asked))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*left)
    assert (play.held("w1"), play.status()["late_replies"]) == (0, len(gone))


def test_late_replies_of_a_block_are_counted_call_by_call() -> None:
    """Those of its calls that are still open are answered."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, 1, 2))
    assert list(outcomes(play.said("alice", Kind.REPLY))) == [33, 34]

    play.hears("w1", Kind.REPLY, echo(asked))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(32, 35, 36)
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 2)
    play.hears("w1", Kind.REPLY, echo(asked)).says_nothing("alice")
    assert play.status()["late_replies"] == 7
    play.hears("w1", Kind.REPLY, reply([asked[TAG] + 5, 3]), reply([0, 2])).says_nothing("alice")
    assert (play.status()["late_replies"], play.status()["stray_replies"]) == (12, 0)


def test_stray_replies_of_a_block_are_counted_call_by_call() -> None:
    """They change nothing; but with the third the worker is not believed any more."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 5)).says("w1", Kind.REQUEST)
    play.joins("w2").said("alice", Kind.WELCOME)

    play.hears("w2", Kind.REPLY, echo(asked, 1, 2)).says_nothing("alice")

    assert (play.status()["stray_replies"], len(play.status()["workers"]), play.held("w1")) == (2, 2, 5)
    play.hears("w2", Kind.REPLY, echo(asked, 4, 1)).says_nothing("alice")
    assert (play.status()["stray_replies"], len(play.status()["workers"])) == (3, 1)
    play.hears("w1", Kind.REPLY, echo(asked))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 37))


def test_reply_that_reaches_beyond_a_block_answers_what_is_inside() -> None:
    """The calls behind it never were, so what is said of them is late."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 4)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, 0, 2)).said("alice", Kind.REPLY)

    play.hears("w1", Kind.REPLY, reply([asked[TAG] + 3, 3], output=body(35)))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(35)
    assert (play.held("w1"), play.status()["late_replies"]) == (1, 2)


def test_deadline_of_a_dispatched_block_ends_all_its_calls() -> None:
    """Its tombstone keeps the credit until the worker has answered all of it, in whatever parts."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(32, 5, budget_s=0.5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, 2, 1)).said("alice", Kind.REPLY)

    answers = play.waits(0.52).said("alice", Kind.REPLY)

    assert outcomes(answers) == dict.fromkeys((32, 33, 35, 36), Status.DEADLINE_EXCEEDED)
    assert play.held("w1") == 4
    play.hears("w1", Kind.REPLY, echo(asked, 4, 1), echo(asked, 0, 2)).says_nothing("alice")
    assert (play.held("w1"), play.status()["late_replies"]) == (1, 3)
    play.hears("w1", Kind.REPLY, echo(asked, 3, 1)).says_nothing("alice")
    assert (play.held("w1"), play.machine.scheduler.dispatches._open) == (0, {})


# Tags ------------------------------------------------------------------------------------------------


def test_tags_of_dispatches_begin_at_multiples_of_32_and_never_repeat() -> None:
    """Whatever the sizes, and for a request that moves too: so each worker gets blocks, and late replies are fenced."""
    play = Playbook().with_workers("w1", "w2", credits_rows=40).with_clients("alice")
    tags: list[int] = []

    for number, calls in enumerate((1, 32, 5, 1, 31, 2), start=1):
        play.hears("alice", Kind.REQUEST, block(number * MAX_CALLS, calls))
        tags += [record[TAG] for worker in ("w1", "w2") for record in play.said(worker, Kind.REQUEST)]
    play.loses("w1")
    while moved := play.said("w2", Kind.REQUEST):
        tags += [record[TAG] for record in moved]
        play.hears("w2", Kind.REPLY, *[echo(record, worker="w2") for record in moved])

    assert len(tags) > 8
    assert len(set(tags)) == len(tags)
    assert {tag % MAX_CALLS for tag in tags} == {0}


@given(first_tag=st.integers(0, 2**62))
def test_first_tag_may_be_any_number(first_tag: int) -> None:
    """It is random, and rounded to where a block may begin."""
    play = Playbook(first_tag=first_tag)
    play.with_workers("w1").with_clients("alice")

    asked = play.hears("alice", Kind.REQUEST, block(32, 32)).says("w1", Kind.REQUEST)

    assert asked[TAG] % MAX_CALLS == 0
    assert abs(asked[TAG] - first_tag) <= MAX_CALLS


# Workers that are lost -------------------------------------------------------------------------------


def test_blocks_of_a_lost_worker_move_whole() -> None:
    """What is left of them, under new tags and with the same ids; answers to the old tags are late."""
    play = Playbook().with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, block(32, 5), block(64, 6))
    one, two = play.said("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(two, 0, 2)).said("alice", Kind.REPLY)
    play.joins("w2").falls_silent("w1")

    moved = play.said("w2", Kind.REQUEST)

    assert [record[CALLS] for record in moved] == [5, 4]
    assert inputs(*moved) == own_inputs(*range(32, 37), *range(66, 70))
    assert not {record[TAG] // MAX_CALLS for record in moved} & {one[TAG] // MAX_CALLS, two[TAG] // MAX_CALLS}
    assert play.requests()["moved"] == 9
    play.joins("w1", peer="again").hears("again", Kind.REPLY, echo(one, status=Status.MODEL_ERROR))
    play.hears("w2", Kind.REPLY, *[echo(record, worker="w2") for record in moved])
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 37), *range(66, 70))
    assert play.status()["late_replies"] == 5


@pytest.mark.parametrize(("idempotent", "losses"), [(True, 3), (False, 1)])
def test_block_with_too_many_losses_ends_as_worker_lost(idempotent: bool, losses: int) -> None:
    """Each of its calls that is left: whether it ran is not known."""
    play = Playbook().with_clients("alice").joins("w1", card(idempotent=idempotent))
    asked = play.hears("alice", Kind.REQUEST, block(32, 5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, 1, 1)).said("alice", Kind.REPLY)

    for number in range(1, losses + 1):
        assert play.said("alice", Kind.REPLY) == []
        play.joins(f"w{number + 1}", card(idempotent=idempotent)).loses(f"w{number}")

    answers = play.said("alice", Kind.REPLY)
    assert outcomes(answers) == dict.fromkeys((32, 34, 35, 36), Status.WORKER_LOST)
    assert {answer[RAN] for answer in answers} == {MAYBE}
    assert play.said(f"w{losses + 1}", Kind.REQUEST) == []
    assert play.requests()["outcomes"] == {"OK": 1, "WORKER_LOST": 4}


def test_parts_of_a_block_that_moved_remember_the_loss() -> None:
    """A part that the next worker refuses may have run on the one that was lost."""
    play = Playbook().with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, block(32, 4))
    play.joins("w2").falls_silent("w1")
    asked = play.says("w2", Kind.REQUEST)

    refused = [echo(asked, place, calls, "w2", status=Status.OVERLOADED, ran=NO) for place, calls in ((1, 2), (3, 1))]
    play.hears("w2", Kind.REPLY, *refused).hears("w2", Kind.REPLY, echo(asked, 0, 1, "w2"))

    answers = play.said("alice", Kind.REPLY)
    assert stretches(answers) == [(33, 2), (35, 1), (32, 1)]
    assert [EXECUTED[answer[RAN]] for answer in answers] == [Executed.MAYBE, Executed.MAYBE, Executed.YES]


# Load and credits ------------------------------------------------------------------------------------


def test_block_is_spread_over_idle_workers() -> None:
    """Each takes its bounded share, the home of the block first; the calls keep their ids."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    said = block(45, 12)
    order = play.successors(block_of(said[REQUEST_ID]))

    play.hears("alice", Kind.REQUEST, said)

    asked = [play.says(worker, Kind.REQUEST) for worker in order]
    assert [record[CALLS] for record in asked] == [5, 5, 2]
    assert [record[TAG] % MAX_CALLS for record in asked] == [0, 0, 0]
    assert inputs(*asked) == own_inputs(*range(45, 57))
    for worker, record in reversed(list(zip(order, asked, strict=True))):
        play.hears(worker, Kind.REPLY, echo(record, worker=worker))
    answers = play.said("alice", Kind.REPLY)
    assert stretches(answers) == [(55, 2), (50, 5), (45, 5)]
    assert outcomes(answers) == own_answers(*range(45, 57))


@pytest.mark.parametrize("name", ["w1", "w2", None])
def test_block_goes_home_whole_when_that_is_within_the_bound(name: str | None) -> None:
    """To the home of its key, or of its ids if it has none."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    said = block(39, 2, key=play.key_of(name) if name else None)
    home = name or play.home(block_of(said[REQUEST_ID]))

    play.hears("alice", Kind.REQUEST, said)

    assert play.says(home, Kind.REQUEST)[CALLS] == 2
    play.says_nothing("w1", "w2")


def test_block_that_waits_for_credit_gets_as_much_as_fits() -> None:
    """The rest goes out as credits come back, in order; nothing is over the credit."""
    play = Playbook().with_workers("w1", credits_rows=3).with_clients("alice")

    play.hears("alice", Kind.REQUEST, block(32, 8))

    first = play.says("w1", Kind.REQUEST)
    assert (first[CALLS], play.status()["queued"]["requests"]) == (3, 5)
    play.hears("w1", Kind.REPLY, echo(first, 0, 2))
    second = play.says("w1", Kind.REQUEST)
    assert (second[CALLS], play.held("w1"), play.status()["queued"]["requests"]) == (2, 3, 3)
    play.hears("w1", Kind.REPLY, echo(second), echo(first, 2, 1))
    third = play.says("w1", Kind.REQUEST)
    assert (third[CALLS], play.status()["queued"]["requests"]) == (3, 0)
    play.hears("w1", Kind.REPLY, echo(third))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 40))
    assert inputs(first, second, third) == own_inputs(*range(32, 40))


def test_parts_of_a_waiting_block_can_be_taken_back() -> None:
    """They never reach a worker; those before and behind them do, each once."""
    play = Playbook().with_workers("w1", credits_rows=2).with_clients("alice")
    play.hears("alice", Kind.REQUEST, block(32, 8))

    play.hears("alice", Kind.CANCEL, [35, 2])
    assert play.said("w1", Kind.CANCEL) == []
    assert play.status()["queued"]["requests"] == 4
    while asked := play.said("w1", Kind.REQUEST):
        assert play.held("w1") <= 2
        play.hears("w1", Kind.REPLY, *map(echo, asked))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(32, 33, 34, 37, 38, 39)


def test_keyed_block_waits_for_its_home_with_what_found_no_room() -> None:
    """Each part of it for `affinity_wait_ms` from its arrival; then it takes any."""
    play = Playbook(GatewaySettings(affinity_wait_ms=50)).with_workers("w1", "w2", credits_rows=4).with_clients("alice")
    key = play.key_of("w1")
    play.hears("alice", Kind.REQUEST, block(32, 12, key=key))
    asked = {worker: play.says(worker, Kind.REQUEST) for worker in ("w1", "w2")}
    assert play.status()["queued"]["requests"] == 4

    play.hears("w2", Kind.REPLY, echo(asked["w2"], worker="w2"))
    play.hears("w1", Kind.REPLY, echo(asked["w1"], 0, 1)).says_nothing("w2")
    assert play.says("w1", Kind.REQUEST)[CALLS] == 1

    play.waits(0.055)
    assert play.says("w2", Kind.REQUEST)[CALLS] == 3
