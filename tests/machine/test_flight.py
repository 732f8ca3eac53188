"""One request in a gateway's hands."""

from __future__ import annotations

from tests.machine.playbook import Playbook, request, session_of
from zmqinfer.machine.flight import OUT, Flight
from zmqinfer.machine.members import ClientSession
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.routes import Route
from zmqinfer.records import MODEL_VERSION, TAG, Kind


def test_flight_takes_what_it_needs_from_its_record() -> None:
    """Rows and priority are read once; it begins neither queued nor dispatched."""
    client = ClientSession(session_of("alice"), Outbox(b"alice", []), None)

    flight = Flight(request(7, version=3, rows=5, priority=2), client, 7, 1_010.0, 42, 4, Route("m", 3))

    assert (flight.rows, flight.priority, flight.version) == (5, 2, 3)
    assert (flight.engine, flight.is_waiting, flight.losses, flight.patience) == (None, False, 0, None)


def test_flight_remembers_that_no_version_was_asked_for() -> None:
    """Its record says which one serves it."""
    play = Playbook().with_workers("w1").with_clients("alice").hears("alice", Kind.REQUEST, request(1))
    (client,) = play.machine.clients.everyone()

    flight = client.flights[1]

    assert flight.version is None
    assert flight.record[MODEL_VERSION] == 1
    assert flight.record[TAG] == flight.tag
    assert flight.slot != OUT
