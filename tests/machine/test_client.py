"""Dialogues between a client and its gateways, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest

from zmqinfer.config import ClientSettings
from zmqinfer.errors import EXECUTED, Executed, Status, TooLarge
from zmqinfer.machine.block import advanced, cut_reply
from zmqinfer.machine.call import CallOptions
from zmqinfer.machine.client import GRACE_S, ClientMachine
from zmqinfer.machine.link import LinkState
from zmqinfer.records import (
    BUDGET_US,
    CALLS,
    MAX_CALLS,
    MODEL,
    OUTPUT,
    PAYLOAD,
    PRIORITY,
    RAN,
    REQUEST_ID,
    RESULT,
    ROWS,
    STATUS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import INLINE_BYTES, Payload
from zmqinfer.wire import decode, encode

START = 1_000.0
BEAT_S = 0.5
SLOT_S = 0.011
SESSION = b"c" * 16
SIGNATURE: Record = [[["x", "FP32", [1]]], [["y", "FP32", [1]]]]
NO_SESSION: Record = ["no session", "say HELLO"]


class Playbook:
    """A client, the gateways it dials, and the time it lives in.

    Every word passes through the wire's codec both ways, and after each step the machine's own invariants
    are asserted. Gateways that are `alive` answer HELLO and HEARTBEAT by themselves while time passes.
    """

    def __init__(self, gateways: int = 1, **how: Any) -> None:
        self.now = START
        self.machine = ClientMachine(
            ClientSettings(**how),
            session=SESSION,
            id_prefix=b"prefix--",
            agent="test",
            gateways=[f"tcp://g{number}:5555" for number in range(gateways)],
            now=START,
        )
        self.is_connected = True
        self.alive: set[int] = set()
        self._models = [card()]
        self._heard: dict[int, list[tuple[Kind, list[Record]]]] = {number: [] for number in range(gateways)}

    def serving(self, *models: Record) -> Playbook:
        """Says which models the gateways list in WELCOME; by default that is "m" alone."""
        self._models = list(models)
        return self

    def up(self, *numbers: int) -> Playbook:
        """Lets gateways welcome the client, by default the first."""
        for number in numbers or (0,):
            self.alive.add(number)
            self.flushed()
            self.welcomes(number)
            self.hears(number)
        return self

    # The client -----------------------------------------------------------------------------------

    def calls(
        self,
        owner: object = "call",
        deadline_s: float = 30.0,
        *,
        model: str = "m",
        layout: bytes = b"layout",
        body: Payload = b"body",
        rows: int | None = None,
        **how: Any,
    ) -> int:
        """Submits a call, and returns its tag."""
        options = CallOptions(deadline_s, **how)
        tag = self.machine.submit(owner, model, (layout, body), rows, options, self.now)
        self.machine.check()
        return tag

    def cancels(self, tag: int) -> bool:
        """Takes a call back."""
        is_taken = self.machine.cancel(tag)
        self.machine.check()
        return is_taken

    def ended(self) -> dict[object, Record]:
        """Removes the calls that ended, and returns by owner the reply to each of them alone."""
        ended: dict[object, Record] = {}
        for owners, record, _ in self.machine.completed:
            rest = record
            for owner in owners:
                own, rest = cut_reply(rest, 1) if rest[CALLS] > 1 else (rest, [])
                assert owner not in ended, "a second end"
                if owner is not None:
                    ended[owner] = own
            assert not rest, "a reply to more calls than there are owners"
        self.machine.completed.clear()
        return ended

    def answered(self) -> dict[object, Record]:
        """Removes and returns the answers to questions by owner; each at most once."""
        answered = dict(self.machine.answered)
        assert len(answered) == len(self.machine.answered)
        self.machine.answered.clear()
        return answered

    # The gateways ---------------------------------------------------------------------------------

    def says(self, number: int, kind: Kind, *records: Record) -> Playbook:
        """A gateway speaks."""
        for _, (head, *parts) in encode(kind, list(records), 2**40):
            got, some = decode(bytes(head), parts)
            self.machine.on_message(number, got, some, self.now)
            self.machine.check()
        return self

    def welcomes(self, number: int) -> Playbook:
        """A gateway welcomes the client."""
        return self.says(number, Kind.WELCOME, welcome(*self._models))

    def flushed(self) -> Playbook:
        """The shell seals the blocks and empties the outboxes, as at the end of each turn."""
        self.machine.seal()
        self.machine.check()
        if not self.is_connected:
            return self
        batch = self.machine.dirty.copy()
        self.machine.dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            for head, *parts in outbox.messages(self.now):
                self._heard[outbox.address].append(decode(bytes(head), parts))
        return self

    def heard(self, number: int) -> list[tuple[Kind, list[Record]]]:
        """Removes and returns what came to a gateway in earlier turns."""
        words, self._heard[number] = self._heard[number], []
        return words

    def hears(self, number: int = 0) -> list[tuple[Kind, list[Record]]]:
        """Ends the turn; removes and returns what came to a gateway."""
        return self.flushed().heard(number)

    def kinds(self, number: int = 0) -> list[Kind]:
        """Removes what came to a gateway, and returns its kinds."""
        return [kind for kind, _ in self.hears(number)]

    def asked(self, number: int = 0) -> list[Record]:
        """Removes what came to a gateway, and returns the requests."""
        return [record for kind, records in self.hears(number) if kind is Kind.REQUEST for record in records]

    def requests(self, number: int = 0) -> list[int]:
        """Removes what came to a gateway, and returns the tags of the calls that were asked of it."""
        return [tag for record in self.asked(number) for tag in tags_of(record)]

    # Time -----------------------------------------------------------------------------------------

    def waits(self, seconds: float) -> Playbook:
        """Time passes, with a call of `on_timer` at every instant that the machine names."""
        until = self.now + seconds
        stuck = 0
        self.flushed()
        while (due := self.machine.wake_at()) is not None and due <= until:
            stuck = stuck + 1 if due <= self.now else 0
            assert stuck < 3, f"the machine wants to be woken at {due} again and again"
            self.now = max(self.now, due)
            self.machine.on_timer(self.now)
            self.machine.check()
            self._answer()
        self.now = until
        return self

    def _answer(self) -> None:
        self.flushed()
        for number in sorted(self.alive):
            for kind, _ in list(self._heard[number]):
                if kind is Kind.HELLO and self.machine.links[number].state is LinkState.GREETING:
                    self.welcomes(number)
                elif kind is Kind.HEARTBEAT:
                    self.says(number, Kind.HEARTBEAT)


def card(
    model: str = "m", version: int = 1, *, max_rows: int = 32, idempotent: bool = True, is_local: bool = False
) -> Record:
    """One model as WELCOME lists it."""
    return [model, version, SIGNATURE, max_rows, idempotent, is_local]


def welcome(*models: Record, max_body_bytes: int = 2**20) -> Record:
    return [b"g" * 16, "gateway", 500, max_body_bytes, list(models)]


def reply(tag: int, status: Status = Status.OK, calls: int = 1, output: bytes = b"body") -> Record:
    """A gateway's REPLY to so many calls, the output of which is `output`, or nothing."""
    result: list[Any] = ["sentence", None] if status else [b"layout", output]
    return [tag, calls, int(status), *result, "w1", 1, 1, 1, None, calls, 10, 20]


