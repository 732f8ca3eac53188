"""What every backend is to the worker's engine: one small class with four methods.

    load()         once, before the first batch; slow things belong here, not in the constructor
    signature      what callers send and get; may be asked only after load()
    infer(batch)   arrays by name to arrays by name, over the batch axis, which is axis 0
    close()        once, after the last batch; not when load() failed

All of them are called on one thread, the model's own, because many libraries bind what they open to the thread
that opened it. Backends know nothing of requests, sockets or clocks, and import nothing but the vocabulary; heavy
libraries are imported inside load().

Two hooks handle one item, where what travels is not what the model computes with: one OCR
answer is 3 MB of logits, but 1.3 KB of text. The signature is what callers see, so an item
is checked against it before `before` and after `after`; both get and give one row without
the batch axis, and run on the engine's thread.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Protocol, TypeAlias

from zmqinfer.errors import ConfigError
from zmqinfer.origin import origin, told
from zmqinfer.signature import Signature
from zmqinfer.tensor import Array, Arrays

__all__ = ["Backend", "BadAnswer", "ItemHook", "loading"]

ItemHook: TypeAlias = Callable[[Arrays], Mapping[str, Array]]


class BadAnswer(Exception):
    """A model ran and gave something else than it declared; running it again in halves would not mend that."""


class Backend(Protocol):
    """Runs batches of one model."""

    @property
    def signature(self) -> Signature:
        """What callers send and get, one row at a time."""

    @property
    def before(self) -> ItemHook | None:
        """Turns one item as it came into one row of the batch, or None: they are the same."""

    @property
    def after(self) -> ItemHook | None:
        """Turns one row of the result into one answer, or None: they are the same."""

    def load(self) -> None:
        """Gets ready for the first batch.

        Raises:
            ConfigError: the model's files or settings are wrong; one sentence that names them.
        """

    def infer(self, batch: Arrays) -> Mapping[str, Array]:
        """Runs one batch: n rows of every input to n rows of every output.

        May raise anything: the engine answers for it. Whether the result has n rows of the declared
        dtypes and shapes is checked by the engine too, for all backends alike.
        """

    def close(self) -> None:
        """Gives back what load() took."""


@contextlib.contextmanager
def loading(what: str) -> Iterator[None]:
    """Makes one sentence, a `ConfigError`, of whatever a model's code raises while it is loaded.

    A module without a `__main__` guard may call sys.exit(), and others raise KeyboardInterrupt; a real Ctrl-C reaches
    the main thread, and models are loaded on threads of their own.

    Args:
        what: is loaded, and where that is written.
    """
    try:
        yield
    except ConfigError:
        raise
    except BaseException as cause:
        at = origin(cause)
        words = " ".join(told(cause).split())
        raise ConfigError(f"{what} raised while loading: {words}{f' ({at})' if at else ''}") from cause
