"""Which engines serve a model, and which version a request without one means."""

from __future__ import annotations

import pytest

from tests.machine.playbook import SIGNATURE, Playbook, request, session_of
from zmqinfer.machine.flight import Flight
from zmqinfer.machine.members import ClientSession, WorkerSession
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.routes import Engine, Route, Routes
from zmqinfer.policy.rotation import Standing, Work
from zmqinfer.records import MAX_RECORDS, REQUEST_ID, Kind


def join(routes: Routes, name: str, version: int = 1, model: str = "m") -> Engine:
    route = routes.announce(model, version)
    route.describe(SIGNATURE, 32, True)
    engine = Engine(WorkerSession(name, session_of(name), 1.0, None, Outbox(name.encode(), [])), route, 64)
    route.add(engine)
    return engine


def flight_in(route: Route, tag: int = 1) -> Flight:
    client = ClientSession(session_of("alice"), Outbox(b"alice", []), None)
    flight = Flight(request(tag, route.model, route.version), client, tag, 2_000.0, 0, 4, route)
    route.waiting.put(flight, 0.0)
    return flight


def test_request_without_a_version_means_the_latest_with_an_engine() -> None:
    """A later version whose workers are all gone does not hide an earlier one."""
    routes = Routes()
    old, new = join(routes, "w1", 1), join(routes, "w2", 2)
    routes.settle("m")
    assert routes.find("m", None) is new.route

    new.route.drop(new)
    routes.settle("m")

    assert routes.find("m", None) is old.route


@pytest.mark.parametrize("granted", [0, 1, 9, 20, 31, 32, 1_024])
@pytest.mark.parametrize("max_rows", [1, 4, 15, 32])
def test_a_grain_is_a_row_or_more(max_rows: int, granted: int) -> None:
    """Of small batches that are short an engine has few credits while it learns, and placement divides by the grain."""
    engine = join(Routes(), "w1")
    engine.route.describe(SIGNATURE, max_rows, True)
    engine.granted = granted

    engine.allow()

    assert engine.grain >= 1


def test_latest_version_is_kept_while_no_version_has_an_engine() -> None:
    """A request waits there for the return of its workers."""
    routes = Routes()
    old, new = join(routes, "w1", 1), join(routes, "w2", 2)
    for engine in (old, new):
        engine.route.drop(engine)
    routes.settle("m")

    assert routes.find("m", None) is new.route


def test_requests_that_waited_for_an_unknown_model_are_homeless_when_it_comes() -> None:
    """They are to be placed again, those without a version and those with this one."""
    routes = Routes()
    waiting = [flight_in(routes.find("m", None)), flight_in(routes.find("m", 1))]
    other = flight_in(routes.find("m", 2))

    join(routes, "w1", 1)
    homeless = routes.settle("m")

    assert homeless == waiting
    assert other.is_waiting
    assert routes.find("m", 2) is other.route


def test_requests_that_waited_for_a_version_that_is_the_latest_no_more_are_homeless() -> None:
    """Its last worker left, and another version has one."""
    routes = Routes()
    engine = join(routes, "w1", 1)
    routes.settle("m")
    engine.route.drop(engine)
    routes.settle("m")
    flight = flight_in(engine.route)

    join(routes, "w2", 2)

    assert routes.settle("m") == [flight]


def test_model_once_announced_stays_known() -> None:
    """So that a request for it waits, and is not told that there is no such model."""
    routes = Routes()
    engine = join(routes, "w1", 3)
    routes.settle("m")

    engine.route.drop(engine)
    routes.settle("m")

    assert routes.is_known("m", None)
    assert routes.is_known("m", 3)
    assert not routes.is_known("m", 1)
    assert not routes.is_known("n", None)


def test_route_of_a_model_nobody_announced_lives_while_someone_waits_in_it() -> None:
    """Names that callers make up must not pile up."""
    routes = Routes()
    route = routes.find("made-up", None)
    flight = flight_in(route)

    routes.sweep(route)
    assert list(routes) == [route]
    route.waiting.remove(flight)
    routes.sweep(route)

    assert list(routes) == []


def test_known_route_is_never_swept() -> None:
    """It is known for good."""
    routes = Routes()
    route = join(routes, "w1").route

    routes.sweep(route)

    assert list(routes) == [route]


def test_cards_list_the_models_that_have_an_engine() -> None:
    """No more than a WELCOME can carry."""
    routes = Routes()
    gone = join(routes, "w1", 1)
    gone.route.drop(gone)
    for version in range(2, MAX_RECORDS + 10):
        join(routes, "w2", version)

    cards = routes.cards()

    assert cards[0] == ["m", 2, SIGNATURE, 32, True, False]
    assert len(cards) == MAX_RECORDS


def test_description_is_news_only_when_it_differs() -> None:
    """Clients are told anew only then."""
    route = Route("m", 1)

    assert route.describe(SIGNATURE, 32, True)
    assert not route.describe([*SIGNATURE], 32, True)
    assert route.describe(SIGNATURE, 16, True)
    assert route.describe(SIGNATURE, 16, False)


def test_engine_of_the_same_name_takes_the_place_of_the_earlier() -> None:
    """Dropping the earlier one then changes nothing."""
    routes = Routes()
    first = join(routes, "w1")
    second = join(routes, "w1")

    first.route.drop(first)

    assert first.route.engines == {"w1": second}


def test_new_engine_of_a_name_has_a_new_record() -> None:
    """Though nobody looked between the two: what the first one did is not taken off what the second does."""
    routes = Routes()
    first, second = join(routes, "w1"), join(routes, "w2")
    rotation = first.route.rotation
    works = {engine.name: engine.work() for engine in (first, second)}
    rotation.look(works, [], 0.0)
    rotation.look(works | {"w1": Work(100_000, 0)}, [], 0.5)

    first.route.drop(first)
    join(routes, "w1")

    rotation.look(works, [], 1.0)
    changes = rotation.look({"w1": Work(20, 20), "w2": Work(20, 0)}, [], 1.5)
    assert [(name, standing) for name, standing, _ in changes] == [("w1", Standing.OUT)]
    assert "100% of its calls failed" in changes[0][2]


def test_dropped_engine_gives_back_to_nobody() -> None:
    """What it still runs counts in none of the later placements."""
    routes = Routes()
    first, second = join(routes, "w1"), join(routes, "w2")
    route = first.route
    for engine in (first, second):
        engine.placement.take(engine, 3)

    route.drop(first)
    first.placement.give_back(first, 3)

    assert route.placement.total == 3
    assert second.placement is route.placement
    route.placement.check()


def test_those_who_waited_for_a_dropped_engine_wait_for_anyone() -> None:
    """Their home will not come back for them."""
    routes = Routes()
    first, _ = join(routes, "w1"), join(routes, "w2")
    flight = flight_in(first.route)
    first.route.waiting.remove(flight)
    first.route.waiting.put(flight, 0.0, "w1", 3_000.0)
    assert first.route.waiting.best("w2") is None

    first.route.drop(first)

    assert first.route.waiting.best("w2") is flight


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
