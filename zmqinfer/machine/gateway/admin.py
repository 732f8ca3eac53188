"""What operators order a gateway to do: ADMIN records, each answered with a status and a sentence."""

from __future__ import annotations

from zmqinfer.errors import Status
from zmqinfer.machine.gateway.members import Roster
from zmqinfer.machine.gateway.workers import Workers
from zmqinfer.records import MAX_TEXT, Record

__all__ = ["Admin"]


class Admin:
    """The commands that a gateway knows."""

    def __init__(self, roster: Roster, workers: Workers) -> None:
        self._roster = roster
        self._workers = workers

    def obey(self, record: Record) -> Record:
        """Does what a record orders; returns the record that answers it."""
        tag, command, argument = record[:3]
        status, detail = self._drain(argument) if command == "drain" else _unknown(command)
        return [tag, command, argument, status, detail[:MAX_TEXT]]

    def _drain(self, name: str) -> tuple[Status, str]:
        if self._workers.drain(name):
            return Status.OK, f"worker {name!r} was asked to drain"
        names = ", ".join(sorted(worker.name for worker in self._roster.everyone())) or "none"
        return Status.NOT_FOUND, f"no worker {name!r} here; connected: {names}"


def _unknown(command: str) -> tuple[Status, str]:
    return Status.INVALID_ARGUMENT, f"command {command!r} is not known; known: drain"
