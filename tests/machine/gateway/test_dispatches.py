"""Which calls a worker's replies answer, and where blocks go, told as dialogues with a gateway."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.machine.gateway.playbook import Playbook, card, reply, request
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.machine.block import listed, numbers_of, part_of, reply_part
from zmqinfer.records import ALL_PLACES, KEY, OUTPUT, PAYLOAD, PLACES, RAN, REQUEST_ID, ROWS, STATUS, TAG, Kind, Record

NO, MAYBE = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.MAYBE)


def block(tag: int, calls: int, **how: Any) -> Record:
    """A REQUEST for calls whose inputs tell them apart."""
    record = request(tag, calls=calls, payload=b"....", **how)
    record[PAYLOAD] = b"".join(map(body, numbers_of(record)))
    return record


def body(number: int) -> bytes:
    """The input of the client's call with this number, which is 32 times its block's tag and its place there."""
    return b"%04d" % number


def places(first: int, calls: int) -> int:
    """So many calls from a place on."""
    return (2**calls - 1) << first


def echo(asked: Record, of: int = ALL_PLACES, worker: str = "w1", **how: Any) -> Record:
    """A worker's REPLY to calls of a REQUEST, by default to all of them, whose output is their input."""
    answer = reply(asked, worker, **how)
    if answer[STATUS] == Status.OK:
        answer[OUTPUT] = asked[PAYLOAD]
    return reply_part(answer, asked[PLACES] & of)


def inputs(*records: Record) -> list[tuple[bytes, bytes]]:
    """The id and the input of each call that requests ask for."""
    found: list[tuple[bytes, bytes]] = []
    for record in records:
        prefix, number = record[REQUEST_ID][:-1], record[REQUEST_ID][-1]
        bodies = [record[PAYLOAD][at : at + 4] for at in range(0, len(record[PAYLOAD]), 4)]
        found += [(prefix + bytes([number + n]), own) for n, own in zip(listed(record[PLACES]), bodies, strict=True)]
    return found


def own_inputs(*calls: int) -> list[tuple[bytes, bytes]]:
    return [(b"id" + number.to_bytes(8, "big"), body(number)) for number in calls]


def outcomes(records: list[Record]) -> dict[int, bytes | Status]:
    """What a client learns of each of its calls: the output, or why there is none; no call twice."""
    found: dict[int, bytes | Status] = {}
    for record in records:
        for at, number in enumerate(numbers_of(record)):
            assert number not in found, "a second outcome"
            is_ok = record[STATUS] == Status.OK
            found[number] = record[OUTPUT][at * 4 :][:4] if is_ok else Status(record[STATUS])
    return found


def own_answers(*calls: int) -> dict[int, bytes]:
    return {number: body(number) for number in calls}


# Replies ---------------------------------------------------------------------------------------------


def test_block_goes_out_and_comes_back_as_one_record() -> None:
    """Under the gateway's tag there and the client's here, without its key; all else is left as it is."""
    play = Playbook().with_workers("w1").with_clients("alice")
    said = block(7, 5, key=b"k")

    asked = play.hears("alice", Kind.REQUEST, said).says("w1", Kind.REQUEST)
    assert play.held("w1") == 5
    answer = play.hears("w1", Kind.REPLY, echo(asked)).says("alice", Kind.REPLY)

    assert asked[PLACES : REQUEST_ID + 1] == said[PLACES : REQUEST_ID + 1]
    assert (asked[KEY], asked[ROWS], asked[PAYLOAD]) == (None, 5, said[PAYLOAD])
    assert (answer[TAG], answer[PLACES], answer[STATUS], answer[OUTPUT]) == (7, said[PLACES], Status.OK, said[PAYLOAD])
    assert play.held("w1") == 0
    assert play.requests()["outcomes"] == {"OK": 5}
    play.says_nothing()


