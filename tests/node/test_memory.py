"""What a process does with memory that it has freed."""

from __future__ import annotations

import subprocess
import sys

import pytest

# 100 MB in pieces of 4 KB, of which every 64th stays, so that what is free lies in the midst of the heap.
PEAK = """
import sys, time
from zmqinfer.node import memory

def resident_mb():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4_096 / 1e6

memory._GIVEN_BACK_EVERY_S = float(sys.argv[1])
memory.keep_freed_memory()
before = resident_mb()
peak = [bytes(4_000) for _ in range(25_000)]
kept = peak[::64]
del peak
after = resident_mb()
time.sleep(1.0)
print(before, after, resident_mb())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other allocators")
@pytest.mark.parametrize(("every_s", "goes_back"), [(0.3, True), (60.0, False)])
def test_what_a_peak_left_free_goes_back(every_s: float, goes_back: bool) -> None:
    """Now and then, for until then it is at hand."""
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(every_s)], capture_output=True, text=True, timeout=60, check=True
    )

    before, after, later = map(float, done.stdout.split())
    assert after - before > 80
    assert (later - before < 30) is goes_back
