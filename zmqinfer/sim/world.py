"""One run: processes, a network between them, load, faults, and what must hold all along."""

from __future__ import annotations

import gc
import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from zmqinfer.config import ClientSettings, GatewaySettings, WorkerSettings
from zmqinfer.errors import Status
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.scenario import PATIENCE_S, Load, Scenario, TimedModel, settings_of, source, whole
from zmqinfer.sim.client import ClientProcess
from zmqinfer.sim.faults import BLOCKING, KINDS, Fault, draw
from zmqinfer.sim.gateway import GatewayProcess
from zmqinfer.sim.history import RECOVERY_S, Call, History, Violation
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline
from zmqinfer.sim.worker import WorkerProcess

__all__ = ["Result", "World", "run"]

# After so many events one machine of each kind checks itself in full, in turns; what costs next to nothing is looked
# at after each. A gateway's check looks at all its workers, so among more of them it comes less often.
_CHECK_EVERY = 29
_CHECKED_WORKERS = 16
# After the last deadline: sessions of clients that are gone are kept for 5 s, and everything is to be quiet then.
_SETTLE_S = 8.0
# Of each model and client, in the calm after everything.
_CALM_CALLS = 3
# A worker that its own model ended is started again.
_RESTART_S = 0.5


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


class World:
    """All processes of a run.

    Attributes:
        load: what is asked.
        gateways: those that are alive, by place; and so workers and clients.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._random = source(seed, "nodes")
        self.load = load = Load(scenario, seed)
        self.scenario = scenario
        self.timeline = Timeline()
        self.network = Network(self.timeline, source(seed, "network"), self._trace, scenario.latency_ms)
        self.history = History(scenario.promised_s, scenario.most_kills)
        self.wall_clock_s = 0.0
        self.fired = dict.fromkeys(scenario.faults, 0)
        self.gateways: dict[int, GatewayProcess] = {}
        self.workers: dict[int, WorkerProcess] = {}
        self.clients: dict[int, ClientProcess] = {}
        self._lives = self._checked = 0
        gateway, worker = settings_of(scenario, self._random)
        self._gateway_settings, self._worker_settings = GatewaySettings(**gateway), WorkerSettings(**worker)
        self._digest = hashlib.blake2b(digest_size=8)
        self._addresses = [(f"clients-{n}", f"workers-{n}") for n in range(load.gateways)]
        for place in range(len(self._addresses)):
            self.start_gateway(place)
        for place in range(load.workers):
            self.start_worker(place)
        for place in range(load.clients):
            self.start_client(place)

    def _trace(self, text: str) -> None:
        self._digest.update(f"{self.timeline.now!r} {text}\n".encode())

    def _name(self, kind: str, place: int) -> str:
        self._lives += 1
        return f"{kind}-{place}/{self._lives}"

    # Nodes ----------------------------------------------------------------------------------------

    def start_gateway(self, place: int) -> None:
        """Starts the gateway of a place, unless it is there."""
        if place not in self.gateways:
            name = self._name("gateway", place)
            self.gateways[place] = GatewayProcess(
                name, self.timeline, self.network, self._random, self._addresses[place], self._gateway_settings,
                self._on_gateways_end,
            )  # fmt: skip

    def start_worker(self, place: int) -> None:
        """Starts the worker of a place, unless it is there."""
        if place not in self.workers:
            dials = [workers for _, workers in self._addresses]
            self.workers[place] = WorkerProcess(
                self._name("worker", place), f"worker_{place + 1}", self.timeline, self.network, self._random, dials,
                self.scenario.models, self._worker_settings, self.history,
                lambda process: self._on_own_end(place, process),
            )  # fmt: skip

    def start_client(self, place: int) -> None:
        """Starts the client of a place, unless it is there."""
        if place not in self.clients:
            dials = [clients for clients, _ in self._addresses]
            self.clients[place] = ClientProcess(
                self._name("client", place), self.timeline, self.network, self._random, dials, ClientSettings(),
                self.history, lambda: self._refill(place),
            )  # fmt: skip

    def kill(self, process: Process) -> None:
        """Ends a process, as SIGKILL does."""
        self._trace(f"{process.name} ends")
        self.gateways = {place: one for place, one in self.gateways.items() if one is not process}
        self.workers = {place: one for place, one in self.workers.items() if one is not process}
        self.clients = {place: one for place, one in self.clients.items() if one is not process}
        process.die()
        self.network.forget(process)

    def _on_gateways_end(self, gateway: Process) -> None:
        """A gateway was drained; what it sent last still arrives."""
        if gateway.is_alive:
            self.kill(gateway)

    def _on_own_end(self, place: int, process: Process) -> None:
        """A worker was drained, told to go, or ended by its model."""
        self.kill(process)
        if isinstance(process, WorkerProcess) and not process.machine.is_draining:
            self.timeline.after(_RESTART_S, lambda: self.start_worker(place))

    # Load -----------------------------------------------------------------------------------------

    def call(self, place: int, *, is_poison: bool = False) -> None:
        """Lets a client make a call of its own drawing."""
        ask = self.load.ask()
        client = self.clients.get(place)
        if client is None:
            return
        call = self._begin(client, ask.model, ask.deadline_s, is_poison=is_poison)
        client.call(call, CallOptions(ask.deadline_s, None, ask.key, ask.priority, None))
        if ask.takes_back_after_s:
            call.is_fleeting = True
            self.timeline.after(ask.takes_back_after_s, lambda: self._take_back(client, call))

    @staticmethod
    def _take_back(client: ClientProcess, call: Call) -> None:
        if client.is_alive and not client.is_frozen:
            client.cancel(call)

    def _arrive(self) -> None:
        """Lets a client make some calls at once, and draws when that will be the next time."""
        calls, place = self.load.burst(len(self.clients))
        client = self.clients.get(place)
        for _ in range(calls):
            # A frozen program asks nothing.
            self.call(-1 if client is not None and client.is_frozen else place)
        next_at = self.timeline.now + self.load.pause_s()
        if next_at < self.scenario.duration_s:
            self.timeline.at(next_at, self._arrive)

    def _refill(self, place: int) -> None:
        """Lets a client make as many calls as its part of those in flight lacks."""
        if self.timeline.now < self.scenario.duration_s and (client := self.clients.get(place)) is not None:
            part = len(range(place, self.scenario.in_flight, self.load.clients))
            for _ in range(part - client.open):
                self.call(place)

    # The run --------------------------------------------------------------------------------------

    def run(self, faults: Sequence[Fault]) -> None:
        """Lets everything happen; raises `Violation` or `AssertionError` at what must not."""
        scenario, timeline, history = self.scenario, self.timeline, self.history
        until = scenario.duration_s
        history.healed_at = max([until, *(fault.at + fault.lasts_s for fault in faults)])
        history.hidden_s += sum(fault.lasts_s for fault in faults if fault.kind in BLOCKING)
        for fault in faults:
            timeline.at(fault.at, lambda fault=fault: self._strike(fault))  # type: ignore[misc]
        if not scenario.in_flight:
            timeline.at(0.0, self._arrive)
        self._go(until)
        self._go_on_while_open(history.healed_at + PATIENCE_S)
        history.check_all_ended()
        self._go(max(timeline.now, history.healed_at + RECOVERY_S))
        self._be_calm()
        self._go(timeline.now + _SETTLE_S)
        self._check()
        self._check_at_rest()

    def _be_calm(self) -> None:
        """Lets every client ask every model, and accepts nothing but answers."""
        history = self.history
        first = len(history.calls)
        for client in self.clients.values():
            for model in self.scenario.models:
                options = CallOptions(RECOVERY_S)
                for _ in range(_CALM_CALLS):
                    client.call(self._begin(client, model, RECOVERY_S, is_poison=False), options)
        self._go_on_while_open(self.timeline.now + RECOVERY_S + 1.0)
        history.check_all_ended()
        for call in history.calls[first:]:
            if call.status is not Status.OK:
                raise Violation(f"call {call.number} to {call.model!r} ended as {call.status!r} though all was calm")

    def _begin(self, client: ClientProcess, model: TimedModel, deadline_s: float, *, is_poison: bool) -> Call:
        return self.history.begin(
            client.name, model.name, self.timeline.now, deadline_s, may_run_twice=model.idempotent, is_poison=is_poison
        )

    def _go_on_while_open(self, until: float) -> None:
        """Lets time pass until every call has ended, or it is too late for that."""
        while self.history.open and self.timeline.now < until:
            self._go(min(until, self.timeline.now + 0.25))

    def _go(self, until: float) -> None:
        timeline = self.timeline
        check_every = _CHECK_EVERY * max(1, len(self.workers) // _CHECKED_WORKERS)
        while timeline.step(until):
            for gateway in self.gateways.values():
                ledger = gateway.machine.ledger
                if ledger.received != ledger.refused + ledger.accepted:
                    raise Violation(f"{gateway.name}: received is not refused + accepted")
                if ledger.accepted != ledger.answered + ledger.pending:
                    raise Violation(f"{gateway.name}: accepted is not answered + pending")
            if not timeline.events % check_every:
                self._check_next()

    def _strike(self, fault: Fault) -> None:
        if KINDS[fault.kind](self, fault):
            self._trace(fault.kind)
            self.fired[fault.kind] = self.fired.get(fault.kind, 0) + 1

    def _check_next(self) -> None:
        self._checked += 1
        for processes in (self.gateways, self.workers, self.clients):
            if processes:
                place = list(processes)[self._checked % len(processes)]
                processes[place].machine.check()

    def _check(self) -> None:
        for gateway in self.gateways.values():
            gateway.machine.check()
        for worker in self.workers.values():
            worker.machine.check()
        for client in self.clients.values():
            client.machine.check()

    def _check_at_rest(self) -> None:
        """Raises `Violation` if anything is left anywhere once all calls have ended."""
        for gateway in self.gateways.values():
            awaited, held = gateway.machine.scheduler.dispatches.check()
            if gateway.machine.ledger.pending or awaited or held:
                raise Violation(f"{gateway.name} is not at rest: {gateway.machine.ledger.pending} pending, {held}")
            for session in gateway.machine.roster.everyone():
                if not all(replica.granted for replica in session.replicas.values()):
                    raise Violation(f"{session.name} still has no credits at {gateway.name}")
        for worker in self.workers.values():
            if worker.machine.held:
                raise Violation(f"{worker.name} still holds {worker.machine.held} calls")
        for client in self.clients.values():
            if client.machine.pending:
                raise Violation(f"{client.name} still waits for {client.machine.pending} calls")

    def statuses(self) -> list[dict[str, Any]]:
        """Returns what each gateway would answer to `status --json`."""
        return [gateway.machine.snapshot.status(self.timeline.now) for gateway in self.gateways.values()]

    def digest(self) -> str:
        """Returns a digest of everything that happened so far."""
        return self._digest.hexdigest()


def faults_of(scenario: Scenario, seed: int) -> list[Fault]:
    """Returns the faults of a seed."""
    random = source(seed, "faults")
    counts = {kind: whole(random, span) for kind, span in scenario.faults.items()}
    return draw(random, counts, scenario.lasts_s, scenario.duration_s)


@contextmanager
def _uncollected() -> Iterator[None]:
    """Keeps the garbage collector still: what a run makes stays, or goes by itself, and looking took a sixth of it."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def run(
    scenario: Scenario, seed: int, faults: Sequence[Fault] | None = None, watch: Callable[[World], None] | None = None
) -> Result:
    """Does one run, with the faults of the seed or those given; `watch` is shown the world before it begins."""
    violation = ""
    if faults is None:
        faults = faults_of(scenario, seed)
    with _uncollected():
        world = World(scenario, seed)
        if watch is not None:
            watch(world)
        try:
            world.run(faults)
        except Exception as error:  # noqa: BLE001 - whatever a machine raises is a defect
            violation = f"{type(error).__name__}: {error} (at {world.timeline.now:.6f} s)"
    return Result(
        seed,
        world.digest(),
        world.timeline.events,
        world.timeline.now,
        world.history.outcomes(),
        dict(Counter(fault.kind for fault in faults)),
        world.fired,
        violation,
    )
