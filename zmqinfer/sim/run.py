"""One run: a world, load, faults, and what must hold all along."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from zmqinfer.errors import Status
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.scenario import PATIENCE_S, Scenario, source, whole
from zmqinfer.sim.faults import BLOCKING, KINDS, Fault, draw
from zmqinfer.sim.history import RECOVERY_S, Violation
from zmqinfer.sim.world import World

__all__ = ["Result", "faults_of", "run"]

# After so many events one machine of each kind checks itself in full, in turns; what costs next to nothing is looked
# at after each. A gateway's check looks at all its workers, so among more of them it comes less often.
_CHECK_EVERY = 29
_CHECKED_WORKERS = 16
# After the last deadline: sessions of clients that are gone are kept for 5 s, and everything is to be quiet then.
_SETTLE_S = 8.0
# So many calls each client makes to each model, in the calm after everything.
_CALM_CALLS = 3


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a run.

    Attributes:
        digest: of everything that happened; the same for the same scenario, seed and release.
        drawn: how many faults of each kind there were.
        fired: how many of them had a victim.
        violation: what must never happen and did, or empty.
    """

    seed: int
    digest: str
    events: int
    simulated_s: float
    outcomes: dict[str, int]
    drawn: dict[str, int]
    fired: dict[str, int]
    violation: str


class _Run:
    """A world, and what is done to it."""

    def __init__(self, world: World) -> None:
        self.fired = dict.fromkeys(world.scenario.faults, 0)
        self._world = world
        self._checked = self._unmatched = 0

    def run(self, faults: Sequence[Fault]) -> None:
        """Lets everything happen; raises `Violation` or `AssertionError` at what must not."""
        world = self._world
        scenario, timeline, history = world.scenario, world.timeline, world.history
        until = scenario.duration_s
        history.healed_at = max([until, *(fault.at + fault.lasts_s for fault in faults)])
        history.hidden_s += sum(fault.lasts_s for fault in faults if fault.kind in BLOCKING)
        for fault in faults:
            timeline.at(fault.at, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        if not scenario.in_flight:
            timeline.at(0.0, world.arrive)
        self._go(until)
        self._go_on_while_open(history.healed_at + PATIENCE_S)
        history.check_all_ended()
        self._go(max(timeline.now, history.healed_at + RECOVERY_S))
        self._be_calm()
        self._go(timeline.now + _SETTLE_S)
        for processes in world.nodes.values():
            for process in processes.values():
                process.machine.check()
        self._check_at_rest()

    def _be_calm(self) -> None:
        """Lets every client ask every model, and accepts nothing but answers, each once."""
        history = self._world.history
        first = len(history.calls)
        self._unmatched = self._all_unmatched()
        for client in self._world.clients.values():
            for model in self._world.scenario.models:
                for _ in range(_CALM_CALLS):
                    client.call(model, CallOptions(RECOVERY_S))
        self._go_on_while_open(self._world.timeline.now + RECOVERY_S + 1.0)
        history.check_all_ended()
        for call in history.calls[first:]:
            if call.status is not Status.OK:
                raise Violation(f"call {call.number} to {call.model!r} ended as {call.status!r} though all was calm")

    def _all_unmatched(self) -> int:
        return sum(client.machine.unmatched for client in self._world.clients.values())

    def _go_on_while_open(self, until: float) -> None:
        """Lets time pass until every call has ended, or it is too late for that."""
        while self._world.history.open and self._world.timeline.now < until:
            self._go(min(until, self._world.timeline.now + 0.25))

    def _go(self, until: float) -> None:
        timeline = self._world.timeline
        check_every = _CHECK_EVERY * max(1, len(self._world.workers) // _CHECKED_WORKERS)
        while timeline.step(until):
            for gateway in self._world.gateways.values():
                ledger = gateway.machine.ledger
                if ledger.received != ledger.refused + ledger.accepted:
                    raise Violation(f"{gateway.name}: received is not refused + accepted")
                if ledger.accepted != ledger.answered + ledger.pending:
                    raise Violation(f"{gateway.name}: accepted is not answered + pending")
            if not timeline.events % check_every:
                self._check_next()

    def _strike(self, fault: Fault) -> None:
        if KINDS[fault.kind](self._world, fault):
            self._world.trace(fault.kind)
            self.fired[fault.kind] = self.fired.get(fault.kind, 0) + 1

    def _check_next(self) -> None:
        self._checked += 1
        for processes in self._world.nodes.values():
            if processes:
                list(processes.values())[self._checked % len(processes)].machine.check()

    def _check_at_rest(self) -> None:
        """Raises `Violation` if anything is left anywhere once all calls have ended."""
        for gateway in self._world.gateways.values():
            awaited, held = gateway.machine.scheduler.dispatches.check()
            if gateway.machine.ledger.pending or awaited or held:
                raise Violation(f"{gateway.name} is not at rest: {gateway.machine.ledger.pending} pending, {held}")
            for session in gateway.machine.roster.by_name.values():
                if not all(replica.granted for replica in session.replicas.values()):
                    raise Violation(f"{session.name} still has no credits at {gateway.name}")
        for worker in self._world.workers.values():
            if worker.machine.held:
                raise Violation(f"{worker.name} still holds {worker.machine.held} calls")
        if (unmatched := self._all_unmatched() - self._unmatched) > 0:
            raise Violation(f"{unmatched} calls were answered again though all was calm")
        for client in self._world.clients.values():
            if client.machine.pending:
                raise Violation(f"{client.name} still waits for {client.machine.pending} calls")


def faults_of(scenario: Scenario, seed: int) -> list[Fault]:
    """Returns the faults of a seed."""
    random = source(seed, "faults")
    counts = {kind: whole(random, span) for kind, span in scenario.faults.items()}
    return draw(random, counts, scenario.lasts_s, scenario.duration_s)


def run(
    scenario: Scenario, seed: int, faults: Sequence[Fault] | None = None, watch: Callable[[World], None] | None = None
) -> Result:
    """Does one run, with the faults of the seed or those given; `watch` is shown the world before it begins."""
    violation = ""
    if faults is None:
        faults = faults_of(scenario, seed)
    world = World(scenario, seed)
    one = _Run(world)
    if watch is not None:
        watch(world)
    # What a run makes stays, or goes by itself, and to look for it took a sixth of the time.
    gc.disable()
    try:
        one.run(faults)
    except Exception as error:  # noqa: BLE001 - whatever a machine raises is a defect
        violation = f"{type(error).__name__}: {error} (at {world.timeline.now:.6f} s)"
    finally:
        gc.enable()
    return Result(
        seed,
        world.digest(),
        world.timeline.events,
        world.timeline.now,
        world.history.outcomes(),
        dict(Counter(fault.kind for fault in faults)),
        one.fired,
        violation,
    )
