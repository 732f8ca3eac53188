"""Requests in a worker's hands: from REQUEST, or from a twin that is here, to one REPLY each.

Only the end of its gateway's session ends a request without a reply.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import Iterator, Mapping

from zmqinfer.errors import InvalidArgument, ProtocolError, Status, TooLarge
from zmqinfer.machine.block import Parts, first_of
from zmqinfer.machine.link import Link
from zmqinfer.machine.replies import failure
from zmqinfer.machine.worker.served import ServedModel
from zmqinfer.machine.worker.task import Batch, Outcome, Task
from zmqinfer.machine.worker.twins import TIMES, Twins, is_alike, outcome_of
from zmqinfer.records import (
    ALONE,
    ATTEMPT,
    BUDGET_US,
    INLINE,
    MODEL,
    MODEL_VERSION,
    PAYLOAD,
    PLACES,
    RAN_MAYBE,
    RAN_YES,
    TAG,
    Kind,
    Record,
)
from zmqinfer.tensor import payload_bytes

__all__ = ["Workload"]

# Outcomes of a model whose own process was lost, or of a defect of ours, which say nothing of whether it ran.
_UNSURE = (Status.WORKER_LOST, Status.DEADLINE_EXCEEDED, Status.INTERNAL)
_TAKEN_AWAY = "its model was taken away before it ran"


class Workload:
    """All requests that a worker owes a reply.

    Attributes:
        models: by number, as long as anything of theirs is here.
        joined: calls that waited for a twin which was here already.
        replayed: calls that were answered with what an earlier one of the same id got.
        dropped: calls that got no reply, for their gateway gave them to others, or used their tag twice.
    """

    def __init__(self, name: str, links: Mapping[int, Link]) -> None:
        self.dropped = self.joined = self.replayed = 0
        self._name = name
        self._links = links
        self.models: dict[int, ServedModel] = {}
        # By name and version; None: it was served until it was taken away.
        self._served: dict[tuple[str, int], ServedModel | None] = {}
        # By the number of the gateway and by tag.
        self._held: defaultdict[int, Parts[Task]] = defaultdict(Parts)
        self._twins = Twins()

    def count(self, number: int | None = None) -> int:
        """Returns how many calls are here unanswered, from all gateways or from one."""
        held = self._held.values() if number is None else [self._held[number]]
        return sum(task.calls for tasks in held for task in tasks)

    # Gateways and models --------------------------------------------------------------------------

    def close(self, number: int) -> None:
        """Forgets a gateway that was left."""
        self.drop(number)
        del self._held[number]

    def serve(self, model: ServedModel) -> None:
        """Takes requests for a model from now on."""
        self.models[model.number] = model
        self._served[model.card.name, model.card.version] = model

    def forget(self, model: ServedModel) -> None:
        """Drops a model that was given back, unless it runs something."""
        if not model.running:
            del self.models[model.number]

    def give_back(self, model: ServedModel) -> None:
        """Takes no more requests for a model, and gives back those that wait for it."""
        model.is_served = False
        key = model.card.name, model.card.version
        if self._served[key] is model:
            self._served[key] = None
        # Who followed one of them waits then, and is next.
        while waiting := [task for task in self._everyone() if task.is_waiting and self._model_of(task) is model]:
            for task in waiting:
                model.batcher.remove(task, task.bound)
                self._end(task, Status.CANCELLED, _TAKEN_AWAY)
        self.forget(model)

    def wait_again(self, model: ServedModel) -> None:
        """Takes back what a stuck engine was handed and has not begun, but for the batch that it must be stuck in."""
        with contextlib.suppress(IndexError):  # it may begin one meanwhile: each batch is taken once
            while len(model.running) > 1:
                model.running.remove(batch := model.ahead.pop())
                for task in batch.tasks:
                    if self._held[task.link].holds(task.tag, task):
                        model.batcher.offer(task, task.bound)
                    else:
                        self._let_go(task)  # dropped with its session
        if not model.is_served:
            self.give_back(model)

    def _everyone(self) -> Iterator[Task]:
        for held in self._held.values():
            yield from held

    # In ------------------------------------------------------------------------------------------

    def take(self, number: int, records: list[Record], now: float, gap: float) -> None:
        """Takes a gateway's REQUESTs; their budgets may have run for `gap` seconds while this node was not looking."""
        held = self._held[number]
        arrived = now - gap
        for record in records:
            if held.about(record[TAG], record[PLACES]):
                # A gateway that uses a tag twice is out of its mind; the first request keeps it.
                self.dropped += record[PLACES].bit_count()
                continue
            key = record[MODEL], record[MODEL_VERSION]
            model = self._served.get(key)
            if model is None:
                status, detail = Status.CANCELLED, _TAKEN_AWAY  # it was under way when the model went
                if key not in self._served:
                    status, detail = Status.NOT_FOUND, f"worker {self._name!r} has no model {key[0]!r} version {key[1]}"
                self._say(number, record, status, detail)
                continue
            if record[PAYLOAD] is None:
                detail = f"worker {self._name!r} cannot read the client's memory"
                self._say(number, record, Status.UNAVAILABLE, detail, INLINE)
                continue
            try:
                bound, size = model.fit(record)
            except (InvalidArgument, ProtocolError, TooLarge) as error:
                status = Status.TOO_LARGE if isinstance(error, TooLarge) else Status.INVALID_ARGUMENT
                self._say(number, record, status, str(error))
                continue
            if len(record) > ALONE and record[ALONE] is True:
                bound = bound.alone()
            task = Task(number, record, bound, size, arrived + record[BUDGET_US] * 1e-6, now)
            held.add(task.tag, task)
            model.batcher.rate.count(task.rows, now)
            if self._twins.begin(task):
                model.batcher.offer(task, bound)
            else:
                self._meet(task)

    def _meet(self, task: Task) -> None:
        """Takes a request whose calls may be here, or have been, under the same ids."""
        while task.calls > 1:
            head = task.cut(1)
            self._held[head.link].add(head.tag, head)
            self._meet_one(head)
        self._meet_one(task)

    def _meet_one(self, task: Task) -> None:
        if self._twins.begin(task):
            self._model_of(task).batcher.offer(task, task.bound)
            return
        twin = self._twins.find(task)
        assert twin is not None
        if not is_alike(task, twin):
            self._held[task.link].remove(task.tag, task)
            detail = "its id was given to a call with another input, or to another model; give each call its own id"
            self._say(task.link, task.record, Status.ID_CONFLICT, detail)
        elif isinstance(twin, Task):
            self.joined += 1
            twin.followers = [*(twin.followers or ()), task]
        else:
            self.replayed += 1
            self._held[task.link].remove(task.tag, task)
            self._answer(task, task.places, outcome_of(twin, task), twin[TIMES])

    def _model_of(self, task: Task) -> ServedModel:
        return self.models[task.bound.model]

    def _follow_up(self, task: Task) -> None:
        """Goes on with the calls that waited for a twin, which is done with."""
        for one in task.followers or ():
            if self._held[one.link].holds(one.tag, one):
                self._meet_one(one)

    # Out without having run ----------------------------------------------------------------------

    def drop(self, number: int) -> None:
        """Lets go of what a gateway gave: its session has ended, and what waits here is for others now."""
        held = list(self._held[number])
        self._held[number].clear()
        self.dropped += sum(task.calls for task in held)
        for task in held:
            if task.is_waiting:
                self._model_of(task).batcher.remove(task, task.bound)
                self._let_go(task)

    def cancel(self, number: int, tag: int, places: int) -> None:
        """Takes back what a gateway wants no more, unless it runs: then its reply comes as always."""
        for task in self._held[number].about(tag, places):
            if not task.is_waiting:
                continue
            unwanted = task.places & places
            model = self._model_of(task)
            if unwanted != task.places:
                rest, task = task, task.part(unwanted)  # noqa: PLW2901 - the part of it
                self._held[number].add(tag, task)
                self._twins.add(task)
                model.batcher.divide(rest, task, task.bound)
            model.batcher.remove(task, task.bound)
            self._end(task, Status.CANCELLED, "cancelled by its caller before it ran")

    def expire(self, model: ServedModel, now: float) -> None:
        """Answers those whose time is up before their batch."""
        # Who followed one of them is next, and may be as late.
        while late := model.batcher.expire(now):
            for task in late:
                self._end(task, Status.DEADLINE_EXCEEDED, "the time was up while it waited for its batch", "batch")

    def _end(self, task: Task, status: Status, detail: str, where: str | None = None) -> None:
        self._held[task.link].remove(task.tag, task)
        self._let_go(task)
        self._say(task.link, task.record, status, detail, where)

    def _let_go(self, task: Task) -> None:
        """Forgets a request that will not run; who followed it has to."""
        self._twins.forget(task)
        self._follow_up(task)

    def _say(self, number: int, record: Record, status: Status, detail: str, where: str | None = None) -> None:
        """Answers a request that did not run."""
        version, attempt = record[MODEL_VERSION] or 0, record[ATTEMPT]
        reply = failure(
            record[TAG], record[PLACES], status, detail, where, worker=self._name, version=version, attempt=attempt
        )
        self._links[number].outbox.put(Kind.REPLY, reply)

    # Out with what the model made of it ----------------------------------------------------------

    def on_cut(self, head: Task) -> None:
        """Notes the last of a batch, which may be the first calls of a request that had no room for all."""
        if not self._held[head.link].holds(head.tag, head):
            self._held[head.link].add(head.tag, head)
            self._twins.add(head)

    def answer(self, batch: Batch, outcomes: list[Outcome], compute_s: float) -> None:
        """Answers a batch that has run; each of the outcomes is for one or more calls of one task."""
        compute_us = int(compute_s * 1e6)
        each = iter(outcomes)
        for task in batch.tasks:
            # Not so if it was dropped with its session.
            is_wanted = self._held[task.link].remove(task.tag, task)
            times = batch.rows, int((batch.started_at - task.arrived_at) * 1e6), compute_us
            left = task.places
            own: list[Outcome] = []
            while left:
                outcome = next(each)
                own.append(outcome)
                places = left if outcome[0] == left.bit_count() else first_of(left, outcome[0])
                left ^= places
                if is_wanted:
                    self._answer(task, places, outcome, times)
            self._twins.keep(task, own, times, batch.started_at + compute_s)
            self._follow_up(task)
        self._twins.trim(batch.started_at)

    def _answer(self, task: Task, places: int, outcome: Outcome, times: tuple[int, int, int]) -> None:
        """Tells a gateway what became of some calls of a task."""
        _, first, second = outcome
        is_result = type(first) is bytes
        link = self._links[task.link]
        size = len(second) if type(second) is bytes else payload_bytes(second) if is_result else 0  # type: ignore[arg-type]
        if size > link.most_bytes:
            # It would cost the connection, and with it whatever else this worker has from there.
            detail = f"the result has {size:,} bytes, gateway {link.address} takes {link.most_bytes:,}"
            advice = "ask for fewer rows at a time, or raise --max-body-bytes of the gateway"
            first, second, size = Status.TOO_LARGE, f"{detail}; {advice}", 0
        result = [0, first, second] if type(first) is bytes else [first, second, "model"]
        served = [self._name, task.record[MODEL_VERSION], task.record[ATTEMPT]]
        ran = RAN_YES if is_result or first not in _UNSURE else RAN_MAYBE
        record = [task.tag, places, *result, *served, ran, None, *times]
        link.outbox.put(Kind.REPLY, record, size)

    def trim(self, now: float) -> None:
        """Lets go of answers that nobody will ask for again."""
        self._twins.trim(now)

    # Invariants ----------------------------------------------------------------------------------

    def check(self, running: set[int]) -> None:
        """Asserts what must hold between any two calls; `running` are the identities of those that run."""
        held = list(self._everyone())
        assert all([task.tag, task.places] == task.record[:2] for task in held)
        waiting = [task for task in held if task.is_waiting]
        assert sum(model.batcher.rows for model in self.models.values()) == sum(task.rows for task in waiting)
        leading = running | {id(task) for task in waiting}
        self._twins.check(leading)
        following = {id(task) for task in held} - leading
        assert following <= self._twins.followers(), "calls that wait for nobody"
