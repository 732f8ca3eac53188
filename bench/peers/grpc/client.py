"""The Python client of the gRPC peer: grpc.aio, a few channels for all tasks.

    bench/peers/grpc/.venv/bin/python bench/peers/grpc/client.py --model echo --port 8004 --in-flight 50 --seconds 3

gRPC's documentation says to reuse channels and stubs, and to take a pool of channels for high load. Each has a
connection of its own, which stays with one process of the server: eight reach both, but for one time in 128.
"""

import asyncio
import sys
from collections.abc import Awaitable
from itertools import cycle
from pathlib import Path
from typing import cast

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import grpc  # type: ignore[import-untyped]

from bench.peers.load import measure, parser, report
from bench.peers.models import Floats

HOST = "127.0.0.1"
METHOD = "/zmqinfer.Peer/Infer"
FLOAT32 = np.dtype(np.float32)
CHANNELS = 8


class GrpcCaller:
    """A stub on a channel, which connects again by itself."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub = channel.unary_unary(METHOD, np.ndarray.tobytes, _row)

    def infer(self, x: Floats) -> Awaitable[Floats]:
        """Return the future answer to one row."""
        return cast("Awaitable[Floats]", self._stub(x))

    async def reopen(self) -> None:
        """Wait until the channel is connected."""
        await self._channel.channel_ready()


def _row(message: bytes) -> Floats:
    return np.frombuffer(message, FLOAT32)


async def _run(model: str, port: int, in_flight: int, seconds: float, channels: int) -> dict[str, float]:
    # Channels to one address share a connection unless each has a pool of its own.
    options = [("grpc.use_local_subchannel_pool", 1)]
    opened = [grpc.aio.insecure_channel(f"{HOST}:{port}", options) for _ in range(channels)]
    turns = cycle(opened)
    failures = (grpc.aio.AioRpcError, OSError)
    figures = await measure(lambda: GrpcCaller(next(turns)), model, in_flight, seconds, failures=failures)
    for channel in opened:
        await channel.close()
    return figures


def _main() -> None:
    options = parser(__doc__)
    options.add_argument("--channels", type=int, default=CHANNELS, help="connections (%(default)s)")
    asked = options.parse_args()
    report(asyncio.run(_run(asked.model, asked.port, asked.in_flight, asked.seconds, asked.channels)))


if __name__ == "__main__":
    _main()
