"""The models behind mosec: HTTP in Rust, Python workers on Unix sockets, dynamic batches, msgpack bodies.

    bench/peers/mosec/.venv/bin/python bench/peers/mosec/server.py --model echo --port 8001

A request and a reply are msgpack [bin]. Processes: this one watches; its child `mosec` speaks HTTP and batches;
its other children run the model (and one is Python's resource tracker).
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

from mosec import Server, Worker  # type: ignore[import-not-found]
from mosec.mixin import MsgpackMixin  # type: ignore[import-not-found]

from bench.peers.models import MODELS, joined
from bench.peers.serving import HOST, MAX_BATCH_SIZE, asked_of

MODEL = "PEER_MODEL"  # environment variable: a worker is spawned, and imports this file anew
# Echo, 50 in flight, two cores shared with the client: 28,100 requests/s with one and 27,200 with two.
WORKERS = 1
# The documentation: `max_wait_time` "should be less than the batch inference time", 10 ms if nothing is said.
# A batch here takes microseconds, and 1 ms is the least that mosec accepts (0 means the default). With 50 in
# flight 10 ms does no better (28,900 requests/s); a single request takes 11.9 ms then, not 2.4.
WINDOW_MS = 1


class Peer(MsgpackMixin, Worker):  # type: ignore[misc]
    """Runs one of the models on a batch of [bin]."""

    def __init__(self) -> None:
        super().__init__()
        self._run = MODELS[os.environ[MODEL]].run

    def forward(self, data: list[tuple[bytes]]) -> list[tuple[bytes]]:
        """Answer each of up to 32 requests with a row."""
        answers = self._run(joined([body for (body,) in data]))
        return [(row.tobytes(),) for row in answers]


def main() -> None:
    """Serve until SIGTERM, which mosec handles itself."""
    asked = asked_of(__doc__, workers=WORKERS, window_ms=WINDOW_MS)
    os.environ[MODEL] = asked.model
    # mosec reads the command line too, so what it should know goes through its environment variables.
    sys.argv[1:] = []
    os.environ.update(MOSEC_ADDRESS=HOST, MOSEC_PORT=str(asked.port), MOSEC_LOG_LEVEL="error")
    server = Server()
    server.append_worker(
        Peer,
        num=asked.workers,
        max_batch_size=MAX_BATCH_SIZE,
        max_wait_time=int(asked.window_ms),
        route="/infer",
    )
    server.run()


if __name__ == "__main__":
    main()
