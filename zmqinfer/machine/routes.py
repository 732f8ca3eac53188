"""Which engines serve a model, and who waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import msgpack

from zmqinfer.machine.flight import Flight
from zmqinfer.policy.drain import DrainRate
from zmqinfer.policy.hedging import Hedging
from zmqinfer.policy.placement import Holder, Placement
from zmqinfer.policy.rotation import Rotation, Work
from zmqinfer.policy.waiting import WaitingRoom
from zmqinfer.records import MAX_RECORDS, PRIORITY, ROWS, Record

if TYPE_CHECKING:
    from zmqinfer.machine.members import WorkerSession

__all__ = ["Engine", "Route", "Routes"]

# Of the rows that an engine of short batches may have under way, which it runs in 5 ms (machine/served.py): so many
# it runs in 0.16 ms, and a block of fewer is not divided for it. With echo, 200 in flight and two workers, 0.02 to
# 0.06 of the calls more a second.
_GRAINS_IN_CREDITS = 32

# Of all cards in a WELCOME: half a head.
_MAX_CARDS_BYTES = 2**19


class Engine(Holder):
    """One model of one worker. As a holder it counts rows against its credits.

    Attributes:
        answered: requests that came back, with whatever status.
        answered_rows: the rows of those that got a result.
        batches: batches that gave results, reckoned from the replies: each brings its part of one.
        failed: requests that came back with an error of the model.
        busy_us: how long those batches took, reckoned likewise.
        granted: rows that the worker says may be under way; none while it is stuck in a batch.
        leash: of those so many, as this gateway thinks of it; None: all.
        told: tags of which the worker said last that they run.
    """

    __slots__ = (
        "answered", "answered_rows", "batches", "busy_us", "failed", "granted", "leash", "placement", "route", "told",
        "worker",
    )  # fmt: skip

    def __init__(self, worker: WorkerSession, route: Route, credits_rows: int) -> None:
        super().__init__(worker.name, worker.weight, credits_rows)
        self.worker = worker
        self.route = route
        self.granted = credits_rows
        self.leash: int | None = None
        self.allow()
        # Where its held rows count. A dropped engine keeps the last one, which then counts for nobody.
        self.placement = route.placement
        self.answered = 0
        self.answered_rows = 0
        self.batches = self.busy_us = 0.0
        self.failed = 0
        self.told: list[int] = []

    def allow(self) -> None:
        """Reckons anew how many rows may be under way; an engine of short batches grants more than two of them."""
        rows = self.credits = self.granted if self.leash is None else min(self.granted, self.leash)
        self.grain = max(1, rows // _GRAINS_IN_CREDITS) if rows > 2 * self.route.max_rows else 1

    def work(self) -> Work:
        """Returns what it did so far."""
        return Work(self.answered, self.failed, self.batches, self.answered_rows, self.busy_us * 1e-6)


class Route:
    """One version of one model: the engines that are ready for it, and the requests that wait.

    Attributes:
        ran_rows: rows that its workers ran. Changed by `Dispatches` alone.
        engines: all that are ready, by their workers' names.
        placement: of those that have any credit.
        rotation: how the engines do in comparison.
        hedge: whether its requests are hedged unless they say something else; and
        hedging: when.
    """

    __slots__ = (
        "_drain", "_looked", "engines", "hedge", "hedging", "idempotent", "max_rows", "model", "placement", "ran_rows",
        "rotation", "signature", "version", "waiting",
    )  # fmt: skip

    def __init__(self, model: str, version: int | None) -> None:
        self.model = model
        self.version = version
        self.signature: Record = []
        self.max_rows = 0
        self.idempotent = True
        self.engines: dict[str, Engine] = {}
        self.placement: Placement[Engine] = Placement([])
        self.rotation = Rotation()
        self.hedge = False
        self.hedging = Hedging()
        # When it was looked at last, and how many rows its engines had answered by then.
        self._looked = 0.0, 0
        self.waiting: WaitingRoom[Flight] = WaitingRoom()
        self.ran_rows = 0
        self._drain = DrainRate()

    @property
    def words(self) -> str:
        """Model and version, for the sentences of errors."""
        return f"model {self.model!r}" + (f" version {self.version}" if self.version else "")

    def queue(self, flight: Flight, now: float, home: str | None = None, until: float = 0.0) -> None:
        """Lets a request wait: for the worker named `home` alone until that instant, or for any."""
        if not self.waiting.count:
            self._drain.begin()
        self.waiting.put(flight, now, home, until)

    def on_return(self, now: float) -> None:
        """Notes that rows came back from workers while others wait, before these take their place."""
        self._drain.note(now, self.ran_rows, self.placement.total)

    def answer_s(self, client: object, record: Record, deadline: float) -> float | None:
        """Returns how long it takes until a request that joins the queue now is answered, None if nobody can tell.

        What the workers have already comes first too: with long batches that may be most of it.
        """
        rate = self._drain.rows_per_s()
        if not rate:
            return None
        rows: int = record[ROWS]
        ahead = self.waiting.backlog.ahead_of(record[PRIORITY], client, deadline, rows)
        return (ahead + self.placement.total + rows) / rate

    def add(self, engine: Engine) -> None:
        """Makes an engine a holder, in the place of an earlier one of the same worker's name."""
        self.engines[engine.name] = engine
        self.rotation.forget(engine.name)
        self._resettle()

    def _resettle(self) -> None:
        engines = [engine for engine in self.engines.values() if engine.credits]
        self.placement = Placement(engines)
        for engine in engines:
            engine.placement = self.placement
        self._drain.begin()

    def allow(self, engine: Engine, granted: int | None = None, *, leash: int | None = None) -> None:
        """Takes the worker's word of its credits, or with `granted` None this gateway's own mind of them.

        An engine without any leaves the ring until it has some: its part of the load would else be nobody's.
        """
        had_any = engine.credits > 0
        if granted is None:
            engine.leash = leash
        else:
            engine.granted = granted
        engine.allow()
        if (engine.credits > 0) != had_any and self.engines.get(engine.name) is engine:
            self._resettle()
            if had_any:
                self.waiting.release(engine.name)

    def look(self, works: Mapping[str, Work], now: float) -> None:
        """Notes how busy the engines are, from what they have done so far."""
        at, before = self._looked
        rows = sum(work.rows for work in works.values())
        self._looked = now, rows
        if works and rows >= before:
            self.hedging.look((rows - before) / ((now - at) * len(works)), self.max_rows)

    def is_on(self, host: bytes | None) -> bool:
        """Whether it has engines, and all of them are on this host."""
        return bool(self.engines) and all(engine.worker.host == host for engine in self.engines.values())

    def drop(self, engine: Engine) -> None:
        """Ends an engine's holding; what it still runs is the caller's affair."""
        if self.engines.get(engine.name) is engine:
            del self.engines[engine.name]
            self._resettle()
            self.waiting.release(engine.name)

    def describe(self, signature: Record, max_rows: int, idempotent: bool) -> bool:
        """Takes the model's card from the newest worker; True if it differs from what clients were told."""
        card = (signature, max_rows, idempotent)
        if card == (self.signature, self.max_rows, self.idempotent):
            return False
        self.signature, self.max_rows, self.idempotent = card
        return True


