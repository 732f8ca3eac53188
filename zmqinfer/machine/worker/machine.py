"""The worker: batches from requests, and replies from what the engines made of them.

Each dispatched tag gets exactly one REPLY, whatever becomes of the request, because the reply
gives the gateway its credit back; only the end of the session ends that duty.
"""

from __future__ import annotations

from collections import deque

from zmqinfer.config import WorkerSettings
from zmqinfer.machine.link import Leave, Link, LinkState
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
        left: numbers of gateways that were left for good; the shell closes their sockets, and clears it.
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
        self.left: list[int] = []
        self.ended_by = ""
        self.is_draining = self.is_in_danger = False
        self._settings = settings
        self._number = self._dialled = -1
        self.drain_by = float("inf")
        self._greeting = [session, name, agent, round(settings.weight * 1000), host]
        self.links: dict[int, Link] = {}
        self.tasks = Workload(name, self.links)
        self._models = self.tasks.models
        for card in cards:
            self.add_model(card)
        for number in [self._dial(address) for address in gateways]:
            self._greet(number, now)

    # Models --------------------------------------------------------------------------------------

    def add_model(self, card: ModelCard) -> int:
        """Serves a loaded and warm model, in place of any of its name and version; returns its number, used once."""
        self._number += 1
        self.tasks.serve(ServedModel(self._number, card))
        self._announce(self._number)
        return self._number

    def remove_model(self, number: int) -> None:
        """Serves a model no longer: what waits for it goes back to the gateways, what runs is answered."""
        self.tasks.give_back(self._models[number])
        self._announce(number)

    def _announce(self, number: int) -> None:
        for link in self.links.values():
            if link.state is LinkState.UP or link.state is LinkState.GREETING:
                link.outbox.put(Kind.MODELS, [number, self._card(number)])

    def _card(self, number: int) -> Record | None:
        """What gateways hear of a model; None: it is not served."""
        model = self._models.get(number)
        if model is None or not model.is_served:
            return None
        card = model.card
        signature = card.signature.to_wire()
        batch, share = card.limits.max_rows, self._share(model)
        return [card.name, card.version, signature, batch, share, card.idempotent, card.hedge]

    # Sessions ------------------------------------------------------------------------------------

    def add_link(self, address: str, now: float) -> int:
        """Dials one more gateway; returns its number, which no other one gets."""
        number = self._dial(address)
        self._greet(number, now)
        self._share_anew()
        return number

    def _dial(self, address: str) -> int:
        self._dialled += 1
        number, heartbeat_s = self._dialled, self._settings.heartbeat_ms / 1000
        self.links[number] = Link(number, address, Kind.READY, self._greeting, heartbeat_s, self.dirty)
        return number

    def _share_anew(self) -> None:
        """Tells all gateways their parts of the credits, after there are more or fewer of them."""
        for model in self._served():
            self._tell(model, None)

    def _served(self) -> list[ServedModel]:
        return [model for model in self._models.values() if model.is_served]

    def remove_link(self, number: int, now: float) -> None:
        """Leaves a gateway: it gives this worker nothing more, and what it gave is answered; then the link is gone."""
        self._leave(number)
        self._go_on_leaving(now)

    def _greet(self, number: int, now: float) -> None:
        """Begins a new life at one gateway: whatever it gave us before is for others now."""
        link = self.links[number]
        self.tasks.drop(number)
        if self.is_draining or link.leave is not None:
            # To join again would draw new work to a worker that is about to leave.
            link.state = LinkState.CLOSED
            return
        link.greet(now)
        if link.sought_at == now:
            link.warn_at = now + _UNREACHED_S
        for model in self._served():
            link.outbox.put(Kind.MODELS, [model.number, self._card(model.number)])

    def _share(self, model: ServedModel) -> int:
        """Returns one gateway's part of an engine's credits: at least one batch, or nothing if it is stuck in one."""
        return 0 if model.is_stuck else max(model.card.limits.max_rows, model.credits // max(1, len(self.links)))

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float, gap: float = 0.0) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links.get(number)
        if link is None:
            return
        link.heard(now)
        match kind:
            case Kind.REQUEST:
                if link.state is LinkState.UP:
                    self.tasks.take(number, records, now, gap)
            case Kind.CANCEL:
                for tag, places, *_ in records:
                    self.tasks.cancel(number, tag, places)
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
        link = self.links.get(number)
        if link is None:
            return
        self.events.append(("cannot read a message", {"gateway": link.address, "detail": detail}))
        if link.state is LinkState.UP:
            self._greet(number, now)

    def _on_disconnect(self, number: int, reason: str, detail: str, now: float) -> None:
        link = self.links[number]
        if reason == NO_SESSION:
            if link.is_unwelcome(reason):
                self.events.append(("gateway forgot us", {"gateway": link.address}))
                self._greet(number, now)
        elif reason == DRAIN:
            self.drain(now)
        elif reason == DRAINING:
            link.leave = Leave.HEARD
        elif reason == CLOSING:
            link.state = LinkState.CLOSED
        elif reason == REPLACED or link.welcomes == 0:
            self.ended_by = f"{detail} (gateway {link.address})"
        else:
            self.events.append(("gateway says", {"gateway": link.address, "reason": reason, "detail": detail}))

    # Batches -------------------------------------------------------------------------------------

    def take_batches(self, now: float) -> dict[int, deque[Batch]]:
        """Returns the batches that idle engines should begin now, by the engine's number.

        An engine takes each from the left when it begins it, so that what is there has not begun and can be taken back.
        """
        begun: dict[int, deque[Batch]] = {}
        for number, model in self._models.items():
            batcher = model.batcher
            if model.running or not batcher.rows:
                continue
            self.tasks.expire(model, now)
            expected_s = 0.0
            ahead: deque[Batch] = deque()
            while batcher.rows and expected_s < _HANDOVER_S and (taken := batcher.take(now)) is not None:
                bound, tasks, rows = taken
                assert isinstance(bound, Bound), bound
                self.tasks.on_cut(tasks[-1])
                batch = Batch(number, bound, tasks, rows, now, model.patience_s(rows), model.is_short())
                model.running.append(batch)
                ahead.append(batch)
                expected_s += batcher.curve.predict(rows) or _HANDOVER_S
                if bound.is_alone:
                    self._confess(model, batch)
                    break
            if ahead:
                begun[number] = model.ahead = ahead
        return begun

    def _confess(self, model: ServedModel, batch: Batch) -> None:
        """Tells the gateway of a request that it is about to run, alone, and may end this process."""
        (task,) = batch.tasks
        record = [batch.engine, self._share(model), model.batcher.rows + batch.rows, 0, [task.tag]]
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
        if model.is_served:
            self._review_credits(model)
        else:
            self.tasks.forget(model)

    def _review_credits(self, model: ServedModel) -> None:
        """Tells the gateways when an engine has earned markedly more or fewer credits, or is stuck no longer."""
        earned = model.earned_credits()
        if model.is_stuck or not 0.75 * model.credits <= earned <= 1.25 * model.credits:
            model.credits = earned
            model.is_stuck = False
            self._tell(model, None)

    def _tell(self, model: ServedModel, now: float | None) -> None:
        for link in self.links.values():
            if link.state is LinkState.UP:
                link.outbox.put(Kind.HEARTBEAT, self._beat(model, link, now))

    def _beat(self, model: ServedModel, link: Link, now: float | None) -> Record:
        """What HEARTBEAT tells one gateway of one model: credits, load over all gateways, and the running batch."""
        number = model.number
        load = model.batcher.rows + sum(batch.rows for batch in model.running)
        if now is None or not model.running:
            return [number, self._share(model), load, None, []]
        batch = model.running[0]
        tags = dict.fromkeys(task.tag for task in batch.tasks if self.links.get(task.link) is link)
        return [number, self._share(model), load, max(0, int((now - batch.begins_at) * 1e6)), list(tags)[:MAX_TAGS]]

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Keeps the sessions alive and the draining going."""
        for number, link in list(self.links.items()):
            if link.is_overdue(now):
                if link.state is LinkState.UP:
                    self.events.append(("gateway silent", {"gateway": link.address}))
                elif now >= link.warn_at:
                    link.warn_at = now + _STILL_UNREACHED_S
                    for_s = round(now - link.sought_at)
                    self.warnings.append(("cannot reach gateway", {"gateway": link.address, "for_s": for_s}))
                self._greet(number, now)
            else:
                self._beat_if_due(link, now)
        for model in self._models.values():
            self._look_if_stuck(model, now)
        self._go_on_leaving(now)
        self.tasks.trim(now)

    def _look_if_stuck(self, model: ServedModel, now: float) -> None:
        if not model.running:
            return
        batch = model.running[0]
        if not model.is_stuck and batch.stuck_at <= now:
            # What waits behind it shall not: without credits here the gateways take it back.
            model.is_stuck = True
            self.tasks.wait_again(model)
            if model.is_served:
                self._tell(model, now)
            took_s = round(now - batch.begins_at, 3)
            self.events.append(("stuck in a batch", {"model": model.card.name, "for_s": took_s}))
        if model.is_stuck and self._ends_at(model) <= now:
            ran_s = now - batch.begins_at
            limit = f"max_batch_s is {self._settings.max_batch_s:g}"
            self.ended_by = f"a batch of model {model.card.name!r} has run for {ran_s:.0f} s, {limit}"

    def _beat_if_due(self, link: Link, now: float, *, ahead: float = 0.0) -> None:
        if link.is_beat_due(now, ahead=ahead):
            for model in self._served():
                link.outbox.put(Kind.HEARTBEAT, self._beat(model, link, now))

    def drain(self, now: float) -> None:
        """Begins to leave: no new requests, everything that is held gets its reply, then the end."""
        if self.is_draining:
            return
        self.is_draining = True
        self.drain_by = now + self._settings.drain_grace_s
        for number in self.links:
            self._leave(number)

    def _leave(self, number: int) -> None:
        link = self.links[number]
        link.leave = link.leave or Leave.BEGUN
        if link.is_unsaid:
            # A greeting that left now would draw new work.
            link.outbox.clear()
            link.state = LinkState.CLOSED
        elif link.state is not LinkState.CLOSED:
            # Even if there was no WELCOME yet: the greeting may have been read.
            link.outbox.put(Kind.DISCONNECT, [DRAINING, "finishing what it holds"])

    def _go_on_leaving(self, now: float) -> None:
        for number, link in list(self.links.items()):
            if link.leave is None:
                continue
            if now >= self.drain_by:
                link.state = LinkState.CLOSED
            elif link.leave is Leave.HEARD and not self.tasks.count(number):
                # Everything is answered and nothing more will come: the echo of this says that all arrived.
                link.leave = Leave.ANSWERED
                link.outbox.put(Kind.DISCONNECT, [CLOSING, ""])
            if link.state is LinkState.CLOSED and not self.is_draining:
                del self.links[number]
                self.tasks.close(number)
                self.left.append(number)
                self._share_anew()

    @property
    def is_leaving(self) -> bool:
        """Whether it leaves any gateway."""
        return self.is_draining or any(link.leave for link in self.links.values())

    @property
    def is_drained(self) -> bool:
        """Whether every gateway has let this worker go, or the time of grace is over."""
        return self.is_draining and all(link.state is LinkState.CLOSED for link in self.links.values())

    @property
    def was_welcome(self) -> bool:
        """Whether any gateway ever took this worker in."""
        return any(link.welcomes for link in self.links.values())

    @property
    def held(self) -> int:
        """How many calls are here unanswered."""
        return self.tasks.count()

    def wake_at(self) -> float | None:
        """Returns when `on_timer` or `take_batches` is worth calling."""
        earliest = self.drain_by
        for link in self.links.values():
            earliest = min(earliest, link.wake_at())
        for model in self._models.values():
            if model.running:
                earliest = min(earliest, self._ends_at(model) if model.is_stuck else model.running[0].stuck_at)
            elif model.batcher.rows:
                earliest = min(earliest, model.batcher.wake_at())
        return None if earliest == float("inf") else earliest

    def _ends_at(self, model: ServedModel) -> float:
        """Returns when this worker ends for a batch that it cannot stop."""
        batch = model.running[0]
        return max(batch.stuck_at, batch.begins_at + (self._settings.max_batch_s or float("inf")))

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        for model in self._models.values():
            model.batcher.check()
        running = [batch for model in self._models.values() for batch in model.running]
        self.tasks.check({id(task) for batch in running for task in batch.tasks})
