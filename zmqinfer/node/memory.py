"""How a node's process treats memory that it has freed."""

from __future__ import annotations

import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable

__all__ = ["keep_freed_memory"]

# glibc's numbers for `mallopt`, and what is asked for.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8
_KEPT_BYTES = 64 * 2**20
_MAPPED_ABOVE_BYTES = 32 * 2**20
# What a peak left behind is kept for so long at most.
_GIVEN_BACK_EVERY_S = 60.0


def keep_freed_memory() -> None:
    """Lets the C library keep up to 64 MiB at hand, where it would give freed messages back to the system.

    A message of 602 KB else costs a gateway some 40 page faults and a worker as many: with 50 in flight 0.87 of
    the requests a second. All threads share one heap, or the thread that relieves a worker's loop fills a second one
    with answers, 66 MiB that stay; whoever sets MALLOC_ARENA_MAX decides that himself. Once a minute what is free goes
    back all the same, because peaks made a process larger with every hour: 4 ms for 40 MB of it, 0.2 for none.

    For processes that we start; does nothing where the library has no such switch.
    """
    if sys.platform != "linux":
        return
    library = ctypes.CDLL(None)
    mallopt, trim = (getattr(library, name, None) for name in ("mallopt", "malloc_trim"))
    if mallopt is not None and trim is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_ABOVE_BYTES)
        if "MALLOC_ARENA_MAX" not in os.environ:
            mallopt(_M_ARENA_MAX, 1)
        threading.Thread(target=_give_back, args=(trim,), name="memory", daemon=True).start()


def _give_back(trim: Callable[[int], int]) -> None:
    while True:
        time.sleep(_GIVEN_BACK_EVERY_S)
        trim(0)
