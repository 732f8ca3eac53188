"""Dialogues between a client and its gateways, in virtual time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmqinfer.config import ClientSettings
from zmqinfer.errors import EXECUTED, Executed, Status, TooLarge
from zmqinfer.machine.client import GRACE_S, Call, ClientMachine
from zmqinfer.machine.link import LinkState
from zmqinfer.records import BUDGET_US, MODEL, PRIORITY, RAN, REQUEST_ID, RESULT, STATUS, TAG, Kind, Record
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
        self.alive: set[int] = set()
        self._heard: dict[int, list[tuple[Kind, list[Record]]]] = {number: [] for number in range(gateways)}

    def up(self, *numbers: int) -> Playbook:
        """Lets gateways welcome the client, by default the first."""
        for number in numbers or (0,):
            self.alive.add(number)
            self.flushed()
            self.says(number, Kind.WELCOME, welcome())
            self.hears(number)
        return self

    # The client -----------------------------------------------------------------------------------

    def calls(self, owner: object = "call", deadline_s: float = 30.0, **how: Any) -> Call:
        """Submits a call."""
        call = self.machine.submit(owner, "m", None, (b"layout", b"body"), 1, self.now + deadline_s, self.now, **how)
        self.machine.check()
        return call

    def ended(self) -> dict[object, Record]:
        """Removes and returns the calls that ended by owner; each at most once."""
        completed = dict(self.machine.completed)
        assert len(completed) == len(self.machine.completed)
        self.machine.completed.clear()
        return completed

    # The gateways ---------------------------------------------------------------------------------

    def says(self, number: int, kind: Kind, *records: Record) -> Playbook:
        """A gateway speaks."""
        for _, (head, *parts) in encode(kind, list(records), 2**40):
            got, some = decode(bytes(head), parts)
            self.machine.on_message(number, got, some, self.now)
            self.machine.check()
        return self

    def flushed(self) -> Playbook:
        """The shell empties the outboxes, as at the end of each turn."""
        batch = self.machine.dirty.copy()
        self.machine.dirty.clear()
        for outbox in batch:
            assert isinstance(outbox.address, int)
            for head, *parts in outbox.messages(self.now):
                self._heard[outbox.address].append(decode(bytes(head), parts))
        return self

    def hears(self, number: int = 0) -> list[tuple[Kind, list[Record]]]:
        """Removes and returns what came to a gateway."""
        self.flushed()
        words, self._heard[number] = self._heard[number], []
        return words

    def kinds(self, number: int = 0) -> list[Kind]:
        """Removes what came to a gateway, and returns its kinds."""
        return [kind for kind, _ in self.hears(number)]

    def requests(self, number: int = 0) -> list[int]:
        """Removes what came to a gateway, and returns the tags of the requests."""
        return [record[TAG] for kind, records in self.hears(number) if kind is Kind.REQUEST for record in records]

    # Time -----------------------------------------------------------------------------------------

    def waits(self, seconds: float) -> Playbook:
        """Time passes, with a call of `on_timer` at every instant that the machine names."""
        until = self.now + seconds
        stuck = 0
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
                    self.says(number, Kind.WELCOME, welcome())
                elif kind is Kind.HEARTBEAT:
                    self.says(number, Kind.HEARTBEAT)


def welcome(heartbeat_ms: int = 500) -> Record:
    return [b"g" * 16, "gateway", heartbeat_ms, 2**20, [["m", 1, SIGNATURE, 32, True]]]


def reply(tag: int, status: Status = Status.OK) -> Record:
    result: list[Any] = ["sentence", None] if status else [b"layout", b"body"]
    return [tag, int(status), *result, "w1", 1, 1, 1, None, 1, 10, 20]


# Speaking ----------------------------------------------------------------------------------------


def test_the_greeting_and_the_first_request_leave_together() -> None:
    """Nobody waits for WELCOME; the greeting is first."""
    play = Playbook()
    call = play.calls("a", deadline_s=2.0, key=b"k", priority=1)

    (hello, request) = play.hears()

    assert hello == (Kind.HELLO, [[SESSION, "test", None]])
    record = request[1][0]
    assert (request[0], record[TAG], record[MODEL], record[PRIORITY]) == (Kind.REQUEST, call.tag, "m", 1)
    assert record[BUDGET_US] == 2_000_000
    assert record[REQUEST_ID] == b"prefix--" + call.tag.to_bytes(8, "big")


def test_a_reply_ends_its_call_once() -> None:
    """With its owner beside it; another reply to it is counted, and nothing else."""
    play = Playbook().up()
    one, two = play.calls("one"), play.calls("two")

    play.says(0, Kind.REPLY, reply(two.tag, Status.NOT_FOUND), reply(two.tag), reply(one.tag), reply(77))

    ended = play.ended()
    assert {owner: record[STATUS] for owner, record in ended.items()} == {
        "one": Status.OK,
        "two": Status.NOT_FOUND,
    }
    assert (play.machine.unmatched, play.machine.pending) == (2, 0)


def test_a_call_that_failed_says_which_it_was() -> None:
    """The request id stands behind the reply's known fields, whoever ended the call, and reaches the error."""
    play = Playbook().up()
    refused, late = play.calls("refused"), play.calls("late", deadline_s=0.1)

    play.says(0, Kind.REPLY, [*reply(refused.tag, Status.NOT_FOUND), "unknown"])
    play.waits(1.0)

    errors = {owner: play.machine.codec.error(record) for owner, record in play.ended().items()}
    assert errors["refused"].request_id == refused.record[REQUEST_ID]
    assert errors["late"].request_id == late.record[REQUEST_ID]


