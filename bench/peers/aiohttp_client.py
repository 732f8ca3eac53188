"""A Python client of the HTTP peers as people write them, with aiohttp: one session, a connection per task.

    python bench/peers/aiohttp_client.py --model echo --port 8001 --in-flight 50 --seconds 3 --encoding raw

http_client.py beside it is what the peers could do behind a client made for this comparison.
"""

import asyncio
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import aiohttp  # type: ignore[import-not-found]

from bench.peers.bodies import CONTENT_TYPES, prefix
from bench.peers.load import CallFailed, measure, parser, report
from bench.peers.models import MODELS, Floats

__all__: list[str] = []

OK = 200


class _Caller:
    """One task's way to the peer; the session keeps its connection."""

    def __init__(self, session: aiohttp.ClientSession, model: str, port: int, encoding: str) -> None:
        _, values_in, values_out = MODELS[model]
        self._session = session
        self._url = f"http://127.0.0.1:{port}/infer"
        self._headers = {"Content-Type": CONTENT_TYPES[encoding]}
        self._before = prefix(encoding, values_in)
        self._before_reply = len(prefix(encoding, values_out))

    async def infer(self, x: Floats) -> Floats:
        async with self._session.post(self._url, data=self._before + x.tobytes(), headers=self._headers) as reply:
            body = await reply.read()
            if reply.status != OK:
                raise CallFailed(body[:80].decode(errors="replace"))
        return np.frombuffer(body, np.float32, offset=self._before_reply)

    async def reopen(self) -> None:
        """Does nothing: the session connects by itself."""


async def _measure(model: str, port: int, encoding: str, in_flight: int, seconds: float) -> dict[str, float]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
        return await measure(
            lambda: _Caller(session, model, port, encoding),
            model,
            in_flight,
            seconds,
            failures=(CallFailed, OSError, aiohttp.ClientError),
        )


def _main() -> None:
    options = parser(__doc__)
    options.add_argument("--encoding", choices=CONTENT_TYPES, default="raw", help="of the bodies (%(default)s)")
    asked = options.parse_args()
    report(asyncio.run(_measure(asked.model, asked.port, asked.encoding, asked.in_flight, asked.seconds)))


if __name__ == "__main__":
    _main()
