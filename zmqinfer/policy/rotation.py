"""Which holders of one model get work, by how they did of late.

A holder is *out* for a while when it is much worse than the others: when most of its calls fail and most of theirs do
not, or when its batches take three times as long. It comes back *on trial*, with one call at a time, and gets its full
part after three that were in order. Each time it is out longer.

Worse than the others, not bad: what all of them do alike is no fault of one. And never more than half of them are out:
a cluster in which many fail is not helped by giving all the work to the rest.

The mechanism is that of Envoy's outlier detection (success rate and its ejection times) with a circuit breaker's
half-open state.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from xxhash import xxh3_64_intdigest

__all__ = ["Rotation", "Standing", "Work"]

# What one look adds weighs so much at the next one: of looks that are half a second apart the last two count most.
_FORGET = 0.8
# Fewer calls, or batches, say nothing.
_LEAST_CALLS = 10.0
_LEAST_BATCHES = 5.0
# This part of a holder's calls, when the others' part is less than half of it.
_FAILING = 0.5
# So many times the others' median, for a batch and for a row of it: a slow holder has larger batches, which are
# longer but cheaper by the row.
_SLOW = 3.0
# Nobody is out for less: on busy cores a batch of a tenth of a millisecond is easily three times as long.
_SLOW_BY_S = 0.005
_TRIAL_CALLS = 3.0
_OUT_S, _MOST_OUT_S = 5.0, 60.0
# The time out varies by this part of it, to either side: holders that failed together do not come back together.
_JITTER = 0.25
# In for so long, a holder's earlier times out are forgotten.
_FORGIVEN_S = 60.0


class Standing(enum.StrEnum):
    """What a holder gets."""

    IN = "in"
    OUT = "out"
    TRIAL = "trial"


class Work(NamedTuple):
    """What a holder did since it came, in sums that only grow: the last three are of batches that gave results."""

    calls: int = 0
    failed: int = 0
    batches: float = 0.0
    rows: int = 0
    busy_s: float = 0.0


class _Recent:
    """One holder: its standing, and its work of late."""

    __slots__ = ("batches", "busy_s", "calls", "failed", "rows", "since", "standing", "times", "total", "until")

    def __init__(self, total: Work, now: float) -> None:
        self.total = total
        self.standing = Standing.IN
        # When the standing began and, out, when it ends.
        self.since = self.until = now
        self.times = 0
        self.forget()

    def forget(self) -> None:
        self.calls = self.failed = self.batches = self.rows = self.busy_s = 0.0

    def add(self, total: Work) -> None:
        before = self.total
        self.total = total
        # On trial everything counts in full: that is little.
        kept = _FORGET if self.standing is Standing.IN else 1.0
        self.calls = kept * self.calls + total.calls - before.calls
        self.failed = kept * self.failed + total.failed - before.failed
        self.batches = kept * self.batches + total.batches - before.batches
        self.rows = kept * self.rows + total.rows - before.rows
        self.busy_s = kept * self.busy_s + total.busy_s - before.busy_s

    @property
    def failing(self) -> float:
        return self.failed / self.calls if self.calls else 0.0

    @property
    def batch_s(self) -> float:
        return self.busy_s / self.batches

    @property
    def row_s(self) -> float:
        return self.busy_s / max(self.rows, 1.0)

    @property
    def has_calls(self) -> bool:
        return self.calls >= _LEAST_CALLS

    @property
    def has_batches(self) -> bool:
        return self.batches >= _LEAST_BATCHES


class _Medians:
    """What the holders that are in do alike; sorted once, for a look compares each of them with all others."""

    __slots__ = ("batch_s", "failing", "row_s")

    def __init__(self, recents: Iterable[_Recent]) -> None:
        recents = [recent for recent in recents if recent.standing is Standing.IN]
        with_batches = [recent for recent in recents if recent.has_batches]
        self.failing = sorted(recent.failing for recent in recents if recent.has_calls)
        self.batch_s = sorted(recent.batch_s for recent in with_batches)
        self.row_s = sorted(recent.row_s for recent in with_batches)

    def drop(self, recent: _Recent) -> None:
        """Leaves a holder out from now on, before it gets another standing."""
        if recent.standing is not Standing.IN:
            return
        if recent.has_calls:
            del self.failing[bisect_left(self.failing, recent.failing)]
        if recent.has_batches:
            del self.batch_s[bisect_left(self.batch_s, recent.batch_s)]
            del self.row_s[bisect_left(self.row_s, recent.row_s)]


def _median(figures: list[float], but: float | None) -> float | None:
    """Returns the median of sorted figures without one of them, None of nothing."""
    count = len(figures) - (but is not None)
    if count == 0:
        return None
    left_out = len(figures) if but is None else bisect_left(figures, but)

    def at(i: int) -> float:
        return figures[i + (i >= left_out)]

    return (at((count - 1) // 2) + at(count // 2)) / 2


class Rotation:
    """The standings of one model's holders."""

    __slots__ = ("_recent",)

    def __init__(self) -> None:
        self._recent: dict[str, _Recent] = {}

    def standing(self, name: str) -> Standing:
        """Returns what a holder gets; one that was never looked at is in."""
        recent = self._recent.get(name)
        return Standing.IN if recent is None else recent.standing

    def forget(self, name: str) -> None:
        """Drops a holder's record, as for a new one of its name: what that does is counted from nothing."""
        self._recent.pop(name, None)

    def look(self, works: Mapping[str, Work], idle: Iterable[str], now: float) -> list[tuple[str, Standing, str]]:
        """Compares all holders; to be called every half second or so.

        Args:
            works: of all holders there are, since they came. A holder that is missing is forgotten.
            idle: those that get nothing now for other reasons, which count among those that are not in.
            now: in seconds.

        Returns:
            whose standing has changed, to what, and why, in words.
        """
        recents = self._recent
        for name in [name for name in recents if name not in works]:
            del recents[name]
        for name, total in works.items():
            recent = recents.get(name)
            if recent is None:
                recents[name] = _Recent(total, now)
            else:
                recent.add(total)
        if len(recents) < 2:  # nobody to be compared with; the last one that was out is as good as any
            return [self._set(name, Standing.IN, now, "it is alone") for name in recents if self._is_out(name)]
        changed: list[tuple[str, Standing, str]] = []
        idle = {*idle}
        absent = {*idle, *(name for name in recents if self._is_out(name, or_on_trial=False))}
        if len(absent) == len(recents):
            # With nobody else to give work to, a bad one is better than none.
            back = [name for name in recents if self._is_out(name, or_on_trial=False) and name not in idle]
            return [self._set(name, Standing.IN, now, "the others are stuck or out") for name in back]
        medians = _Medians(recents.values())
        for name, recent in recents.items():
            if recent.standing is Standing.OUT:
                if now >= recent.until:
                    absent.discard(name)
                    changed.append(self._set(name, Standing.TRIAL, now, "its time out is over"))
                continue
            if recent.standing is Standing.TRIAL and recent.calls < _TRIAL_CALLS:
                continue
            fault = _fault(recent, medians)
            if fault and (name in absent or 2 * (len(absent) + 1) <= len(recents)):
                absent.add(name)
                medians.drop(recent)
                changed.append(self._put_out(name, now, fault))
            elif recent.standing is Standing.TRIAL and not fault:
                changed.append(self._set(name, Standing.IN, now, "it did well on trial"))
            elif recent.times and now - recent.since > _FORGIVEN_S:
                recent.times = 0
        return changed

    def _is_out(self, name: str, *, or_on_trial: bool = True) -> bool:
        standing = self._recent[name].standing
        return standing is Standing.OUT or (or_on_trial and standing is Standing.TRIAL)

    def _put_out(self, name: str, now: float, fault: str) -> tuple[str, Standing, str]:
        recent = self._recent[name]
        recent.times += 1
        # Drawn from what it is, so that the same story always ends the same way.
        drawn = xxh3_64_intdigest(f"{name} {recent.times}".encode()) / 2**64
        out_s = min(_OUT_S * recent.times, _MOST_OUT_S) * (1 + _JITTER * (2 * drawn - 1))
        recent.until = now + out_s
        return self._set(name, Standing.OUT, now, f"{fault}; out for {out_s:.1f} s")

    def _set(self, name: str, standing: Standing, now: float, why: str) -> tuple[str, Standing, str]:
        recent = self._recent[name]
        recent.standing = standing
        recent.since = now
        recent.forget()
        return name, standing, why


def _fault(recent: _Recent, others: _Medians) -> str:
    """Returns what is wrong with a holder that is in or on trial, beside the others; or nothing."""
    is_in = recent.standing is Standing.IN
    if (recent.has_calls if is_in else recent.calls) and recent.failing >= _FAILING:
        failing = _median(others.failing, recent.failing if is_in else None)
        if failing is not None and failing < recent.failing / 2:
            return f"{recent.failing:.0%} of its calls failed, {failing:.0%} of the others'"
    if recent.has_batches if is_in else recent.batches >= 1:
        batch_s = _median(others.batch_s, recent.batch_s if is_in else None)
        row_s = _median(others.row_s, recent.row_s if is_in else None)
        if batch_s is None or row_s is None:
            return ""
        if recent.batch_s > max(_SLOW * batch_s, batch_s + _SLOW_BY_S) and recent.row_s > _SLOW * row_s:
            return f"its batches take {recent.batch_s * 1e3:.1f} ms, the others' {batch_s * 1e3:.1f} ms"
    return ""
