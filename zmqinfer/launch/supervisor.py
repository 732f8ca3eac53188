"""Children that are restarted when they die.

For `zmqinfer up`. Restarting is owned by exactly one party: here it is this one. A child that was ready and exits
with 0 was drained and stays down; one that dies comes back after a back-off of 0.5 to 30 s. If it has ever been ready
it does so for ever: it may have died of what it was asked, or miss a file that will be there again, and neither shall
end the others. One that has not is given up, and all others with it, when it is wrongly configured (exit code 2), or
has died five times within a minute. A child that gives no sign of life for a while hangs, and is killed.

Children that are to be renewed are drained and started again one after another, each when the one before is ready.
When the new process of one ends instead, or is ready with fewer models than the old one, no further one is renewed.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence

from zmqinfer.launch.child import Child
from zmqinfer.node.report import Report

__all__ = ["Supervisor"]

MAX_DEATHS = 5
DEATHS_WITHIN_S = 60.0
BACKOFF_S = 0.5
MAX_BACKOFF_S = 30.0
HANG_S = 10.0
_LOOK_S = 0.05
# A supervisor that did not look for so long was stopped itself.
_AWAY_S = 1.0
# Exit codes, a child's or ours.
_USAGE = 2
_CRASH_LOOP = 4


class Supervisor:
    """Keeps children running until it is told to stop, or gives up.

    Args:
        hang_s: a child that was silent for so long is killed, in seconds; 0: none is.

    Attributes:
        gave_up: why, or empty.
        exit_code: of a process that ends for that reason.
    """

    def __init__(self, children: Sequence[Child], hang_s: float = HANG_S) -> None:
        self.children = list(children)
        self.gave_up = ""
        self.exit_code = 0
        self._hang_s = hang_s or float("inf")
        self._looked_at = 0.0
        self._to_renew: deque[Child] = deque()
        # The first of those while it is drained or started, whether its old process served all models, and whether its
        # new one has been started.
        self._renewed: Child | None = None
        self._was_whole = True
        self._is_new = False
        self._report = Report("up")

    def renew(self) -> None:
        """Drains all children and starts them again, one after another, in the course of the next looks."""
        self._to_renew = deque(child for child in self.children if not child.is_done)
        self._report.info("restarting one after another", children=len(self._to_renew))

    def tend(self, now: float) -> None:
        """Looks after every child once: notices deaths and silence, restarts what is due."""
        was_away = now - self._looked_at > _AWAY_S
        self._looked_at = now
        for child in self.children:
            child.listen(now)
            if was_away and child.ear is not None:
                child.ear.forgive(now)
        self._go_on_renewing(now)
        for child in self.children:
            if child.is_done:
                continue
            if child.restart_at is not None:
                if now >= child.restart_at:
                    self._start(child)
            elif child.code is not None:
                self._on_exit(child, child.code, now)
        self._kill_hanging(self.children, now)

    def _start(self, child: Child) -> None:
        child.start()
        if child.process is not None:
            self._report.info("restarted", child=child.name, pid=child.process.pid)

    def _kill_hanging(self, children: Iterable[Child], now: float) -> None:
        for child in children:
            if child.ear is None or child.process is None or not child.pid:
                continue
            child.listen(now)
            silent_s = child.ear.silent_for(now)
            if silent_s > self._hang_s:
                self._report.warning("hangs, killed", child=child.name, silent_s=round(silent_s, 1))
                child.process.kill()
                child.ear.forgive(now)

    def _go_on_renewing(self, now: float) -> None:
        child = self._renewed
        if child is not None:
            if not child.is_done and not (self._is_new and child.is_ready):
                return
            if self._was_whole and not child.is_whole:
                self._stop_renewing({"child": child.name, "why": "it no longer serves all models, see its errors"})
                return
            self._renewed = None
            if not self._to_renew:
                self._report.info("restarted all")
        if not self._to_renew:
            return
        child = self._renewed = self._to_renew.popleft()
        self._was_whole = child.is_whole
        # One that is down is not to wait any longer: whoever renews has perhaps mended what it died of.
        self._is_new = child.restart_at is not None
        if self._is_new:
            child.deaths.clear()
            child.restart_at = now
        child.end()

    def _stop_renewing(self, told: dict[str, object]) -> None:
        self._report.error(
            "rolling restart stopped, the others go on as before; mend the cause and send SIGHUP again",
            **told,
            not_restarted=",".join(child.name for child in self._to_renew),
        )
        self._renewed = None
        self._to_renew.clear()

    def _on_exit(self, child: Child, code: int, now: float) -> None:
        child.listen(now)
        if child is self._renewed and not self._is_new:
            # However it ended: that was asked of it.
            self._is_new = True
            self._start(child)
            return
        if code == 0 and child.ear is not None and child.ear.is_ready:
            child.is_done = True
            self._report.info("drained, not restarted", child=child.name)
            return
        child.deaths.append(now)
        while now - child.deaths[0] > DEATHS_WITHIN_S:
            child.deaths.popleft()
        if not child.was_ready and self._is_hopeless(child, code):
            return
        wait_s = min(BACKOFF_S * 2 ** (len(child.deaths) - 1), MAX_BACKOFF_S)
        child.restart_at = now + wait_s
        told = {"child": child.name, "why": child.why, "restart_in_s": wait_s}
        if child is self._renewed:
            self._stop_renewing(told)
        elif code == _USAGE and child.why != child.complaint:
            self._report.error("cannot start again, and is tried until it can; mend the cause", **told)
        else:
            self._report.warning("died", **told)
        child.complaint = child.why
        child.forget()

    def _is_hopeless(self, child: Child, code: int) -> bool:
        if code == _USAGE:
            # Wrong configuration does not mend itself.
            self.exit_code = _USAGE
            self.gave_up = f"{child.name} cannot start: {child.why}"
        elif len(child.deaths) >= MAX_DEATHS:
            self.exit_code = _CRASH_LOOP
            self.gave_up = (
                f"{child.name} died {len(child.deaths)} times within {DEATHS_WITHIN_S:g} s before it was ever ready,"
                f" the last time: {child.why}; mend the cause and start again"
            )
        return bool(self.gave_up)

    def stop(self, children: Sequence[Child], grace_s: float, hurry: threading.Event | None = None) -> None:
        """Ends children with SIGTERM and, after `grace_s` or in a hurry, with SIGKILL; returns when none is left."""
        running = [child.process for child in children if child.process is not None]
        for child in children:
            child.end()
        give_up_at = time.monotonic() + grace_s
        for process in running:
            while process.poll() is None and time.monotonic() < give_up_at and not (hurry and hurry.is_set()):
                # One that hangs will not end for its grace either.
                self._kill_hanging(children, time.monotonic())
                time.sleep(_LOOK_S)
            if process.poll() is None:
                process.kill()
                process.wait()
        for child in children:
            child.is_done = True
            child.forget()
