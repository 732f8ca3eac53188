"""What a batch costs: `time = a + b * rows`, measured as it runs.

Two numbers say what batching gains for a model: `a` is what a batch shares, `b` what each row
adds. They are fitted by least squares over the recent batches, and serve batching, credits and
deadlines. On a CPU many models have next to no `a`; that is why the curve is measured.
"""

from __future__ import annotations

__all__ = ["Curve", "Rate"]

# Each new batch takes this off the weight of all older ones: some 50 batches are remembered.
_FORGET = 0.98


class Curve:
    """The fitted cost of a batch, in seconds; both coefficients are 0 or more."""

    __slots__ = ("_n", "_nn", "_nt", "_t", "_w", "a_s", "b_s", "batches")

    def __init__(self) -> None:
        self._w = self._n = self._t = self._nn = self._nt = 0.0
        self.a_s = 0.0
        self.b_s = 0.0
        self.batches = 0

    def learn(self, rows: int, seconds: float) -> None:
        """Takes in one batch that ran."""
        self.batches += 1
        self._w = self._w * _FORGET + 1.0
        self._n = self._n * _FORGET + rows
        self._t = self._t * _FORGET + seconds
        self._nn = self._nn * _FORGET + rows * rows
        self._nt = self._nt * _FORGET + rows * seconds
        mean_n, mean_t = self._n / self._w, self._t / self._w
        variance = self._nn / self._w - mean_n * mean_n
        covariance = self._nt / self._w - mean_n * mean_t
        # All batches of one size say nothing of the slope: take the time as fixed, which is
        # right for that size and promises too much gain for no other decision than waiting.
        slope = covariance / variance if variance > 1e-9 else 0.0
        self.b_s = min(max(slope, 0.0), mean_t / mean_n)
        self.a_s = max(mean_t - self.b_s * mean_n, 0.0)

    def predict(self, rows: int) -> float:
        """Returns the expected time of a batch of `rows`, 0 before the first batch."""
        return self.a_s + self.b_s * rows


class Rate:
    """How many rows a second arrive, over the last tenths of a second."""

    __slots__ = ("_rows", "_since", "rows_per_s")

    WINDOW_S = 0.1

    def __init__(self) -> None:
        self._rows = 0
        self._since = 0.0
        self.rows_per_s = 0.0

    def count(self, rows: int, now: float) -> None:
        """Takes in `rows` that arrived at `now`."""
        elapsed = now - self._since
        if elapsed >= self.WINDOW_S:
            # A quiet spell is a rate too: the rows of the last window over all the time since it began.
            self.rows_per_s = self._rows / elapsed
            self._rows = 0
            self._since = now
        self._rows += rows
