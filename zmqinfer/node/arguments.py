"""What a caller says of a call, checked: out of it comes what a machine takes, or one sentence."""

from __future__ import annotations

import contextlib
import difflib
import math
import numbers
import operator
from collections.abc import AsyncIterable, Iterable, Iterator
from typing import TypedDict

from zmqinfer.errors import InvalidArgument
from zmqinfer.machine.client.call import DEFAULT_PRIORITY, CallOptions
from zmqinfer.records import MAX_ID_BYTES, PRIORITIES

__all__ = ["Options", "key_bytes", "many_of", "options_of", "seconds"]

MAX_DEADLINE_S = 300.0


class Options(TypedDict, total=False):
    """What may be said of a call besides its model and its input, as keywords; None is the default.

    Attributes:
        deadline_s: time limit of this call; by default that of the client.
        key: calls with one key go to one worker while it can take them; at most 128 bytes.
        priority: 1 is the most urgent, 8 the least, 4 the default.
        version: of the model; by default the gateway takes the latest.
        idempotent: whether it may be run again if its worker is lost; by default as the model says.
        hedge: whether a second worker is asked if the first takes long; by default as the model says.
    """

    deadline_s: float | None
    key: str | bytes | None
    priority: int | None
    version: int | None
    idempotent: bool | None
    hedge: bool | None


def options_of(plain: CallOptions, options: Options) -> CallOptions:
    """Returns the options of a call, `plain` if nothing else was said.

    Raises:
        InvalidArgument: a value that cannot be.
        TypeError: there is no such option.
    """
    if not options:
        return plain
    try:
        return _checked(plain, **options)
    except TypeError:
        _refuse_unknown(options)
        raise


# Taken apart by the interpreter: 1.1 us less than by hand.
def _checked(
    plain: CallOptions,
    *,
    deadline_s: float | None = None,
    key: str | bytes | None = None,
    priority: int | None = DEFAULT_PRIORITY,
    version: int | None = None,
    idempotent: bool | None = None,
    hedge: bool | None = None,
) -> CallOptions:
    if type(priority) is not int:
        priority = DEFAULT_PRIORITY if priority is None else _whole("priority", priority)
    if not 1 <= priority <= PRIORITIES:
        raise InvalidArgument(f"priority is {priority!r}, expected 1, the most urgent, to {PRIORITIES}")
    if version is not None and type(version) is not int:
        version = _whole("version", version)
    if idempotent is not None or hedge is not None:
        for name, value in (("idempotent", idempotent), ("hedge", hedge)):
            if value is not None and type(value) is not bool:
                raise InvalidArgument(f"{name} is {value!r}, expected None, True or False")
    deadline_s = plain.deadline_s if deadline_s is None else seconds("deadline_s", deadline_s)
    if key is not None:
        return CallOptions(deadline_s, version, priority, idempotent, hedge, key_bytes(key))
    said = CallOptions(deadline_s, version, priority, idempotent, hedge)
    # Calls with the very same options find each other faster.
    return plain if said == plain else said


def _refuse_unknown(options: Iterable[str]) -> None:
    names = list(Options.__annotations__)
    for name in options:
        if name == "with_info":
            raise TypeError("with_info is for infer alone; of a call that is begun with submit, info() tells") from None
        if name not in names:
            close = ["deadline_s"] if "timeout" in name else difflib.get_close_matches(name, names, n=1)
            advice = f"did you mean {close[0]!r}?" if close else "leave it out"
            raise TypeError(f"a call has no option {name!r}, expected {', '.join(names)}; {advice}") from None


def many_of(xs: object, in_flight: int, keys: object, options: Options) -> Iterator[object] | None:
    """Returns the keys of many inputs, if there are any.

    Raises:
        InvalidArgument: inputs or keys that cannot be gone through, or that many at a time.
    """
    if type(in_flight) is not int or in_flight < 1:
        raise InvalidArgument(f"in_flight is {in_flight!r}, expected a whole number from 1")
    if not isinstance(xs, Iterable | AsyncIterable):
        raise InvalidArgument(f"xs is a {type(xs).__qualname__}, expected arrays in a list, a generator, ...")
    if keys is None:
        return None
    if options.get("key") is not None:
        raise InvalidArgument("key and keys were given, expected one of them: a key for all, or one for each input")
    if isinstance(keys, str | bytes) or not isinstance(keys, Iterable):
        raise InvalidArgument(f"keys is a {type(keys).__qualname__}, expected str or bytes in a list, a generator, ...")
    return iter(keys)


def seconds(name: str, value: object) -> float:
    """Returns a time limit, a number of any kind, as Python's own; raises `InvalidArgument` if it cannot be kept."""
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


def key_bytes(key: object) -> bytes:
    """Returns a routing key as it travels."""
    if not isinstance(key, str | bytes):
        advice = "; infer_many takes keys, one for each input" if isinstance(key, Iterable) else ""
        raise InvalidArgument(f"key is a {type(key).__name__}, expected str or bytes{advice}")
    try:
        raw = key.encode() if isinstance(key, str) else key
    except UnicodeEncodeError as cause:
        raise InvalidArgument(f"key is {key!r}, which is no text ({cause.reason}); send bytes") from cause
    if len(raw) > MAX_ID_BYTES:
        raise InvalidArgument(f"key has {len(raw)} bytes, expected at most {MAX_ID_BYTES}; hash it first")
    return raw
