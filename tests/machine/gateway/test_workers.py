"""A gateway's workers: joining, telling how they are, draining, taking a name over, being lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.machine.gateway.playbook import SIGNATURE, Playbook, card, identities, reply, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.machine.gateway.members import WorkerState
from zmqinfer.records import MAX_MODELS, MODEL, STATUS, TAG, Kind

SILENCE_S = 2.0


def events(play: Playbook) -> list[str]:
    said = [event for event, _ in play.machine.workers.events]
    play.machine.workers.events.clear()
    return said


def causes(play: Playbook) -> list[Any]:
    return [values["cause"] for event, values in play.machine.workers.events if event == "worker gone"]


def test_ready_is_welcomed_and_reported() -> None:
    """A person would want to know."""
    play = Playbook().joins("w1", card("m"), card("n"))

    assert play.says("w1", Kind.WELCOME)[:3] == [session_of("gateway"), "zmqinfer/1.2.3 pid 4711", 500]
    assert play.machine.workers.events == [
        ("worker joined", {"worker": "w1"}),
        ("worker serves", {"worker": "w1", "models": "m,n"}),
    ]
    assert play.machine.roster.ready_names() == ["w1"]
    assert play.machine.roster.has_ready()


def test_heavier_worker_owns_more_keys() -> None:
    """The weight in READY is in thousandths."""
    play = Playbook().joins("light", weight=1_000).joins("heavy", weight=3_000)

    homes = [play.home(b"%d" % n) for n in range(1_000)]

    assert 0.65 < homes.count("heavy") / 1_000 < 0.85


@pytest.mark.parametrize("kind", [Kind.HEARTBEAT, Kind.REPLY, Kind.CANCEL])
def test_stranger_is_asked_for_its_greeting(kind: Kind) -> None:
    """As after a restart of the gateway."""
    play = Playbook().at_the_back("w1")

    play.hears("w1", kind, *{Kind.REPLY: [reply([1, 1])], Kind.CANCEL: [[1, 1]], Kind.HEARTBEAT: []}[kind])

    assert play.says("w1", Kind.DISCONNECT)[0] == "no session"


@pytest.mark.parametrize(
    ("kind", "record"), [(Kind.HELLO, [session_of("a"), "agent", None, None]), (Kind.REQUEST, request(1))]
)
def test_client_at_the_workers_door_is_told_the_right_address(kind: Kind, record: list[object]) -> None:
    """The sentence names the door for clients."""
    reason, detail = Playbook().at_the_back("a").hears("a", kind, record).says("a", Kind.DISCONNECT)

    assert reason == "wrong door"
    assert "clients dial tcp://front:5555" in detail


@pytest.mark.parametrize("reason", ["draining", "closing"])
def test_parting_of_a_stranger_is_echoed(reason: str) -> None:
    """A worker that leaves as the gateway restarts must not wait out its time of grace."""
    play = Playbook().at_the_back("w1").hears("w1", Kind.DISCONNECT, [reason, ""])

    assert play.says("w1", Kind.DISCONNECT)[0] == reason


def test_draining_worker_gets_no_new_work_and_finishes_what_it_holds() -> None:
    """The acknowledgement says that no more will come; nothing fails."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    key = play.key_of("w1")
    asked = play.hears("alice", Kind.REQUEST, request(1, key=key)).says("w1", Kind.REQUEST)

    play.hears("w1", Kind.DISCONNECT, ["draining", ""])
    assert play.says("w1", Kind.DISCONNECT)[0] == "draining"
    play.hears("alice", Kind.REQUEST, request(2, key=key)).says_nothing("w1")
    play.says("w2", Kind.REQUEST)
    play.hears("w1", Kind.HEARTBEAT, [0, 500, 1, None, []]).says_nothing("w1")
    play.hears("w1", Kind.REPLY, reply(asked))

    assert play.says("alice", Kind.REPLY)[STATUS] == Status.OK
    assert {worker["name"]: worker["state"] for worker in play.status()["workers"]} == {
        "w1": "draining",
        "w2": "ready",
    }


