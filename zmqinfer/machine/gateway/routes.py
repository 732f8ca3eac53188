"""Which replicas serve a model, and who waits for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Generic, TypeVar

import msgpack

from zmqinfer.machine.gateway.members import Replica
from zmqinfer.policy.drain import DrainRate
from zmqinfer.policy.hedging import Hedging
from zmqinfer.policy.placement import Placement
from zmqinfer.policy.rotation import Rotation, Work
from zmqinfer.policy.waiting import Waiter, WaitingRoom
from zmqinfer.records import MAX_RECORDS, PRIORITY, ROWS, Record

__all__ = ["MOST_GONE", "Route", "Routes"]

W = TypeVar("W", bound=Waiter)

# Routes that lost their last replica and stay known: workers name models as they like, and each takes some 3 KB.
MOST_GONE = 1_000
# All cards of a WELCOME may take half a head.
_MAX_CARDS_BYTES = 2**19


class Route(Generic[W]):
    """One version of one model: the replicas that are ready for it, and the requests that wait.

    Attributes:
        ran_rows: rows that its workers ran. Changed by `Dispatches` alone.
        replicas: all that are ready, by their workers' names.
        placement: of those that have any credit.
        rotation: how the replicas do in comparison.
        hedge: whether its requests are hedged unless they say something else; and
        hedging: when.
    """

    __slots__ = (
        "_drain", "_looked", "hedge", "hedging", "idempotent", "max_rows", "model", "placement", "ran_rows", "replicas",
        "rotation", "signature", "version", "waiting",
    )  # fmt: skip

    def __init__(self, model: str, version: int | None) -> None:
        self.model = model
        self.version = version
        self.signature: Record = []
        self.max_rows = 0
        self.idempotent = True
        self.replicas: dict[str, Replica] = {}
        self.placement: Placement[Replica] = Placement([])
        self.rotation = Rotation()
        self.hedge = False
        self.hedging = Hedging()
        # When it was looked at last, and how many rows its replicas had answered by then.
        self._looked = 0.0, 0
        self.waiting: WaitingRoom[W] = WaitingRoom()
        self.ran_rows = 0
        self._drain = DrainRate()

    @property
    def is_known(self) -> bool:
        """Whether a worker has announced it."""
        return self.max_rows > 0

    @property
    def words(self) -> str:
        """Model and version, for the sentences of errors."""
        return f"model {self.model!r}" + (f" version {self.version}" if self.version else "")

    def queue(self, waiter: W, now: float, home: str | None = None, until: float = 0.0) -> None:
        """Lets a request wait: for the worker named `home` alone until that instant, or for any."""
        if not self.waiting.count:
            self._drain.begin()
        self.waiting.put(waiter, now, home, until)

    def on_return(self, now: float) -> None:
        """Notes that rows came back from workers while others wait, before these take their place."""
        self._drain.note(now, self.ran_rows, self.placement.total)

    def answer_s(self, owner: object, record: Record, deadline: float) -> float | None:
        """Returns how long it takes until a request that joins the queue now is answered, None if nobody can tell.

        What the workers have already comes first too: with long batches that may be most of it.
        """
        rate = self._drain.rows_per_s()
        if not rate:
            return None
        rows: int = record[ROWS]
        ahead = self.waiting.backlog.ahead_of(record[PRIORITY], owner, deadline, rows)
        return (ahead + self.placement.total + rows) / rate

    def add(self, replica: Replica) -> None:
        """Makes a replica a holder, in the place of an earlier one of the same worker's name."""
        self.replicas[replica.name] = replica
        self.rotation.forget(replica.name)
        self._resettle()

    def _resettle(self) -> None:
        replicas = [replica for replica in self.replicas.values() if replica.credits]
        self.placement = Placement(replicas)
        for replica in replicas:
            replica.placement = self.placement
        self._drain.begin()

    def allow(self, replica: Replica) -> None:
        """Reckons a replica's credits anew.

        One without any leaves the ring until it has some: its part of the load would else be nobody's.
        """
        had_any = replica.credits > 0
        replica.allow()
        if (replica.credits > 0) != had_any and self.replicas.get(replica.name) is replica:
            self._resettle()
            if had_any:
                self.waiting.release(replica.name)

    def look(self, works: Mapping[str, Work], now: float) -> None:
        """Notes how busy the replicas are, from what they have done so far."""
        at, before = self._looked
        rows = sum(work.rows for work in works.values())
        self._looked = now, rows
        if works and rows >= before:
            self.hedging.look((rows - before) / ((now - at) * len(works)), self.max_rows)

    def is_on(self, host: bytes | None) -> bool:
        """Whether it has replicas, and all of them are on this host."""
        return bool(self.replicas) and all(replica.worker.host == host for replica in self.replicas.values())

    def drop(self, replica: Replica) -> None:
        """Ends a replica's holding; what it still runs is the caller's affair."""
        if self.replicas.get(replica.name) is replica:
            del self.replicas[replica.name]
            self._resettle()
            self.waiting.release(replica.name)

    def describe(self, signature: Record, max_rows: int, idempotent: bool) -> bool:
        """Takes the model's card from the newest worker; True if it differs from what clients know."""
        card = (signature, max_rows, idempotent)
        if card == (self.signature, self.max_rows, self.idempotent):
            return False
        self.signature, self.max_rows, self.idempotent = card
        return True