def did_not_run(tag: int) -> Record:
    """A gateway's REPLY to a call that reached no worker."""
    record = reply(tag, Status.UNAVAILABLE)
    record[RAN] = EXECUTED.index(Executed.NO)
    return record


def echo(asked: Record, first: int = 0, calls: int = 0, status: Status = Status.OK) -> Record:
    """A REPLY to calls of a REQUEST, by default to all of them, whose output is their input."""
    calls = calls or asked[CALLS]
    size = len(asked[PAYLOAD]) // asked[CALLS]
    return reply(asked[TAG] + first, status, calls, asked[PAYLOAD][first * size : (first + calls) * size])


def tags_of(record: Record) -> range:
    """The tags of the calls that a record is about."""
    return range(record[TAG], record[TAG] + record[CALLS])


def place_and_calls(records: list[Record]) -> list[tuple[int, int]]:
    """Where in their block records begin, and how many calls they are about."""
    return [(record[TAG] % MAX_CALLS, record[CALLS]) for record in records]


# Speaking ----------------------------------------------------------------------------------------


def test_the_greeting_and_the_first_request_leave_together() -> None:
    """Nobody waits for WELCOME; the greeting is first."""
    play = Playbook()
    tag = play.calls("a", deadline_s=2.0, key=b"k", priority=1)

    (hello, request) = play.hears()

    assert hello == (Kind.HELLO, [[SESSION, "test", None, None]])
    record = request[1][0]
    assert (request[0], record[TAG], record[CALLS], record[MODEL]) == (Kind.REQUEST, tag, 1, "m")
    assert (record[PRIORITY], record[BUDGET_US]) == (1, 2_000_000)
    assert record[REQUEST_ID] == play.machine.request_id(tag) == b"prefix--" + tag.to_bytes(8, "big")