class Routes:
    """All routes by model and version.

    A model's versions that were ever announced stay known, so that a request for one whose workers
    are all gone waits for their return. A name that no worker ever announced has a route only while
    requests wait in it.
    """

    __slots__ = ("_absent", "_known", "_latest")  # fmt: skip

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], Route] = {}
        self._absent: dict[tuple[str, int | None], Route] = {}
        self._latest: dict[str, Route] = {}

    def __iter__(self) -> Iterator[Route]:
        yield from self._known.values()
        yield from self._absent.values()

    def find(self, model: str, version: int | None) -> Route:
        """Returns the route of a request; without a version the latest one that has an engine."""
        route = self._latest.get(model) if version is None else self._known.get((model, version))
        if route is None:
            route = self._absent.get((model, version))
            if route is None:
                route = self._absent[model, version] = Route(model, version)
        return route

    def is_known(self, model: str, version: int | None) -> bool:
        """Whether a worker has ever announced the model, in this version if one is asked for."""
        return model in self._latest if version is None else (model, version) in self._known

    def announce(self, model: str, version: int) -> Route:
        """Returns the route of a model that a worker announces, new or known."""
        route = self._known.get((model, version))
        if route is None:
            route = self._known[model, version] = Route(model, version)
        return route

    def settle(self, model: str) -> list[Flight]:
        """Brings the model's latest version up to date after a change of its engines.

        Returns:
            the requests that waited for a route that is now another one; they wait no more and are
            to be placed again.
        """
        homeless: list[Flight] = []
        versions = [route for (name, _), route in self._known.items() if name == model]
        latest = max(versions, key=lambda route: (bool(route.engines), route.version or 0), default=None)
        if latest is not None:
            before = self._latest.get(model)
            self._latest[model] = latest
            if before is not None and before is not latest and not before.engines:
                homeless += before.waiting.clear()
        for key in [key for key in self._absent if key[0] == model and self.is_known(*key)]:
            homeless += self._absent.pop(key).waiting.clear()
        return homeless

    def sweep(self, route: Route) -> None:
        """Forgets a route that no worker ever announced once nobody waits in it."""
        if not route.waiting and (route.model, route.version) in self._absent:
            del self._absent[route.model, route.version]

    def cards(self, host: bytes | None = None) -> list[Record]:
        """Returns the models that can be called now, as WELCOME lists them: each with an engine.

        The last field says whether all of its engines are on `host`, so that memory can be shared.

        WELCOME has room for so many; those left out can be called all the same, the worker checks their inputs.
        """
        cards: list[Record] = []
        room = _MAX_CARDS_BYTES
        for route in self._known.values():
            if route.engines and len(cards) < MAX_RECORDS:
                is_local = host is not None and route.is_on(host)
                card = [route.model, route.version, route.signature, route.max_rows, route.idempotent, is_local]
                room -= len(msgpack.packb(card))
                if room < 0:
                    break
                cards.append(card)
        return cards