def test_a_body_over_the_gateways_limit_is_told_at_the_call() -> None:
    """WELCOME names the limit; nothing is sent or pending."""
    play = Playbook()
    play.says(0, Kind.WELCOME, [b"g" * 16, "gateway", 500, 3, []]).hears()

    with pytest.raises(TooLarge, match="4 bytes, the gateway takes 3"):
        play.calls()

    assert (play.machine.pending, play.hears(), play.machine.wake_at()) == (0, [], None)


def test_what_may_not_run_twice_is_not_sent_again() -> None:
    """Neither by its own word nor by the model's; it may have run in the session that was lost."""
    play = Playbook()
    models = [[name, 1, SIGNATURE, 32, name == "m"] for name in ("m", "once")]
    play.says(0, Kind.WELCOME, [b"g" * 16, "gateway", 500, 2**20, models])
    play.calls("by its own word", idempotent=False)
    play.machine.submit("by the model's", "once", None, (b"l", b"b"), 1, play.now + 9, play.now)
    again = play.calls("may")
    play.hears()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [again.tag]
    ended = play.ended()
    assert list(ended) == ["by its own word", "by the model's"]
    assert {(record[STATUS], EXECUTED[record[RAN]]) for record in ended.values()} == {
        (Status.WORKER_LOST, Executed.MAYBE)
    }


def test_calls_of_a_turn_leave_in_one_message() -> None:
    """In the order in which they were made."""
    play = Playbook().up()
    tags = [play.calls(number).tag for number in range(5)]

    ((kind, records),) = play.hears()

    assert (kind, [record[TAG] for record in records]) == (Kind.REQUEST, tags)


def test_a_client_at_rest_says_nothing_and_needs_no_timer() -> None:
    """Also after it was busy."""
    play = Playbook().up()
    assert play.machine.wake_at() is None

    call = play.calls()
    assert play.machine.wake_at() is not None
    play.says(0, Kind.REPLY, reply(call.tag))

    assert play.machine.wake_at() is None
    play.hears()
    play.now += 100
    play.machine.on_timer(play.now)
    assert play.hears() == []


