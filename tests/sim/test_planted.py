"""The simulator finds bugs that are planted: five of them, others each day; all by `python -m tests.sim.planted`."""

from __future__ import annotations

import datetime as dt

import pytest

from tests.sim.planted import PATCHES, ROOT, found_after, last_seen, plant

_FIVE = [PATCHES[(dt.date.today().toordinal() * 5 + place) % len(PATCHES)] for place in range(5)]  # noqa: DTZ011


@pytest.mark.parametrize("name", _FIVE)
def test_planted_bug_is_found(name: str) -> None:
    """Within 2,000 schedules."""
    assert found_after(name, first=last_seen(name))


def test_there_are_twenty_that_fit() -> None:
    """A change of the machines may need one of the patches."""
    assert len(PATCHES) >= 20
    for name in PATCHES:
        plant(name, str(ROOT), "--check")
