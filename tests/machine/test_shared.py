"""Payloads in shared memory on their way: who is told, who may be named, and what happens when nobody can read them."""

from __future__ import annotations

from typing import Any

from tests.machine.client.playbook import Playbook as ClientPlay
from tests.machine.client.playbook import card as client_card
from tests.machine.gateway.playbook import Playbook, card, reply, request, session_of
from zmqinfer.errors import Status
from zmqinfer.machine.client.call import CallOptions, SharedBody
from zmqinfer.records import INLINE, MAX_CALLS, OUTPUT, PAYLOAD, PLACES, REQUEST_ID, STATUS, TAG, Kind, Record

HERE, THERE = b"here", b"there"
LOCAL = 5  # the position in a card of WELCOME


def lying(tag: int, *owner: Any) -> Record:
    """A REQUEST whose payload lies in memory."""
    record = request(tag)
    record[PAYLOAD] = ([*(owner or (4711, 9))], 0, 100_000)
    return record


# The gateway -----------------------------------------------------------------------------------------


def locality(play: Playbook, client: str) -> bool:
    return bool(play.says(client, Kind.WELCOME)[4][0][LOCAL])


def test_welcome_says_whether_all_workers_are_on_the_clients_host() -> None:
    """And says so again when one of another host joins, and when it has left."""
    play = Playbook()
    play.joins("w1", card(), host=HERE).said("w1", Kind.WELCOME)

    assert locality(play.greets("alice", host=HERE), "alice")
    assert not locality(play.greets("bob", host=THERE), "bob")
    assert not locality(play.greets("carol"), "carol")

    play.joins("w2", card(), host=THERE)
    assert not locality(play, "alice")

    play.hears("w2", Kind.DISCONNECT, ["draining", ""])
    assert locality(play, "alice")


def test_gateway_puts_in_the_session_whose_memory_it_is() -> None:
    """Whatever the client says: it can so name nothing but its own."""
    play = Playbook()
    play.joins("w1", card(), host=HERE).said("w1", Kind.WELCOME)
    play.greets("alice", host=HERE).said("alice", Kind.WELCOME)

    for tag, owner in ((1, (4711, 9)), (2, (4711, 9, session_of("bob")))):
        asked = play.hears("alice", Kind.REQUEST, lying(tag, *owner)).says("w1", Kind.REQUEST)
        assert asked[PAYLOAD] == ([4711, 9, session_of("alice")], 0, 100_000)
        play.hears("w1", Kind.REPLY, reply(asked)).said("alice", Kind.REPLY)
    play.machine.ledger.check(play.machine.clients.everyone())


def test_worker_of_another_host_is_not_given_it() -> None:
    """The client is asked for the payload itself, also when the request had to wait for that worker."""
    play = Playbook()
    play.greets("alice", host=HERE).said("alice", Kind.WELCOME)
    play.hears("alice", Kind.REQUEST, lying(1))
    play.joins("w1", card(), host=THERE)
    first = play.says("alice", Kind.REPLY)
    second = play.hears("alice", Kind.REQUEST, lying(2)).says("alice", Kind.REPLY)

    for tag, answer in ((1, first), (2, second)):
        assert (answer[TAG], answer[STATUS], answer[OUTPUT]) == (tag, Status.UNAVAILABLE, INLINE)
    assert play.said("w1", Kind.REQUEST) == []


# The client ------------------------------------------------------------------------------------------


PLACE, PARTS = ([1, 2], 4096, 3), [memoryview(b"abc")]


def asks(play: ClientPlay) -> Record:
    """A call whose payload lies in memory."""
    play.machine.submit("owner", "m", (b"layout", SharedBody(PLACE, PARTS)), None, CallOptions(30.0), play.now)
    play.flushed()
    ((_, records),) = play.hears()
    (record,) = records
    return record


def client() -> ClientPlay:
    return ClientPlay().serving(client_card(is_local=True)).up()


def test_call_names_the_memory_and_gives_it_back_with_its_outcome() -> None:
    """Only then may the shell use it anew."""
    play = client()
    record = asks(play)
    assert record[PAYLOAD] == PLACE
    assert play.machine.released == []

    play.says(0, Kind.REPLY, [record[TAG], 1, 0, b"layout", b"out", "w1", 1, 1, 1, None, 1, 1, 1])

    assert play.machine.released == [PLACE]
    assert [owners for owners, _, _ in play.machine.completed] == [["owner"]]


def test_what_nobody_can_read_is_sent_as_frames() -> None:
    """Under the same tag and id, and the caller hears nothing of it."""
    play = client()
    first = asks(play)

    play.says(0, Kind.REPLY, [first[TAG], 1, Status.UNAVAILABLE, "why", INLINE, "w1", 1, 1, 0, None, 0, 0, 0])
    play.flushed()
    ((_, (second,)),) = play.hears()

    assert (second[TAG], second[PLACES], second[REQUEST_ID]) == (first[TAG], 1, first[REQUEST_ID])
    assert [bytes(part) for part in second[PAYLOAD]] == [b"abc"]
    assert play.machine.completed == []
    # Another worker may have been sent there too, and read it still.
    assert play.machine.released == []
    play.says(0, Kind.REPLY, [first[TAG], 1, Status.UNAVAILABLE, "why", INLINE, "w2", 1, 1, 0, None, 0, 0, 0])
    play.flushed()
    assert play.hears() == []

    play.says(0, Kind.REPLY, [first[TAG], 1, 0, b"layout", b"out", "w1", 1, 1, 1, None, 1, 1, 1])
    assert play.machine.released == [PLACE]
    assert len(play.machine.completed) == 1


def test_cancelled_call_gives_its_memory_back() -> None:
    """Whoever still reads there reads for nobody."""
    play = client()
    record = asks(play)

    assert play.machine.cancel(record[TAG] * MAX_CALLS)

    assert play.machine.released == [PLACE]
