"""The simulator finds bugs that are planted: three of those that show soon, others with each change of the code.

`python -m tests.sim.planted` tries all of them, for as long as the rare ones take.
"""

from __future__ import annotations

import zlib

import pytest

from tests.sim.planted import PATCHES, ROOT, SOON, found_after, is_common, plant

# By the code, so that one commit always tries the same ones.
_DRAWN = sum(zlib.crc32(path.read_bytes()) for path in sorted((ROOT / "zmqinfer" / "machine").rglob("*.py")))
_COMMON = [name for name in PATCHES if is_common(name)]
_THREE = [_COMMON[(_DRAWN * 3 + place) % len(_COMMON)] for place in range(3)]


@pytest.mark.parametrize("name", _THREE)
def test_planted_bug_is_found(name: str) -> None:
    """Within 64 schedules; one that takes more by now needs its seed written into its patch."""
    assert found_after(name, SOON)


def test_there_are_twenty_that_fit() -> None:
    """A change of the machines may need one of the patches."""
    assert len(PATCHES) >= 20
    for name in PATCHES:
        plant(name, str(ROOT), "--check")