def test_a_reply_ends_its_call_once() -> None:
    """With its owner beside it; another reply to it is counted, and nothing else."""
    play = Playbook().up()
    one, two = play.calls("one", key=b"1"), play.calls("two", key=b"2")

    play.says(0, Kind.REPLY, reply(two, Status.NOT_FOUND), reply(two), reply(one), reply(7777))

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
    """The tag of its reply gives the request id that was sent, whoever ended the call, and it reaches the error."""
    play = Playbook().up()
    refused = play.calls("refused", key=b"k")
    for owner in ("late", "later"):
        play.calls(owner, deadline_s=0.1)
    sent = [record[REQUEST_ID] for record in play.asked()]

    play.says(0, Kind.REPLY, [*reply(refused, Status.NOT_FOUND), "unknown"])
    play.waits(1.0)

    machine = play.machine
    errors = {owner: machine.codec.error(r, machine.request_id(r[TAG])) for owner, r in play.ended().items()}
    assert {owner: error.request_id for owner, error in errors.items()} == {
        "refused": sent[0],
        "late": sent[1],
        "later": advanced(sent[1], 1),
    }


def test_a_body_over_the_gateways_limit_is_told_at_the_call() -> None:
    """WELCOME names the limit; nothing is sent or pending."""
    play = Playbook()
    play.says(0, Kind.WELCOME, welcome(card(), max_body_bytes=3)).hears()

    with pytest.raises(TooLarge, match="4 bytes, the gateway takes 3"):
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
    tags = [play.calls(number, key=b"%d" % number) for number in range(5)]

    ((kind, records),) = play.hears()

    assert (kind, [record[TAG] for record in records]) == (Kind.REQUEST, tags)


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


# Blocks ------------------------------------------------------------------------------------------


def test_alike_calls_of_a_turn_leave_as_one_record() -> None:
    """Their tags and ids follow each other, and their payloads lie one behind the other."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(5)]

    (record,) = play.asked()

    first = tags[0]
    assert first % MAX_CALLS == 0
    assert tags == list(range(first, first + 5))
    assert (record[TAG], record[CALLS], record[ROWS]) == (first, 5, 5)
    assert record[PAYLOAD] == b"row0row1row2row3row4"
    assert [play.machine.request_id(tag) for tag in tags] == [advanced(record[REQUEST_ID], n) for n in range(5)]


def test_a_block_ends_with_its_turn() -> None:
    """Nothing is put into a record that has left."""
    play = Playbook().up()
    first = play.calls("first")
    play.hears()

    second = play.calls("second")

    assert second == first + MAX_CALLS
    assert play.requests() == [second]


@pytest.mark.parametrize(
    ("how", "calls"),
    [
        ({}, [4]),
        ({"model": "n"}, [2, 2]),
        ({"layout": b"another"}, [2, 2]),
        ({"key": b"k"}, [2, 2]),
        ({"priority": 1}, [2, 2]),
        ({"version": 1}, [2, 2]),
        ({"idempotent": True}, [2, 2]),
        ({"deadline_s": 30.001}, [2, 2]),
        ({"rows": 1}, [2, 1, 1]),
        ({"body": [b"body"]}, [2, 1, 1]),
    ],
    ids=["nothing", "model", "layout", "key", "priority", "version", "idempotent", "deadline", "rows", "parts"],
)
def test_a_call_that_is_not_alike_begins_another_block(how: dict[str, Any], calls: list[int]) -> None:
    """It shares with its like, unless it has a batch axis or its payload travels in parts: then with nobody."""
    play = Playbook().serving(card("m"), card("n")).up()
    one, two, three, four = play.calls(1), play.calls(2, **how), play.calls(3), play.calls(4, **how)

    asked = play.asked()

    assert [record[CALLS] for record in asked] == calls
    assert sorted(tag for record in asked for tag in tags_of(record)) == sorted([one, two, three, four])
    assert {one, three} <= set(tags_of(asked[0]))
    assert not how or not {two, four} & set(tags_of(asked[0]))


@pytest.mark.parametrize(("later_s", "calls"), [(0.0, [2]), (0.005, [2]), (0.015, [1, 1])])
def test_deadlines_of_a_block_are_in_one_slot(later_s: float, calls: list[int]) -> None:
    """Of the 10 ms in which deadlines are kept: one look at the clock ends them all."""
    play = Playbook().up()
    play.calls("first")
    play.now += later_s
    play.calls("second")

    asked = play.asked()

    assert [record[CALLS] for record in asked] == calls
    assert asked[-1][BUDGET_US] == pytest.approx(30_000_000, abs=1)


@pytest.mark.parametrize(
    ("max_rows", "size", "most"),
    [
        (64, 4, 32),
        (32, 4, 32),
        (31, 4, 31),
        (1, 4, 1),
        (32, 0, 32),
        (32, INLINE_BYTES // 32, 32),
        (32, INLINE_BYTES // 32 + 1, 31),
        (32, INLINE_BYTES // 2, 2),
        (32, INLINE_BYTES // 2 + 1, 1),
        (32, INLINE_BYTES, 1),
        (3, INLINE_BYTES // 4, 3),
    ],
)
def test_a_block_is_full(max_rows: int, size: int, most: int) -> None:
    """At 32 calls, at the model's largest batch, or at what travels inline: whichever comes first."""
    play = Playbook().serving(card(max_rows=max_rows)).up()
    tags = [play.calls(number, body=bytes(size)) for number in range(2 * most + 1)]

    assert play.machine.full_blocks == (2 if most > 1 else 0)
    asked = play.asked()

    assert play.machine.full_blocks == 0
    assert place_and_calls(asked) == [(0, most), (0, most), (0, 1)]
    assert [tag for record in asked for tag in tags_of(record)] == tags


