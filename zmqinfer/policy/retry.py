"""Whether, and when, a client asks again after it was refused.

Every repeat of an overloaded cluster makes it more overloaded. So a client repeats a call at most twice, after
a pause of random length whose bound doubles, and only while its *budget* lasts: a tenth of its first attempts
and three a second besides. Then a cluster that refuses everything gets 1.1 times the calls, not three times
(the budgets of Finagle and Envoy; the pauses are the "full jitter" of Brooker's study, AWS 2015).
"""

from __future__ import annotations

from xxhash import xxh3_64_intdigest

__all__ = ["MAX_ATTEMPTS", "RetryBudget", "pause_s"]

MAX_ATTEMPTS = 3
# This part of the first attempts may be repeated, and so many a second besides; what was not used keeps for a while.
_SHARE = 0.1
_PER_S = 3.0
_KEPT_S = 10.0
_MOST_SAVED = 1_000.0
_FIRST_PAUSE_S = 0.05
_LONGEST_PAUSE_S = 1.0


class RetryBudget:
    """How many calls a client may still repeat."""

    __slots__ = ("_earned", "_granted", "_looked_at")

    def __init__(self, now: float) -> None:
        self._earned = 0.0
        self._granted = _PER_S * _KEPT_S
        self._looked_at = now

    def earn(self, calls: int) -> None:
        """Notes first attempts."""
        self._earned = min(self._earned + _SHARE * calls, _MOST_SAVED)

    def spend(self, calls: int, now: float) -> bool:
        """Takes the right to repeat so many calls, or returns False if there is not enough of it."""
        self._granted = min(self._granted + _PER_S * (now - self._looked_at), _PER_S * _KEPT_S)
        self._looked_at = now
        if calls > self._earned + self._granted:
            return False
        from_earned = min(self._earned, calls)
        self._earned -= from_earned
        self._granted -= calls - from_earned
        return True


def pause_s(request_id: bytes, attempt: int, retry_after_ms: int | None) -> float:
    """Returns how long to wait before a call is repeated, in seconds.

    Args:
        request_id: of the call; what the pauses of different calls have in common is nothing.
        attempt: that was refused, from 1.
        retry_after_ms: the least pause, if the one who refused named any; jitter of half of it comes on top.
    """
    jitter: float = xxh3_64_intdigest(request_id, attempt) / 2**64
    if retry_after_ms is not None:
        return retry_after_ms / 1000 * (1 + jitter / 2)
    return min(_FIRST_PAUSE_S * 2.0 ** (attempt - 1), _LONGEST_PAUSE_S) * jitter
