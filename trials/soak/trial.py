"""Load, faults and samples side by side."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from bench.children import Children
from trials.soak import verdict
from trials.soak.faults import CLIENTS, FREEZE, KILL, KINDS, RENEW, VICTIM, Plan
from trials.soak.load import SHOWN_FAILURES, Load
from trials.soak.processes import GATEWAYS, Up, look_at
from trials.soak.verdict import Fault, Series
from zmqinfer import AsyncClient, Client
from zmqinfer.errors import ZmqInferError

__all__ = ["MAX_RATE_PER_S", "Form", "Soak"]

PART_OF_CAPACITY = 0.3
MAX_RATE_PER_S = 20_000
FROZEN_S = 1.0
SHORT_CLIENTS = 20
SHORT_CALLS = 25
STATUS_S = 3.0
SAYS_EVERY_S = 60.0
# A killed client's session waits 5 s for it.
SETTLE_S = 15.0


@dataclasses.dataclass(frozen=True)
class Form:
    """How long it takes and how often something happens."""

    minutes: float
    seed: int
    pause_s: tuple[float, float]
    sample_s: float
    most_per_s: float = MAX_RATE_PER_S

    @property
    def seconds(self) -> float:
        """The time under load."""
        return self.minutes * 60


class Soak:
    """One run: load, faults and samples side by side."""

    def __init__(self, form: Form, up: Up) -> None:
        self.form = form
        self.up = up
        self.load = Load(form.seed)
        self.faults: list[Fault] = []
        self.complaints: list[str] = []
        self.capacity = 0.0
        self.rate = 0.0
        self.books = 0
        self._series: dict[tuple[str, int], Series] = {}
        self._plan = Plan(form.seed, form.seconds)
        self._began = 0.0

    @property
    def series(self) -> list[Series]:
        """The processes in the order of their names and then of their starts."""
        return sorted(self._series.values(), key=lambda one: (one.name, one.samples[0].at_s))

    @property
    def _at_s(self) -> float:
        return time.monotonic() - self._began

    def _is_over(self) -> bool:
        return self._at_s >= self.form.seconds

    async def run(self) -> None:
        """Does everything but the judging.

        Raises:
            SoakError: `up` ended.
        """
        async with AsyncClient(self.up.addresses) as client:
            self.capacity = await self.load.capacity(client)
            self.rate = min(PART_OF_CAPACITY * self.capacity, self.form.most_per_s)
            print(f"capacity {self.capacity:,.0f} calls/s, load {self.rate:,.0f} calls/s", flush=True)
            self._began = time.monotonic()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self.load.run(client, self.rate, self._is_over))
                tasks.create_task(self._sample_all_along(client))
                tasks.create_task(self._do_faults(client))
            await self._settle(client)

    # Samples -------------------------------------------------------------------------------------

    async def _sample_all_along(self, client: AsyncClient) -> None:
        says_at_s = SAYS_EVERY_S
        while True:
            self.up.check()
            next_at_s = self._at_s + self.form.sample_s
            self._sample()
            await self._check_books(client)
            if self._at_s >= says_at_s:
                says_at_s += SAYS_EVERY_S
                print(
                    f"{self._at_s / 60:4.1f} min: {self.load.calls:,} calls, {self.load.failed:,} failed,"
                    f" {self.load.wrong:,} wrong, {len(self.faults)} faults",
                    flush=True,
                )
            if self._is_over():
                return
            await asyncio.sleep(max(0.0, next_at_s - self._at_s))

    def _sample(self) -> None:
        at_s = self._at_s
        for name, pid in {"client": os.getpid(), **self.up.children()}.items():
            sample = look_at(pid, at_s)
            if sample is not None:
                self._series.setdefault((name, pid), Series(name, pid)).samples.append(sample)

    async def _status(self, client: AsyncClient) -> list[dict[str, Any]]:
        try:
            return await client.status(timeout_s=STATUS_S)
        except ZmqInferError:  # a gateway that starts again has nothing to say; that one does is checked at the end
            return []

    async def _check_books(self, client: AsyncClient) -> None:
        for gateway in await self._status(client):
            self.books += 1
            self._complain(
                *(f"the books of the gateway at {gateway['address']} do not balance: {equation}"
                  for equation in verdict.unbalanced(gateway["requests"]))
            )  # fmt: skip

    def _complain(self, *sentences: str) -> None:
        self.complaints += sentences[: max(0, SHOWN_FAILURES - len(self.complaints))]

    async def _settle(self, client: AsyncClient) -> None:
        """Waits until the gateways hold nothing of anybody but this client."""
        give_up_at = time.monotonic() + SETTLE_S
        while True:
            gateways = await self._status(client)
            left = [
                f"the gateway at {one['address']} has {one['requests']['pending']} calls and {one['clients']} clients"
                f" {SETTLE_S:g} s after the last call, expected 0 and 1"
                for one in gateways
                if one["requests"]["pending"] or one["clients"] != 1
            ]
            if len(gateways) == GATEWAYS and not left:
                return
            if time.monotonic() > give_up_at:
                silent = GATEWAYS - len(gateways)
                self._complain(*left, *([f"{silent} gateways said nothing at the end"] if silent else []))
                return
            await asyncio.sleep(0.2)

    # Faults --------------------------------------------------------------------------------------

    async def _do_faults(self, client: AsyncClient) -> None:
        doing: dict[str, Callable[[AsyncClient], Awaitable[str]]] = {
            KILL: self._kill_a_worker,
            FREEZE: self._freeze_a_worker,
            RENEW: self._renew,
            CLIENTS: self._come_and_go,
            VICTIM: self._kill_a_client,
        }
        while True:
            pause_s = self._plan.random.uniform(*self.form.pause_s)
            await asyncio.sleep(min(pause_s, max(0.0, self.form.seconds - self._at_s)))
            if self._is_over():
                return
            at_s = self._at_s
            kind = self._plan.next(await self._expendable(client), at_s)
            who = await doing[kind](client)
            if who:
                self.faults.append(Fault(at_s, kind, who))

    async def _expendable(self, client: AsyncClient) -> list[str]:
        """Returns the workers that run while every gateway has another one: without any, calls may fail."""
        gateways = await self._status(client)
        ready = [{one["name"] for one in entry["workers"] if one["state"] == "ready"} for entry in gateways]
        running = [name for name in self.up.children() if name.startswith("worker_")]
        return sorted(name for name in running if ready and all(names - {name} for names in ready))

    def _signal(self, name: str, number: signal.Signals) -> int:
        """Sends a signal to the process of this name; returns its id, or 0 if there is none now."""
        pid = self.up.children().get(name, 0)
        if pid:
            try:
                os.kill(pid, number)
            except ProcessLookupError:
                return 0
        return pid

    async def _kill_a_worker(self, client: AsyncClient) -> str:
        workers = self._plan.killable(await self._expendable(client), self._at_s)
        if not workers:
            return ""
        name = self._plan.random.choice(workers)
        if not self._signal(name, signal.SIGKILL):
            return ""
        self._plan.note_kill(name, self._at_s)
        return name

    async def _freeze_a_worker(self, client: AsyncClient) -> str:
        workers = await self._expendable(client)
        if not workers:
            return ""
        name = self._plan.random.choice(workers)
        pid = self._signal(name, signal.SIGSTOP)
        if not pid:
            return ""
        try:
            await asyncio.sleep(FROZEN_S)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        return name

    async def _renew(self, _client: AsyncClient) -> str:
        self.up.process.send_signal(signal.SIGHUP)
        return "all"

    async def _come_and_go(self, _client: AsyncClient) -> str:
        for number in range(SHORT_CLIENTS):
            try:
                if number % 2:
                    for wrong in await asyncio.to_thread(self._short_client):
                        self.load.note_wrong(wrong)
                    self.load.calls += SHORT_CALLS
                else:
                    async with AsyncClient(self.up.addresses) as short:
                        for call in range(SHORT_CALLS):
                            x = self.load.input_of(call)
                            self.load.check(x, await short.infer("echo", x), "a short-lived AsyncClient")
            except ZmqInferError as error:
                self.load.note_failed(f"a short-lived client: {error!r}")
        return "clients"

    def _short_client(self) -> list[str]:
        """Returns a sentence for each wrong answer; the counters belong to the event loop's thread."""
        wrong = []
        with Client(self.up.addresses) as short:
            for call in range(SHORT_CALLS):
                x = self.load.input_of(call)
                y = short.infer("echo", x)
                if not self.load.is_echo(x, y):
                    wrong.append(f"a short-lived Client: the answer to {x.shape} is {y!r:.80}")
        return wrong

    async def _kill_a_client(self, _client: AsyncClient) -> str:
        try:
            return await asyncio.to_thread(self._start_and_kill)
        except (TimeoutError, ChildProcessError) as error:
            self._complain(f"the client to be killed did not get so far: {error}")
            return ""

    def _start_and_kill(self) -> str:
        with Children("trials.soak") as children:
            child = children.start("hold_calls", addresses=self.up.addresses)
            children.hear(child)
            child.process.kill()
            return f"process {child.process.pid}"

    # Judging -------------------------------------------------------------------------------------

    def judge(self) -> list[str]:
        """Returns a sentence for each thing that did not hold."""
        load, log = self.load, self.up.log
        sentences = list(self.complaints)
        if load.failed:
            sentences.append(f"{load.failed:,} calls failed")
        if load.wrong:
            sentences.append(f"{load.wrong:,} answers were wrong")
        if not self.books:
            sentences.append("no gateway ever answered what is in its books")
        died, killed = log.count("died child="), sum(fault.kind == KILL for fault in self.faults)
        if died > killed:
            sentences.append(f"{died} gateways and workers died, of which {killed} were killed by this trial")
        if "hangs, killed" in log:
            sentences.append("`zmqinfer up` killed a process because it gave no sign of life")
        if "Traceback" in log:
            sentences.append("a process of `zmqinfer up` printed a traceback")
        sentences += verdict.judge_faults(KINDS, self.faults, self.form.seconds)
        return sentences + verdict.judge_processes(self.series, self.form.seconds)
