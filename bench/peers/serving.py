"""The command line of all servers."""

import argparse
from dataclasses import dataclass

from bench.peers.models import MODELS

__all__ = ["HOST", "MAX_BATCH_SIZE", "Asked", "asked_of"]

HOST = "127.0.0.1"
MAX_BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Asked:
    """What a server was asked to be. `window_ms` is how long a batch waits for more rows, for those that batch."""

    model: str
    port: int
    workers: int
    window_ms: float


def asked_of(about: str | None, *, workers: int, window_ms: float | None = None) -> Asked:
    """Read the command line; `workers` and `window_ms` are the peer's own best, None if it does not batch."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=about, formatter_class=form)
    parser.add_argument("--model", choices=MODELS, default="echo")
    parser.add_argument("--port", type=int, required=True, help=f"on {HOST}")
    parser.add_argument("--workers", type=int, default=workers, help="processes that run the model (%(default)s)")
    if window_ms is not None:
        parser.add_argument("--window-ms", type=float, default=window_ms, help="a batch waits so long (%(default)s)")
    asked = parser.parse_args()
    return Asked(asked.model, asked.port, asked.workers, getattr(asked, "window_ms", 0.0))
