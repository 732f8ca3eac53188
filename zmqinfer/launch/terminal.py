"""What SIGHUP asks for: new processes, or an end because the terminal has gone.

Operators send it for the first, the kernel or a shell when a terminal is closed. The signal does not say which, but
what becomes of the terminal does: it goes at about the same time, or it stays, or there was none.
"""

from __future__ import annotations

import errno
import os
from enum import Enum

__all__ = ["WINDOW_S", "Hangup", "Wish", "has_terminal"]

# Shells pass the signal on before they end, and the terminal goes with them.
WINDOW_S = 1.0
_GONE = {errno.ENXIO, errno.EIO, errno.ENODEV, errno.ENOENT}


class Wish(Enum):
    """What SIGHUP asks for."""

    NOTHING = "nothing"
    RENEW = "renew"
    END = "end"


class Hangup:
    """Decides what SIGHUP asks for. Pure.

    A program that outlived its terminal, as one that its shell has disowned, is as one that had none.

    Args:
        has_terminal: whether there is one at the start.
    """

    def __init__(self, *, has_terminal: bool) -> None:
        self._has_terminal = has_terminal
        self._gone_at = float("-inf")
        self._asked_at: float | None = None

    def look(self, now: float, *, has_terminal: bool, is_asked: bool) -> Wish:
        """Says what to do now; to be called several times a second.

        Args:
            now: in seconds.
            has_terminal: whether there is one now.
            is_asked: whether SIGHUP came since the last call.
        """
        if self._has_terminal and not has_terminal:
            self._gone_at = now
        self._has_terminal = has_terminal
        if is_asked:
            self._asked_at = now
        if self._asked_at is None:
            return Wish.NOTHING
        if now - self._gone_at <= WINDOW_S:
            return Wish.END
        if has_terminal and now - self._asked_at < WINDOW_S:
            return Wish.NOTHING
        self._asked_at = None
        return Wish.RENEW


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, as far as the system says."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK))
    except OSError as error:
        # Without a descriptor to spare, for one, the terminal is not known to have gone.
        return error.errno not in _GONE
    return True