def test_it_beats_only_while_calls_are_pending() -> None:
    """Else a cut connection would be noticed only at the deadline."""
    play = Playbook().up()
    call = play.calls()
    play.hears()

    assert play.waits(4 * BEAT_S + 0.1).kinds() == [Kind.HEARTBEAT] * 4

    play.says(0, Kind.REPLY, reply(call.tag))
    assert play.waits(10).kinds() == []


def test_a_pause_between_calls_is_not_the_gateways_silence() -> None:
    """After an hour of rest the first call goes out alone, without a new greeting."""
    play = Playbook().up().waits(3_600.0)
    play.calls()

    assert play.kinds() == [Kind.REQUEST]
    assert play.waits(2 * BEAT_S + 0.1).kinds() == [Kind.HEARTBEAT] * 2


# Sessions ----------------------------------------------------------------------------------------


def test_no_session_is_answered_by_one_greeting_and_all_that_is_pending() -> None:
    """The same session, the same tags and ids, once, however many complaints come; budgets are those of now."""
    play = Playbook().up()
    calls = [play.calls(number, deadline_s=10.0) for number in range(3)]
    play.says(0, Kind.REPLY, reply(calls[1].tag))
    first = play.hears()[0][1]
    play.now += 1.0

    play.says(0, Kind.DISCONNECT, NO_SESSION, NO_SESSION).says(0, Kind.DISCONNECT, NO_SESSION)

    (hello, (kind, again)) = play.hears()
    assert hello == (Kind.HELLO, [[SESSION, "test", None]])
    assert kind is Kind.REQUEST
    assert [record[:2] for record in again] == [first[0][:2], first[2][:2]]
    assert {record[BUDGET_US] for record in again} == {9_000_000}
    assert play.kinds() == []


def test_what_was_not_sent_is_not_sent_twice() -> None:
    """A request still in the outbox when the session proves over goes out once."""
    play = Playbook().up()
    call = play.calls()

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [call.tag]


def test_a_silent_gateway_is_greeted_again() -> None:
    """After three heartbeats, with everything that is pending there; and each heartbeat from then on."""
    play = Playbook().up()
    call = play.calls()
    play.hears()
    play.alive.clear()

    assert play.waits(3 * BEAT_S).kinds() == [Kind.HEARTBEAT] * 3
    assert play.waits(BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST]
    assert play.waits(2 * BEAT_S).kinds() == [Kind.HELLO, Kind.REQUEST] * 2

    play.says(0, Kind.WELCOME, welcome()).says(0, Kind.REPLY, reply(call.tag))
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
    play.says(0, Kind.WELCOME, welcome()).says(0, Kind.REPLY, reply(long.tag))
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


# Time --------------------------------------------------------------------------------------------


def test_without_any_gateway_a_call_ends_after_the_connect_timeout() -> None:
    """The sentence names the addresses and what to do; nothing ran."""
    play = Playbook(2, connect_timeout_s=2.0)
    play.calls()

    play.waits(1.99)
    assert play.ended() == {}
    play.waits(0.01 + SLOT_S)

    (record,) = play.ended().values()
    assert record[STATUS] == Status.UNAVAILABLE
    assert "no gateway answered at tcp://g0:5555, tcp://g1:5555" in record[RESULT]
    assert "zmqinfer up" in record[RESULT]
    assert EXECUTED[record[RAN]] is Executed.NO


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
    call = play.calls(deadline_s=1.0)

    play.waits(1.0 + GRACE_S - 0.001)
    assert play.ended() == {}
    play.waits(0.001 + SLOT_S)

    (record,) = play.ended().values()
    assert (record[STATUS], record[RAN]) == (Status.DEADLINE_EXCEEDED, EXECUTED.index(Executed.MAYBE))
    assert "tcp://g0:5555" in record[RESULT]
    play.says(0, Kind.REPLY, reply(call.tag))
    assert (play.ended(), play.machine.unmatched) == ({}, 1)
    assert play.machine.wake_at() is None


