"""The worker: batches from requests, and replies from what the engines made of them.

Each dispatched tag gets exactly one REPLY, whatever becomes of the request, because the reply
gives the gateway its credit back; only the end of the session ends that duty.
"""

from __future__ import annotations

from dataclasses import dataclass

from zmqinfer.config import WorkerSettings
from zmqinfer.errors import EXECUTED, Executed, InvalidArgument, ProtocolError, Status
from zmqinfer.machine.link import NO_SESSION, Link, LinkState
from zmqinfer.machine.outbox import Outbox
from zmqinfer.machine.task import Batch, Bound, Outcome, Task
from zmqinfer.machine.workers import CLOSING, DRAIN, DRAINING, REPLACED
from zmqinfer.policy.batching import Batcher, BatchLimits
from zmqinfer.records import (
    ATTEMPT,
    BUDGET_US,
    LAYOUT,
    MAX_TAGS,
    MODEL,
    MODEL_VERSION,
    PAYLOAD,
    ROWS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.signature import Signature
from zmqinfer.tensor import parse_layout, payload_bytes

__all__ = ["ModelCard", "WorkerMachine"]

# Batches shorter than this are so many that a gateway must be allowed to send ahead: as many rows as run in
# `_AHEAD_S`. A bare prototype with batches of 32: 64 credits 181-236,000 req/s, 256 271,000, 512 299,000.
_SHORT_BATCH_S = 0.001
_AHEAD_S = 0.005
_MAX_CREDITS = 1_024
# Batches handed to an idle engine at once, in expected seconds: a hand-over between threads costs as much as a
# short batch, so an engine of these gets several; none of them could have been stopped meanwhile anyway.
_HANDOVER_S = 0.001
# An engine whose batches were all shorter than this, over so many of them, may run in the worker's loop. The two
# hand-overs cost 1.6 of a worker's 7 us for a request at 200 in flight, and 0.12 of 0.53 ms at one in flight.
_IN_LOOP_S = 0.000_5
_TRIALS = 50
_FORGET = 0.99
# Layouts remembered for each model; a caller who varies the shape more than that pays for parsing.
_MAX_BOUND = 1_024

_RAN_NO, _RAN_YES = EXECUTED.index(Executed.NO), EXECUTED.index(Executed.YES)


@dataclass(frozen=True, slots=True)
class ModelCard:
    """What a worker announces of one model, and how it batches it."""

    name: str
    version: int
    signature: Signature
    limits: BatchLimits
    idempotent: bool = True


class _Engine:
    """One model of this worker: its waiting requests, and the batches that its engine has."""

    __slots__ = ("batcher", "bound", "card", "credits", "longest_s", "running", "shapes")

    def __init__(self, card: ModelCard) -> None:
        self.card = card
        self.batcher: Batcher[Task] = Batcher(card.limits)
        self.running: list[Batch] = []
        self.credits = 2 * card.limits.max_rows
        # The longest recent batch; a long one is remembered for some hundred that are shorter.
        self.longest_s = 0.0
        self.bound: dict[bytes, Bound] = {}
        self.shapes: dict[tuple[tuple[str, tuple[int, ...]], ...], Bound] = {}

    def bind(self, raw: bytes) -> Bound:
        """Fits a layout to the model; raises `InvalidArgument` or `ProtocolError`."""
        layout = parse_layout(raw)
        order = self.card.signature.order(layout, self.card.name)
        # One object for one shape, however the caller named or ordered its inputs.
        shape = tuple((layout.fields[place].dtype, layout.fields[place].shape) for place in order)
        if len(self.bound) >= _MAX_BOUND:
            self.bound.clear()
            self.shapes.clear()
        if order == tuple(range(len(order))):
            bound = self.shapes.setdefault(shape, Bound(layout, order))
        else:
            bound = Bound(layout, order)
        self.bound[raw] = bound
        return bound

    def earned_credits(self) -> int:
        """Returns how many rows may be under way to this engine, from what its batches were seen to cost."""
        rows = self.card.limits.max_rows
        one_s = self.batcher.curve.predict(rows)
        if not 0 < one_s < _SHORT_BATCH_S:
            return 2 * rows
        return max(2 * rows, min(int(rows * _AHEAD_S / one_s), _MAX_CREDITS))


class WorkerMachine:
    """All that a worker decides. Its shell owns one DEALER for each gateway, a clock and the engines' threads.

    Attributes:
        dirty: outboxes with something to send; the shell empties them once a turn.
        ended_by: why this worker must exit though nobody here asked it to, or empty.
        events: rare happenings for the shell to report.
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
    ) -> None:
        self.name = name
        self.dirty: list[Outbox] = []
        self.events: list[tuple[str, dict[str, object]]] = []
        self.ended_by = ""
        self.is_draining = False
        self.dropped = 0
        self._settings = settings
        self._engines = [_Engine(card) for card in cards]
        self._numbers = {(card.name, card.version): number for number, card in enumerate(cards)}
        self._drain_by = float("inf")
        self._acknowledged: set[int] = set()
        heartbeat_s = settings.heartbeat_ms / 1000
        ready = [session, name, agent, round(settings.weight * 1000), None, []]
        self.links = [
            Link(number, address, Kind.READY, ready, heartbeat_s, self.dirty) for number, address in enumerate(gateways)
        ]
        self._tasks: list[dict[int, Task]] = [{} for _ in gateways]
        for link in self.links:
            self._greet(link, now)

    # Sessions ------------------------------------------------------------------------------------

    def _greet(self, link: Link, now: float) -> None:
        """Begins a new life at one gateway: whatever it gave us before is for others now."""
        number = self.links.index(link) if link in self.links else 0
        self._drop_tasks(number)
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
                self._share(engine),
                card.idempotent,
            ]
            for engine in self._engines
            for card in (engine.card,)
        ]
        link.greet(now)

    def _share(self, engine: _Engine) -> int:
        """Returns one gateway's part of an engine's credits: at least one batch."""
        return max(engine.card.limits.max_rows, engine.credits // len(self._tasks or [0]))

    def _drop_tasks(self, number: int) -> None:
        tasks = self._tasks[number]
        for task in tasks.values():
            if task.is_waiting:
                self._engine_of(task).batcher.remove(task, task.bound)
        self.dropped += len(tasks)
        tasks.clear()

    def _engine_of(self, task: Task) -> _Engine:
        return self._engines[self._numbers[task.record[MODEL], task.record[MODEL_VERSION]]]

    def on_message(self, number: int, kind: Kind, records: list[Record], now: float, gap: float = 0.0) -> None:
        """Takes one decoded message from the gateway with this number."""
        link = self.links[number]
        link.heard(now)
        match kind:
            case Kind.REQUEST:
                if link.state is LinkState.UP:
                    self._on_requests(number, records, now, gap)
            case Kind.CANCEL:
                for record in records:
                    self._on_cancel(number, record[0])
            case Kind.WELCOME:
                if link.state is LinkState.GREETING:
                    link.welcome(records[0], now)
                    self.events.append(("gateway joined", {"gateway": link.address}))
            case Kind.DISCONNECT:
                for record in records:
                    self._on_disconnect(number, record[0], record[1], now)
            case _:
                pass

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

    # Requests ------------------------------------------------------------------------------------

    def _on_requests(self, number: int, records: list[Record], now: float, gap: float) -> None:
        tasks = self._tasks[number]
        arrived = now - gap
        for record in records:
            engine_number = self._numbers.get((record[MODEL], record[MODEL_VERSION]))
            if engine_number is None:
                model = f"{record[MODEL]!r} version {record[MODEL_VERSION]}"
                self._refuse(number, record, Status.NOT_FOUND, f"worker {self.name!r} has no model {model}")
                continue
            engine = self._engines[engine_number]
            bound = engine.bound.get(record[LAYOUT])
            payload = record[PAYLOAD]
            size = len(payload) if type(payload) is bytes else payload_bytes(payload)
            if bound is None or size != bound.layout.row_bytes * record[ROWS] or type(payload) is list:
                bound = self._examine(number, engine, record, size)
                if bound is None:
                    continue
            if record[ROWS] > engine.card.limits.max_rows:
                detail = (
                    f"the request has {record[ROWS]} rows, model {record[MODEL]!r} takes"
                    f" {engine.card.limits.max_rows}; split it"
                )
                self._refuse(number, record, Status.TOO_LARGE, detail)
                continue
            task = Task(number, record, bound, size, arrived + record[BUDGET_US] * 1e-6, now)
            tasks[record[TAG]] = task
            engine.batcher.offer(task, bound)
            engine.batcher.rate.count(task.rows, now)

    def _examine(self, number: int, engine: _Engine, record: Record, size: int) -> Bound | None:
        """The long way: an input not seen before, one in parts, or one that is wrong."""
        try:
            bound = engine.bound.get(record[LAYOUT]) or engine.bind(record[LAYOUT])
        except (InvalidArgument, ProtocolError) as error:
            self._refuse(number, record, Status.INVALID_ARGUMENT, str(error))
            return None
        rows, payload = record[ROWS], record[PAYLOAD]
        fields = bound.layout.fields
        wanted = [field.row_bytes * rows for field in fields]
        if size == sum(wanted) and (type(payload) is bytes or [payload_bytes(part) for part in payload] == wanted):
            return bound
        detail = f"the payload has {size:,} bytes, {rows} rows of its layout have {sum(wanted):,}"
        self._refuse(number, record, Status.INVALID_ARGUMENT, detail)
        return None

    def _refuse(self, number: int, record: Record, status: Status, detail: str) -> None:
        self._say(number, record, status, detail, None)

    def _say(self, number: int, record: Record, status: Status, detail: str, where: str | None) -> None:
        """Answers a request that did not run."""
        reply = [record[TAG], status, detail, where, self.name, record[MODEL_VERSION] or 0, record[ATTEMPT]]
        self.links[number].outbox.put(Kind.REPLY, [*reply, _RAN_NO, None, 0, 0, 0])

    def _on_cancel(self, number: int, tag: int) -> None:
        task = self._tasks[number].get(tag)
        if task is not None and task.is_waiting:
            self._engine_of(task).batcher.remove(task, task.bound)
            del self._tasks[number][tag]
            self._say(number, task.record, Status.CANCELLED, "cancelled by its caller before it ran", None)

    # Batches -------------------------------------------------------------------------------------

    def take_batches(self, now: float) -> dict[int, list[Batch]]:
        """Returns the batches that idle engines should begin now, by the engine's number."""
        begun: dict[int, list[Batch]] = {}
        for number, engine in enumerate(self._engines):
            batcher = engine.batcher
            if engine.running or not batcher.rows:
                continue
            for task in batcher.expire(now):
                del self._tasks[task.link][task.record[TAG]]
                detail = "the time was up while it waited for its batch"
                self._say(task.link, task.record, Status.DEADLINE_EXCEEDED, detail, "batch")
            expected_s = 0.0
            while expected_s < _HANDOVER_S and (taken := batcher.take(now)) is not None:
                bound, tasks = taken
                assert isinstance(bound, Bound), bound
                rows = sum(task.rows for task in tasks)
                batch = Batch(number, bound, tasks, rows, now)
                engine.running.append(batch)
                begun.setdefault(number, []).append(batch)
                expected_s += batcher.curve.predict(rows) or _HANDOVER_S
        return begun

    def is_short(self, number: int) -> bool:
        """Whether an engine's batches are so short that handing them to a thread costs more than it gains.

        Such a batch may run in the worker's loop. One that turns out long there is taken for silence by
        the gateways, as a model is that holds the interpreter's lock; then its like go to the thread again.
        """
        engine = self._engines[number]
        return engine.batcher.curve.batches >= _TRIALS and engine.longest_s < _IN_LOOP_S

    def on_batch_done(self, batch: Batch, outcomes: list[Outcome], compute_s: float) -> None:
        """Takes what an engine made of a batch, one outcome for each task and in their order.

        Args:
            compute_s: how long the model ran, without the time that the batch waited for its engine.
        """
        engine = self._engines[batch.engine]
        engine.running.remove(batch)
        engine.batcher.curve.learn(batch.rows, compute_s)
        engine.longest_s = max(compute_s, engine.longest_s * _FORGET)
        name, version, rows = self.name, engine.card.version, batch.rows
        compute_us = int(compute_s * 1e6)
        started_at = batch.started_at
        for task, (first, second) in zip(batch.tasks, outcomes, strict=True):
            record = task.record
            if self._tasks[task.link].pop(record[TAG], None) is not task:
                continue  # dropped with its session
            is_result = type(first) is bytes
            self.links[task.link].outbox.put(
                Kind.REPLY,
                [
                    record[TAG],
                    0 if is_result else first,
                    first if is_result else second,
                    second if is_result else "model",
                    name,
                    version,
                    record[ATTEMPT],
                    _RAN_YES,
                    None,
                    rows,
                    int((started_at - task.arrived_at) * 1e6),
                    compute_us,
                ],
                payload_bytes(second) if is_result else 0,  # type: ignore[arg-type]
            )
        self._review_credits(batch.engine)

    def _review_credits(self, number: int) -> None:
        """Tells the gateways when an engine has earned markedly more or fewer credits."""
        engine = self._engines[number]
        earned = engine.earned_credits()
        if not 0.75 * engine.credits <= earned <= 1.25 * engine.credits:
            engine.credits = earned
            for link in self.links:
                if link.state is LinkState.UP:
                    link.outbox.put(Kind.HEARTBEAT, self._beat(number, link, None))

    def _beat(self, number: int, link: Link, now: float | None) -> Record:
        """What HEARTBEAT tells one gateway of one model: credits, load over all gateways, and the running batch."""
        engine = self._engines[number]
        load = engine.batcher.rows + sum(batch.rows for batch in engine.running)
        if now is None or not engine.running:
            return [number, self._share(engine), load, None, []]
        batch = engine.running[0]
        tags = [task.record[TAG] for task in batch.tasks if self.links[task.link] is link]
        return [number, self._share(engine), load, int((now - batch.started_at) * 1e6), tags[:MAX_TAGS]]

    # Time ----------------------------------------------------------------------------------------

    def on_timer(self, now: float) -> None:
        """Keeps the sessions alive and the draining going."""
        for link in self.links:
            if link.is_overdue(now):
                if link.state is LinkState.UP:
                    self.events.append(("gateway silent", {"gateway": link.address}))
                self._greet(link, now)
            elif link.is_beat_due(now):
                for number in range(len(self._engines)):
                    link.outbox.put(Kind.HEARTBEAT, self._beat(number, link, now))
        if self.is_draining:
            self._go_on_draining(now)

    def drain(self, now: float) -> None:
        """Begins to leave: no new requests, everything that is held gets its reply, then the end."""
        if self.is_draining:
            return
        self.is_draining = True
        self._drain_by = now + self._settings.drain_grace_s
        for link in self.links:
            if link.state is LinkState.UP:
                link.outbox.put(Kind.DISCONNECT, [DRAINING, "finishing what it holds"])
            else:
                link.state = LinkState.CLOSED

    def _go_on_draining(self, now: float) -> None:
        for number, link in enumerate(self.links):
            if link.state is LinkState.GREETING or now >= self._drain_by:
                link.state = LinkState.CLOSED
            elif number in self._acknowledged and not self._tasks[number]:
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
        """How many requests are here unanswered."""
        return sum(len(tasks) for tasks in self._tasks)

    def wake_at(self) -> float | None:
        """Returns when `on_timer` or `take_batches` is worth calling."""
        instants = [link.wake_at() for link in self.links]
        idle = [engine.batcher.wake_at() for engine in self._engines if not engine.running]
        instants += [due for due in idle if due is not None]
        if self.is_draining:
            instants.append(self._drain_by)
        earliest = min(instants)
        return None if earliest == float("inf") else earliest

    def check(self) -> None:
        """Asserts what must hold between any two calls."""
        waiting = 0
        for engine in self._engines:
            engine.batcher.check()
            waiting += engine.batcher.rows
        held = [task for tasks in self._tasks for task in tasks.values()]
        assert waiting == sum(task.rows for task in held if task.is_waiting)
        running = {id(task) for engine in self._engines for batch in engine.running for task in batch.tasks}
        assert all(task.is_waiting or id(task) in running for task in held)