def test_block_may_be_answered_in_parts_and_out_of_order() -> None:
    """Each part goes on under its own calls' tags, and gives back its own credit."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 6)).says("w1", Kind.REQUEST)

    play.hears("w1", Kind.REPLY, echo(asked, places(4, 2)), echo(asked, places(1, 1), status=Status.MODEL_ERROR))
    assert play.held("w1") == 3
    play.hears("w1", Kind.REPLY, echo(asked, places(2, 2))).hears("w1", Kind.REPLY, echo(asked, places(0, 1)))

    answers = play.said("alice", Kind.REPLY)
    assert [listed(answer[PLACES]) for answer in answers] == [[4, 5], [1], [2, 3], [0]]
    assert outcomes(answers) == {**own_answers(32, 34, 35, 36, 37), 33: Status.MODEL_ERROR}
    assert play.held("w1") == 0
    assert play.requests()["outcomes"] == {"OK": 5, "MODEL_ERROR": 1}
    assert (play.status()["late_replies"], play.status()["stray_replies"]) == (0, 0)


def test_one_reply_answers_the_parts_that_the_gateway_made_meanwhile() -> None:
    """The worker does not know that a call in the middle was taken back: its answer is late, the others' are not."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 5)).says("w1", Kind.REQUEST)

    play.hears("alice", Kind.CANCEL, [1, places(2, 1)])
    assert play.says("w1", Kind.CANCEL) == [asked[TAG], places(2, 1)]
    assert play.held("w1") == 5
    play.hears("w1", Kind.REPLY, echo(asked))

    answer = play.says("alice", Kind.REPLY)
    assert outcomes([answer]) == own_answers(32, 33, 35, 36)
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 1)
    assert play.requests()["outcomes"] == {"OK": 4, "CANCELLED": 1}


def test_parts_of_the_worker_and_parts_of_the_gateway_need_not_agree() -> None:
    """Both are cut until they do."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 8)).says("w1", Kind.REQUEST)
    play.hears("alice", Kind.CANCEL, [1, places(2, 2) | places(6, 1)])
    assert play.says("w1", Kind.CANCEL) == [asked[TAG], places(2, 2) | places(6, 1)]

    play.hears("w1", Kind.REPLY, echo(asked, places(3, 4)))
    assert play.held("w1") == 4
    play.hears("w1", Kind.REPLY, echo(asked, places(0, 3), status=Status.MODEL_ERROR), echo(asked, places(7, 1)))

    assert outcomes(play.said("alice", Kind.REPLY)) == {
        **own_answers(36, 37, 39),
        **dict.fromkeys((32, 33), Status.MODEL_ERROR),
    }
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 3)


@pytest.mark.parametrize("unwanted", [0b00011, 0b10100, 0b11000, 0b11111])
def test_calls_taken_back_in_the_turn_of_their_request(unwanted: int) -> None:
    """The whole block is in the outbox already: the worker gets it, answers it, and its credit comes back."""
    play = Playbook().with_workers("w1").with_clients("alice")
    said = block(1, 5)

    play.hears_at_once("alice", (Kind.REQUEST, [said]), (Kind.CANCEL, [[1, unwanted | 2**9]]))

    asked = play.says("w1", Kind.REQUEST)
    assert (asked[PLACES], asked[PAYLOAD]) == (said[PLACES], said[PAYLOAD])
    assert play.says("w1", Kind.CANCEL) == [asked[TAG], unwanted]
    assert play.held("w1") == 5
    play.hears("w1", Kind.REPLY, echo(asked))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*numbers_of([1, 0b11111 & ~unwanted]))
    assert (play.held("w1"), play.status()["late_replies"]) == (0, unwanted.bit_count())


def test_late_replies_of_a_block_are_counted_call_by_call() -> None:
    """Those of its calls that are still open are answered."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, places(1, 2)))
    assert list(outcomes(play.said("alice", Kind.REPLY))) == [33, 34]

    play.hears("w1", Kind.REPLY, echo(asked))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(32, 35, 36)
    assert (play.held("w1"), play.status()["late_replies"]) == (0, 2)
    play.hears("w1", Kind.REPLY, echo(asked)).says_nothing("alice")
    assert play.status()["late_replies"] == 7
    play.hears("w1", Kind.REPLY, reply([asked[TAG], places(5, 3)]), reply([0, 0b11])).says_nothing("alice")
    assert (play.status()["late_replies"], play.status()["stray_replies"]) == (12, 0)


def test_stray_replies_of_a_block_are_counted_call_by_call() -> None:
    """They change nothing; but with the third the worker is not believed any more."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 5)).says("w1", Kind.REQUEST)
    play.joins("w2").said("alice", Kind.WELCOME)

    play.hears("w2", Kind.REPLY, echo(asked, places(1, 2))).says_nothing("alice")

    assert (play.status()["stray_replies"], len(play.status()["workers"]), play.held("w1")) == (2, 2, 5)
    play.hears("w2", Kind.REPLY, echo(asked, places(4, 1))).says_nothing("alice")
    assert (play.status()["stray_replies"], len(play.status()["workers"])) == (3, 1)
    play.hears("w1", Kind.REPLY, echo(asked))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 37))


def test_reply_that_reaches_beyond_a_block_answers_what_is_inside() -> None:
    """The calls behind it never were, so what is said of them is late."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 4)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, places(0, 2))).said("alice", Kind.REPLY)

    play.hears("w1", Kind.REPLY, reply([asked[TAG], places(3, 3)], output=body(35)))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(35)
    assert (play.held("w1"), play.status()["late_replies"]) == (1, 2)


