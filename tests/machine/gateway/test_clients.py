"""A gateway's clients: greeting, coming back on another connection, vanishing, offending."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook, card, outcome, reply, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.gateway.clients import MAX_BACKLOG_BYTES, REBIND_S
from zmqinfer.records import OUTPUT, TAG, Kind

MODELS = 4  # the position in WELCOME


def test_greeting_is_answered_with_the_models_that_can_be_called() -> None:
    """And with the gateway's session, its heartbeat and the largest body."""
    play = Playbook(GatewaySettings(heartbeat_ms=200, max_body_bytes=4_096)).with_workers("w1")

    welcome = play.greets("alice").says("alice", Kind.WELCOME)

    assert welcome[:4] == [session_of("gateway"), "zmqinfer/1.2.3 pid 4711", 200, 4_096]
    assert [models[:2] for models in welcome[MODELS]] == [["m", 1]]


def test_greeting_and_first_request_may_come_in_one_turn() -> None:
    """HELLO and the first REQUEST leave together, without waiting for WELCOME."""
    play = Playbook().with_workers("w1")

    play.greets("alice").hears("alice", Kind.REQUEST, request(1)).answers("w1")

    assert play.says("alice", Kind.REPLY)[TAG] == 1


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (Kind.REQUEST, request(1)),
        (Kind.CANCEL, [1, 1]),
        (Kind.STATS, [1, "status", None, 0, 1]),
        (Kind.ADMIN, [1, "drain", "w1", None, ""]),
        (Kind.HEARTBEAT, None),
    ],
)
def test_stranger_is_asked_for_its_greeting_and_nothing_is_executed(kind: Kind, record: list[object] | None) -> None:
    """Anything but HELLO from a peer without a session is answered "no session"."""
    play = Playbook().with_workers("w1")

    play.hears("stranger", kind, *([record] if record else []))

    assert play.says("stranger", Kind.DISCONNECT)[0] == "no session"
    play.says_nothing()
    assert play.requests()["received"] == 0


def test_strangers_parting_is_not_answered() -> None:
    """It wants nothing more."""
    Playbook().hears("stranger", Kind.DISCONNECT, ["closing", ""]).says_nothing()


@pytest.mark.parametrize(
    ("kind", "record"),
    [(Kind.READY, [session_of("w"), "w", "agent", 1000, None, [card()]]), (Kind.REPLY, reply([1, 1]))],
)
def test_worker_at_the_clients_door_is_told_the_right_address(kind: Kind, record: list[object]) -> None:
    """The sentence names the door for workers."""
    reason, detail = Playbook().hears("lost", kind, record).says("lost", Kind.DISCONNECT)

    assert reason == "wrong door"
    assert "workers dial tcp://back:5556" in detail


def test_welcome_is_sent_again_when_the_models_change() -> None:
    """Each client that is connected learns of a model that comes or goes, and not of a second worker for it."""
    play = Playbook().with_clients("alice", "bob")

    play.joins("w1")
    assert [len(play.says(client, Kind.WELCOME)[MODELS]) for client in ("alice", "bob")] == [1, 1]
    play.joins("w2")
    assert play.said("alice", Kind.WELCOME) == []
    play.joins("w3", card("n"))
    assert len(play.says("alice", Kind.WELCOME)[MODELS]) == 2
    play.loses("w1")
    assert play.said("alice", Kind.WELCOME) == []
    play.loses("w2")
    assert [models[0] for models in play.says("alice", Kind.WELCOME)[MODELS]] == ["n"]


def test_welcome_is_sent_again_when_a_models_card_changes() -> None:
    """The newest worker's word counts."""
    play = Playbook().with_clients("alice").joins("w1", card(max_rows=32))
    play.said("alice", Kind.WELCOME)

    play.joins("w2", card(max_rows=8))

    assert play.says("alice", Kind.WELCOME)[MODELS][0][3] == 8


def test_more_models_than_fit_into_a_welcome_do_not_keep_clients_out() -> None:
    """A WELCOME that no client can read would close the gateway to all."""
    play = Playbook()
    for worker in range(5):
        play.joins(f"w{worker}", *[card(f"model-{worker}-{n}") for n in range(64)])

    welcome = play.greets("alice").says("alice", Kind.WELCOME)
    play.hears("alice", Kind.REQUEST, request(1, "model-4-63"))

    assert len(welcome[MODELS]) == 256
    play.says("w4", Kind.REQUEST)


def test_client_that_is_back_in_time_gets_its_held_replies() -> None:
    """For five seconds a lost client's answers are kept; the same session on another connection gets them."""
    play = Playbook().with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2)).loses("alice")
    first, second = play.said("w1", Kind.REQUEST)
    play.hears("w1", Kind.REPLY, reply(first, output=b"one")).says_nothing("alice")

    play.waits(REBIND_S - 0.1).greets("again", session_of("alice"))
    play.hears("w1", Kind.REPLY, reply(second, output=b"two"))

    play.says("again", Kind.WELCOME)
    assert [record[OUTPUT] for record in play.said("again", Kind.REPLY)] == [b"one", b"two"]


