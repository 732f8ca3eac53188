"""A FastAPI front that passes each request on to a second server, as a gateway does.

    bench/peers/fastapi/.venv/bin/python bench/peers/fastapi/front.py --model echo --port 8003 --inner 8004

zmqinfer's requests travel two hops, client to gateway to worker; this is what FastAPI takes for two. Between
front and server goes the client of this comparison (http_client.py), which costs less than any library.
"""

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import uvicorn  # type: ignore[import-not-found]
from fastapi import FastAPI, Request, Response  # type: ignore[import-not-found]

from bench.peers.http_client import HttpCaller
from bench.peers.models import MODELS
from bench.peers.serving import HOST


def app(model: str, inner: int) -> FastAPI:
    """Make the application that passes requests on to port `inner`."""
    made = FastAPI(openapi_url=None)
    idle: list[HttpCaller] = []

    @made.post("/infer")  # type: ignore[untyped-decorator]
    async def infer(request: Request) -> Response:
        row = np.frombuffer(await request.body(), np.float32)
        if idle:
            caller = idle.pop()
        else:
            caller = HttpCaller(model, inner, "raw")
            await caller.reopen()
        answer = await caller.infer(row)
        idle.append(caller)
        return Response(answer.tobytes(), media_type="application/octet-stream")

    return made


def main() -> None:
    """Serve until SIGTERM."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="echo")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--inner", type=int, required=True, help="port of the server behind")
    asked = parser.parse_args()
    uvicorn.run(
        app(asked.model, asked.inner),
        host=HOST,
        port=asked.port,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
        timeout_graceful_shutdown=2,
    )


if __name__ == "__main__":
    main()