def test_calls_of_a_model_that_is_not_known_share_nothing() -> None:
    """Its largest batch is not known before the first WELCOME, nor if that does not list it."""
    play = Playbook()
    for number in range(2):
        play.calls(number)
    assert [record[CALLS] for record in play.asked()] == [1, 1]

    play.up()
    for number in range(2, 5):
        play.calls(number)
        play.calls(-number, model="unknown")

    assert [(record[MODEL], record[CALLS]) for record in play.asked()] == [("m", 3), *[("unknown", 1)] * 3]


def test_interleaved_calls_share_each_with_its_like() -> None:
    """The order is kept within each block."""
    play = Playbook().serving(card("a"), card("b", max_rows=2), card("c")).up()
    for number in range(3):
        for model in "abc":
            play.calls(f"{model}{number}", model=model, body=b"%s%d" % (model.encode(), number))

    assert [(record[MODEL], record[PAYLOAD]) for record in play.asked()] == [
        ("a", b"a0a1a2"),
        ("b", b"b0b1"),
        ("c", b"c0c1c2"),
        ("b", b"b2"),
    ]


def test_a_block_that_is_answered_whole_ends_at_once() -> None:
    """One reply, and the owners of all its calls beside it in their order."""
    play = Playbook().up()
    for owner in "abc":
        play.calls(owner, body=owner.encode())
    (asked,) = play.asked()

    play.says(0, Kind.REPLY, echo(asked))

    assert play.machine.completed == [(["a", "b", "c"], echo(asked), None)]
    assert (play.machine.pending, play.machine.unmatched, play.machine.wake_at()) == (0, 0, None)


def test_a_block_may_be_answered_in_parts() -> None:
    """In any order and with any outcomes: each call ends once, with the output of its own input."""
    play = Playbook().up()
    for number in range(6):
        play.calls(number, body=b"row%d" % number)
    (asked,) = play.asked()

    play.says(0, Kind.REPLY, echo(asked, 4, 2), echo(asked, 1, 1, Status.MODEL_ERROR))
    assert play.machine.pending == 3
    play.says(0, Kind.REPLY, echo(asked, 2, 2)).says(0, Kind.REPLY, echo(asked, 0, 1, Status.OVERLOADED))

    ended = play.ended()
    assert list(ended) == [4, 5, 1, 2, 3, 0]
    assert {owner: record[OUTPUT] for owner, record in ended.items() if record[STATUS] == Status.OK} == {
        owner: b"row%d" % owner for owner in (2, 3, 4, 5)
    }
    assert (ended[1][STATUS], ended[0][STATUS]) == (Status.MODEL_ERROR, Status.OVERLOADED)
    assert (play.machine.pending, play.machine.unmatched, play.machine.wake_at()) == (0, 0, None)


def test_replies_to_calls_that_ended_are_counted_call_by_call() -> None:
    """Those of the block that have not ended are answered all the same."""
    play = Playbook().up()
    for number in range(4):
        play.calls(number, body=b"row%d" % number)
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 0, 2))
    assert list(play.ended()) == [0, 1]

    play.says(0, Kind.REPLY, echo(asked, 0, 2))
    assert (play.ended(), play.machine.unmatched) == ({}, 2)
    play.says(0, Kind.REPLY, echo(asked, 1, 2))
    assert (list(play.ended()), play.machine.unmatched) == ([2], 3)
    play.says(0, Kind.REPLY, echo(asked))

    assert {owner: record[OUTPUT] for owner, record in play.ended().items()} == {3: b"row3"}
    assert play.machine.unmatched == 6
    play.says(0, Kind.REPLY, echo(asked))
    assert (play.ended(), play.machine.unmatched) == ({}, 10)


