"""Dialogues between a client and its gateways, in virtual time: what is said, asked and answered."""

from __future__ import annotations

import pytest

from tests.machine.client.playbook import (
    BEAT_S,
    NO_SESSION,
    SESSION,
    SLOT_S,
    Playbook,
    card,
    did_not_run,
    reply,
    welcome,
)
from zmqinfer.errors import EXECUTED, Executed, Status, TooLarge
from zmqinfer.machine.block import numbers_of
from zmqinfer.machine.client.machine import GRACE_S
from zmqinfer.records import (
    BUDGET_US,
    KEY,
    MAX_CALLS,
    MODEL,
    PRIORITY,
    RAN,
    REQUEST_ID,
    ROWS,
    STATUS,
    TAG,
    Kind,
    Record,
)

# Speaking -------------------------------------------------------------------------------------


def test_the_greeting_and_the_first_request_leave_together() -> None:
    """Nobody waits for WELCOME; the greeting is first."""
    play = Playbook()
    tag = play.calls("a", deadline_s=2.0, key=b"k", priority=1)

    (hello, request) = play.hears()

    assert hello == (Kind.HELLO, [[SESSION, "test", None, None]])
    record = request[1][0]
    assert (request[0], list(numbers_of(record)), record[MODEL], record[KEY]) == (Kind.REQUEST, [tag], "m", [b"k"])
    assert (record[PRIORITY], record[BUDGET_US]) == (1, 2_000_000)
    assert record[REQUEST_ID] == play.machine.request_id(tag) == b"prefix--" + tag.to_bytes(8, "big")


def test_a_reply_ends_its_call_once() -> None:
    """With its owner beside it; another reply to it is counted, and nothing else."""
    play = Playbook().up()
    one, two = play.calls("one", rows=1), play.calls("two", rows=1)

    play.says(0, Kind.REPLY, reply(two, status=Status.NOT_FOUND), reply(two), reply(one), reply(7777))

    ended = play.ended()
    assert {owner: record[STATUS] for owner, record in ended.items()} == {
        "one": Status.OK,
        "two": Status.NOT_FOUND,
    }
    assert (play.machine.unmatched, play.machine.pending) == (2, 0)


def test_the_rows_of_a_call_come_back_beside_its_reply() -> None:
    """None for a call without a batch axis, whose output has none either."""
    play = Playbook().up()
    one, four = play.calls("one"), play.calls("four", rows=4)
    assert [record[ROWS] for record in play.asked()] == [1, 4]

    play.says(0, Kind.REPLY, reply(four), reply(one))

    assert [(owners, rows) for owners, _, rows in play.machine.completed] == [(["four"], 4), (["one"], None)]


def test_a_call_that_failed_says_which_it_was() -> None:
    """Its number gives the request id that was sent, whoever ended the call, and it reaches the error."""
    play = Playbook().up()
    refused = play.calls("refused", rows=1)
    for owner in ("late", "later"):
        play.calls(owner, deadline_s=0.1)
    sent = [record[REQUEST_ID] for record in play.asked()]

    play.says(0, Kind.REPLY, [*reply(refused, status=Status.NOT_FOUND), "unknown"])
    play.waits(1.0)

    machine = play.machine
    errors = {
        owner: machine.codec.error(record, machine.request_id(*numbers_of(record)))
        for owner, record in play.ended().items()
    }
    assert {owner: error.request_id for owner, error in errors.items()} == {
        "refused": sent[0],
        "late": sent[1],
        "later": sent[1][:-1] + bytes([sent[1][-1] + 1]),
    }


def test_a_body_over_the_gateways_limit_is_told_at_the_call() -> None:
    """WELCOME names the limit; nothing is sent or pending."""
    play = Playbook()
    play.says(0, Kind.WELCOME, welcome(card(), max_body_bytes=3)).hears()

    with pytest.raises(TooLarge, match="4 bytes, the gateway takes 3; raise --max-body-bytes"):
        play.calls()

    assert (play.machine.pending, play.hears(), play.machine.wake_at()) == (0, [], None)
    assert play.calls(body=b"fit") % MAX_CALLS == 0


