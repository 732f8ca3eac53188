"""The simulator finds bugs that are planted: five of them, others with each change of the code.

`python -m tests.sim.planted` tries all of them.
"""

from __future__ import annotations

import zlib

import pytest

from tests.sim.planted import PATCHES, ROOT, found_after, last_seen, plant

# By the code, so that one commit always tries the same ones.
_DRAWN = sum(zlib.crc32(path.read_bytes()) for path in sorted((ROOT / "zmqinfer" / "machine").rglob("*.py")))
_FIVE = [PATCHES[(_DRAWN * 5 + place) % len(PATCHES)] for place in range(5)]


@pytest.mark.parametrize("name", _FIVE)
def test_planted_bug_is_found(name: str) -> None:
    """Within 2,000 schedules."""
    assert found_after(name, first=last_seen(name))


def test_there_are_twenty_that_fit() -> None:
    """A change of the machines may need one of the patches."""
    assert len(PATCHES) >= 20
    for name in PATCHES:
        plant(name, str(ROOT), "--check")