def test_deadline_of_a_dispatched_block_ends_all_its_calls() -> None:
    """Its tombstone keeps the credit until the worker has answered all of it, in whatever parts."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, block(1, 5, budget_s=0.5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, places(2, 1))).said("alice", Kind.REPLY)

    answers = play.waits(0.52).said("alice", Kind.REPLY)

    assert outcomes(answers) == dict.fromkeys((32, 33, 35, 36), Status.DEADLINE_EXCEEDED)
    assert play.held("w1") == 4
    play.hears("w1", Kind.REPLY, echo(asked, places(4, 1)), echo(asked, places(0, 2))).says_nothing("alice")
    assert (play.held("w1"), play.status()["late_replies"]) == (1, 3)
    play.hears("w1", Kind.REPLY, echo(asked, places(3, 1))).says_nothing("alice")
    assert (play.held("w1"), list(play.machine.scheduler.dispatches._open)) == (0, [])


# Tags ------------------------------------------------------------------------------------------------


def test_tags_of_dispatches_never_repeat() -> None:
    """For a request that moves neither: so late replies are fenced."""
    play = Playbook().with_workers("w1", "w2", credits_rows=40).with_clients("alice")
    tags: list[int] = []

    for number, calls in enumerate((1, 32, 5, 1, 31, 2), start=1):
        play.hears("alice", Kind.REQUEST, block(number, calls))
        tags += [record[TAG] for worker in ("w1", "w2") for record in play.said(worker, Kind.REQUEST)]
    play.loses("w1")
    while moved := play.said("w2", Kind.REQUEST):
        tags += [record[TAG] for record in moved]
        play.hears("w2", Kind.REPLY, *[echo(record, worker="w2") for record in moved])

    assert len(tags) > 8
    assert len(set(tags)) == len(tags)


# Workers that are lost -------------------------------------------------------------------------------


def test_blocks_of_a_lost_worker_move_whole() -> None:
    """What is left of them, under new tags and with the same ids; answers to the old tags are late."""
    play = Playbook().with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, block(1, 5), block(2, 6))
    one, two = play.said("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(two, places(0, 2))).said("alice", Kind.REPLY)
    play.joins("w2").falls_silent("w1")

    moved = play.said("w2", Kind.REQUEST)

    assert inputs(*moved) == own_inputs(*range(32, 37), *range(66, 70))
    assert not {record[TAG] for record in moved} & {one[TAG], two[TAG]}
    assert play.requests()["moved"] == 9
    play.joins("w1", peer="again").hears("again", Kind.REPLY, echo(one, status=Status.MODEL_ERROR))
    play.hears("w2", Kind.REPLY, *[echo(record, worker="w2") for record in moved])
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 37), *range(66, 70))
    assert play.status()["late_replies"] == 5


@pytest.mark.parametrize(("idempotent", "losses"), [(True, 3), (False, 1)])
def test_block_with_too_many_losses_ends_as_worker_lost(idempotent: bool, losses: int) -> None:
    """Each of its calls that is left: whether it ran is not known."""
    play = Playbook().with_clients("alice").joins("w1", card(idempotent=idempotent))
    asked = play.hears("alice", Kind.REQUEST, block(1, 5)).says("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, echo(asked, places(1, 1))).said("alice", Kind.REPLY)

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
    play.hears("alice", Kind.REQUEST, block(1, 4))
    play.joins("w2").falls_silent("w1")
    asked = play.says("w2", Kind.REQUEST)

    refused = [echo(asked, those, "w2", status=Status.OVERLOADED, ran=NO) for those in (0b0110, 0b1000)]
    play.hears("w2", Kind.REPLY, *refused).hears("w2", Kind.REPLY, echo(asked, places(0, 1), "w2"))

    answers = play.said("alice", Kind.REPLY)
    assert [answer[PLACES] for answer in answers] == [0b0110, 0b1000, 0b0001]
    assert [EXECUTED[answer[RAN]] for answer in answers] == [Executed.MAYBE, Executed.MAYBE, Executed.YES]


# Load and credits ------------------------------------------------------------------------------------


def test_block_is_spread_over_idle_workers() -> None:
    """Each takes its bounded share, the home of the block first; the calls keep their ids."""
    play = Playbook().with_workers("w1", "w2", "w3").with_clients("alice")
    said = block(1, 12)
    order = play.successors(said[REQUEST_ID])

    play.hears("alice", Kind.REQUEST, said)

    asked = [play.says(worker, Kind.REQUEST) for worker in order]
    assert [record[PLACES] for record in asked] == [places(0, 5), places(5, 5), places(10, 2)]
    assert inputs(*asked) == own_inputs(*range(32, 44))
    for worker, record in reversed(list(zip(order, asked, strict=True))):
        play.hears(worker, Kind.REPLY, echo(record, worker=worker))
    answers = play.said("alice", Kind.REPLY)
    assert outcomes(answers) == own_answers(*range(32, 44))


@pytest.mark.parametrize("name", ["w1", "w2", None])
def test_block_goes_home_whole_when_that_is_within_the_bound(name: str | None) -> None:
    """To the home of its keys, or of its id if it has none."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    said = block(1, 2, key=play.key_of(name) if name else None)
    home = name or play.home(said[REQUEST_ID])

    play.hears("alice", Kind.REQUEST, said)

    assert play.says(home, Kind.REQUEST)[ROWS] == 2
    play.says_nothing("w1", "w2")


