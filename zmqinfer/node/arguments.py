"""What a caller says of a call, checked: out of it comes what a machine takes, or one sentence."""

from __future__ import annotations

import contextlib
import math
import numbers
import operator
from collections.abc import AsyncIterable, Iterable

from zmqinfer.errors import InvalidArgument
from zmqinfer.machine.client.call import DEFAULT_PRIORITY, CallOptions
from zmqinfer.records import MAX_ID_BYTES, PRIORITIES

__all__ = ["check_many", "check_timeout", "options_of"]

MAX_DEADLINE_S = 300.0


def options_of(
    plain: CallOptions,
    deadline_s: float | None,
    key: str | bytes | None,
    priority: int,
    version: int | None,
    idempotent: bool | None,
    hedge: bool | None,
) -> CallOptions:
    """Returns the options of a call, `plain` if nothing was said; raises `InvalidArgument` for what cannot be."""
    if (
        deadline_s is None
        and key is None
        and version is None
        and idempotent is None
        and hedge is None
        and priority is DEFAULT_PRIORITY
    ):
        return plain
    if type(priority) is not int:
        priority = _whole("priority", priority)
    if version is not None and type(version) is not int:
        version = _whole("version", version)
    if not 1 <= priority <= PRIORITIES:
        raise InvalidArgument(f"priority is {priority!r}, expected 1, the most urgent, to {PRIORITIES}")
    deadline_s = plain.deadline_s if deadline_s is None else _seconds("deadline_s", deadline_s)
    if idempotent is not None and type(idempotent) is not bool:
        raise InvalidArgument(f"idempotent is {idempotent!r}, expected None, True or False")
    if hedge is not None and type(hedge) is not bool:
        raise InvalidArgument(f"hedge is {hedge!r}, expected None, True or False")
    return CallOptions(deadline_s, version, _key_bytes(key), priority, idempotent, hedge)


def check_many(xs: object, in_flight: int) -> None:
    """Raises `InvalidArgument` for inputs that cannot be gone through, or that many at a time."""
    if type(in_flight) is not int or in_flight < 1:
        raise InvalidArgument(f"in_flight is {in_flight!r}, expected a whole number from 1")
    if not isinstance(xs, Iterable | AsyncIterable):
        raise InvalidArgument(f"xs is a {type(xs).__qualname__}, expected arrays in a list, a generator, ...")


def check_timeout(timeout_s: float) -> None:
    """Raises `InvalidArgument` for a time limit of a question that cannot be kept."""
    _seconds("timeout_s", timeout_s)


def _seconds(name: str, value: object) -> float:
    """Returns a time limit in seconds, a number of any kind, as Python's own."""
    if type(value) is not float and type(value) is not int:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise InvalidArgument(f"{name} is {value!r}, a {type(value).__qualname__}, expected a number of seconds")
        try:
            value = float(value)
        except OverflowError:
            value = math.inf
    if not 0 < value <= MAX_DEADLINE_S:
        raise InvalidArgument(f"{name} is {value!r}, expected more than 0 and at most {MAX_DEADLINE_S:g}")
    return value


def _whole(name: str, value: object) -> int:
    """Returns a whole number of another kind, such as NumPy's, as Python's own."""
    if not isinstance(value, bool):
        with contextlib.suppress(TypeError):
            return operator.index(value)  # type: ignore[arg-type]
    raise InvalidArgument(f"{name} is {value!r}, a {type(value).__qualname__}, expected a whole number")


def _key_bytes(key: str | bytes | None) -> bytes | None:
    """Returns a routing key as it travels."""
    if key is None:
        return None
    if not isinstance(key, str | bytes):
        raise InvalidArgument(f"key is a {type(key).__name__}, expected str or bytes")
    try:
        raw = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError as cause:
        raise InvalidArgument(f"key is {key!r}, which is no text ({cause.reason}); send bytes") from cause
    if len(raw) > MAX_ID_BYTES:
        raise InvalidArgument(f"key has {len(raw)} bytes, expected at most {MAX_ID_BYTES}; hash it first")
    return raw