def test_replies_to_calls_that_never_were_are_counted() -> None:
    """Behind the last call of a block, or in a block that there is not; what is pending stays so."""
    play = Playbook().up()
    first = play.calls("one")
    play.calls("two")

    play.says(0, Kind.REPLY, reply(first + 2), reply(first, calls=3, output=b"abc"), reply(320, calls=4))

    assert (play.ended(), play.machine.pending, play.machine.unmatched) == ({}, 2, 8)


def test_pending_counts_calls() -> None:
    """Of blocks too, sealed or not, and questions beside them."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(5)]
    assert play.machine.pending == 5
    play.machine.ask("q", Kind.STATS, ["status", None], 0, play.now + 1, play.now)
    play.hears()
    assert play.machine.pending == 6

    play.says(0, Kind.REPLY, reply(tags[0], calls=2))
    assert play.machine.pending == 4
    play.cancels(tags[4])
    assert play.machine.pending == 3

    play.waits(31)
    assert play.machine.pending == 0


# Sessions ----------------------------------------------------------------------------------------


def test_no_session_is_answered_by_one_greeting_and_all_that_is_pending() -> None:
    """The same session, the same tags and ids, once, however many complaints come; budgets are those of now."""
    play = Playbook().up()
    tags = [play.calls(number, deadline_s=10.0, key=b"%d" % number) for number in range(3)]
    first = play.asked()
    play.says(0, Kind.REPLY, reply(tags[1]))
    play.now += 1.0

    play.says(0, Kind.DISCONNECT, NO_SESSION, NO_SESSION).says(0, Kind.DISCONNECT, NO_SESSION)

    (hello, (kind, again)) = play.hears()
    assert hello == (Kind.HELLO, [[SESSION, "test", None, None]])
    assert kind is Kind.REQUEST
    assert [record[: REQUEST_ID + 1] for record in again] == [first[n][: REQUEST_ID + 1] for n in (0, 2)]
    assert [record[TAG] for record in again] == [tags[0], tags[2]]
    assert {record[BUDGET_US] for record in again} == {9_000_000}
    assert play.kinds() == []


def test_pending_calls_of_a_block_are_sent_again_in_stretches() -> None:
    """Each with the tag, the id and the payload that it had; those that ended are left out."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(8)]
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 1, 1), echo(asked, 7, 1, Status.MODEL_ERROR))
    play.cancels(tags[4])
    play.cancels(tags[5])
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    again = play.asked()
    assert place_and_calls(again) == [(0, 1), (2, 2), (6, 1)]
    assert [record[REQUEST_ID] for record in again] == [play.machine.request_id(tags[n]) for n in (0, 2, 6)]
    assert [record[PAYLOAD] for record in again] == [b"row0", b"row2row3", b"row6"]
    assert all(record[MODEL:ROWS] == asked[MODEL:ROWS] for record in again)
    play.says(0, Kind.REPLY, *map(echo, again))
    assert {owner: record[OUTPUT] for owner, record in play.ended().items() if not record[STATUS]} == {
        owner: b"row%d" % owner for owner in (0, 1, 2, 3, 6)
    }


