"""The models behind grpc.aio: unary calls with generic handlers, no batches, a message is the row's bytes.

    bench/peers/grpc/.venv/bin/python bench/peers/grpc/server.py --model echo --port 8004

Processes: with one worker this is all; with more, this one watches its children, each of which serves.
"""

import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3]))

import grpc  # type: ignore[import-untyped]

from bench.peers.models import MODELS, joined
from bench.peers.serving import HOST, Asked, asked_of

SERVICE, METHOD = "zmqinfer.Peer", "Infer"
# Echo, 50 in flight, two cores shared with the client: 4,500 requests/s with two (and eight channels), 3,100 to
# 4,700 with one, where the client takes more CPU.
WORKERS = 2
STOP_S = 2.0


def main() -> None:
    """Serve until SIGTERM."""
    asked = asked_of(__doc__, workers=WORKERS)
    if asked.workers == 1:
        asyncio.run(_serve(asked))
        return
    # gRPC's own way to more processes: fork before there is any server, and share the port (SO_REUSEPORT, which
    # is on by default). The kernel deals out connections, not calls: one channel stays with one process.
    children = []
    for _ in range(asked.workers):
        pid = os.fork()
        if not pid:
            asyncio.run(_serve(asked))
            return
        children.append(pid)
    _watch(children)


async def _serve(asked: Asked) -> None:
    run = MODELS[asked.model].run

    async def infer(request: bytes, _: object) -> bytes:
        return run(joined([request])).tobytes()

    server = grpc.aio.server()
    # Without (de)serializers a message is bytes: nothing to compile, and nothing to parse.
    methods = {METHOD: grpc.unary_unary_rpc_method_handler(infer)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, methods),))
    server.add_insecure_port(f"{HOST}:{asked.port}")
    await server.start()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    await stop.wait()
    await server.stop(STOP_S)


def _watch(children: list[int]) -> None:
    """Pass SIGTERM on, and return when all children have ended."""

    def on_signal(*_: object) -> None:
        for pid in children:
            os.kill(pid, signal.SIGTERM)

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    for pid in children:
        os.waitpid(pid, 0)


if __name__ == "__main__":
    main()