def test_the_gateways_word_is_taken_within_the_grace() -> None:
    """It says where the time went."""
    play = Playbook().up()
    call = play.calls(deadline_s=1.0)
    play.waits(1.02)

    play.says(0, Kind.REPLY, [call.tag, int(Status.DEADLINE_EXCEEDED), "it ran", "worker", "w", 1, 1, 2, None, 0, 0, 0])
    play.waits(1.0)

    assert [record[RESULT] for record in play.ended().values()] == ["it ran"]


# Taking back -------------------------------------------------------------------------------------


def test_a_call_can_be_taken_back_once() -> None:
    """The gateway is told, the owner hears nothing, and a late reply is only counted."""
    play = Playbook().up()
    call = play.calls()
    play.hears()

    assert play.machine.cancel(call)
    assert not play.machine.cancel(call)
    play.machine.check()

    assert play.hears() == [(Kind.CANCEL, [[call.tag]])]
    play.says(0, Kind.REPLY, reply(call.tag, Status.CANCELLED))
    assert (play.ended(), play.machine.unmatched, play.machine.wake_at()) == ({}, 1, None)


def test_a_call_that_ended_cannot_be_taken_back() -> None:
    """Nothing is said about it."""
    play = Playbook().up()
    call = play.calls()
    play.says(0, Kind.REPLY, reply(call.tag))
    play.hears()

    assert not play.machine.cancel(call)
    assert play.hears() == []


def test_a_call_that_was_taken_back_is_not_sent_again() -> None:
    """The session that knew it is over."""
    play = Playbook().up()
    gone, stays = play.calls("gone"), play.calls("stays")
    play.hears()
    play.machine.cancel(gone)

    play.says(0, Kind.DISCONNECT, NO_SESSION)

    assert play.requests() == [stays.tag]


def test_closing_ends_everything_and_says_goodbye() -> None:
    """Calls and questions, as CANCELLED; whether they ran is not known."""
    play = Playbook(2).up(0)
    play.calls("a")
    play.calls("b")
    play.machine.ask("c", Kind.STATS, ["status", None], 0, play.now + 1, play.now)
    play.hears(0), play.hears(1)

    play.machine.fail_all("the client was closed")
    play.machine.check()

    ended = play.ended()
    assert list(ended) == ["a", "b", "c"]
    assert {(record[STATUS], record[RESULT]) for record in ended.values()} == {
        (Status.CANCELLED, "the client was closed")
    }
    assert play.hears(0) == [(Kind.DISCONNECT, [["closing", ""]])]
    assert play.hears(1) == []
    assert (play.machine.wake_at(), play.machine.pending) == (None, 0)


# Questions ---------------------------------------------------------------------------------------


def test_a_question_goes_to_its_gateway_and_is_answered() -> None:
    """Beside the calls, with a tag of its own."""
    play = Playbook(2).up(0, 1)
    play.machine.ask("q", Kind.STATS, ["status", None], 1, play.now + 1, play.now)

    ((kind, (record,)),) = play.hears(1)
    assert (kind, record[1:]) == (Kind.STATS, ["status", None])
    play.says(1, Kind.STATS, [record[TAG], "status", b"{}"], [99, "status", b"{}"])

    assert play.ended() == {"q": [record[TAG], "status", b"{}"]}
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
    """Nobody waits for a gateway that does not answer it."""
    play = Playbook().up()
    play.machine.ask("q", Kind.STATS, ["status", None], 0, play.now + 1, play.now)

    play.waits(1 + GRACE_S + SLOT_S)

    assert [record[STATUS] for record in play.ended().values()] == [Status.DEADLINE_EXCEEDED]


# Several gateways --------------------------------------------------------------------------------


def test_gateways_take_turns() -> None:
    """Those that are up."""
    play = Playbook(3).up(0, 1, 2)
    for number in range(9):
        play.calls(number)
    assert [len(play.requests(number)) for number in range(3)] == [3, 3, 3]