def test_what_was_not_sent_is_not_sent_twice() -> None:
    """A request still in the outbox when the session proves over, or not even there, goes out once."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]

    play.says(0, Kind.DISCONNECT, NO_SESSION)
    tags.append(play.calls("later"))

    assert place_and_calls(asked := play.asked()) == [(0, 3), (0, 1)]
    assert [tag for record in asked for tag in tags_of(record)] == tags


def test_a_silent_gateway_is_greeted_again() -> None:
    """After three heartbeats, with everything that is pending there; and each heartbeat from then on."""
    play = Playbook().up()
    tag = play.calls()
    play.hears()
    play.alive.clear()

    assert play.waits(3 * BEAT_S).kinds() == [Kind.HEARTBEAT] * 3
    assert play.waits(BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST]
    assert play.waits(2 * BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST] * 2

    play.welcomes(0).says(0, Kind.REPLY, reply(tag))
    assert list(play.ended()) == ["call"]
    assert play.machine.wake_at() is None


def test_an_outage_is_ridden_out_until_the_deadline() -> None:
    """Once connected: the gateway may come back and know the call, or not."""
    play = Playbook(connect_timeout_s=1.0).up()
    play.calls("short", deadline_s=4.0)
    long = play.calls("long", deadline_s=60.0)
    play.alive.clear()

    play.waits(30.0)

    (record,) = (ended := play.ended()).values()
    assert list(ended) == ["short"]
    assert record[STATUS] == Status.DEADLINE_EXCEEDED
    assert "connection to gateway tcp://g0:5555 was lost" in record[RESULT]
    play.welcomes(0).says(0, Kind.REPLY, reply(long))
    assert list(play.ended()) == ["long"]


@pytest.mark.parametrize("reason", ["wrong door", "too many clients", "protocol error"])
def test_a_gateway_that_refuses_us_ends_the_calls_there(reason: str) -> None:
    """Repeating them would be answered the same; nothing ran."""
    play = Playbook()
    play.calls()

    play.says(0, Kind.DISCONNECT, [reason, "the detail"])

    (record,) = play.ended().values()
    assert record[STATUS] == (Status.OVERLOADED if reason == "too many clients" else Status.PROTOCOL)
    assert record[RESULT] == "gateway tcp://g0:5555 refused this client: the detail"
    assert EXECUTED[record[RAN]] is Executed.NO
    assert Kind.REQUEST not in play.kinds()


# Time --------------------------------------------------------------------------------------------


def test_without_any_gateway_a_call_ends_after_the_connect_timeout() -> None:
    """The sentence names the addresses and what to do; nothing ran, and nothing leaves later."""
    play = Playbook(2, connect_timeout_s=2.0)
    play.is_connected = False
    play.calls()

    play.waits(1.99)
    assert play.ended() == {}
    play.waits(0.01 + SLOT_S)

    (record,) = play.ended().values()
    assert record[STATUS] == Status.UNAVAILABLE
    assert "no gateway answered at tcp://g0:5555, tcp://g1:5555" in record[RESULT]
    assert "zmqinfer up" in record[RESULT]
    assert EXECUTED[record[RAN]] is Executed.NO
    play.is_connected = True
    assert play.kinds(0) == play.kinds(1) == [Kind.HELLO]


def test_what_has_left_for_a_gateway_that_never_answers_may_have_run() -> None:
    """It may be stopped, with the request in its socket."""
    play = Playbook(connect_timeout_s=2.0)
    play.calls("left")
    play.waits(1.0)
    play.is_connected = False
    play.waits(0.8)
    play.calls("stayed")
    play.waits(3.0)

    ended = play.ended()
    assert {ended["left"][STATUS], ended["stayed"][STATUS]} == {Status.UNAVAILABLE}
    assert EXECUTED[ended["left"][RAN]] is Executed.MAYBE
    assert EXECUTED[ended["stayed"][RAN]] is Executed.NO


def test_a_deadline_before_the_connect_timeout_is_kept() -> None:
    """And the sentence does not speak of a time that was not waited."""
    play = Playbook(connect_timeout_s=5.0)
    play.calls(deadline_s=0.2)

    play.waits(0.2 + GRACE_S + SLOT_S)

    (record,) = play.ended().values()
    assert record[STATUS] == Status.UNAVAILABLE
    assert "tcp://g0:5555" in record[RESULT]
    assert "within 5 s" not in record[RESULT]


def test_a_welcome_ends_the_wait_for_a_gateway() -> None:
    """From then on only the deadline counts, also for calls that were made before."""
    play = Playbook(connect_timeout_s=1.0)
    play.calls(deadline_s=10.0)
    play.waits(0.9).up()

    play.waits(9.1)
    assert play.ended() == {}
    play.waits(GRACE_S + SLOT_S)

    assert [record[STATUS] for record in play.ended().values()] == [Status.DEADLINE_EXCEEDED]


def test_the_client_keeps_its_own_deadlines() -> None:
    """A little later than the gateway, which knows better where the time went."""
    play = Playbook().up()
    tag = play.calls(deadline_s=1.0)

    play.waits(1.0 + GRACE_S - 0.001)
    assert play.ended() == {}
    play.waits(0.001 + SLOT_S)

    (record,) = play.ended().values()
    assert (record[STATUS], record[RAN]) == (Status.DEADLINE_EXCEEDED, EXECUTED.index(Executed.MAYBE))
    assert "tcp://g0:5555" in record[RESULT]
    play.says(0, Kind.REPLY, reply(tag))
    assert (play.ended(), play.machine.unmatched) == ({}, 1)
    assert play.machine.wake_at() is None


def test_all_that_is_left_of_a_block_expires_at_once() -> None:
    """None of its calls before its own deadline, and those that ended not again."""
    play = Playbook().up()
    play.calls("answered", deadline_s=1.0)
    play.calls("left", deadline_s=1.0)
    cancelled = play.calls("cancelled", deadline_s=1.0)
    play.now += 0.005
    play.calls("last", deadline_s=1.0)
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked, 0, 1)).ended()
    play.cancels(cancelled)

    play.waits(1.0)
    assert play.machine.completed == []
    play.waits(GRACE_S + SLOT_S)

    ((owners, record, rows),) = play.machine.completed
    assert (owners, rows) == ([None, "left", None, "last"], None)
    assert (record[TAG], record[CALLS], record[STATUS]) == (asked[TAG], 4, Status.DEADLINE_EXCEEDED)
    assert (play.machine.pending, play.machine.wake_at()) == (0, None)


def test_the_gateways_word_is_taken_within_the_grace() -> None:
    """It says where the time went."""
    play = Playbook().up()
    tag = play.calls(deadline_s=1.0)
    play.waits(1.02)

    late = [tag, 1, int(Status.DEADLINE_EXCEEDED), "it ran", "worker", "w", 1, 1, 2, None, 0, 0, 0]
    play.says(0, Kind.REPLY, late)
    play.waits(1.0)

    assert [record[RESULT] for record in play.ended().values()] == ["it ran"]


# Taking back -------------------------------------------------------------------------------------


def test_a_call_can_be_taken_back_once() -> None:
    """The gateway is told, the owner hears nothing, and a late reply is only counted."""
    play = Playbook().up()
    tag = play.calls()
    play.hears()

    assert play.cancels(tag)
    assert not play.cancels(tag)

    assert play.hears() == [(Kind.CANCEL, [[tag, 1]])]
    play.says(0, Kind.REPLY, reply(tag, Status.CANCELLED))
    assert (play.ended(), play.machine.unmatched, play.machine.wake_at()) == ({}, 1, None)


def test_a_call_that_ended_cannot_be_taken_back() -> None:
    """Nothing is said about it, whether its block is over or not."""
    play = Playbook().up()
    alone, first, _ = play.calls("alone", key=b"k"), play.calls("first"), play.calls("second")
    play.hears()
    play.says(0, Kind.REPLY, reply(alone), reply(first))

    assert not play.cancels(alone)
    assert not play.cancels(first)
    assert play.hears() == []


def test_a_call_that_was_taken_back_is_not_sent_again() -> None:
    """The session that knew it is over."""
    play = Playbook().up()
    gone, stays = play.calls("gone", key=b"k"), play.calls("stays")
    play.hears()
    play.cancels(gone)

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [stays]


@pytest.mark.parametrize(("which", "left"), [(0, [(1, 4)]), (2, [(0, 2), (3, 2)]), (4, [(0, 4)])])
def test_a_call_that_is_taken_back_before_its_turn_ends_never_leaves(which: int, left: list[tuple[int, int]]) -> None:
    """Nor does a CANCEL; its neighbours leave, in two records if it stood between them."""
    play = Playbook().up()
    tags = [play.calls(number, body=b"row%d" % number) for number in range(5)]

    assert play.cancels(tags[which])
    assert not play.cancels(tags[which])

    ((kind, asked),) = play.hears()
    assert (kind, place_and_calls(asked)) == (Kind.REQUEST, left)
    play.says(0, Kind.REPLY, *map(echo, asked))
    assert {owner: record[OUTPUT] for owner, record in play.ended().items()} == {
        number: b"row%d" % number for number in range(5) if number != which
    }


def test_a_block_goes_on_behind_a_call_that_was_taken_back() -> None:
    """Its place is not given to another."""
    play = Playbook().up()
    first, gone = play.calls("first"), play.calls("gone")
    play.cancels(gone)

    last = play.calls("last")

    assert last == gone + 1
    assert play.requests() == [first, last]


def test_a_call_of_a_block_that_has_left_can_be_taken_back() -> None:
    """The gateway is told of it alone; the others go on, and what it says of this one is only counted."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    (asked,) = play.asked()

    assert play.cancels(tags[1])

    assert play.hears() == [(Kind.CANCEL, [[tags[1], 1]])]
    play.says(0, Kind.REPLY, echo(asked))
    assert (list(play.ended()), play.machine.unmatched, play.machine.wake_at()) == ([0, 2], 1, None)


