"""All processes of a run, the network between them, and what is asked of them."""

from __future__ import annotations

import hashlib
from typing import Any

from zmqinfer.config import ClientSettings, GatewaySettings, WorkerSettings
from zmqinfer.machine.client.call import CallOptions
from zmqinfer.scenario import Load, Scenario, settings_of, source
from zmqinfer.sim.client import ClientProcess
from zmqinfer.sim.gateway import GatewayProcess
from zmqinfer.sim.history import History
from zmqinfer.sim.network import Network
from zmqinfer.sim.process import Process
from zmqinfer.sim.timeline import Timeline
from zmqinfer.sim.worker import WorkerProcess

__all__ = ["World"]

# A worker that its own model ended is started again.
_RESTART_S = 0.5


class World:
    """All processes of a run.

    Attributes:
        load: what is asked.
        gateways: those that are alive, by place; and so workers and clients.
        nodes: all of them, by kind and place.
    """

    def __init__(self, scenario: Scenario, seed: int) -> None:
        self._random = source(seed, "nodes")
        self.load = load = Load(scenario, seed)
        self.scenario = scenario
        self.timeline = Timeline()
        self.network = Network(self.timeline, source(seed, "network"), self.trace, scenario.latency_ms)
        self.history = History(scenario.promised_s, scenario.most_kills)
        self.gateways: dict[int, GatewayProcess] = {}
        self.workers: dict[int, WorkerProcess] = {}
        self.clients: dict[int, ClientProcess] = {}
        self.nodes: dict[str, dict[int, Any]]
        self.nodes = {"gateway": self.gateways, "worker": self.workers, "client": self.clients}
        self._lives = 0
        gateway, worker = settings_of(scenario, self._random)
        self._gateway_settings, self._worker_settings = GatewaySettings(**gateway), WorkerSettings(**worker)
        self._digest = hashlib.blake2b(digest_size=8)
        self._addresses = [(f"clients-{n}", f"workers-{n}") for n in range(load.gateways)]
        self._make = {"gateway": self._gateway, "worker": self._worker, "client": self._client}
        for kind, count in (("gateway", load.gateways), ("worker", load.workers), ("client", load.clients)):
            for place in range(count):
                self.start(kind, place)

    def trace(self, text: str) -> None:
        """Notes that something happened, for the digest."""
        self._digest.update(f"{self.timeline.now!r} {text}\n".encode())

    # Nodes ----------------------------------------------------------------------------------------

    def start(self, kind: str, place: int) -> None:
        """Starts the node of a kind and place, unless it is there."""
        if place not in self.nodes[kind]:
            self._lives += 1
            self.nodes[kind][place] = self._make[kind](f"{kind}-{place}/{self._lives}", place)

    def _gateway(self, name: str, place: int) -> GatewayProcess:
        return GatewayProcess(
            name, self.network, self._random, self._addresses[place], self._gateway_settings,
            lambda: self._on_own_end("gateway", place, name),
        )  # fmt: skip

    def _worker(self, name: str, place: int) -> WorkerProcess:
        return WorkerProcess(
            name, f"worker_{place + 1}", self.network, self._random, [workers for _, workers in self._addresses],
            self.scenario.models, self._worker_settings, self.history,
            lambda: self._on_own_end("worker", place, name),
        )  # fmt: skip

    def _client(self, name: str, place: int) -> ClientProcess:
        return ClientProcess(
            name, self.network, self._random, [clients for clients, _ in self._addresses], ClientSettings(),
            self.history, lambda: self._refill(place),
        )  # fmt: skip

    def kill(self, process: Process) -> None:
        """Ends a process, as SIGKILL does."""
        self.trace(f"{process.name} ends")
        for nodes in self.nodes.values():
            for place in [place for place, one in nodes.items() if one is process]:
                del nodes[place]
        process.die()
        self.network.forget(process)

    def _on_own_end(self, kind: str, place: int, name: str) -> None:
        """A node was drained, or a worker told to go or ended by its model; what it sent last still arrives."""
        node = self.nodes[kind].get(place)
        if node is not None and node.name == name:
            self.kill(node)
            if not node.machine.is_draining:
                self.timeline.after(_RESTART_S, lambda: self.start(kind, place))

    # Load -----------------------------------------------------------------------------------------

    def call(self, place: int, *, is_poison: bool = False) -> None:
        """Lets a client make a call of its own drawing."""
        ask = self.load.ask()
        client = self.clients.get(place)
        if client is None:
            return
        options = CallOptions(ask.deadline_s, None, ask.priority, key=ask.key)
        call = client.call(ask.model, options, is_poison=is_poison)
        if ask.takes_back_after_s:
            call.is_fleeting = True
            self.timeline.after(ask.takes_back_after_s, lambda: client.cancel(call))

    def arrive(self) -> None:
        """Lets a client make some calls at once, and draws when that will be the next time."""
        calls, place = self.load.burst(len(self.clients))
        client = self.clients.get(place)
        for _ in range(calls):
            # A frozen program asks nothing.
            self.call(-1 if client is not None and client.is_frozen else place)
        next_at = self.timeline.now + self.load.pause_s()
        if next_at < self.scenario.duration_s:
            self.timeline.at(next_at, self.arrive)

    def _refill(self, place: int) -> None:
        """Lets a client make as many calls as its part of those in flight lacks."""
        if self.timeline.now < self.scenario.duration_s and (client := self.clients.get(place)) is not None:
            part = len(range(place, self.scenario.in_flight, self.load.clients))
            for _ in range(part - client.open):
                self.call(place)

    def statuses(self) -> list[dict[str, Any]]:
        """Returns what each gateway would answer to `status --json`."""
        return [gateway.machine.snapshot.status(self.timeline.now) for gateway in self.gateways.values()]

    def digest(self) -> str:
        """Returns a digest of everything that happened so far."""
        return self._digest.hexdigest()