def test_requests_that_waited_for_a_draining_worker_go_elsewhere() -> None:
    """Also those with a key, whose home is another one now."""
    play = Playbook(GatewaySettings(affinity_wait_ms=60_000)).with_workers("w1", "w2", credits_rows=1)
    play.with_clients("alice")
    key = play.key_of("w1")
    play.hears("alice", Kind.REQUEST, request(1), request(2), request(3, key=key))

    play.hears("w1", Kind.DISCONNECT, ["draining", ""]).hears("w2", Kind.REPLY, reply(play.says("w2", Kind.REQUEST)))

    assert identities([play.says("w2", Kind.REQUEST)]) == [b"id3"]


def test_closing_worker_is_let_go_after_its_last_reply() -> None:
    """The echo says that everything it sent has arrived."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1))
    play.hears("w1", Kind.DISCONNECT, ["draining", ""]).answers("w1").said("w1", Kind.DISCONNECT)

    play.hears("w1", Kind.DISCONNECT, ["closing", ""])

    assert play.says("w1", Kind.DISCONNECT)[0] == "closing"
    assert play.status()["workers"] == []
    play.says("alice", Kind.REPLY)


def test_worker_that_closes_with_requests_in_hand_loses_them_to_others() -> None:
    """Its time of grace was over."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k")).hears(first, Kind.DISCONNECT, ["closing", ""])

    play.answers(second)

    assert play.says("alice", Kind.REPLY)[STATUS] == Status.OK


def test_silent_draining_worker_loses_what_it_holds() -> None:
    """Off the ring, but watched still."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k")).hears(first, Kind.DISCONNECT, ["draining", ""])
    play.silent.add(first)

    play.waits(SILENCE_S).says(second, Kind.REQUEST)


def test_name_taken_over_by_another_session_ends_the_earlier_worker() -> None:
    """The old one is told so and fenced; what it held goes to the new one."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1)).says("w1", Kind.REQUEST)

    play.joins("w1", peer="other", session=session_of("other"))

    reason, detail = play.says("w1", Kind.DISCONNECT)
    assert reason == "replaced"
    assert "--name" in detail
    moved = play.says("other", Kind.REQUEST)
    play.said("alice", Kind.WELCOME)
    play.hears("w1", Kind.REPLY, reply(asked)).says_nothing("alice")
    assert play.says("w1", Kind.DISCONNECT)[0] == "no session"
    play.hears("other", Kind.REPLY, reply(moved)).says("alice", Kind.REPLY)
    assert causes(play) == ["another session took its name"]


@pytest.mark.parametrize("peer", ["w1", "another-connection"])
def test_same_session_reconnecting_begins_another_life(peer: str) -> None:
    """Nobody is told "replaced": it is the same process. What it held before is given out again."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1)).says("w1", Kind.REQUEST)

    play.joins("w1", peer=peer)

    moved = play.says(peer, Kind.REQUEST)
    assert moved[TAG] != asked[TAG]
    assert play.said("w1", Kind.DISCONNECT) == []
    assert play.held("w1") == 1
    play.hears(peer, Kind.REPLY, reply(asked), reply(moved))
    play.says("alice", Kind.REPLY)
    assert play.status()["late_replies"] == 1


def test_old_connection_of_a_worker_that_reconnected_cannot_hurt_its_new_life() -> None:
    """Its end is noticed later."""
    play = Playbook().with_workers("w1").joins("w1", peer="new")

    play.loses("w1").waits(SILENCE_S)

    assert [worker["name"] for worker in play.status()["workers"]] == ["w1"]


def test_connection_that_joins_under_another_name_leaves_its_first_name() -> None:
    """Nobody would notice the first one's silence."""
    play = Playbook().with_workers("w1").joins("w2", peer="w1", session=session_of("w1"))

    assert play.machine.roster.ready_names() == ["w2"]
    play.loses("w1")
    assert play.status()["workers"] == []


def test_reply_to_another_workers_request_is_a_stray() -> None:
    """Dropped and counted; after three its worker is not believed any more."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    asked = play.hears("alice", Kind.REQUEST, request(1, key=b"k")).says(first, Kind.REQUEST)

    play.hears(second, Kind.REPLY, reply(asked)).hears(second, Kind.REPLY, reply(asked)).says_nothing("alice")
    assert len(play.status()["workers"]) == 2
    play.hears(second, Kind.REPLY, reply(asked)).says_nothing("alice")

    assert play.status()["stray_replies"] == 3
    assert [worker["name"] for worker in play.status()["workers"]] == [first]
    assert causes(play) == ["it answered requests that it was not given"]
    play.hears(first, Kind.REPLY, reply(asked)).says("alice", Kind.REPLY)


def test_reply_to_an_unknown_tag_is_late_and_no_offence() -> None:
    """A worker cannot know what has become of a tag."""
    play = Playbook().with_workers("w1")

    play.hears("w1", Kind.REPLY, *[reply([tag, 1]) for tag in range(10)])

    assert play.status()["late_replies"] == 10
    assert len(play.status()["workers"]) == 1


def test_reply_given_twice_counts_once() -> None:
    """The credit returns once."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1), request(2)).said("w1", Kind.REQUEST)

    play.hears("w1", Kind.REPLY, reply(asked[0]), reply(asked[0]))

    play.says("alice", Kind.REPLY)
    assert play.held("w1") == 1