def test_block_that_waits_for_credit_gets_as_much_as_fits() -> None:
    """The rest goes out as credits come back, in order; nothing is over the credit."""
    play = Playbook().with_workers("w1", credits_rows=3).with_clients("alice")

    play.hears("alice", Kind.REQUEST, block(1, 8))

    first = play.says("w1", Kind.REQUEST)
    assert (first[ROWS], play.status()["queued"]["requests"]) == (3, 5)
    play.hears("w1", Kind.REPLY, echo(first, places(0, 2)))
    second = play.says("w1", Kind.REQUEST)
    assert (second[ROWS], play.held("w1"), play.status()["queued"]["requests"]) == (2, 3, 3)
    play.hears("w1", Kind.REPLY, echo(second), echo(first, places(2, 1)))
    third = play.says("w1", Kind.REQUEST)
    assert (third[ROWS], play.status()["queued"]["requests"]) == (3, 0)
    play.hears("w1", Kind.REPLY, echo(third))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 40))
    assert inputs(first, second, third) == own_inputs(*range(32, 40))


def test_parts_of_a_waiting_block_can_be_taken_back() -> None:
    """They never reach a worker; those before and behind them do, each once."""
    play = Playbook().with_workers("w1", credits_rows=2).with_clients("alice")
    play.hears("alice", Kind.REQUEST, block(1, 8))

    play.hears("alice", Kind.CANCEL, [1, places(3, 2)])
    assert play.said("w1", Kind.CANCEL) == []
    assert play.status()["queued"]["requests"] == 4
    while asked := play.said("w1", Kind.REQUEST):
        assert play.held("w1") <= 2
        play.hears("w1", Kind.REPLY, *map(echo, asked))

    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(32, 33, 34, 37, 38, 39)


# Keys ------------------------------------------------------------------------------------------------


def test_calls_with_keys_of_their_own_go_home_in_parts() -> None:
    """One record for each worker, and each call is answered as what it was."""
    play = Playbook().with_workers("w1", "w2", credits_rows=40).with_clients("alice")
    one, two = play.key_of("w1"), play.key_of("w2")

    play.hears("alice", Kind.REQUEST, block(1, 5, key=[one, two, two, one, two]))

    asked = {worker: play.says(worker, Kind.REQUEST) for worker in ("w1", "w2")}
    assert {worker: record[PLACES] for worker, record in asked.items()} == {"w1": 0b01001, "w2": 0b10110}
    for worker, record in asked.items():
        play.hears(worker, Kind.REPLY, echo(record, worker=worker))
    assert outcomes(play.said("alice", Kind.REPLY)) == own_answers(*range(32, 37))
    assert play.requests()["outcomes"] == {"OK": 5}


def test_keyed_calls_wait_for_their_homes() -> None:
    """Each for `affinity_wait_ms` from its arrival; then it takes any."""
    play = Playbook(GatewaySettings(affinity_wait_ms=50)).with_workers("w1", "w2", credits_rows=4).with_clients("alice")
    key = play.key_of("w1")
    play.hears("alice", Kind.REQUEST, block(1, 12, key=key))
    asked = {worker: play.says(worker, Kind.REQUEST) for worker in ("w1", "w2")}
    assert play.status()["queued"]["requests"] == 4

    play.hears("w2", Kind.REPLY, echo(asked["w2"], worker="w2"))
    play.hears("w1", Kind.REPLY, echo(asked["w1"], asked["w1"][PLACES] & -asked["w1"][PLACES])).says_nothing("w2")
    assert play.said("w1", Kind.REQUEST) == [], "it holds more than its bounded share"

    play.waits(0.055)
    assert sum(record[ROWS] for record in play.said("w2", Kind.REQUEST)) == 4


