"""Whether a request is let in: bounds in requests and in bytes, for all and for each client.

What waits, waits in the gateway, where it can be cancelled, expired and moved; so the gateway
must know its limit and say no before its memory does.
"""

from __future__ import annotations

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status

__all__ = ["Admission", "Usage"]


class Usage:
    """What one client has in hand here."""

    __slots__ = ("bytes", "requests")

    def __init__(self) -> None:
        self.requests = 0
        self.bytes = 0


class Admission:
    """Counts the requests and body bytes in hand against their limits."""

    __slots__ = ("_limits", "bytes", "requests")

    def __init__(self, limits: GatewaySettings) -> None:
        self._limits = limits
        self.requests = 0
        self.bytes = 0

    def admit(self, usage: Usage, calls: int, size: int) -> bool:
        """Takes in `calls` calls with `size` body bytes in all, or changes nothing and returns False."""
        limits = self._limits
        if (
            size > limits.max_body_bytes * calls
            or self.requests + calls > limits.max_requests
            or self.bytes + size > limits.max_bytes
            or usage.requests + calls > limits.max_client_requests
            or usage.bytes + size > limits.max_client_bytes
        ):
            return False
        self.requests += calls
        self.bytes += size
        usage.requests += calls
        usage.bytes += size
        return True

    def release(self, usage: Usage, calls: int, size: int) -> None:
        """Gives back what `admit` took, or a part of it."""
        self.requests -= calls
        self.bytes -= size
        usage.requests -= calls
        usage.bytes -= size

    def refusal(self, usage: Usage, calls: int, size: int) -> tuple[Status, str]:
        """Says why `admit` returned False, with the limit and the value, and what to do."""
        limits = self._limits
        if size > limits.max_body_bytes * calls:
            return Status.TOO_LARGE, (
                f"the request's body has {size:,} bytes, this gateway takes {limits.max_body_bytes:,};"
                " send fewer rows, or raise --max-body-bytes"
            )
        if usage.requests + calls > limits.max_client_requests:
            return Status.OVERLOADED, (
                f"this client's requests in hand would come to {usage.requests + calls:,}, the limit is"
                f" {limits.max_client_requests:,}; wait for answers before sending more, as infer_many does"
            )
        if usage.bytes + size > limits.max_client_bytes:
            return Status.OVERLOADED, (
                f"this client's requests in hand would come to {usage.bytes + size:,} bytes, the limit is"
                f" {limits.max_client_bytes:,}; wait for answers before sending more, as infer_many does"
            )
        if self.requests + calls > limits.max_requests:
            return Status.OVERLOADED, (
                f"the gateway's requests in hand would come to {self.requests + calls:,}, the limit is"
                f" {limits.max_requests:,}; send less, or add workers"
            )
        return Status.OVERLOADED, (
            f"the gateway's requests in hand would come to {self.bytes + size:,} bytes, the limit is"
            f" {limits.max_bytes:,}; send less, or add workers"
        )
