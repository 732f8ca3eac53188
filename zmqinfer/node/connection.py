"""What both clients share: the machine, its sockets, and the checks of a call's arguments."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterable

import numpy as np

from zmqinfer import __version__
from zmqinfer.config import ClientSettings
from zmqinfer.errors import InvalidArgument, UsageError
from zmqinfer.machine.client import ClientMachine
from zmqinfer.machine.codec import Input, Output
from zmqinfer.node import sockets
from zmqinfer.node.addresses import addresses_of
from zmqinfer.node.dialler import Dialler
from zmqinfer.records import MAX_ID_BYTES, PRIORITIES
from zmqinfer.tensor import Array, Arrays

__all__ = ["DEFAULTS", "Connection", "check_call", "key_bytes"]

MAX_DEADLINE_S = 300.0


# The keyword defaults of both clients.
DEFAULTS = ClientSettings()


class Connection:
    """One client's machine and sockets."""

    def __init__(
        self, endpoints: str | Iterable[str], connect_timeout_s: float, deadline_s: float, heartbeat_ms: int
    ) -> None:
        addresses = addresses_of(endpoints)
        settings = ClientSettings(
            connect_timeout_s=float(connect_timeout_s),
            deadline_s=float(deadline_s),
            heartbeat_ms=heartbeat_ms,
        )
        self.is_open = True
        self.is_forked = False
        self._context = sockets.new_context()
        try:
            self.dialler = Dialler(self._context, addresses)
        except BaseException:
            self._context.destroy(linger=0)
            raise
        self.machine = ClientMachine(
            settings,
            session=os.urandom(16),
            id_prefix=os.urandom(8),
            agent=f"zmqinfer/{__version__} pid {os.getpid()}",
            gateways=addresses,
            now=time.monotonic(),
        )
        _OPEN.add(self)

    def check_open(self) -> None:
        """Raises `UsageError` in a forked child, whose sends would vanish, and after `close`."""
        if self.is_forked:
            raise UsageError("this client was made before a fork; make a new one in the child process")
        if not self.is_open:
            raise UsageError("this client is closed; make a new one")

    def forbid(self) -> None:
        """Marks the copy in a forked child as unusable."""
        self.is_forked = True

    def close(self) -> None:
        """Closes the sockets. In a forked child they belong to the parent and are left alone."""
        self.is_open = False
        if not self.is_forked:
            self.dialler.close()
            self._context.destroy(linger=sockets.LINGER_MS)

    def pieces(self, model: str, version: int | None, x: Input, done: int) -> list[tuple[Input, int]]:
        """Cuts n rows, without the first `done`, into pieces that the model's largest batch takes, with their rows.

        Of a model not known yet one row goes ahead: behind its answer the largest batch is known.

        Raises:
            InvalidArgument: there is no row, or the inputs' leading axes differ.
        """
        arrays = {"": x} if isinstance(x, np.ndarray) else x
        if not isinstance(arrays, dict):
            raise InvalidArgument(
                f"the input for model {model!r} is a {type(x).__qualname__}, expected a numpy.ndarray or a dict of them"
            )
        lengths = {
            name: array.shape[0] if isinstance(array, np.ndarray) and array.ndim else 0
            for name, array in arrays.items()
        }
        rows = next(iter(lengths.values()), 0)
        if not rows or any(length != rows for length in lengths.values()):
            raise InvalidArgument(
                f"the leading axes of the inputs are {lengths}, expected one number of rows, 1 or more, for all"
            )
        card = self.machine.codec.card(model, version)
        step = min(rows, card[1] if card else 32)
        cuts = [(at, min(at + step, rows)) for at in range(done, rows, step)] if card or done else [(0, 1)]
        if isinstance(x, np.ndarray):
            return [(x[low:high], high - low) for low, high in cuts]
        return [({name: array[low:high] for name, array in arrays.items()}, high - low) for low, high in cuts]

    @staticmethod
    def join(pieces: list[Output]) -> Output:
        """Puts the results of the pieces together again along the leading axis."""
        first = pieces[0]
        if len(pieces) == 1:
            return first
        if isinstance(first, np.ndarray):
            arrays: list[Array] = [piece for piece in pieces if isinstance(piece, np.ndarray)]
            return np.concatenate(arrays)
        dicts: list[Arrays] = [piece for piece in pieces if isinstance(piece, dict)]
        return {name: np.concatenate([piece[name] for piece in dicts]) for name in first}


_OPEN: weakref.WeakSet[Connection] = weakref.WeakSet()


def _after_fork() -> None:
    for connection in list(_OPEN):
        connection.forbid()


os.register_at_fork(after_in_child=_after_fork)


def key_bytes(key: str | bytes | None) -> bytes | None:
    """Returns a routing key as it travels; raises `InvalidArgument` for one that is too long or no text."""
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


def check_call(deadline_s: float | None, priority: int, default_s: float) -> float:
    """Returns the call's time limit; raises `InvalidArgument` for a limit or priority out of range."""
    if type(priority) is not int or not 1 <= priority <= PRIORITIES:
        raise InvalidArgument(f"priority is {priority!r}, expected 1, the most urgent, to {PRIORITIES}")
    if deadline_s is None:
        return default_s
    if not isinstance(deadline_s, int | float) or not 0 < deadline_s <= MAX_DEADLINE_S:
        raise InvalidArgument(f"deadline_s is {deadline_s!r}, expected more than 0 and at most {MAX_DEADLINE_S:g}")
    return deadline_s
