"""One message per request over the hops of zmqinfer: client DEALER, ROUTER|ROUTER gateway, worker DEALERs.

With `--in-flight 1` it measures the latency that raw pyzmq has over these hops, which a single request cannot
beat; with `--in-flight 200` (the default) the throughput that a Python gateway reaches without bundles.

    python -m bench.floors.message --seconds 3 --in-flight 1 --json

A request is one frame: 8 bytes of tag and 64 float32. The gateway passes frames on unread, to its workers in
turn; a worker sends back what it received. Left out: msgpack, numpy, batches, hashing, futures, the pending
table of the gateway (the client's identity travels with the request), and everything that guards.
"""

from contextlib import suppress
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np
import zmq

from bench.children import say
from bench.floors.common import ANY_PORT, VALUES, WARM_UP_S, Stopwatch, main, run_floor
from bench.peers.models import MODELS

__all__ = ["run"]

BODY = bytes(4 * VALUES)
DRAINED_AT_MOST = 256
NOBLOCK = int(zmq.NOBLOCK)
SNDMORE = int(zmq.SNDMORE)


def run(in_flight: int = 200, seconds: float = 3.0, *, workers: int = 2, model: str = "echo") -> dict[str, Any]:
    """Measure this floor; takes `seconds` plus about two for processes and warm-up."""
    return run_floor("bench.floors.message", in_flight=in_flight, seconds=seconds, workers=workers, model=model)


def client(gateway: str, in_flight: int, seconds: float, model: str) -> None:  # noqa: ARG001 - all are asked alike
    """Keep `in_flight` requests on their way, each answer making room for the next request."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    recv, send = socket.recv, socket.send
    stopwatch = Stopwatch()
    record = stopwatch.latencies_s.append
    sent_at: dict[int, float] = {}

    def serve_until(end_at: float) -> None:
        # A blocking recv drains by itself: it waits only when nothing is there, and never raises Again.
        tag = next_tag[0]
        now = 0.0
        while now < end_at:
            answer = recv()
            now = perf_counter()
            record(now - sent_at.pop(int.from_bytes(answer[:8], "little")))
            tag += 1
            sent_at[tag] = now
            send(tag.to_bytes(8, "little") + BODY)
        next_tag[0] = tag

    for tag in range(1, in_flight + 1):
        sent_at[tag] = perf_counter()
        send(tag.to_bytes(8, "little") + BODY)
    next_tag = [in_flight]
    serve_until(perf_counter() + WARM_UP_S)
    stopwatch.start()
    serve_until(perf_counter() + seconds)
    say(**stopwatch.stop())


def gateway(workers: int) -> None:
    """Forward frames both ways: requests to the workers in turn, answers to the client they name."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    front.bind(ANY_PORT)
    back.bind(ANY_PORT)
    say(clients=front.get_string(zmq.LAST_ENDPOINT), workers=back.get_string(zmq.LAST_ENDPOINT))
    members = [back.recv_multipart()[0] for _ in range(workers)]
    say()
    turns = cycle(members)
    poller = zmq.Poller()
    poller.register(back, zmq.POLLIN)
    poller.register(front, zmq.POLLIN)
    hear_front, hear_back, tell_front, tell_back = front.recv, back.recv, front.send, back.send
    while True:
        ready = [socket for socket, _ in poller.poll()]
        # Only a socket known to hold something is tried: Again costs as much as a message.
        if back in ready:
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    hear_back(NOBLOCK)
                    tell_front(hear_back(), SNDMORE)
                    tell_front(hear_back())
        if front in ready:
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    peer = hear_front(NOBLOCK)
                    tell_back(next(turns), SNDMORE)
                    tell_back(peer, SNDMORE)
                    tell_back(hear_front())


def worker(gateway: str, model: str) -> None:
    """Answer each request, two frames, the client's identity and tag with body; that of echo comes back unread."""
    run_model = MODELS[model].run
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    recv, send = socket.recv, socket.send
    send(b"ready")
    say()
    while True:
        send(recv(), SNDMORE)
        request = recv()
        if model == "echo":
            send(request)
        else:
            rows = np.frombuffer(request, np.float32, offset=8).reshape(1, -1)
            send(request[:8] + run_model(rows).tobytes())


if __name__ == "__main__":
    main(__doc__, run, {"client": client, "gateway": gateway, "worker": worker}, in_flight=200)