def test_a_large_body_waits_until_the_gateway_has_said_how_much_it_takes() -> None:
    """One that is far too much would cost the connection, again and again; others do not wait."""
    large, larger = [b"l" * 2**20 + b"l"], [b"l" * 2**21]
    play = Playbook(gateways=2)
    small = play.calls("small")
    first, second = play.calls("large", body=large), play.calls("other", body=large)
    play.calls("larger", body=larger)
    gone = play.calls("gone", body=large)
    assert [*play.requests(0), *play.requests(1)] == [small]

    assert play.cancels(gone)
    play.says(1, Kind.WELCOME, welcome(card(), max_body_bytes=2**21 - 1))
    told = play.ended()
    play.waits(BEAT_S).up(0)

    # Those of the gateway that said nothing went to the other one when it was greeted again.
    assert sorted([*play.requests(1), *play.requests(0)]) == [first, second]
    told |= play.ended()
    assert [(owner, reply[STATUS]) for owner, reply in told.items()] == [("larger", Status.TOO_LARGE)]
    assert play.machine.pending == 3


def test_what_may_not_run_twice_is_not_sent_again() -> None:
    """Neither by its own word nor by the model's; it may have run in the session that was lost."""
    play = Playbook().serving(card(), card("once", idempotent=False)).up()
    play.calls("by its own word", idempotent=False)
    play.calls("by the model's", model="once")
    again = play.calls("may")
    play.calls("by its own word too", idempotent=False)
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [again]
    ended = play.ended()
    assert list(ended) == ["by its own word", "by its own word too", "by the model's"]
    assert {(record[STATUS], EXECUTED[record[RAN]]) for record in ended.values()} == {
        (Status.WORKER_LOST, Executed.MAYBE)
    }


def test_what_a_silent_gateway_has_goes_to_another() -> None:
    """Under the same id; what may not run twice ends, for it may have run."""
    play = Playbook(2).up(0, 1)
    play.calls("first")
    play.flushed()
    number = 0 if (asked := play.asked(0)) else 1
    (first,) = asked or play.asked(1)
    play.alive.discard(number)
    for _ in range(2):  # one of the two goes to the silent one
        play.calls("once", idempotent=False)
        play.flushed()

    play.waits(4 * BEAT_S + 0.1)

    again = [record for record in play.asked(1 - number) if record[TAG] == first[TAG]]
    assert [record[REQUEST_ID] for record in again] == [first[REQUEST_ID]]
    ended = play.ended()
    assert {owner: (Status(record[STATUS]), EXECUTED[record[RAN]]) for owner, record in ended.items()} == {
        "once": (Status.WORKER_LOST, Executed.MAYBE)
    }
    assert play.machine.pending == 2


def test_what_never_left_for_a_silent_gateway_is_for_another_whatever_it_is() -> None:
    """It cannot have run."""
    play = Playbook(2).up(0, 1).waits(10.0)
    play.is_connected = False
    for _ in range(2):
        play.calls("once", idempotent=False)
    play.waits(4 * BEAT_S + 0.1)
    assert play.ended() == {}


def test_what_may_not_run_twice_is_known_also_while_nobody_serves_it() -> None:
    """WELCOME lists what can be called just now."""
    play = Playbook().serving(card("once", idempotent=False)).up()
    play.serving().welcomes(0)
    play.calls("once", model="once")
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == []
    assert play.ended()["once"][STATUS] == Status.WORKER_LOST


def test_not_run_is_not_believed_of_what_was_sent_twice() -> None:
    """Who says so speaks of one of the times."""
    play = Playbook().up()
    once = play.calls("once")
    play.hears()
    play.says(0, Kind.REPLY, did_not_run(once))
    again = play.calls("again")
    play.hears()
    play.says(0, Kind.DISCONNECT, NO_SESSION)
    play.says(0, Kind.REPLY, did_not_run(again))

    ended = play.ended()
    assert EXECUTED[ended["once"][RAN]] is Executed.NO
    assert EXECUTED[ended["again"][RAN]] is Executed.MAYBE


def test_calls_of_a_turn_leave_in_one_message() -> None:
    """In the order in which they were made."""
    play = Playbook().up()
    tags = [play.calls(number, rows=1) for number in range(5)]

    ((kind, records),) = play.hears()

    assert (kind, [number for record in records for number in numbers_of(record)]) == (Kind.REQUEST, tags)


def test_a_client_at_rest_says_nothing_and_needs_no_timer() -> None:
    """Also after it was busy."""
    play = Playbook().up()
    assert play.machine.wake_at() is None

    tag = play.calls()
    assert play.machine.wake_at() is not None
    play.says(0, Kind.REPLY, reply(tag))

    assert play.machine.wake_at() is None
    play.hears()
    play.now += 100
    play.machine.on_timer(play.now)
    assert play.hears() == []


