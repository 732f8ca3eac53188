"""The model whose batches take a known time."""  # noqa: INP001 - a model folder is no package

import random
import time

from zmqinfer.tensor import Arrays

__all__ = ["Sleep"]


class Sleep:
    """Gives `x` back as `y` after `a_ms + b_ms * rows` milliseconds.

    One of `stall_every` batches, on average, takes `stall_ms` more.
    Sleeping releases the interpreter's lock, as waiting for an accelerator does.
    """

    def __init__(self, a_ms: float = 10, b_ms: float = 0, stall_every: int = 0, stall_ms: float = 0) -> None:
        for name, value in (("a_ms", a_ms), ("b_ms", b_ms), ("stall_ms", stall_ms)):
            if not 0 <= value <= 3_600_000:
                raise ValueError(f"{name} is {value}, expected 0 to 3,600,000 ms")
        self._a_ms = a_ms
        self._b_ms = b_ms
        self._stall_every = stall_every
        self._stall_ms = stall_ms

    def infer(self, batch: Arrays) -> Arrays:
        """Sleeps once for the whole batch."""
        x = batch["x"]
        stalls = self._stall_every and not random.randrange(self._stall_every)  # noqa: S311
        time.sleep((self._a_ms + self._b_ms * len(x) + (self._stall_ms if stalls else 0)) / 1000)
        return {"y": x}
