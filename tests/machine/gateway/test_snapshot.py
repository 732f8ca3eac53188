"""What a gateway tells of itself."""

from __future__ import annotations

import json

import pytest

from tests.machine.gateway.playbook import SIGNATURE, Playbook, card, reply, request, session_of
from zmqinfer.records import BATCH_ROWS, Kind


def test_status_of_an_empty_gateway_has_all_its_fields() -> None:
    """The schema is a promise."""
    status = Playbook(age_s=2.5).status()

    assert status == {
        "address": "tcp://front:5555",
        "workers_address": "tcp://back:5556",
        "version": "1.2.3",
        "pid": 4711,
        "state": "ready",
        "uptime_s": 2.5,
        "ring_version": status["ring_version"],
        "clients": 0,
        "requests": {
            "received": 0,
            "refused": 0,
            "accepted": 0,
            "answered": 0,
            "pending": 0,
            "moved": 0,
            "hedged": 0,
            "hedges_won": 0,
            "duplicates": 0,
            "outcomes": {},
        },
        "queued": {"requests": 0, "bytes": 0},
        "protocol_errors": 0,
        "late_replies": 0,
        "stray_replies": 0,
        "workers": [],
    }


def test_status_counts_what_happens_to_requests() -> None:
    """Its equations hold with requests queued, dispatched, answered, refused and cancelled."""
    play = Playbook(age_s=10.0).with_workers("w1", credits_rows=2).with_clients("alice", "bob")
    play.hears("alice", Kind.REQUEST, *[request(tag, payload=b"12345678") for tag in range(6)])
    play.hears("bob", Kind.REQUEST, request(1, "unknown"))
    play.hears("w1", Kind.REPLY, reply(play.said("w1", Kind.REQUEST)[0])).hears("alice", Kind.CANCEL, [5, 1])

    status = play.status()

    assert status["requests"] == {
        "received": 7,
        "refused": 1,
        "accepted": 6,
        "answered": 2,
        "pending": 4,
        "moved": 0,
        "hedged": 0,
        "hedges_won": 0,
        "duplicates": 0,
        "outcomes": {"OK": 1, "NOT_FOUND": 1, "CANCELLED": 1},
    }
    assert status["queued"] == {"requests": 2, "bytes": 16}
    assert status["clients"] == 2


def test_status_of_a_worker_tells_its_load_and_its_batches() -> None:
    """Batches are reckoned from the replies: each brings its part of one."""
    play = Playbook().joins("w1", card("m"), card("n", 2), weight=3_000).joins("w2").with_clients("alice")
    key = play.key_of("w1")
    play.hears("alice", Kind.REQUEST, *[request(tag, key=key) for tag in range(4)])
    asked = play.said("w1", Kind.REQUEST)
    replies = [reply(record) for record in asked]
    for record in replies:
        record[BATCH_ROWS] = len(replies)
    play.hears("w1", Kind.REPLY, *replies)

    first, second = play.status()["workers"]

    assert first == {
        "name": "w1",
        "agent": "agent",
        "session": session_of("w1").hex(),
        "state": "ready",
        "weight": 3.0,
        "share": 0.75,
        "credits": 128,
        "in_flight": 0,
        "answered": len(replies),
        "batches": 1,
        "mean_batch_size": float(len(replies)),
        "models": [{"name": "m", "version": 1, "standing": "in"}, {"name": "n", "version": 2, "standing": "in"}],
    }
    assert (second["share"], second["answered"], second["mean_batch_size"]) == (0.25, 0, 0.0)


def test_draining_worker_has_no_share() -> None:
    """The shares of the others come to one."""
    play = Playbook().with_workers("w1", "w2").hears("w1", Kind.DISCONNECT, ["draining", ""])

    assert {worker["name"]: worker["share"] for worker in play.status()["workers"]} == {"w1": 0.0, "w2": 1.0}


def test_models_list_who_serves_them() -> None:
    """Only those that can be called now."""
    play = Playbook().joins("w2", card("m")).joins("w1", card("m"), card("n")).joins("w3", card("gone")).loses("w3")

    listed = play.machine.snapshot.models(play.now)

    assert listed[0] == {
        "name": "m",
        "version": 1,
        "signature": SIGNATURE,
        "max_batch_size": 32,
        "idempotent": True,
        "workers": ["w1", "w2"],
    }
    assert [model["name"] for model in listed] == ["m", "n"]


@pytest.mark.parametrize("subject", ["status", "models"])
def test_stats_are_answered_as_json(subject: str) -> None:
    """Under the asker's own tag."""
    play = Playbook().with_workers("w1").with_clients("alice")

    tag, answered, value, *_ = play.hears("alice", Kind.STATS, [9, subject, None, 0, 1]).says("alice", Kind.STATS)

    assert (tag, answered) == (9, subject)
    assert json.loads(value)


def test_unknown_subject_is_answered_with_nothing() -> None:
    """An older gateway, a newer client."""
    play = Playbook().with_clients("alice").hears("alice", Kind.STATS, [9, "weather", None, 0, 1])

    assert play.says("alice", Kind.STATS) == [9, "weather", None, 0, 1]


@pytest.mark.slow
def test_what_is_more_than_a_message_holds_comes_in_pages() -> None:
    """A head has 1 MiB; what 100 workers with 64 models each are is more, and every page passes the wire."""
    play = Playbook().with_clients("alice")
    cards = [card(f"a-model-with-a-{'rather-' * 14}long-name-{n}") for n in range(64)]
    for n in range(100):
        play.joins(f"a-worker-with-a-rather-long-name-{n}", *cards)

    pages = play.hears("alice", Kind.STATS, [9, "status", None, 0, 1]).said("alice", Kind.STATS)

    assert [page[3:] for page in pages] == [[n, len(pages)] for n in range(len(pages))]
    assert len(pages) > 1
    told = json.loads(b"".join(page[2] for page in pages))
    assert [len(worker["models"]) for worker in told["workers"]] == [64] * 100
