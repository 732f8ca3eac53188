"""Gateways and workers that serve the witness, and what they say of themselves."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from trials.nodes import Node, address, free_port
from trials.promises.witness import Run, model_toml, read_journal
from trials.soak.verdict import unbalanced
from zmqinfer.aio import AsyncClient
from zmqinfer.errors import ZmqInferError

__all__ = ["GONE", "JOINED", "WITNESS", "Cluster", "Event", "Model", "read_events"]

WITNESS = "witness"
# Events of a gateway's log; docs/OPERATIONS.md has them all.
JOINED, SERVES, GONE = "worker joined", "worker serves", "worker gone"
START_S = 30.0
_LOOK_S = 0.02
_LINE = re.compile(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d),(\d{3}) \w+ +zmqinfer\.\w+ ((?:[a-z]+ )+)(.*)")


@dataclass(frozen=True)
class Model:
    """A model of the witness' kind."""

    name: str = WITNESS
    a_ms: float = 10.0
    max_batch_size: int = 32


@dataclass(frozen=True)
class Event:
    """A line of a node's log; `at` is an instant of `time.monotonic`, to a millisecond."""

    at: float
    what: str
    values: str

    @property
    def is_verdict(self) -> bool:
        """Whether a gateway says that something is wrong with a worker, or with one of its models."""
        return self.what.startswith("worker") and self.what not in (JOINED, SERVES)


def read_events(log: str) -> list[Event]:
    """Returns the events in a node's log."""
    ahead_s = time.time() - time.monotonic()
    found = []
    for line in log.splitlines():
        if match := _LINE.match(line):
            second, millisecond, what, values = match.groups()
            at = time.mktime(time.strptime(second, "%Y-%m-%d %H:%M:%S")) + int(millisecond) / 1000
            found.append(Event(at - ahead_s, what.strip(), values))
    return found


class Cluster:
    """Processes of zmqinfer with default settings, from the start of the block to its end."""

    def __init__(
        self, folder: Path, *, gateways: int = 1, workers: int = 3, models: tuple[Model, ...] = (Model(),)
    ) -> None:
        folder.mkdir(parents=True)
        self._journal = folder / "journal"
        self._journal.touch()
        for model in models:
            own = folder / "models" / model.name
            own.mkdir(parents=True)
            (own / "model.toml").write_text(model_toml(model.a_ms, model.max_batch_size, self._journal))
        doors = [(address(free_port()), address(free_port())) for _ in range(gateways)]
        self.addresses = [front for front, _ in doors]
        self.gateways = [
            Node(f"gateway_{number}", ["gateway", "--clients", front, "--workers", back], folder)
            for number, (front, back) in enumerate(doors)
        ]
        backs = ",".join(back for _, back in doors)
        command = ["worker", "--gateway", backs, "--models", str(folder / "models")]
        names = [f"worker_{number}" for number in range(workers)]
        self.workers = [Node(name, [*command, "--name", name], folder) for name in names]

    async def __aenter__(self) -> Self:
        try:
            for node in (*self.gateways, *self.workers):
                node.start()
            async with self.client() as client:
                await self.until_ready(client)
        except BaseException:
            self.finish()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.finish()

    def finish(self) -> None:
        """Ends all, workers first: the last that they say is for their gateways."""
        for node in (*self.workers, *self.gateways):
            node.finish()

    def client(self) -> AsyncClient:
        """Returns a new client of all gateways."""
        return AsyncClient(self.addresses, connect_timeout_s=START_S)

    async def until_ready(self, client: AsyncClient, within_s: float = START_S) -> float:
        """Returns when every gateway was seen to have every worker ready; raises `TimeoutError`."""
        give_up_at = time.monotonic() + within_s
        while time.monotonic() < give_up_at:
            with contextlib.suppress(ZmqInferError):
                found = await client.status(timeout_s=2.0)
                ready = [sum(worker["state"] == "ready" for worker in one["workers"]) for one in found]
                if ready == [len(self.workers)] * len(self.gateways):
                    return time.monotonic()
            await asyncio.sleep(_LOOK_S)
        raise TimeoutError(f"not all of {len(self.workers)} workers were ready everywhere within {within_s:g} s")

    def runs(self) -> dict[int, list[Run]]:
        """Returns which call ran where and when, by its number."""
        return read_journal(self._journal)

    def events(self, *whats: str, of: Node | None = None) -> list[Event]:
        """Returns what gateways, or one node, have logged of these kinds; of all kinds if none is named."""
        logs = [node.log for node in ([of] if of else self.gateways)]
        return [event for log in logs for event in read_events(log) if not whats or event.what in whats]

    async def until_event(self, what: str, values: str, since: float, within_s: float = 10.0) -> Event:
        """Returns the first such event of a gateway since an instant; raises `TimeoutError`."""
        give_up_at = time.monotonic() + within_s
        while time.monotonic() < give_up_at:
            for event in self.events(what):
                # The log's milliseconds are cut off.
                if event.at > since - 0.002 and values in event.values:
                    return event
            await asyncio.sleep(_LOOK_S)
        raise TimeoutError(f"no gateway said {what!r} with {values!r} within {within_s:g} s")


def books_amiss(gateway: dict[str, Any]) -> list[str]:
    """Returns what is not right in the books of a gateway of which nobody asks anything any more."""
    requests = gateway["requests"]
    amiss = [f"a gateway's books: {equation}" for equation in unbalanced(requests)]
    if requests["pending"]:
        amiss.append(f"{requests['pending']} calls are pending at the end")
    if gateway["stray_replies"]:
        amiss.append(f"{gateway['stray_replies']} replies came from workers that were not asked")
    return amiss