def test_held_replies_survive_a_failed_attempt_to_send_them() -> None:
    """The attempt that shows that the connection is gone is in the middle of the outbox."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1)).says("w1", Kind.REQUEST)
    machine = play.machine
    machine.workers.on_message(b"w1", Kind.REPLY, [reply(asked, output=b"kept")], play.now)
    (outbox,) = machine.clients.door.dirty
    machine.clients.door.dirty.clear()
    for _ in outbox.messages(play.now):
        machine.clients.on_unreachable(b"alice", play.now)
        break

    play.greets("again", session_of("alice"))

    assert play.says("again", Kind.REPLY)[OUTPUT] == b"kept"


def test_request_resent_on_another_connection_is_answered_once() -> None:
    """The new connection resends what is pending; what is on its way is not executed again."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1)).loses("alice")

    play.greets("again", session_of("alice")).hears("again", Kind.REQUEST, request(1)).answers("w1")

    assert play.says("again", Kind.REPLY)[TAG] == 1
    assert play.requests()["duplicates"] == 1
    play.says_nothing("w1", "alice")


def test_client_that_stays_away_has_its_requests_cancelled() -> None:
    """After five seconds; a worker that runs one of them is told."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1), request(2)).says("w1", Kind.REQUEST)
    play.loses("alice")

    play.waits(REBIND_S - 0.01).says_nothing("w1")
    play.waits(0.02)

    assert play.says("w1", Kind.CANCEL) == [asked[TAG], 1]
    assert play.requests()["outcomes"] == {"CANCELLED": 2}
    assert play.status()["clients"] == 0
    play.hears("w1", Kind.REPLY, reply(asked, status=Status.CANCELLED, ran=0)).says_nothing()
    assert play.held("w1") == 0


def test_client_that_says_goodbye_has_its_requests_cancelled_at_once() -> None:
    """It will not come back."""
    play = Playbook().with_workers("w1", credits_rows=1).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2))

    play.hears("alice", Kind.DISCONNECT, ["closing", ""])

    play.says("w1", Kind.CANCEL)
    assert play.requests()["outcomes"] == {"CANCELLED": 2}
    assert len(play.machine.clients) == 0


def test_session_on_a_new_connection_leaves_the_old_one_a_strangers() -> None:
    """Even while the old one still looks alive."""
    play = Playbook().with_workers("w1").with_clients("alice").greets("again", session_of("alice"))
    play.says("again", Kind.WELCOME)

    play.hears("alice", Kind.REQUEST, request(1))

    assert play.says("alice", Kind.DISCONNECT)[0] == "no session"
    play.loses("alice").hears("again", Kind.REQUEST, request(1)).answers("w1").says("again", Kind.REPLY)


def test_another_session_on_the_same_connection_ends_the_earlier() -> None:
    """Nobody would end it later: the connection would be lost for the newer one alone."""
    play = Playbook(GatewaySettings(max_clients=2)).with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1)).said("w1", Kind.REQUEST)

    for life in range(5):
        play.greets("alice", session_of(f"life{life}"))

    assert len(play.machine.clients) == 1
    play.says("w1", Kind.CANCEL)
    assert play.said("alice", Kind.DISCONNECT) == []


def test_greeting_again_on_the_same_connection_changes_nothing() -> None:
    """An unanswered greeting is repeated."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1))

    play.greets("alice").answers("w1")

    play.says("alice", Kind.WELCOME)
    play.says("alice", Kind.REPLY)


def test_clients_are_limited() -> None:
    """One above the limit is told so; there is room when one has left."""
    play = Playbook(GatewaySettings(max_clients=2)).with_clients("a", "b")

    play.greets("c")
    assert play.says("c", Kind.DISCONNECT) == ["too many clients", "2 clients are connected, which is the limit"]
    play.greets("again", session_of("a")).says("again", Kind.WELCOME)

    play.hears("b", Kind.DISCONNECT, ["closing", ""]).greets("c").says("c", Kind.WELCOME)


