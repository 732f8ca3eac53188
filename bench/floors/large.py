"""Large requests over the hops of zmqinfer, one message each: 602,112 bytes in, one float32 out.

Client DEALER, ROUTER|ROUTER gateway that forwards frames unread, worker DEALERs that run the model `big`.
Nothing large is copied by Python: bodies are sent and received with `copy=False`, and the worker's array is
a view of the frame that came.

    python -m bench.floors.large --in-flight 50 --json

Left out: what message.py leaves out, and batches.
"""

from contextlib import suppress
from itertools import cycle
from time import perf_counter
from typing import Any

import numpy as np
import zmq

from bench.children import say
from bench.floors.common import ANY_PORT, WARM_UP_S, Stopwatch, main, run_floor
from bench.peers.bodies import rows
from bench.peers.load import DISTINCT_BYTES
from bench.peers.models import MODELS

__all__ = ["run"]

NOBLOCK = int(zmq.NOBLOCK)
SNDMORE = int(zmq.SNDMORE)
DRAINED_AT_MOST = 64


def run(in_flight: int = 50, seconds: float = 3.0, *, workers: int = 2, model: str = "big") -> dict[str, Any]:
    """Measure this floor; takes `seconds` plus about two for processes and warm-up."""
    return run_floor("bench.floors.large", in_flight=in_flight, seconds=seconds, workers=workers, model=model)


def client(gateway: str, in_flight: int, seconds: float, model: str) -> None:
    """Keep `in_flight` requests on their way, each answer making room for the next request."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    recv, send = socket.recv, socket.send
    # The inputs that the other clients send: one alone would stay in the processor's cache.
    inputs = rows(model, DISTINCT_BYTES // (4 * MODELS[model].values_in))
    right = [MODELS[model].run(row.reshape(1, -1)).tobytes() for row in inputs]
    stopwatch = Stopwatch()
    record = stopwatch.latencies_s.append
    sent_at: dict[bytes, float] = {}

    def ask(number: int, now: float) -> None:
        tag = number.to_bytes(8, "little")
        sent_at[tag] = now
        send(tag, SNDMORE)
        send(memoryview(inputs[number % len(inputs)]), copy=False)

    def serve(number: int, end_at: float) -> int:
        now = 0.0
        while now < end_at:
            tag = recv()
            assert recv() == right[int.from_bytes(tag, "little") % len(right)]
            now = perf_counter()
            record(now - sent_at.pop(tag))
            number += 1
            ask(number, now)
        return number

    for number in range(in_flight):
        ask(number, perf_counter())
    number = serve(in_flight, perf_counter() + WARM_UP_S)
    stopwatch.start()
    serve(number, perf_counter() + seconds)
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
    while True:
        ready = [socket for socket, _ in poller.poll()]
        if back in ready:
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    back.recv(NOBLOCK)
                    front.send(back.recv(), SNDMORE)
                    front.send(back.recv(), SNDMORE)
                    front.send(back.recv())
        if front in ready:
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    peer = front.recv(NOBLOCK)
                    back.send(next(turns), SNDMORE)
                    back.send(peer, SNDMORE)
                    back.send(front.recv(), SNDMORE)
                    back.send(front.recv(copy=False), copy=False)


def worker(gateway: str, model: str) -> None:
    """Answer each request, three frames: the client's identity, its tag, and the body."""
    run_model = MODELS[model].run
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    socket.send(b"ready")
    say()
    while True:
        peer, tag, body = socket.recv(), socket.recv(), socket.recv(copy=False)
        answer = run_model(np.frombuffer(body.buffer, np.float32).reshape(1, -1))
        socket.send(peer, SNDMORE)
        socket.send(tag, SNDMORE)
        socket.send(answer.tobytes())


if __name__ == "__main__":
    main(__doc__, run, {"client": client, "gateway": gateway, "worker": worker}, in_flight=50, models=("big",))