def test_third_broken_message_loses_a_worker() -> None:
    """What it held goes to others."""
    play = Playbook().with_workers("w1", "w2").with_clients("alice")
    first, second = play.successors(b"k")
    play.hears("alice", Kind.REQUEST, request(1, key=b"k"))

    play.mangles(first).mangles(first)
    play.says_nothing(second)
    play.mangles(first).says(second, Kind.REQUEST)

    assert play.machine.workers.door.cut == [first.encode()]
    assert play.says(first, Kind.DISCONNECT)[0] == "protocol"


def test_kind_that_only_clients_send_is_an_offence() -> None:
    """A worker with a session knows what it is."""
    play = Playbook().with_workers("w1").hears("w1", Kind.REQUEST, request(1))

    assert play.says("w1", Kind.DISCONNECT) == ["protocol", "a worker may not send REQUEST"]


def test_signature_that_is_none_is_an_offence() -> None:
    """Clients would have to believe it; of the models that came with it none is served."""
    play = Playbook().joins("w1", card("n"), ["m", 1, [[], [1]], 32, 64, True])

    assert play.says("w1", Kind.DISCONNECT)[0] == "protocol"
    assert [worker["models"] for worker in play.status()["workers"]] == [[]]


def test_workers_are_limited() -> None:
    """A known name may come again."""
    play = Playbook(GatewaySettings(max_workers=2)).with_workers("w1", "w2").joins("w3")

    assert play.says("w3", Kind.DISCONNECT) == ["too many workers", "2 workers are connected, the limit"]
    play.joins("w2", peer="again").says("again", Kind.WELCOME)
    play.loses("w1").joins("w3").says("w3", Kind.WELCOME)


def test_silent_worker_is_given_up_after_three_heartbeats() -> None:
    """And not before; any traffic is a sign of life."""
    play = Playbook().with_workers("w1", "w2")
    play.silent |= {"w1", "w2"}

    play.waits(1.0).hears("w2", Kind.HEARTBEAT).waits(0.5)
    assert play.machine.roster.ready_names() == ["w1", "w2"]
    play.waits(0.25)

    assert play.machine.roster.ready_names() == ["w2"]
    assert causes(play)[0].startswith("silent for 1.")


def test_workers_are_spoken_to_each_heartbeat() -> None:
    """A worker takes silence for the gateway's end."""
    play = Playbook().with_workers("w1")
    beats = 0
    for _ in range(20):
        play.now += 0.1
        play.machine.workers.on_message(b"w1", Kind.HEARTBEAT, [], play.now)
        play.machine.on_timer(play.now)
        beats += sum(len(list(outbox.messages(play.now))) for outbox in play.machine.workers.door.dirty)
        play.machine.workers.door.dirty.clear()

    assert beats == 4


def test_heartbeat_of_a_model_that_was_not_announced_is_ignored() -> None:
    """The index is of READY's models."""
    play = Playbook().with_workers("w1").hears("w1", Kind.HEARTBEAT, [5, 1_000, 0, None, []])

    assert play.status()["workers"][0]["credits"] == 64