def test_only_gateways_that_are_up_get_calls() -> None:
    """Once one is."""
    play = Playbook(3).up(0, 2)
    for number in range(8):
        play.calls(number)
    assert [len(play.requests(number)) for number in range(3)] == [4, 0, 4]


def test_calls_at_a_gateway_that_never_answers_move_to_one_that_did() -> None:
    """They were made before any was up; its greeting had a heartbeat's time."""
    play = Playbook(2)
    tags = {play.calls(number).tag for number in range(4)}
    play.up(1)
    own = {tag for tag in tags if tag % 2}

    play.waits(BEAT_S + 0.01)

    assert set(play.requests(1)) == tags - own
    assert play.machine.links[0].state is LinkState.GREETING
    play.says(1, Kind.REPLY, *[reply(tag) for tag in sorted(tags)])
    assert sorted(play.ended()) == [0, 1, 2, 3]


def test_each_gateways_calls_are_resent_to_it_alone() -> None:
    """The session of the other one is not over."""
    play = Playbook(2).up(0, 1)
    tags = [play.calls(number).tag for number in range(4)]
    play.flushed()
    there = play.requests(1)
    play.requests(0)

    play.says(1, Kind.DISCONNECT, NO_SESSION)

    assert play.requests(1) == there
    assert play.requests(0) == []
    assert set(there) < set(tags)


# A story -----------------------------------------------------------------------------------------


class Client(RuleBasedStateMachine):
    """Whatever happens, each call ends once, and none later than its deadline and the grace."""

    def __init__(self) -> None:
        super().__init__()
        self.play = Playbook(2, connect_timeout_s=1.0)
        self.open: dict[object, Call] = {}
        self.count = 0

    def _settle(self) -> None:
        for owner in self.play.ended():
            del self.open[owner]

    @rule(deadline_s=st.sampled_from([0.0, 0.05, 0.7, 3.0, 60.0]))
    def call(self, deadline_s: float) -> None:
        self.count += 1
        self.open[self.count] = self.play.calls(self.count, deadline_s)

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0), status=st.sampled_from([Status.OK, Status.OVERLOADED]))
    def answer(self, which: int, status: Status) -> None:
        call = list(self.open.values())[which % len(self.open)]
        self.play.says(call.link, Kind.REPLY, reply(call.tag, status))
        self._settle()

    @precondition(lambda self: self.open)
    @rule(which=st.integers(0))
    def cancel(self, which: int) -> None:
        owner = list(self.open)[which % len(self.open)]
        assert self.play.machine.cancel(self.open.pop(owner))

    @rule(number=st.integers(0, 1), what=st.sampled_from(["welcome", "no session", "refuse", "dies", "lives"]))
    def gateway(self, number: int, what: str) -> None:
        if what == "welcome":
            self.play.says(number, Kind.WELCOME, welcome())
        elif what == "no session":
            self.play.says(number, Kind.DISCONNECT, NO_SESSION)
        elif what == "refuse":
            self.play.says(number, Kind.DISCONNECT, ["too many clients", ""])
        elif what == "dies":
            self.play.alive.discard(number)
        else:
            self.play.alive.add(number)
        self._settle()

    @rule(seconds=st.sampled_from([0.0, 0.01, 0.4, 2.0]))
    def wait(self, seconds: float) -> None:
        self.play.waits(seconds)
        self._settle()

    @rule()
    def flush(self) -> None:
        self.play.flushed()

    @invariant()
    def agrees(self) -> None:
        self.play.machine.check()
        assert self.play.machine.pending == len(self.open)
        assert all(call.deadline + GRACE_S + SLOT_S >= self.play.now for call in self.open.values())

    def teardown(self) -> None:
        self.play.waits(61.0)
        self._settle()
        assert self.open == {}


TestClientStory = Client.TestCase
TestClientStory.settings = settings(max_examples=40, stateful_step_count=25)
TestClientStory = pytest.mark.slow(TestClientStory)
