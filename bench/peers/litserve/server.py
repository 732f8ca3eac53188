"""The models behind LitServe: FastAPI on uvicorn, queues, inference workers that batch, raw bodies.

    bench/peers/litserve/.venv/bin/python bench/peers/litserve/server.py --model echo --port 8002

Processes: this one watches; of its children one is a multiprocessing manager (which owns the request queue),
`--workers` speak HTTP and as many run the model.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import litserve  # type: ignore[import-not-found]
from fastapi import Depends, Request, Response  # type: ignore[import-not-found]

from bench.peers.models import MODELS, Floats, joined
from bench.peers.serving import HOST, MAX_BATCH_SIZE, asked_of

# "For CPU, set to the number of cores". Echo, 50 in flight, two cores shared with the client: 1,600 requests/s
# with two and 1,470 with one; one is quicker for a single request (1.1 ms, not 1.6).
WORKERS = 2
# The documentation's default of `batch_timeout` is 0, an example in its source 100 ms. With 0 a
# worker that waits asks the manager without a pause, which the requests have to pass too: echo does no better
# (1,600 requests/s), big 160 instead of 209, and one big request takes 36 ms instead of 12. With 50 ms a single
# request of any model takes 50 ms.
WINDOW_MS = 1.0
STOP_S = 2


async def _body(request: Request) -> bytes:
    body: bytes = await request.body()
    return body


# LitServe makes the type of `decode_request` that of its FastAPI endpoint; a plain Request would be read as
# JSON, this is handed through as the bytes that came.
Body = Annotated[bytes, Depends(_body)]


class Peer(litserve.LitAPI):  # type: ignore[misc]
    """Runs one of the models on batches of raw bodies."""

    def __init__(self, model: str, window_ms: float) -> None:
        super().__init__(max_batch_size=MAX_BATCH_SIZE, batch_timeout=window_ms / 1e3, api_path="/infer")
        self._model = model

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Look the model up: called in the worker."""
        self._run = MODELS[self._model].run

    def decode_request(self, request: Body) -> bytes:
        """Leave the bytes for `batch`, which makes one array of them all."""
        return request

    def batch(self, inputs: list[bytes]) -> Floats:
        """Join the bodies: one copy, where LitServe's own makes an array of each and stacks them."""
        return joined(inputs)

    def predict(self, x: Floats) -> Floats:
        """Run the model."""
        return self._run(x)

    def unbatch(self, output: Floats) -> list[bytes]:
        """Return the rows' bytes."""
        return [row.tobytes() for row in output]

    def encode_response(self, output: bytes) -> Response:
        """Make it a reply as it is; a plain value would go out as JSON."""
        return Response(output, media_type="application/octet-stream")


def main() -> None:
    """Serve until SIGTERM."""
    asked = asked_of(__doc__, workers=WORKERS, window_ms=WINDOW_MS)
    # fast_queue: "Use when serving hundreds of requests per second". One HTTP server for each worker is what
    # the documentation recommends and what LitServe does when num_api_servers is left alone.
    server = litserve.LitServer(
        Peer(asked.model, asked.window_ms),
        accelerator="cpu",
        workers_per_device=asked.workers,
        fast_queue=True,
        disable_openapi_url=True,
    )
    server.uvicorn_graceful_timeout = STOP_S
    _end_as_after_ctrl_c()
    server.run(
        host=HOST,
        port=asked.port,
        log_level="warning",
        access_log=False,
        generate_client_file=False,
    )


def _end_as_after_ctrl_c() -> None:
    """Let SIGTERM do what Ctrl-C does: LitServe handles that alone, and leaves its children behind otherwise."""
    watching = os.getpid()

    def on_sigterm(*_: object) -> None:
        # The forked children inherit this handler.
        raise KeyboardInterrupt if os.getpid() == watching else SystemExit(0)

    signal.signal(signal.SIGTERM, on_sigterm)


if __name__ == "__main__":
    main()