def test_a_block_of_which_nothing_is_left_is_not_sent() -> None:
    """And a like call in the same turn begins another; so does one that comes later."""
    play = Playbook().up()
    tags = [play.calls(number) for number in range(3)]
    for tag in tags:
        assert play.cancels(tag)
    assert (play.machine.pending, play.machine.wake_at()) == (0, None)

    same_turn = play.calls("same turn")
    assert place_and_calls(play.asked()) == [(0, 1)]
    play.cancels(same_turn)
    assert play.kinds() == [Kind.CANCEL]
    play.cancels(play.calls("gone too"))
    assert play.hears() == []
    later = play.calls("later")

    assert play.requests() == [later]
    play.says(0, Kind.REPLY, reply(later))
    assert list(play.ended()) == ["later"]


def test_closing_ends_everything_and_says_goodbye() -> None:
    """Calls, sent or not, and questions, as CANCELLED; whether they ran is not known."""
    play = Playbook(2).up(0)
    play.calls("a")
    play.calls("b")
    play.machine.ask("c", Kind.STATS, ["status", None], 0, play.now + 1, play.now)
    play.hears(0), play.hears(1)
    play.calls("d")

    play.machine.fail_all("the client was closed")
    play.machine.check()

    ended = play.ended()
    assert list(ended) == ["a", "b", "d", "c"]
    assert {(record[STATUS], record[RESULT]) for record in ended.values()} == {
        (Status.CANCELLED, "the client was closed")
    }
    assert play.hears(0) == [(Kind.DISCONNECT, [["closing", ""]])]
    assert play.hears(1) == []
    assert (play.machine.wake_at(), play.machine.pending) == (None, 0)


