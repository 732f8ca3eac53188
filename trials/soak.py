"""Load for many minutes while processes die, freeze, restart and come and go; nothing may fail, nothing may grow.

    .venv/bin/python -m trials.soak --minutes 20

Starts `zmqinfer up` with two gateways and three workers, measures what an `AsyncClient` of this process gets
through, and then sends 30 % of that, whatever becomes of the earlier calls; each answer is checked against its
own input. All along something is done to the system, drawn by a seed. Memory, descriptors and threads of all
processes are sampled, and the gateways' books checked. Rolling restarts come in the first third only, and one
worker is not killed from then on, so that a process of each role lives long enough to be judged.

Linux only, for it reads /proc. Writes results/soak/soak.json and soak.png; the exit code is 1 if something did
not hold, with a sentence for each.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.children import Children, follow_the_parent, say
from bench.command import Command, whole, within
from trials import soak_verdict as verdict
from trials.soak_verdict import Fault, Sample, Series
from zmqinfer import AsyncClient, Client
from zmqinfer.errors import ZmqInferError
from zmqinfer.node.memory import keep_freed_memory
from zmqinfer.tensor import Array
from zmqinfer.zoo.heldout import heldout

GATEWAYS, WORKERS = 2, 3
PART_OF_CAPACITY = 0.3
MAX_RATE_PER_S = 20_000
CAPACITY_S = 3.0
BURST_S = 0.004
# After a pause of this machine the load catches up in several bursts, not in one that gateways would refuse.
MAX_BURST = 1_000
DIGITS_EVERY = 16
INPUTS = 1_024
# Each length is a layout of its own, and calls of different layouts share neither block nor batch.
LENGTHS = (1, 7, 64, 200)
# Up to here each whole number is a float32 of its own, so that an answer shows whose it is.
NUMBERS = 2**24

KILL = "kill -9 of a worker"
FREEZE = "worker frozen for 1 s"
RENEW = "rolling restart"
CLIENTS = "20 short-lived clients"
VICTIM = "client killed with calls pending"
KINDS = (KILL, FREEZE, RENEW, CLIENTS, VICTIM)

# Five deaths of one process within a minute make `up` give up.
KILL_AGAIN_S = 30.0
RENEW_AGAIN_S = 180.0
FROZEN_S = 1.0
# With so little time left for a first rolling restart its turn has come.
RENEW_URGENT_S = 30.0
SHORT_CLIENTS = 20
SHORT_CALLS = 25
STATUS_S = 3.0
SAYS_EVERY_S = 60.0
# A killed client's session waits 5 s for it.
SETTLE_S = 15.0
START_S = 40.0
GRACE_S = 10
STOP_S = 3.0 * GRACE_S
SHOWN_FAILURES = 10
MB = 1e6

_ROOT = Path(__file__).resolve().parents[1]


class SoakError(Exception):
    """The trial itself cannot go on; the sentence is for whoever runs it."""


# Processes ---------------------------------------------------------------------------------------


class Up:
    """A running `zmqinfer up`, and the processes that it looks after."""

    def __init__(self, folder: Path) -> None:
        """Starts it with its sockets and its log in this folder."""
        clients = f"ipc://{folder}/clients"
        self.addresses = [clients, *(f"{clients}-{number}" for number in range(1, GATEWAYS))]
        self._log = folder / "up.log"
        command = [
            sys.executable, "-m", "zmqinfer", "up", "--gateways", str(GATEWAYS), "--workers", str(WORKERS),
            "--clients", clients, "--workers-at", f"ipc://{folder}/workers", "--drain-grace-s", str(GRACE_S),
            "--log-level", "warning",
        ]  # fmt: skip
        # Settings of whoever runs this would make it another trial.
        own = {name: value for name, value in os.environ.items() if not name.startswith("ZMQINFER_")}
        with self._log.open("wb") as log:
            # A group of its own: Ctrl-C is for us to pass on.
            self.process = subprocess.Popen(
                command, cwd=_ROOT, env=own, stdin=subprocess.DEVNULL, stdout=log, stderr=log, process_group=0
            )

    @property
    def log(self) -> str:
        """What all its processes have said so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_until_ready(self) -> None:
        """Returns when all workers are there.

        Raises:
            SoakError: they are not, in time.
        """
        give_up_at = time.monotonic() + START_S
        while "ready: " not in self.log:
            self.check()
            if time.monotonic() > give_up_at:
                raise SoakError(f"`zmqinfer up` was not ready within {START_S:g} s; it said: {self._last_words()}")
            time.sleep(0.05)

    def check(self) -> None:
        """Raises `SoakError` if it has ended."""
        code = self.process.poll()
        if code is not None:
            raise SoakError(f"`zmqinfer up` ended with {code}; it said: {self._last_words()}")

    def _last_words(self) -> str:
        return " / ".join(self.log.strip().splitlines()[-5:]) or "nothing"

    def children(self) -> dict[str, int]:
        """Returns the ids of the gateways and workers that run now, by name."""
        found = {}
        for path in Path(f"/proc/{self.process.pid}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                for pid in path.read_text().split():
                    if name := self._name_of(int(pid)):
                        found[name] = int(pid)
        return found

    def _name_of(self, pid: int) -> str:
        """What `up` calls a child; nothing for one that has ended or has yet to become what it will be."""
        try:
            words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
        except OSError:
            return ""
        if words[3:4] == ["worker"] and "--name" in words:
            return words[words.index("--name") + 1]
        if words[3:4] == ["gateway"] and "--clients" in words:
            return f"gateway_{self.addresses.index(words[words.index('--clients') + 1])}"
        return ""

    def stop(self) -> str:
        """Ends it as Ctrl-C does; returns a sentence if that did not go well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            for pid in (*self.children().values(), self.process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            self.process.wait()
            return f"`zmqinfer up` did not end within {STOP_S:g} s after SIGINT"
        return "" if code == 0 else f"`zmqinfer up` ended with {code}, expected 0; it said: {self._last_words()}"


def look_at(pid: int, at_s: float) -> Sample | None:
    """Returns what a process has now; None if there is no such process any more."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        descriptors = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return None
    words = {name: value for name, _, value in (line.partition(":") for line in lines)}
    if "VmRSS" not in words:  # it has ended, and nobody has asked for its exit code yet
        return None
    return Sample(at_s, int(words["VmRSS"].split()[0]) * 1_024 / MB, descriptors, int(words["Threads"]))


# Load --------------------------------------------------------------------------------------------


class Load:
    """Calls whose answers are checked, and the count of what became of them."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        lengths = random.choice(LENGTHS, INPUTS)
        self._inputs: list[NDArray[np.float32]] = [random.random(length, np.float32) for length in lengths]
        self._images = list(heldout().images)
        self._logits: list[NDArray[Any]] = []
        self.calls = 0
        self.failed = 0
        self.wrong = 0
        self.examples: list[str] = []

    def input_of(self, number: int) -> NDArray[np.float32]:
        """Returns the vector of this call, which says whose it is."""
        x = self._inputs[number % INPUTS].copy()
        x[0] = number % NUMBERS
        return x

    def is_echo(self, x: NDArray[np.float32], y: object) -> bool:
        """Whether `y` is `x`."""
        return isinstance(y, np.ndarray) and y.dtype == x.dtype and np.array_equal(x, y)

    def check(self, x: NDArray[np.float32], y: object, who: str) -> None:
        """Counts an answer of "echo"."""
        self.calls += 1
        if not self.is_echo(x, y):
            self.note_wrong(f"{who}: the answer to {x.shape} from {x[0]:.0f} on is {y!r:.80}")

    def note_wrong(self, what: str) -> None:
        """Counts a wrong answer."""
        self.wrong += 1
        self._keep(f"wrong: {what}")

    def note_failed(self, what: str) -> None:
        """Counts a call without an answer."""
        self.failed += 1
        self._keep(f"failed: {what}")

    def _keep(self, what: str) -> None:
        if len(self.examples) < SHOWN_FAILURES:  # a list without a bound would be the leak that we look for
            self.examples.append(what)

    async def capacity(self, client: AsyncClient) -> float:
        """Returns how many calls a second `infer_many` gets through, and asks for the digits' right answers."""
        self._logits = [np.asarray(y) async for y in client.infer_many("digits", self._images)]
        asked: deque[NDArray[np.float32]] = deque()
        began = time.perf_counter()

        def inputs() -> Iterator[Array]:
            number = 0
            while time.perf_counter() - began < CAPACITY_S:
                asked.append(self.input_of(number))
                yield asked[-1]
                number += 1

        before = self.calls
        async for y in client.infer_many("echo", inputs()):
            self.check(asked.popleft(), y, "infer_many")
        return (self.calls - before) / (time.perf_counter() - began)

    async def run(self, client: AsyncClient, rate: float, is_over: Callable[[], bool]) -> None:
        """Sends calls at this rate until it is over, and returns when the last has ended."""
        sent, began = 0, time.perf_counter()
        async with asyncio.TaskGroup() as tasks:
            while not is_over():
                due = int((time.perf_counter() - began) * rate)
                for number in range(sent, min(due, sent + MAX_BURST)):
                    tasks.create_task(self._ask(client, number))
                    sent += 1
                await asyncio.sleep(BURST_S)

    async def _ask(self, client: AsyncClient, number: int) -> None:
        try:
            if number % DIGITS_EVERY:
                x = self.input_of(number)
                self.check(x, await client.infer("echo", x), "the load")
                return
            which = number // DIGITS_EVERY % len(self._images)
            y = await client.infer("digits", self._images[which])
            self.calls += 1
            if not (isinstance(y, np.ndarray) and np.allclose(y, self._logits[which], 1e-3, 1e-3)):
                self.note_wrong(f"call {number}: image {which} gave {y!r:.80}")
        except ZmqInferError as error:
            self.calls += 1
            self.note_failed(f"call {number}: {error!r}")


# Faults ------------------------------------------------------------------------------------------


class Plan:
    """Which fault comes next: each kind once in a random order, then all again, as far as they may happen now."""

    def __init__(self, seed: int, form_s: float) -> None:
        self.random = Random(f"{seed} faults")
        self._form_s = form_s
        self._bag: list[str] = []
        self._renewed_at_s = float("-inf")
        self._killed_at_s: dict[str, float] = {}

    @property
    def _last_renewal_s(self) -> float:
        return self._form_s / 3

    def killable(self, workers: list[str], at_s: float) -> list[str]:
        """Returns the workers that may be killed now; the last one is let live from the second third on."""
        spared = {f"worker_{WORKERS}"} if at_s > self._last_renewal_s else set()
        return [
            name
            for name in workers
            if name not in spared and at_s - self._killed_at_s.get(name, float("-inf")) >= KILL_AGAIN_S
        ]

    def note_kill(self, worker: str, at_s: float) -> None:
        """Remembers that this worker was killed."""
        self._killed_at_s[worker] = at_s

    def next(self, workers: list[str], at_s: float) -> str:
        """Returns a kind of fault that may happen now, while these workers run."""
        allowed = set(KINDS)
        if at_s > self._last_renewal_s or at_s - self._renewed_at_s < RENEW_AGAIN_S:
            allowed.discard(RENEW)
        if not self.killable(workers, at_s):
            allowed.discard(KILL)
        is_urgent = self._renewed_at_s < 0 and self._last_renewal_s - at_s < RENEW_URGENT_S
        if RENEW in allowed and is_urgent:
            kind = RENEW
        else:
            if not allowed.intersection(self._bag):
                self._bag = list(KINDS)
                self.random.shuffle(self._bag)
            kind = next(kind for kind in self._bag if kind in allowed)
        if kind in self._bag:
            self._bag.remove(kind)
        if kind == RENEW:
            self._renewed_at_s = at_s
        return kind


def hold_calls(addresses: list[str]) -> None:
    """Is a client with calls pending all the time, until its parent kills it."""
    follow_the_parent()
    x = np.ones(64, np.float32)
    with Client(addresses) as client:
        waiting = [client.submit("sleep", x) for _ in range(64)]

        def endless() -> Iterator[Array]:
            while True:
                yield x

        for number, _ in enumerate(client.infer_many("echo", endless())):
            if number == 100:
                say(pending=len(waiting))


# The trial ---------------------------------------------------------------------------------------


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


# What is shown -----------------------------------------------------------------------------------


def tell(soak: Soak, broken: list[str]) -> None:
    """Prints the tables and the verdict."""
    print(f"\n{'process':<12}{'id':>8}{'lived s':>9}{'MB first':>10}{'MB last':>9}{'MB/10 min':>11}"
          f"{'descriptors':>13}{'threads':>9}  judged")  # fmt: skip
    for one in soak.series:
        first, last = one.samples[0], one.samples[-1]
        print(
            f"{one.name:<12}{one.pid:>8}{one.lived_s:>9.1f}{first.memory_mb:>10.1f}{last.memory_mb:>9.1f}"
            f"{verdict.slope_mb(one.samples):>11.2f}{f'{first.descriptors} to {last.descriptors}':>13}"
            f"{f'{first.threads} to {last.threads}':>9}  {'yes' if one.is_judged else 'no'}"
        )
    if not any(one.is_judged for one in soak.series):
        print(f"no process lived for {verdict.JUDGED_FROM_S:g} s: slopes and descriptors are not judged")
    print("\nfaults")
    counts = Counter(fault.kind for fault in soak.faults)
    for kind in KINDS:
        print(f"{counts[kind]:>5} {kind}")
    load = soak.load
    print(
        f"\n{load.calls:,} calls, {load.failed:,} failed, {load.wrong:,} wrong;"
        f" the gateways' books were looked at {soak.books:,} times"
    )
    for example in load.examples:
        print(f"  {example}")
    for sentence in broken:
        print(f"did not hold: {sentence}")
    print("everything held" if not broken else f"{len(broken)} things did not hold")


def write(soak: Soak, broken: list[str], folder: Path) -> None:
    """Writes soak.json and soak.png."""
    folder.mkdir(parents=True, exist_ok=True)
    load = soak.load
    report = {
        "minutes": soak.form.minutes,
        "seed": soak.form.seed,
        "capacity_per_s": round(soak.capacity),
        "rate_per_s": round(soak.rate),
        "calls": load.calls,
        "failed": load.failed,
        "wrong": load.wrong,
        "examples": load.examples,
        "books": soak.books,
        "did_not_hold": broken,
        "faults": [dataclasses.asdict(fault) for fault in soak.faults],
        "processes": [
            {
                "name": one.name,
                "pid": one.pid,
                "lived_s": round(one.lived_s, 1),
                "slope_mb_per_10_min": round(verdict.slope_mb(one.samples), 3),
                "more_descriptors": verdict.more_descriptors(one.samples),
                "is_judged": one.is_judged,
                "samples": [dataclasses.asdict(sample) for sample in one.samples],
            }
            for one in soak.series
        ],
    }
    (folder / "soak.json").write_text(json.dumps(report, indent=1) + "\n")
    draw(soak.series, soak.faults, folder / "soak.png")


def draw(all_series: list[Series], faults: list[Fault], path: Path) -> None:
    """Draws memory over time, a panel for each role, and below when which fault happened."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    colours = ("#0072B2", "#E69F00", "#009E73")
    figure = Figure(figsize=(12, 7), dpi=100, layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(4, 1, sharex=True, height_ratios=[1, 1, 1, 0.75])
    roles = {"client": "client", "gateway": "gateways", "worker": "workers"}
    for axes, (role, title) in zip(panels, roles.items(), strict=False):
        names = sorted({one.name for one in all_series if one.role == role})
        for one in (one for one in all_series if one.role == role):
            minutes = [sample.at_s / 60 for sample in one.samples]
            label = "" if axes.get_legend_handles_labels()[1].count(one.name) else one.name
            axes.plot(
                minutes, [sample.memory_mb for sample in one.samples], ".-", markersize=3, linewidth=1.2,
                color=colours[names.index(one.name) % len(colours)], label=label or "_",
            )  # fmt: skip
        for fault in faults:
            axes.axvline(fault.at_s / 60, ymax=0.05, color="#595959", linewidth=0.8)
        axes.set_ylabel("resident\nmemory (MB)")
        axes.set_title(title, loc="left", fontsize=10)
        axes.margins(y=0.15)
        if len(names) > 1:
            axes.legend(frameon=False, ncols=len(names), loc="lower right", bbox_to_anchor=(1, 0.97), fontsize=9)
    for row, kind in enumerate(KINDS):
        times = [fault.at_s / 60 for fault in faults if fault.kind == kind]
        panels[-1].plot(times, [row] * len(times), "|", color="#D55E00", markersize=9, markeredgewidth=1.4)
    panels[-1].set_yticks(range(len(KINDS)), KINDS, fontsize=8)
    panels[-1].set_ylim(len(KINDS) - 0.4, -0.6)
    panels[-1].set_title("faults", loc="left", fontsize=10)
    panels[-1].set_xlabel("time under load (minutes)")
    for axes in panels:
        axes.grid(axis="x", color="#E5E5E5")
        axes.set_axisbelow(True)
        for side in ("top", "right"):
            axes.spines[side].set_visible(False)
    figure.savefig(path)


def main() -> int:
    """Runs the trial; returns the exit code."""
    if sys.argv[1:2] == ["role"]:
        hold_calls(**json.loads(sys.argv[3]))
        return 0
    command = Command("python -m trials.soak", __doc__)
    command.add_argument("--minutes", type=float, default=20.0, help="time under load, at most 600")
    command.add_argument("--seed", type=whole, default=1, help="of the faults and inputs")
    command.add_argument("--pause-s", type=within, nargs=2, default=(5.0, 15.0), metavar=("LEAST", "MOST"),
                         help="between two faults")  # fmt: skip
    command.add_argument("--sample-s", type=within, default=5.0, help="between two samples")
    command.add_argument("--most-per-s", type=within, default=MAX_RATE_PER_S, help="calls, if capacity allows more")
    command.add_argument("--out", type=Path, default=Path("results/soak"))
    given = command.parse_args()
    if not 0 < given.minutes <= 600:
        command.error(f"--minutes is {given.minutes:g}, expected more than 0 and at most 600")
    if given.pause_s[0] > given.pause_s[1]:
        command.error(f"--pause-s is {given.pause_s[0]:g} {given.pause_s[1]:g}, expected the lesser one first")
    if not Path("/proc/self/fd").is_dir():
        command.error("there is no /proc/self/fd here; this trial needs Linux")
    keep_freed_memory()  # this process is the client, and judged as the nodes are
    form = Form(given.minutes, given.seed, (given.pause_s[0], given.pause_s[1]), given.sample_s, given.most_per_s)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            return run(form, Path(folder), given.out)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT


def run(form: Form, folder: Path, out: Path) -> int:
    """Runs one form with its sockets in `folder`; returns the exit code."""
    up = Up(folder)
    soak = Soak(form, up)
    broken: list[str] = []
    try:
        up.wait_until_ready()
        asyncio.run(soak.run())
    except* (SoakError, ZmqInferError) as group:
        broken.append(str(group.exceptions[0]))
    finally:
        not_stopped = up.stop()
    if not_stopped and not broken:
        broken.append(not_stopped)
    broken += soak.judge()
    write(soak, broken, out)
    tell(soak, broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
