"""Which replicas serve a model, and which version a request without one means."""

from __future__ import annotations

from typing import NamedTuple

import pytest

from tests.machine.gateway.playbook import SIGNATURE, Playbook, card, request, session_of
from zmqinfer.machine.gateway.members import Replica, WorkerSession
from zmqinfer.machine.gateway.requests import ClientSession, Request
from zmqinfer.machine.gateway.routes import MOST_GONE, Route, Routes
from zmqinfer.machine.outbox import Outbox
from zmqinfer.policy.admission import Usage
from zmqinfer.policy.rotation import Standing, Work
from zmqinfer.records import MAX_RECORDS, REQUEST_ID, Kind, Record


class Joined(NamedTuple):
    """A worker's model, and the route that it is in."""

    route: Route[Request]
    replica: Replica


def join(routes: Routes[Request], name: str, version: int = 1, model: str = "m") -> Joined:
    route = routes.find(model, version)
    route.describe(SIGNATURE, 32, True)
    worker = WorkerSession(name, session_of(name), 1.0, None, Outbox(name.encode(), []))
    replica = Replica(worker, model, version, 32, 64)
    route.add(replica)
    return Joined(route, replica)


def come_and_go(routes: Routes[Request], name: str, version: int = 1, model: str = "m") -> Route[Request]:
    """Has a worker join with a model and leave; returns the route, which has nobody then."""
    one = join(routes, name, version, model)
    routes.settle(one.route)
    one.route.drop(one.replica)
    routes.settle(one.route)
    return one.route


def waiting_in(route: Route[Request], tag: int = 1) -> Request:
    client = ClientSession(session_of("alice"), Outbox(b"alice", []), None, Usage())
    waiting = Request(request(tag, route.model, route.version), client, 2_000.0, 4, route)
    route.waiting.put(waiting, 0.0)
    return waiting


def test_request_without_a_version_means_the_latest_with_a_replica() -> None:
    """A later version whose workers are all gone does not hide an earlier one."""
    routes: Routes[Request] = Routes()
    old, new = join(routes, "w1", 1), join(routes, "w2", 2)
    routes.settle(old.route)
    routes.settle(new.route)
    assert routes.find("m", None) is new.route

    new.route.drop(new.replica)
    routes.settle(new.route)

    assert routes.find("m", None) is old.route


def test_latest_version_is_kept_while_no_version_has_a_replica() -> None:
    """A request waits there for the return of its workers."""
    routes: Routes[Request] = Routes()
    old, new = join(routes, "w1", 1), join(routes, "w2", 2)
    for one in (new, old):
        one.route.drop(one.replica)
        routes.settle(one.route)

    assert routes.find("m", None) is new.route


def test_requests_that_waited_for_an_unknown_model_are_homeless_when_it_comes() -> None:
    """They are to be placed again; those who asked for a version are where they are to be."""
    routes: Routes[Request] = Routes()
    anyone, first, other = (waiting_in(routes.find("m", version)) for version in (None, 1, 2))

    joined = join(routes, "w1", 1)
    homeless = routes.settle(joined.route)

    assert homeless == [anyone]
    assert joined.route is first.route is routes.find("m", 1) is routes.find("m", None)
    assert first.is_waiting
    assert other.is_waiting
    assert routes.find("m", 2) is other.route


def test_requests_that_waited_for_a_version_that_is_the_latest_no_more_are_homeless() -> None:
    """Its last worker left, and another version has one."""
    routes: Routes[Request] = Routes()
    waiting = waiting_in(come_and_go(routes, "w1", 1))

    assert routes.settle(join(routes, "w2", 2).route) == [waiting]


def test_model_once_announced_stays_known() -> None:
    """So that a request for it waits, and is not told that there is no such model."""
    routes: Routes[Request] = Routes()
    come_and_go(routes, "w1", 3)

    assert [routes.find("m", version).is_known for version in (None, 3, 1)] == [True, True, False]
    assert not routes.find("n", None).is_known


def test_route_of_a_model_nobody_announced_lives_while_someone_waits_in_it() -> None:
    """Names that callers make up must not pile up."""
    routes: Routes[Request] = Routes()
    route = routes.find("made-up", None)
    waiting = waiting_in(route)

    routes.sweep(route)
    assert list(routes) == [route]
    route.waiting.remove(waiting)
    routes.sweep(route)

    assert list(routes) == []


def test_known_route_is_never_swept() -> None:
    """It stays known while it has replicas, and for long after that."""
    routes: Routes[Request] = Routes()
    route = join(routes, "w1").route

    routes.sweep(route)

    assert list(routes) == [route]


def test_cards_list_the_models_that_have_a_replica() -> None:
    """No more than a WELCOME can carry."""
    routes: Routes[Request] = Routes()
    come_and_go(routes, "w1", 1)
    for version in range(2, MAX_RECORDS + 10):
        routes.settle(join(routes, "w2", version).route)

    cards = routes.cards()

    assert cards[0] == ["m", 2, SIGNATURE, 32, True, False]
    assert len(cards) == MAX_RECORDS


@pytest.mark.parametrize("kept", [False, True])
def test_names_that_a_worker_makes_up_do_not_pile_up(kept: bool) -> None:
    """Of those that nobody serves any more the last stay known; one that is served does, however old it is."""
    play = Playbook(age_s=10.0).with_clients("alice").joins("w1", card("old"))
    play.machine.clients.on_message(b"alice", Kind.DISCONNECT, [["", ""]], play.now)
    door = b"w1"

    for n in range(MOST_GONE + 100):
        records: list[Record] = [[1, card(f"m{n}", n % 3 + 1)], [1, None]]
        play.machine.workers.on_message(door, Kind.MODELS, records, play.now)
        if n == 50 and not kept:
            play.machine.workers.on_message(door, Kind.MODELS, [[0, None]], play.now)

    routes = play.machine.routes
    assert len(list(routes)) == MOST_GONE + kept
    assert routes.find("old", None).is_known is kept
    assert routes.find(f"m{MOST_GONE + 99}", None).is_known