class Routes(Generic[W]):
    """All routes by model and version.

    One that a worker announced stays known when its workers are gone, so that a request for it waits for their return,
    until `MOST_GONE` others have lost theirs since. Any other is there only while requests wait in it.

    Attributes:
        served: those that have replicas.
    """

    __slots__ = ("_gone", "_models", "served")

    def __init__(self) -> None:
        # Those of each model by version; without a version the latest one, or one that is not known.
        self._models: dict[str, dict[int | None, Route[W]]] = {}
        self.served: dict[Route[W], None] = {}
        # Known routes without replicas, beginning with the one that has none for longest.
        self._gone: OrderedDict[Route[W], None] = OrderedDict()

    def __iter__(self) -> Iterator[Route[W]]:
        for versions in self._models.values():
            yield from [route for version, route in versions.items() if version == route.version]

    def find(self, model: str, version: int | None) -> Route[W]:
        """Returns the route of a request or a replica; without a version the latest one that has a replica."""
        try:
            return self._models[model][version]
        except KeyError:
            route = self._models.setdefault(model, {})[version] = Route(model, version)
            return route

    def settle(self, route: Route[W]) -> list[W]:
        """Takes note of other replicas of a known route; returns those who waited in what is no route of theirs now."""
        if route.replicas:
            self._gone.pop(route, None)
            self.served[route] = None
        else:
            self.served.pop(route, None)
            self._gone[route] = None
            self._gone.move_to_end(route)
        homeless = self._find_latest(route.model)
        if len(self._gone) > MOST_GONE:
            oldest, _ = self._gone.popitem(last=False)
            oldest.max_rows = 0
            homeless += self._find_latest(oldest.model)
            self.sweep(oldest)
        return homeless

    def _find_latest(self, model: str) -> list[W]:
        versions = self._models.get(model, {})
        before = versions.pop(None, None)
        known = [route for route in versions.values() if route.is_known]
        if known:
            versions[None] = max(known, key=lambda route: (bool(route.replicas), route.version or 0))
        return before.waiting.clear() if before and not before.replicas and before is not versions.get(None) else []

    def sweep(self, route: Route[W]) -> None:
        """Forgets a route that is not known once nobody waits in it."""
        versions = self._models.get(route.model, {})
        if not route.is_known and not route.waiting and versions.get(route.version) is route:
            del versions[route.version]
            if not versions:
                del self._models[route.model]

    def cards(self, host: bytes | None = None) -> list[Record]:
        """Returns the models that can be called now, as WELCOME lists them, and whether all replicas are on `host`.

        WELCOME has room for so many; those left out can be called all the same, the worker checks their inputs.
        """
        cards: list[Record] = []
        room = _MAX_CARDS_BYTES
        for route in self.served:
            if len(cards) < MAX_RECORDS:
                is_local = host is not None and route.is_on(host)
                card = [route.model, route.version, route.signature, route.max_rows, route.idempotent, is_local]
                room -= len(msgpack.packb(card))
                if room < 0:
                    break
                cards.append(card)
        return cards
