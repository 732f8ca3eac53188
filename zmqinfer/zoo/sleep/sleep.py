"""The model whose batches take a known time."""  # noqa: INP001 - a model folder is no package

import random
import time

from zmqinfer.tensor import Arrays

__all__ = ["Sleep"]


class Sleep:
    """Gives `x` back as `y` after `a_ms + b_ms * rows` milliseconds.

    The times vary by the part `noise` to either side, and one of `stall_every` batches takes `stall_ms` more.
    Sleeping releases the interpreter's lock, as waiting for an accelerator does.
    """

    def __init__(
        self, a_ms: float = 10, b_ms: float = 0, noise: float = 0, stall_every: int = 0, stall_ms: float = 0
    ) -> None:
        for name, value in (("a_ms", a_ms), ("b_ms", b_ms), ("stall_ms", stall_ms)):
            if not 0 <= value <= 3_600_000:
                raise ValueError(f"{name} is {value}, expected 0 to 3,600,000 ms")
        if not 0 <= noise < 1:
            raise ValueError(f"noise is {noise}, expected 0 to less than 1")
        self._a_ms = a_ms
        self._b_ms = b_ms
        self._noise = noise
        self._stall_every = stall_every
        self._stall_ms = stall_ms
        self._random = random.Random()  # noqa: S311 - nobody's secret

    def infer(self, batch: Arrays) -> Arrays:
        """Sleeps once for the whole batch."""
        x = batch["x"]
        ms = (self._a_ms + self._b_ms * len(x)) * self._random.uniform(1 - self._noise, 1 + self._noise)
        if self._stall_every and not self._random.randrange(self._stall_every):
            ms += self._stall_ms
        time.sleep(ms / 1000)
        return {"y": x}