def test_fewer_credits_hold_new_work_back() -> None:
    """What was sent already stays."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1), request(2))

    play.hears("w1", Kind.HEARTBEAT, [0, 1, 2, None, []]).hears("alice", Kind.REQUEST, request(3))

    assert len(play.said("w1", Kind.REQUEST)) == 2
    assert play.held("w1") == 2


def test_worker_of_several_models_is_lost_in_all() -> None:
    """Each of its engines has its own holdings."""
    play = Playbook().joins("w1", card("m"), card("n")).joins("w2", card("m"), card("n")).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1, "m", key=b"k"), request(2, "n", key=b"k"))
    first, second = play.successors(b"k")

    play.loses(first)

    assert len(play.said(second, Kind.REQUEST)) == 2
    assert [replica.held for replica in play._worker(second).replicas.values()] == [1, 1]


def test_worker_may_announce_another_list_at_any_time() -> None:
    """READY again on the same connection; a model that is gone from it is served no more."""
    play = Playbook().joins("w1", card("m"), card("n")).with_clients("alice")

    play.joins("w1", card("n", 2))

    assert [model["name"] for model in play.status()["workers"][0]["models"]] == ["n"]
    assert play.says("alice", Kind.WELCOME)[4] == [["n", 2, SIGNATURE, 32, True, False]]


def test_ring_version_depends_on_names_and_weights_alone() -> None:
    """Two gateways that agree on it send a key to the same worker; a draining worker is not in it."""
    one = Playbook().with_workers("w1", "w2")
    two = Playbook().with_workers("w2", "w1", "w3").hears("w3", Kind.DISCONNECT, ["draining", ""])

    assert one.machine.roster.ring_version() == two.machine.roster.ring_version()
    assert one.joins("w3").machine.roster.ring_version() != two.machine.roster.ring_version()


def test_join_and_leave_are_told_once_each() -> None:
    """One event, one line."""
    play = Playbook().with_workers("w1")
    assert events(play) == ["worker joined", "worker serves"]

    play.hears("w1", Kind.DISCONNECT, ["draining", ""]).hears("w1", Kind.DISCONNECT, ["closing", ""])
    assert events(play) == ["worker draining", "worker gone"]


def test_lost_worker_is_dead_to_whoever_still_points_at_it() -> None:
    """Its state says so."""
    play = Playbook().with_workers("w1")
    worker = play._worker("w1")

    play.loses("w1")

    assert worker.state is WorkerState.DEAD
    play.loses("w1").says_nothing()


def test_worker_that_repeats_its_greeting_before_it_could_be_answered_has_one_life() -> None:
    """The gateway was away for some heartbeats, and finds several READYs at once: nothing has moved or is lost."""
    play = Playbook().with_clients("alice").at_the_back("w1")
    play.hears("alice", Kind.REQUEST, request(1, idempotent=False))
    greeting = [(Kind.READY, [[session_of("w1"), "w1", "agent", 1_000, None]]), (Kind.MODELS, [[0, card()]])]

    play.hears_at_once("w1", *greeting * 3)

    play.says("w1", Kind.WELCOME)
    play.answers("w1")
    assert play.says("alice", Kind.REPLY)[STATUS] == Status.OK
    assert play.requests()["moved"] == 0


# What an implementation of another hand may say -------------------------------------------------------


def test_late_reply_to_a_block_counts_its_calls() -> None:
    """Not the bit set that names them."""
    play = Playbook().with_workers("w1").with_clients("alice")
    asked = play.hears("alice", Kind.REQUEST, request(1, calls=5)).says("w1", Kind.REQUEST)
    play.loses("w1").at_the_back("again").hears("again", Kind.REPLY, reply(asked, "w1"))

    assert play.status()["late_replies"] == 5


def test_goodbye_that_is_said_twice_is_one() -> None:
    """What follows it in its message is of a worker that is gone."""
    play = Playbook().with_workers("w1", "w2")
    play.machine.workers.events.clear()

    play.hears("w1", Kind.DISCONNECT, ["closing", ""], ["closing", ""], ["draining", ""])

    assert [event for event, _ in play.machine.workers.events] == ["worker gone"]
    assert [record[0] for record in play.said("w1", Kind.DISCONNECT)] == ["closing"]


def test_model_may_be_replaced_at_the_limit() -> None:
    """It is told of before the one whose place it takes is taken away."""
    models = [card(f"m{number}") for number in range(MAX_MODELS)]
    play = Playbook().joins("w1", *models).with_clients("alice")

    play.hears("w1", Kind.MODELS, [MAX_MODELS, card("m5")]).hears("w1", Kind.MODELS, [5, None])
    play.hears("alice", Kind.REQUEST, request(1, "m5"))

    assert play.says("w1", Kind.REQUEST)[MODEL] == "m5"
    play.hears("w1", Kind.MODELS, [MAX_MODELS + 1, card("one-too-many")])
    assert play.machine.workers.events[-2][0] == "worker has too many models"
