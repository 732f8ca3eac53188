"""What is owed to a client, and what was asked of workers for it."""

from __future__ import annotations

from tests.machine.gateway.playbook import Playbook, request, session_of
from zmqinfer.machine.gateway.members import Replica, WorkerSession
from zmqinfer.machine.gateway.requests import OUT, ClientSession, Dispatch, Request
from zmqinfer.machine.gateway.routes import Route
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.admission import Usage
from zmqinfer.records import MODEL_VERSION, TAG, Kind, Record


def a_request(record: Record) -> Request:
    client = ClientSession(session_of("alice"), Outbox(b"alice", []), None, Usage())
    return Request(record, client, 1_010.0, 40, Route("m", 3))


def test_request_takes_what_it_needs_from_its_record() -> None:
    """It begins neither queued nor dispatched."""
    one = a_request(request(7, version=3, rows=5, priority=2))

    assert (one.tag, one.calls, one.rows, one.priority, one.version) == (7, 1, 5, 2, 3)
    assert (one.dispatches, one.is_waiting, one.is_open, one.losses, one.due_at) == ((), False, True, 0, 1_010.0)


def test_request_keeps_what_came_and_each_dispatch_has_a_record_of_its_own() -> None:
    """So the client's tag and wish are what they were, whatever is told to workers."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1))
    (client,) = play.machine.clients.everyone()

    (one,) = client.requests
    sent = play.says("w1", Kind.REQUEST)

    assert (one.version, one.record[TAG]) == (None, 1)
    assert (sent[MODEL_VERSION], sent[TAG]) == (1, one.dispatches[0].tag)
    assert one.slot != OUT


def test_division_of_a_request_divides_all_its_dispatches() -> None:
    """Each is for exactly the calls of its request, and sizes add up."""
    one = a_request(request(64, calls=5))
    for number, tag in enumerate((320, 640)):
        worker = WorkerSession(f"w{number}", b"", 1.0, None, Outbox(b"", []))
        one.dispatches += (Dispatch(tag, one, Replica(worker, "m", 3, 32, 64)),)
    one.losses, one.may_have_run = 1, True

    head = one.cut(0b01010)

    sizes = [(part.tag, part.places, part.calls, part.rows, part.size) for part in (head, one)]
    assert sizes == [(64, 0b01010, 2, 2, 16), (64, 0b10101, 3, 3, 24)]
    for part in (head, one):
        assert [dispatch.tag for dispatch in part.dispatches] == [320, 640]
        assert all(dispatch.request is part for dispatch in part.dispatches)
        assert (part.losses, part.may_have_run, part.is_open) == (1, True, True)