def test_third_broken_message_cuts_a_client_off() -> None:
    """The first is answered with what was wrong; with the third the session ends."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1))

    play.mangles("alice")
    assert play.says("alice", Kind.DISCONNECT) == ["protocol", "broken"]
    play.mangles("alice").says_nothing("alice")
    assert not play.machine.clients.door.unheard
    play.mangles("alice").says_nothing("alice")

    assert play.machine.clients.door.cut == [b"alice"]
    assert play.machine.clients.door.unheard == {b"alice"}
    assert play.requests()["outcomes"] == {"CANCELLED": 1}
    assert play.status()["protocol_errors"] == 3


def test_kind_that_only_workers_send_is_an_offence() -> None:
    """A client with a session knows what it is."""
    play = Playbook().with_clients("alice")

    play.hears("alice", Kind.REPLY, reply([1, 1]))

    assert play.says("alice", Kind.DISCONNECT) == ["protocol", "a client may not send REPLY"]


def test_heartbeat_is_answered() -> None:
    """Something is sent back, so that a cut connection shows."""
    play = Playbook().with_clients("alice")

    play.machine.clients.on_message(b"alice", Kind.HEARTBEAT, [], play.now)

    (outbox,) = play.machine.clients.door.dirty
    assert len(list(outbox.messages(play.now))) == 1


def test_probe_of_a_connection_sends_something_if_it_is_a_clients() -> None:
    """The attempt will tell whether the connection is gone."""
    play = Playbook().with_clients("alice")

    play.machine.clients.probe(b"alice", play.now)
    play.machine.clients.probe(b"stranger", play.now)

    (outbox,) = dirty = play.machine.clients.door.dirty
    assert outbox.address == b"alice"
    assert len(list(outbox.messages(play.now))) == 1
    dirty.clear()
    play.machine.on_timer(play.now + 0.49)
    assert dirty == []
    play.machine.on_timer(play.now + 0.51)
    assert dirty == [outbox]
    assert play.machine.wake_at() is None


@pytest.mark.parametrize("is_connected", [True, False])
@pytest.mark.parametrize("output", [bytes(MAX_BACKLOG_BYTES // 2), [memoryview(bytes(MAX_BACKLOG_BYTES // 2))]])
def test_client_that_does_not_read_is_given_up(is_connected: bool, output: object) -> None:
    """At 64 MiB of answers nobody took."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1), request(2))
    if not is_connected:
        play.loses("alice")
    left: list[int] = []

    for asked in play.said("w1", Kind.REQUEST):
        answer = reply(asked)
        answer[OUTPUT] = output
        play.machine.workers.on_message(b"w1", Kind.REPLY, [answer], play.now)
        play.machine.on_timer(play.now)
        left.append(len(play.machine.clients))

    assert left == [1, 0]


def test_slow_reader_is_judged_by_what_it_has_not_read() -> None:
    """A socket that is full each turn, but moves, must not count what has long been sent."""
    play = Playbook().with_workers("w1").with_clients("alice")
    session = next(iter(play.machine.clients.everyone()))
    large = [memoryview(bytes(2**20))]

    for tag in range(100):
        session.outbox.put(Kind.REPLY, [tag, 1, 0, b"layout", large, "w1", 1, 1, 1, None, 1, 0, 0], 2**20)
        session.outbox.put(Kind.REPLY, [tag, 1, 0, b"layout", large, "w1", 1, 1, 1, None, 1, 0, 0], 2**20)
        messages = session.outbox.messages(play.now)
        for _ in range(2 if tag else 1):
            next(messages)
        # Asking for the next one says that the last one was taken.
        next(messages)
        messages.close()
        play.machine.clients.door.dirty[:] = [session.outbox]

    play.machine.on_timer(play.now)
    assert len(session.outbox) <= 2
    assert session.outbox.size // 2**20 == len(session.outbox)
    assert len(play.machine.clients) == 1


def test_answers_to_questions_and_refusals_count_for_one_who_does_not_read() -> None:
    """Whatever piles up has a size."""
    play = Playbook(GatewaySettings(max_client_requests=1)).with_workers("w1").with_clients("alice")
    outbox = next(iter(play.machine.clients.everyone())).outbox
    before = outbox.size

    play.machine.clients.on_message(b"alice", Kind.STATS, [[1, "status", None, 0, 1]], play.now)
    told = outbox.size
    play.machine.clients.on_message(b"alice", Kind.REQUEST, [request(1), request(2)], play.now)

    assert before + 500 < told < outbox.size - 100


def test_what_a_stranger_is_told_is_owed_to_nobody() -> None:
    """A full socket may drop it: else those who never read would fill the gateway."""
    play = Playbook()
    play.machine.clients.on_message(b"stranger", Kind.HEARTBEAT, [], play.now)

    assert [outbox.is_owed for outbox in play.machine.clients.door.dirty] == [False]


def test_a_draining_gateway_takes_no_new_session_on_a_known_connection() -> None:
    """The one that it knows goes on."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1)).says("w1", Kind.REQUEST)
    play.drains().said("alice", Kind.DISCONNECT)

    play.greets("alice", session_of("another"))

    assert play.said("alice", Kind.WELCOME) == []
    play.hears("w1", Kind.REPLY, reply(asked))
    assert outcome(play.says("alice", Kind.REPLY)) == (1, Status.OK)
