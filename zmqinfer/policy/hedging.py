"""When a second worker is asked for what the first has not answered yet.

After the time within which 95 % of the last thousand requests were answered, so that one in twenty is hedged and no
more (Dean and Barroso, "The Tail at Scale", 2013). A budget holds that down when all become slow at once, and above
80 % load nothing is hedged: more work then makes everything slower.
"""

from __future__ import annotations

from collections import deque

from zmqinfer.policy.curve import Curve

__all__ = ["Hedging"]

_QUANTILE = 0.95
_REMEMBERED = 1_000
# Fewer answers say nothing of a tail, and after so many more it is reckoned anew.
_LEAST = 100
_RENEWED_AFTER = 50
_BUDGET = 0.05
# So many calls of the budget may be saved for a stall, which hits a whole batch at once.
_MOST_SAVED = 64.0
_MOST_LOAD = 0.8


class Hedging:
    """The times of one model's answers, and what may still be spent on hedging.

    Attributes:
        load: of what its workers could do with full batches, from 0 to 1. With smaller ones they are as busy.
    """

    __slots__ = ("_budget", "_curve", "_delay_s", "_times", "_untold", "load")

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self._untold = 0
        self._delay_s: float | None = None
        self._budget = 0.0
        self._curve = Curve()
        self.load = 0.0

    def learn(self, seconds: float, calls: int, batch_rows: int, batch_s: float) -> None:
        """Notes that a request of so many calls was answered, after how long, and what its batch took."""
        if batch_rows:
            self._curve.learn(batch_rows, batch_s)
        self._times.append(seconds)
        self._untold += 1
        self._budget = min(self._budget + _BUDGET * calls, _MOST_SAVED)
        if len(self._times) >= _LEAST and (self._delay_s is None or self._untold >= _RENEWED_AFTER):
            self._untold = 0
            self._delay_s = sorted(self._times)[int(_QUANTILE * len(self._times))]

    def delay_s(self) -> float | None:
        """Returns after how long a second worker should be asked, None while that is not known."""
        return self._delay_s

    def look(self, rows_per_s: float, max_rows: int) -> None:
        """Takes the rate of one worker, and how many rows a batch of the model may have."""
        self.load = rows_per_s * self._curve.predict(max_rows) / max_rows

    def spend(self, calls: int) -> bool:
        """Takes the right to ask again for so many calls; False if there is none."""
        if self.load > _MOST_LOAD or calls > self._budget:
            return False
        self._budget -= calls
        return True
