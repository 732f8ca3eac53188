"""The models behind FastAPI on uvicorn, with uvloop and httptools: no batches, raw bodies.

    bench/peers/fastapi/.venv/bin/python bench/peers/fastapi/server.py --model echo --port 8003

Processes: with one worker this is all; with more, this one watches its children, each of which serves.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import uvicorn  # type: ignore[import-not-found]
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found]

from bench.peers.models import MODELS, joined
from bench.peers.serving import HOST, asked_of

MODEL = "PEER_MODEL"  # environment variable: a worker is spawned, and imports this file anew
# Echo, 50 in flight, two cores shared with the client: 16,000 requests/s with two and 11,400 with one. The kernel
# deals out connections unevenly when they come all at once: then two do 9,500 (see wrk).
WORKERS = 2
STOP_S = 2


def app() -> FastAPI:
    """Make the application that serves the model named by the environment."""
    run = MODELS[os.environ[MODEL]].run
    # "Return a Response directly": no response model, no validation, no JSON.
    made = FastAPI(openapi_url=None)

    @made.post("/infer")  # type: ignore[untyped-decorator]
    async def infer(request: Request) -> Response:
        # Not in a thread, which FastAPI advises for code that blocks: these models take less than the change of
        # threads would.
        answer = run(joined([await request.body()]))
        return Response(answer.tobytes(), media_type="application/octet-stream")

    return made


def main() -> None:
    """Serve until SIGTERM, which uvicorn handles itself."""
    asked = asked_of(__doc__, workers=WORKERS)
    os.environ[MODEL] = asked.model
    uvicorn.run(
        "bench.peers.fastapi.server:app",
        factory=True,
        host=HOST,
        port=asked.port,
        workers=asked.workers,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=STOP_S,
    )


if __name__ == "__main__":
    main()
