"""Models that workers load, change and take away while they serve others."""

from __future__ import annotations

from tests.machine.gateway.playbook import Playbook, card, reply, request
from zmqinfer.errors import Status
from zmqinfer.records import MODEL, REQUEST_ID, STATUS, Kind


def test_a_model_that_comes_or_goes_disturbs_no_other() -> None:
    """Its numbers are its own: what is under way, credits and homes of the others stay as they are."""
    play = (
        Playbook().joins("w1", card("m", credits_rows=2)).joins("w2", card("m", credits_rows=2)).with_clients("alice")
    )
    play.hears("alice", Kind.REQUEST, *[request(tag, "m") for tag in range(1, 8)])
    before = (play.held("w1"), play.held("w2"), play.status()["queued"], play.successors(b"k"))

    play.hears("w1", Kind.MODELS, [1, card("n")])
    assert play.says("alice", Kind.WELCOME)[4][1][:2] == ["n", 1]
    play.hears("alice", Kind.REQUEST, request(100, "n"))
    assert [record[MODEL] for record in play.said("w1", Kind.REQUEST)][-1] == "n"
    play.hears("w1", Kind.MODELS, [1, None])

    assert (play.held("w1"), play.held("w2"), play.status()["queued"], play.successors(b"k")) == before
    assert [one[0] for one in play.says("alice", Kind.WELCOME)[4]] == ["m"]
    assert play.requests()["moved"] == 0


def test_what_waits_for_a_model_goes_to_the_worker_that_loads_it() -> None:
    """As to one that joins."""
    play = Playbook().with_workers("w1").with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1, "n"))

    play.hears("w1", Kind.MODELS, [7, card("n")])

    assert play.says("w1", Kind.REQUEST)[MODEL] == "n"


def test_what_a_worker_gives_back_of_a_model_that_it_took_away_runs_elsewhere() -> None:
    """What it still runs it answers, and its credit comes back though the model is gone."""
    play = Playbook().joins("w1", card("m")).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2))
    running, waiting = play.said("w1", Kind.REQUEST)
    play.joins("w2", card("m"))

    play.hears("w1", Kind.MODELS, [0, None])
    play.hears("w1", Kind.REPLY, reply(running, "w1"), reply(waiting, "w1", status=Status.CANCELLED, ran=0))

    moved = play.says("w2", Kind.REQUEST)
    assert moved[REQUEST_ID] == b"id2"
    play.hears("w2", Kind.REPLY, reply(moved, "w2"))
    assert [record[STATUS] for record in play.said("alice", Kind.REPLY)] == [Status.OK, Status.OK]


def test_a_model_that_is_loaded_anew_takes_the_place_of_the_earlier_one() -> None:
    """Under another number; work goes on to the same worker, and what the earlier one holds is still counted."""
    play = Playbook().joins("w1", card("m", credits_rows=1)).with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1), request(2))
    first = play.says("w1", Kind.REQUEST)

    play.hears("w1", Kind.MODELS, [1, card("m", credits_rows=1)])
    second = play.says("w1", Kind.REQUEST)
    play.hears("w1", Kind.MODELS, [0, None]).hears("w1", Kind.REPLY, reply(first), reply(second))

    assert [record[STATUS] for record in play.said("alice", Kind.REPLY)] == [Status.OK, Status.OK]
    assert [model["name"] for model in play.status()["workers"][0]["models"]] == ["m"]


def test_a_card_may_change() -> None:
    """Credits, the largest batch, and what clients are told."""
    play = Playbook().joins("w1", card("m", credits_rows=1)).with_clients("alice")
    play.hears("alice", Kind.REQUEST, *[request(tag) for tag in range(1, 5)])
    assert len(play.said("w1", Kind.REQUEST)) == 1

    play.hears("w1", Kind.MODELS, [0, card("m", credits_rows=3, max_rows=8)])

    assert len(play.said("w1", Kind.REQUEST)) == 2
    assert play.says("alice", Kind.WELCOME)[4][0][3] == 8


def test_a_worker_has_a_bounded_number_of_models() -> None:
    """It is told in the log; the others are served."""
    play = Playbook().joins("w1", *[card(f"m{number}") for number in range(65)])

    assert len(play.status()["workers"][0]["models"]) == 64
    assert "worker has too many models" in [event for event, _ in play.machine.workers.events]