# Questions ---------------------------------------------------------------------------------------


def test_a_question_goes_to_its_gateway_and_is_answered() -> None:
    """Beside the calls, with a tag of its own; a second answer is dropped."""
    play = Playbook(2).up(0, 1)
    tag = play.calls("call")
    play.machine.ask("q", Kind.STATS, ["status", None], 1, play.now + 1, play.now)
    play.hears(0)

    record = next(records[0] for kind, records in play.hears(1) if kind is Kind.STATS)
    assert record[1:] == ["status", None]
    assert record[TAG] // MAX_CALLS != tag // MAX_CALLS
    for _ in range(2):
        play.says(1, Kind.STATS, [record[TAG], "status", b"{}"], [99, "status", b"{}"])
    play.says(0, Kind.REPLY, reply(tag))

    assert play.answered() == {"q": [record[TAG], "status", b"{}"]}
    assert list(play.ended()) == ["call"]
    assert play.machine.wake_at() is None


@pytest.mark.parametrize(("kind", "words"), [(Kind.STATS, ["status", None]), (Kind.ADMIN, ["drain", "w1", None, ""])])
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
    play.machine.ask("q", Kind.STATS, ["status", None], 0, play.now + 1, play.now)

    play.waits(1 + GRACE_S + SLOT_S)

    assert play.answered() == {}
    assert {owner: record[STATUS] for owner, record in play.ended().items()} == {"q": Status.DEADLINE_EXCEEDED}


# Several gateways --------------------------------------------------------------------------------


def test_gateways_take_turns() -> None:
    """Those that are up; a block goes to one of them."""
    play = Playbook(3).up(0, 1, 2)
    for number in range(9):
        play.calls(number, key=b"%d" % number)
    assert [len(play.requests(number)) for number in range(3)] == [3, 3, 3]

    for number in range(9, 14):
        play.calls(number)
    assert sorted(len(play.requests(number)) for number in range(3)) == [0, 0, 5]


def test_only_gateways_that_are_up_get_calls() -> None:
    """Once one is."""
    play = Playbook(3).up(0, 2)
    for number in range(8):
        play.calls(number, key=b"%d" % number)
    assert [len(play.requests(number)) for number in range(3)] == [4, 0, 4]


def test_calls_at_a_gateway_that_never_answers_move_to_one_that_did() -> None:
    """They were made before any was up; its greeting had a heartbeat's time."""
    play = Playbook(2)
    tags = {play.calls(number) for number in range(4)}
    play.flushed()
    own = set(play.requests(1))
    assert len(own) == 2
    play.up(1)

    play.waits(BEAT_S + 0.01)

    assert set(play.requests(1)) == tags - own
    assert play.machine.links[0].state is LinkState.GREETING
    play.says(1, Kind.REPLY, *[reply(tag) for tag in sorted(tags)])
    assert sorted(play.ended()) == [0, 1, 2, 3]


def test_each_gateways_calls_are_resent_to_it_alone() -> None:
    """The session of the other one is not over."""
    play = Playbook(2).up(0, 1)
    tags = [play.calls(number, key=b"%d" % number) for number in range(4)]
    play.flushed()
    there = play.requests(1)
    play.requests(0)

    play.says(1, Kind.DISCONNECT, NO_SESSION)

    assert play.requests(1) == there
    assert play.requests(0) == []
    assert set(there) < set(tags)