def test_who_waits_in_a_route_that_is_forgotten_is_served_when_its_model_comes_again() -> None:
    """Whether it asked for that version or for any."""
    routes: Routes[Request] = Routes()
    waiting = waiting_in(come_and_go(routes, "w1", 3))
    homeless: list[Request] = []

    for n in range(MOST_GONE):
        other = join(routes, "w2", 1, f"other{n}")
        other.route.drop(other.replica)
        homeless += routes.settle(other.route)

    # It may have asked for any version.
    assert homeless == [waiting]
    waiting.route = routes.find("m", 3)
    waiting.route.waiting.put(waiting, 0.0)
    assert not waiting.route.is_known
    assert join(routes, "w1", 3).route is waiting.route


def test_a_worker_that_drains_may_name_what_was_forgotten() -> None:
    """Its route is one that nobody knows, and swept before its turn to be forgotten comes."""
    play = Playbook().joins("w1", card("old")).with_clients("alice")
    play.hears("w1", Kind.DISCONNECT, ["draining", ""])

    def renames(what: str) -> None:
        for n in range(MOST_GONE):
            play.machine.workers.on_message(b"w1", Kind.MODELS, [[1, card(f"{what}{n}")], [1, None]], play.now)

    renames("m")
    assert not play.machine.routes.find("old", 1).is_known

    play.hears("w1", Kind.HEARTBEAT, [0, 0, 0, None, []]).hears("w1", Kind.MODELS, [0, None])
    play.hears("alice", Kind.REQUEST, request(1, "old", 1)).hears("alice", Kind.CANCEL, [1, 1])
    renames("n")

    assert len(list(play.machine.routes)) == MOST_GONE


def test_description_is_news_only_when_it_differs() -> None:
    """Clients are told anew only then."""
    route: Route[Request] = Route("m", 1)

    assert route.describe(SIGNATURE, 32, True)
    assert not route.describe([*SIGNATURE], 32, True)
    assert route.describe(SIGNATURE, 16, True)
    assert route.describe(SIGNATURE, 16, False)


def test_replica_of_the_same_name_takes_the_place_of_the_earlier() -> None:
    """Dropping the earlier one then changes nothing."""
    routes: Routes[Request] = Routes()
    first = join(routes, "w1")
    second = join(routes, "w1")

    first.route.drop(first.replica)

    assert first.route.replicas == {"w1": second.replica}


def test_new_replica_of_a_name_has_a_new_record() -> None:
    """Though nobody looked between the two: what the first one did is not taken off what the second does."""
    routes: Routes[Request] = Routes()
    first, second = join(routes, "w1"), join(routes, "w2")
    rotation = first.route.rotation
    works = {one.replica.name: one.replica.work() for one in (first, second)}
    rotation.look(works, [], 0.0)
    rotation.look(works | {"w1": Work(100_000, 0)}, [], 0.5)

    first.route.drop(first.replica)
    join(routes, "w1")

    rotation.look(works, [], 1.0)
    changes = rotation.look({"w1": Work(20, 20), "w2": Work(20, 0)}, [], 1.5)
    assert [(name, standing) for name, standing, _ in changes] == [("w1", Standing.OUT)]
    assert "100% of its calls failed" in changes[0][2]


def test_dropped_replica_gives_back_to_nobody() -> None:
    """What it still runs counts in none of the later placements."""
    routes: Routes[Request] = Routes()
    first, second = join(routes, "w1"), join(routes, "w2")
    route = first.route
    for one in (first, second):
        one.replica.placement.take(one.replica, 3)

    route.drop(first.replica)
    first.replica.placement.give_back(first.replica, 3)

    assert route.placement.total == 3
    assert second.replica.placement is route.placement
    route.placement.check()


def test_those_who_waited_for_a_dropped_replica_wait_for_anyone() -> None:
    """Their home will not come back for them."""
    routes: Routes[Request] = Routes()
    first, _ = join(routes, "w1"), join(routes, "w2")
    waiting = waiting_in(first.route)
    first.route.waiting.remove(waiting)
    first.route.waiting.put(waiting, 0.0, "w1", 3_000.0)
    assert first.route.waiting.best("w2") is None

    first.route.drop(first.replica)

    assert first.route.waiting.best("w2") is waiting


def test_request_in_an_unknown_models_queue_keeps_its_place_when_the_model_comes() -> None:
    """The deadline decides within one client."""
    play = Playbook().with_clients("alice")
    play.hears("alice", Kind.REQUEST, request(1, budget_s=20.0), request(2, budget_s=10.0))

    play.joins("w1")

    assert [record[REQUEST_ID] for record in play.said("w1", Kind.REQUEST)] == [b"id2", b"id1"]


def test_cards_fit_into_a_welcome_however_large_they_are() -> None:
    """A message over the wire's bound would be refused by every client."""
    signature = [[[f"input-{n}-" + "x" * 100, "FP32", [-1] * 8] for n in range(16)]] * 2
    play = Playbook()
    for worker in range(4):
        play.joins(f"w{worker}", *[[f"m{worker}-{n}", 1, signature, 32, 64, True] for n in range(64)])

    cards = play.machine.routes.cards()

    assert 64 < len(cards) < 256
    assert play.greets("alice").says("alice", Kind.WELCOME)[4] == cards
