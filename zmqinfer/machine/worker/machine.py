"""The worker: batches from requests, and replies from what the engines made of them.

Each dispatched tag gets exactly one REPLY, whatever becomes of the request, because the reply
gives the gateway its credit back; only the end of the session ends that duty.
"""

from __future__ import annotations

from zmqinfer.config import WorkerSettings
from zmqinfer.machine.link import Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.worker.served import ModelCard, ServedModel
from zmqinfer.machine.worker.task import Batch, Bound, Outcome
from zmqinfer.machine.worker.workload import Workload
from zmqinfer.records import CLOSING, DRAIN, DRAINING, MAX_TAGS, NO_SESSION, REPLACED, Kind, Record

__all__ = ["WorkerMachine"]

# Batches handed to an idle engine at once, in expected seconds: a hand-over between threads costs as much as a
# short batch, so an engine of these gets several; none of them could have been stopped meanwhile anyway.
_HANDOVER_S = 0.001
# A gateway that cannot be reached for so long is a matter for people, and again whenever so much has passed.
_UNREACHED_S, _STILL_UNREACHED_S = 5.0, 60.0


class WorkerMachine:
    """All that a worker decides. Its shell owns one DEALER for each gateway, a clock and the engines' threads.

    Attributes:
        tasks: the requests that it owes a reply.
        dirty: outboxes with something to send; the shell empties them once a turn.
        ended_by: why this worker must exit though nobody here asked it to, or empty.
        is_in_danger: whether something must have left before the batches that were taken last may begin: they may end
            this process. The shell clears it.
        events: rare happenings for the shell to report.
        warnings: those among them about which somebody should do something.
        drain_by: when a drain's time of grace is over.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        name: str,
        session: bytes,
        agent: str,
        cards: list[ModelCard],
        gateways: list[str],
        now: float,
        host: bytes | None = None,
    ) -> None:
        self.name = name
        self.dirty: list[Outbox] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.warnings: list[tuple[str, dict[str, object]]] = []
        self.ended_by = ""
        self.is_draining = self.is_in_danger = False
        self._settings = settings
        self._models = [ServedModel(card) for card in cards]
        self.drain_by = float("inf")
        self._acknowledged: set[int] = set()
        heartbeat_s = settings.heartbeat_ms / 1000
        ready = [session, name, agent, round(settings.weight * 1000), host, []]
        self.links = [
            Link(number, address, Kind.READY, ready, heartbeat_s, self.dirty) for number, address in enumerate(gateways)
        ]
        self.tasks = Workload(name, self.links, self._models)
        # Of each gateway since when it is not there, and when that is to be said.
        self._sought_at = [now] * len(gateways)
        self._warn_at = [now + _UNREACHED_S] * len(gateways)
        for link in self.links:
            self._greet(link, now)

    # Sessions ------------------------------------------------------------------------------------

    def _greet(self, link: Link, now: float) -> None:
        """Begins a new life at one gateway: whatever it gave us before is for others now."""
        number = self.links.index(link)
        self.tasks.drop(number)
        if link.state is LinkState.UP:
            self._sought_at[number] = now
            self._warn_at[number] = now + _UNREACHED_S
        if self.is_draining:
            # To join again would draw new work to a worker that is about to exit.
            link.state = LinkState.CLOSED
            return
        link.greeting[5] = [
            [
                card.name,
                card.version,
                card.signature.to_wire(),
                card.limits.max_rows,
                self._share(model),
                card.idempotent,
                card.hedge,
            ]
            for model in self._models
            for card in (model.card,)
        ]
        link.greet(now)

    def _share(self, model: ServedModel) -> int:
        """Returns one gateway's part of an engine's credits: at least one batch, or nothing if it is stuck in one."""
        return 0 if model.is_stuck else max(model.card.limits.max_rows, model.credits // len(self.links))

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float, gap: float = 0.0) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links[number]
        link.heard(now)
        match kind:
            case Kind.REQUEST:
                if link.state is LinkState.UP:
                    self.tasks.take(number, records, now, gap)
            case Kind.CANCEL:
                for tag, calls, *_ in records:
                    self.tasks.cancel(number, tag, calls)
            case Kind.HEARTBEAT:
                # Awake for this one anyway: so nodes at rest wake half as often.
                self._beat_if_due(link, now, ahead=0.5)
            case Kind.WELCOME:
                if link.state is LinkState.GREETING:
                    link.welcome(records[0], now)
                    self.events.append(("gateway joined", {"gateway": link.address}))
            case Kind.DISCONNECT:
                for record in records:
                    self._on_disconnect(number, record[0], record[1], now)
            case _:
                pass

    def on_broken(self, number: int, detail: str, now: float) -> None:
        """Begins a new life at a gateway whose message cannot be read: nobody else would ever answer what is in it."""
        link = self.links[number]
        self.events.append(("cannot read a message", {"gateway": link.address, "detail": detail}))
        if link.state is LinkState.UP:
            self._greet(link, now)

    def _on_disconnect(self, number: int, reason: str, detail: str, now: float) -> None:
        link = self.links[number]
        if reason == NO_SESSION:
            if link.is_unwelcome(reason):
                self.events.append(("gateway forgot us", {"gateway": link.address}))
                self._greet(link, now)
        elif reason == DRAIN:
            self.drain(now)
        elif reason == DRAINING:
            self._acknowledged.add(number)
        elif reason == CLOSING:
            link.state = LinkState.CLOSED
        elif reason == REPLACED or link.welcomes == 0:
            self.ended_by = f"{detail} (gateway {link.address})"
        else:
            self.events.append(("gateway says", {"gateway": link.address, "reason": reason, "detail": detail}))

    # Batches -------------------------------------------------------------------------------------

    def take_batches(self, now: float) -> dict[int, list[Batch]]:
        """Returns the batches that idle engines should begin now, by the engine's number."""
        begun: dict[int, list[Batch]] = {}
        for number, model in enumerate(self._models):
            batcher = model.batcher
            if model.running or not batcher.rows:
                continue
            self.tasks.expire(model, now)
            expected_s = 0.0
            while batcher.rows and expected_s < _HANDOVER_S and (taken := batcher.take(now)) is not None:
                bound, tasks, rows = taken
                assert isinstance(bound, Bound), bound
                self.tasks.on_cut(tasks[-1])
                batch = Batch(number, bound, tasks, rows, now, model.patience_s(rows), model.is_short())
                model.running.append(batch)
                begun.setdefault(number, []).append(batch)
                expected_s += batcher.curve.predict(rows) or _HANDOVER_S
                if bound.is_alone:
                    self._confess(model, batch)
                    break
        return begun

    def _confess(self, model: ServedModel, batch: Batch) -> None:
        """Tells the gateway of a request that it is about to run, alone, and may end this process."""
        (task,) = batch.tasks
        record = [batch.engine, self._share(model), model.batcher.rows + batch.rows, 0, list(task.tags)]
        self.links[task.link].outbox.put(Kind.HEARTBEAT, record)
        self.is_in_danger = True

    def on_batch_done(self, batch: Batch, outcomes: list[Outcome], compute_s: float) -> None:
        """Takes what an engine made of a batch.

        Args:
            outcomes: in the order of the calls, each for one or more calls of one task.
            compute_s: how long the model ran, without the time that the batch waited for its model.
        """
        model = self._models[batch.engine]
        model.running.remove(batch)
        model.learn(batch.rows, compute_s)
        if model.running:
            # It begins only now.
            model.running[0].begins_at = batch.begins_at + compute_s
        self.tasks.answer(batch, outcomes, compute_s)
        self._review_credits(batch.engine)

    def _review_credits(self, number: int) -> None:
        """Tells the gateways when an engine has earned markedly more or fewer credits, or is stuck no longer."""
        model = self._models[number]
        earned = model.earned_credits()
        if model.is_stuck or not 0.75 * model.credits <= earned <= 1.25 * model.credits:
            model.credits = earned
            model.is_stuck = False
            self._tell(number, None)

    def _tell(self, number: int, now: float | None) -> None:
        for link in self.links:
            if link.state is LinkState.UP:
                link.outbox.put(Kind.HEARTBEAT, self._beat(number, link, now))

    def _beat(self, number: int, link: Link, now: float | None) -> Record:
        """What HEARTBEAT tells one gateway of one model: credits, load over all gateways, and the running batch."""
        model = self._models[number]
        load = model.batcher.rows + sum(batch.rows for batch in model.running)
        if now is None or not model.running:
            return [number, self._share(model), load, None, []]
        batch = model.running[0]
        tags = [tag for task in batch.tasks if self.links[task.link] is link for tag in task.tags]
        return [number, self._share(model), load, max(0, int((now - batch.begins_at) * 1e6)), tags[:MAX_TAGS]]

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Keeps the sessions alive and the draining going."""
        for number, link in enumerate(self.links):
            if link.is_overdue(now):
                if link.state is LinkState.UP:
                    self.events.append(("gateway silent", {"gateway": link.address}))
                elif now >= self._warn_at[number]:
                    self._warn_at[number] = now + _STILL_UNREACHED_S
                    for_s = round(now - self._sought_at[number])
                    self.warnings.append(("cannot reach gateway", {"gateway": link.address, "for_s": for_s}))
                self._greet(link, now)
            else:
                self._beat_if_due(link, now)
        for number, model in enumerate(self._models):
            if model.running and not model.is_stuck and model.running[0].stuck_at <= now:
                # What waits behind it shall not: without credits here the gateways take it back.
                model.is_stuck = True
                self._tell(number, now)
                took_s = round(now - model.running[0].begins_at, 3)
                self.events.append(("stuck in a batch", {"model": model.card.name, "for_s": took_s}))
            if model.is_stuck and model.running and self._ends_at(model) <= now:
                ran_s = now - model.running[0].begins_at
                limit = f"max_batch_s is {self._settings.max_batch_s:g}"
                self.ended_by = f"a batch of model {model.card.name!r} has run for {ran_s:.0f} s, {limit}"
        if self.is_draining:
            self._go_on_draining(now)
        self.tasks.trim(now)

    def _beat_if_due(self, link: Link, now: float, *, ahead: float = 0.0) -> None:
        if link.is_beat_due(now, ahead=ahead):
            for number in range(len(self._models)):
                link.outbox.put(Kind.HEARTBEAT, self._beat(number, link, now))

    def drain(self, now: float) -> None:
        """Begins to leave: no new requests, everything that is held gets its reply, then the end."""
        if self.is_draining:
            return
        self.is_draining = True
        self.drain_by = now + self._settings.drain_grace_s
        for link in self.links:
            if link.is_unsaid:
                # A greeting that left now would draw new work.
                link.outbox.clear()
                link.state = LinkState.CLOSED
            elif link.state is not LinkState.CLOSED:
                # Even if there was no WELCOME yet: the greeting may have been read.
                link.outbox.put(Kind.DISCONNECT, [DRAINING, "finishing what it holds"])

    def _go_on_draining(self, now: float) -> None:
        for number, link in enumerate(self.links):
            if now >= self.drain_by:
                link.state = LinkState.CLOSED
            elif number in self._acknowledged and not self.tasks.count(number):
                # Everything is answered and nothing more will come: the echo of this says that all arrived.
                self._acknowledged.discard(number)
                link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])

    @property
    def is_drained(self) -> bool:
        """Whether every gateway has let this worker go, or the time of grace is over."""
        return self.is_draining and all(link.state is LinkState.CLOSED for link in self.links)

    @property
    def was_welcome(self) -> bool:
        """Whether any gateway ever took this worker in."""
        return any(link.welcomes for link in self.links)

    @property
    def held(self) -> int:
        """How many calls are here unanswered."""
        return self.tasks.count()

    def wake_at(self) -> float | None:
        """Returns when `on_timer` or `take_batches` is worth calling."""
        earliest = self.drain_by
        for link in self.links:
            due = link.wake_at()
            if due < earliest:
                earliest = due
        for model in self._models:
            if model.running:
                due = self._ends_at(model) if model.is_stuck else model.running[0].stuck_at
                if due < earliest:
                    earliest = due
            elif model.batcher.rows:
                idle = model.batcher.wake_at()
                if idle is not None and idle < earliest:
                    earliest = idle
        return None if earliest == float("inf") else earliest

    def _ends_at(self, model: ServedModel) -> float:
        """Returns when this worker ends for a batch that it cannot stop."""
        batch = model.running[0]
        return max(batch.stuck_at, batch.begins_at + (self._settings.max_batch_s or float("inf")))

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        for model in self._models:
            model.batcher.check()
        self.tasks.check({id(task) for model in self._models for batch in model.running for task in batch.tasks})
