"""File descriptors: how many this process may have, and whether there are enough before libzmq needs them.

libzmq ends the process (`abort`) when it finds none for what a context is made of, which no `except` sees.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import sys
from typing import Final

from zmqinfer.errors import ConfigError

__all__ = ["check_room", "has_room", "limit", "lowest_free", "open_now", "raise_limit"]

# As much as any process of ours could use; and what macOS allows where its hard limit is none at all.
_ENOUGH: Final = 2**20
_OFTEN_ALLOWED: Final = 10_240
# What is open of a client with its one connection is 12, of a gateway 18; and other threads open files meanwhile.
_NEEDED: Final = 32
_NEEDED_BY_A_LINK: Final = 2


def limit() -> int:
    """Returns how many descriptors this process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def raise_limit() -> None:
    """Takes what the system grants: the soft limit, often 1,024, is for programs that use `select`.

    For processes that we start; a library leaves its user's alone.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = _ENOUGH if hard == resource.RLIM_INFINITY else min(hard, _ENOUGH)
    for wanted in (most, _OFTEN_ALLOWED):
        if soft == resource.RLIM_INFINITY or soft >= wanted:
            return
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return


def lowest_free() -> int:
    """Returns the number that the next descriptor gets, so all below it are taken; the limit if there is none."""
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY)
    except OSError as cause:
        if cause.errno not in {errno.EMFILE, errno.ENFILE}:
            raise
        return limit()
    os.close(descriptor)
    return descriptor


def open_now() -> int:
    """Returns how many descriptors are open; 0 if the system does not tell. Takes 0.5 ms with a thousand."""
    try:
        with os.scandir("/dev/fd") as entries:
            return sum(1 for _ in entries) - 1
    except OSError as cause:
        return limit() if cause.errno in {errno.EMFILE, errno.ENFILE} else 0


def check_room(links: int = 0) -> None:
    """Raises `ConfigError` if a node that dials so many gateways might not get its descriptors."""
    needed = _NEEDED + _NEEDED_BY_A_LINK * links
    taken, most = open_now(), limit()
    if taken + needed > most:
        raise ConfigError(
            f"{taken} of {most} file descriptors are open, expected {needed} to be free for ZeroMQ's sockets;"
            f" close what is not needed, or raise the limit: ulimit -n {max(2 * most, taken + needed)}"
        )


def has_room() -> bool:
    """Whether there are enough for a context."""
    return open_now() + _NEEDED <= limit()