def test_no_call_of_a_block_passes_one_that_waits_for_the_same_worker() -> None:
    """Though its worker has room again when the last one is looked at, for the bound grows with what others take."""
    play = Playbook(GatewaySettings(affinity_wait_ms=1_000)).with_workers("w1", "w2", "w3", credits_rows=8)
    own = {play.successors(b"%d" % n): b"%d" % n for n in range(100)}
    here, there, beside = own["w1", "w2", "w3"], own["w3", "w1", "w2"], own["w2", "w3", "w1"]
    held = [request(n, key=key) for n, key in enumerate((here, there, beside, here, here))]
    play.with_clients("alice").hears("alice", Kind.REQUEST, *held)
    assert [play.held(name) for name in ("w1", "w2", "w3")] == [3, 1, 1]
    # It waits for w2, where single calls have room.
    play.hears("alice", Kind.REQUEST, request(8, key=beside, rows=8))
    for name in ("w1", "w2", "w3"):
        play.said(name, Kind.REQUEST)

    play.hears("alice", Kind.REQUEST, block(9, 4, key=[here, there, there, here]))

    assert play.says("w3", Kind.REQUEST)[PLACES] == 0b0110
    play.says_nothing("w1", "w2")


steps = st.lists(
    st.tuples(
        st.sampled_from(("ask", "ask", "ask for rows", "ask for rows", "answer", "answer", "lose", "join", "wait")),
        st.integers(0, 10**6),
    ),
    min_size=4,
    max_size=24,
)


@settings(max_examples=150)
@given(steps=steps, credits_rows=st.sampled_from((2, 3, 5, 8, 24, 70)))
def test_calls_of_a_block_go_where_they_would_alone(steps: list[tuple[str, int]], credits_rows: int) -> None:
    """The same worker, the same bound, the same wait for home: a gateway of blocks and one of single calls agree."""
    plays = [Playbook(GatewaySettings(affinity_wait_ms=50)).with_clients("alice") for _ in range(2)]
    alive = ["w1", "w2", "w3"]
    for play in plays:
        play.with_workers(*alive, credits_rows=credits_rows)
    for tag, (what, which) in enumerate(steps, start=1):
        worker = alive[which % len(alive)]
        may_float = None in plays[0].machine.routes.find("m", None).waiting._lanes
        for play in plays:
            match what:
                case "ask":
                    for n in range(1 + which % 5):
                        calls = 1 + which % 32
                        # Some have the key of others.
                        keys = [b"%d" % ((which + n) * call % 101 % 40) for call in range(calls)]
                        whole = block(8 * tag + n, calls, key=keys)
                        singles = [part_of(whole, 1 << place) for place in range(calls)]
                        play.hears("alice", Kind.REQUEST, *([whole] if play is plays[0] else singles))
                case "ask for rows":
                    rows = 1 + which % 4
                    play.hears("alice", Kind.REQUEST, request(8 * tag, key=b"%d" % (which % 7), rows=rows))
                case "answer":
                    play.hears(worker, Kind.REPLY, *some_replies(play, worker, which))
                case "wait":
                    play.waits(which % 70 / 1000)
                case "join":
                    play.with_workers(f"n{tag}", credits_rows=credits_rows)
                case _ if len(alive) > 1:
                    play.loses(worker)
        if what == "join":
            alive.append(f"n{tag}")
        elif what == "lose" and len(alive) > 1:
            alive.remove(worker)

        assert plays[0].status()["queued"] == plays[1].status()["queued"]
        blocks, alone = map(whereabouts, plays)
        if blocks != alone and (may_float or what in {"wait", "lose"}):
            # Calls of one block that wait for any worker are equal, so any of them may have been the first.
            assert Counter(blocks.values()) == Counter(alone.values())
            return
        assert blocks == alone


def some_replies(play: Playbook, worker: str, which: int) -> list[Record]:
    """A worker's answers to a third of the calls that it has."""
    return [
        reply([one.tag, 1 << place], worker, output=b"....")
        for one in play.machine.scheduler.dispatches._open
        for place in listed(one.places)
        if one.replica.name == worker and (32 * one.request.tag + place) % 3 == which % 3
    ]


def whereabouts(play: Playbook) -> dict[int, str]:
    """Which worker has which call."""
    dispatches = play.machine.scheduler.dispatches._open
    return {number: one.replica.name for one in dispatches for number in numbers_of([one.request.tag, one.places])}
