"""Whether a request may run more than once: one rule for all who might run it again.

A client sends again what a lost gateway left unanswered, a gateway moves what a lost worker held and asks a second
worker, and a worker runs the calls of a failed batch apart.
"""

from __future__ import annotations

__all__ = ["may_run_twice"]


def may_run_twice(declared: bool | None, is_idempotent: bool) -> bool:
    """Whether a second run does no harm.

    Args:
        declared: what the caller says, or None.
        is_idempotent: what the model says.
    """
    return is_idempotent if declared is None else declared
