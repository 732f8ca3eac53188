"""Every way a request can end, and the errors that stay on this machine.

A request that a client accepted ends with a result or with exactly one class of
the closed list below; each has a `Status` that travels on the wire. `ConfigError`
and `UsageError` never travel: they tell a caller about its own program.
"""

from __future__ import annotations

import enum
from typing import ClassVar

__all__ = [
    "EXECUTED",
    "Cancelled",
    "ConfigError",
    "DeadlineExceeded",
    "Executed",
    "IdConflict",
    "InternalError",
    "InvalidArgument",
    "ModelError",
    "NotFound",
    "Overloaded",
    "PermissionDenied",
    "Poisoned",
    "ProtocolError",
    "QuotaExceeded",
    "Status",
    "TooLarge",
    "Unauthenticated",
    "Unavailable",
    "UsageError",
    "WorkerLost",
    "ZmqInferError",
    "error_of",
]


class Status(enum.IntEnum):
    """How a request ended. The numbers are part of the wire protocol."""

    OK = 0
    INVALID_ARGUMENT = 1
    TOO_LARGE = 2
    NOT_FOUND = 3
    UNAUTHENTICATED = 4
    PERMISSION_DENIED = 5
    QUOTA_EXCEEDED = 6
    OVERLOADED = 7
    UNAVAILABLE = 8
    WORKER_LOST = 9
    DEADLINE_EXCEEDED = 10
    CANCELLED = 11
    MODEL_ERROR = 12
    POISONED = 13
    ID_CONFLICT = 14
    PROTOCOL = 15
    INTERNAL = 16


class Executed(enum.StrEnum):
    """Whether the model may have run for a request. On the wire: the index in this order."""

    NO = "no"
    YES = "yes"
    MAYBE = "maybe"


EXECUTED = tuple(Executed)


class ZmqInferError(Exception):
    """The one ancestor of every error that zmqinfer raises on purpose.

    Attributes:
        status: which member of the closed list this is.
        request_id: the request that failed, or empty when it belongs to none.
        attempts: how often the request was sent by its client, 0 if it never left.
        executed: whether the model may have run.
        retry_after_ms: how long the server asks to wait before a repeat, or None.
    """

    status: ClassVar[Status] = Status.INTERNAL

    def __init__(
        self,
        message: str,
        *,
        request_id: bytes = b"",
        attempts: int = 0,
        executed: Executed = Executed.NO,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(message)
        self.request_id = request_id
        self.attempts = attempts
        self.executed = executed
        self.retry_after_ms = retry_after_ms

    @property
    def code(self) -> str:
        """The name of the status, as the documentation and `status --json` spell it."""
        return self.status.name


class InvalidArgument(ZmqInferError, ValueError):
    """The input does not fit the model's signature, or is no array at all. Never retried."""

    status = Status.INVALID_ARGUMENT


class TooLarge(ZmqInferError):
    """The request is over a size limit; the message names the limit and the size. Never retried."""

    status = Status.TOO_LARGE


class NotFound(ZmqInferError):
    """No worker that this gateway knows serves the model or version. Never retried."""

    status = Status.NOT_FOUND


class Unauthenticated(ZmqInferError):
    """The key is unknown. Never retried."""

    status = Status.UNAUTHENTICATED


class PermissionDenied(ZmqInferError):
    """The key is known but not allowed this. Never retried."""

    status = Status.PERMISSION_DENIED


class QuotaExceeded(ZmqInferError):
    """This key's rate or concurrency is used up; see `retry_after_ms`."""

    status = Status.QUOTA_EXCEEDED


class Overloaded(ZmqInferError):
    """Shed before execution because a bounded queue is full; see `retry_after_ms`."""

    status = Status.OVERLOADED


class Unavailable(ZmqInferError, ConnectionError):
    """No gateway answers, or no live worker serves the model."""

    status = Status.UNAVAILABLE


class WorkerLost(ZmqInferError):
    """The worker vanished with the request, and it may not or can no longer be moved to another."""

    status = Status.WORKER_LOST


class DeadlineExceeded(ZmqInferError, TimeoutError):
    """The request's time is up.

    Attributes:
        where: the step that held it then: network, queue, worker (dispatched, not known further), batch or model.
    """

    status = Status.DEADLINE_EXCEEDED

    def __init__(
        self,
        message: str,
        *,
        where: str = "client",
        request_id: bytes = b"",
        attempts: int = 0,
        executed: Executed = Executed.NO,
        retry_after_ms: int | None = None,
    ) -> None:
        super().__init__(
            message,
            request_id=request_id,
            attempts=attempts,
            executed=executed,
            retry_after_ms=retry_after_ms,
        )
        self.where = where


class Cancelled(ZmqInferError):
    """The caller, or the end of its client, cancelled the request."""

    status = Status.CANCELLED


class ModelError(ZmqInferError):
    """The model raised for this item, or answered something other than it declared."""

    status = Status.MODEL_ERROR


class Poisoned(ZmqInferError):
    """A worker died while this very input ran alone. Never retried."""

    status = Status.POISONED


class IdConflict(ZmqInferError):
    """The same request id came with other content. Never retried."""

    status = Status.ID_CONFLICT


class ProtocolError(ZmqInferError):
    """A peer sent bytes that are no message of a version known here. Never retried."""

    status = Status.PROTOCOL


class InternalError(ZmqInferError):
    """A defect of zmqinfer itself. Please report it with the message."""

    status = Status.INTERNAL


class ConfigError(Exception):
    """A setting, a model folder or a file is wrong. Local: the command line ends with exit code 2."""


class UsageError(RuntimeError):
    """A client was used after `close()`, after `fork()`, or in another way that it cannot serve. Local."""


_CLASSES: dict[Status, type[ZmqInferError]] = {
    cls.status: cls
    for cls in (
        InvalidArgument,
        TooLarge,
        NotFound,
        Unauthenticated,
        PermissionDenied,
        QuotaExceeded,
        Overloaded,
        Unavailable,
        WorkerLost,
        DeadlineExceeded,
        Cancelled,
        ModelError,
        Poisoned,
        IdConflict,
        ProtocolError,
        InternalError,
    )
}


def error_of(
    status: Status,
    message: str,
    *,
    where: str = "",
    request_id: bytes = b"",
    attempts: int = 0,
    executed: Executed = Executed.NO,
    retry_after_ms: int | None = None,
) -> ZmqInferError:
    """Builds the error that `status` stands for; `where` is kept by `DeadlineExceeded` alone."""
    if status is Status.DEADLINE_EXCEEDED:
        return DeadlineExceeded(
            message,
            where=where,
            request_id=request_id,
            attempts=attempts,
            executed=executed,
            retry_after_ms=retry_after_ms,
        )
    return _CLASSES[status](
        message,
        request_id=request_id,
        attempts=attempts,
        executed=executed,
        retry_after_ms=retry_after_ms,
    )