def test_it_beats_only_while_calls_are_pending() -> None:
    """Else a cut connection would be noticed only at the deadline."""
    play = Playbook().up()
    tag = play.calls()
    play.hears()

    assert play.waits(4 * BEAT_S + 0.1).kinds() == [Kind.HEARTBEAT] * 4

    play.says(0, Kind.REPLY, reply(tag))
    assert play.waits(10).kinds() == []


def test_a_pause_between_calls_is_not_the_gateways_silence() -> None:
    """After a short one the next call goes out alone."""
    play = Playbook().up().waits(0.9 * BEAT_S)
    play.calls()

    assert play.kinds() == [Kind.REQUEST]
    assert play.waits(2 * BEAT_S + 0.1).kinds() == [Kind.HEARTBEAT] * 2


def test_after_a_long_pause_the_next_call_goes_out_behind_a_greeting() -> None:
    """The connection may be another one by now; and nobody waits for the answer to the greeting."""
    play = Playbook().up().waits(3_600.0)
    play.calls("first", idempotent=False)
    play.calls("second", idempotent=False)

    assert play.kinds() == [Kind.HELLO, Kind.REQUEST]
    assert play.waits(2 * BEAT_S + 0.1).kinds() == [Kind.HEARTBEAT] * 2
    assert play.ended() == {}


# Questions ------------------------------------------------------------------------------------


def test_a_question_goes_to_its_gateway_and_is_answered() -> None:
    """Beside the calls, with a tag of its own; a second answer is dropped."""
    play = Playbook(2).up(0, 1)
    tag = play.calls("call")
    play.machine.ask("q", Kind.STATS, ["status", None, 0, 1], 1, play.now + 1, play.now)
    play.hears(0)

    record = next(records[0] for kind, records in play.hears(1) if kind is Kind.STATS)
    assert record[1:] == ["status", None, 0, 1]
    assert record[TAG] != tag // MAX_CALLS
    for _ in range(2):
        play.says(1, Kind.STATS, [record[TAG], "status", b"{}", 0, 1], [99, "status", b"{}", 0, 1])
    play.says(0, Kind.REPLY, reply(tag))

    assert play.answered() == {"q": [record[TAG], "status", b"{}", 0, 1]}
    assert list(play.ended()) == ["call"]
    assert play.machine.wake_at() is None


def test_an_answer_in_pages_is_put_together() -> None:
    """Asked again it begins anew; what was under way of the first answer does not get in between."""
    play = Playbook().up(0)
    play.machine.ask("q", Kind.STATS, ["status", None, 0, 1], 0, play.now + 1, play.now)
    tag = next(records[0] for kind, records in play.hears(0) if kind is Kind.STATS)[TAG]

    for text, page in ((b"a", 0), (b"b", 1), (b"x", 3), (b"c", 0), (b"x", 2), (b"d", 1)):
        play.says(0, Kind.STATS, [tag, "status", text, page, 4])
        assert play.answered() == {}
    play.says(0, Kind.STATS, [tag, "status", b"e", 2, 4], [tag, "status", b"f", 3, 4])

    assert play.answered()["q"][:3] == [tag, "status", b"cdef"]


@pytest.mark.parametrize(
    ("kind", "words"), [(Kind.STATS, ["status", None, 0, 1]), (Kind.ADMIN, ["drain", "w1", None, ""])]
)
def test_a_question_is_asked_again_with_the_greeting(kind: Kind, words: Record) -> None:
    """It was made before the gateway came up, or its session was over."""
    play = Playbook()
    play.machine.ask("q", kind, words, 0, play.now + 9, play.now)

    # The socket is not connected: nothing is taken in this turn, and the greeting is made anew.
    play.now += BEAT_S
    play.machine.on_timer(play.now)
    assert play.kinds() == [Kind.HELLO, kind]

    play.up().says(0, Kind.DISCONNECT, NO_SESSION)
    assert play.kinds() == [Kind.HELLO, kind]


def test_a_question_has_a_deadline_too() -> None:
    """Nobody waits for a gateway that does not answer it; it fails as a call does."""
    play = Playbook().up()
    play.machine.ask("q", Kind.STATS, ["status", None, 0, 1], 0, play.now + 1, play.now)

    play.waits(1 + GRACE_S + SLOT_S)

    assert play.answered() == {}
    assert {owner: record[STATUS] for owner, record in play.ended().items()} == {"q": Status.DEADLINE_EXCEEDED}
