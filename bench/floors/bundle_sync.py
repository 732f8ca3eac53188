"""Bundles of records over the hops of zmqinfer, from one synchronous client with many requests in flight.

Client, gateway and workers send one message per peer and turn of their loop, which carries all records of
that turn; this is the throughput that zmqinfer's `infer_many` is compared with.

    python -m bench.floors.bundle_sync --seconds 3 --json

A message is one frame: msgpack [1, kind, [[tag, body], ...]] with 64 float32 in each body, inline. The
gateway gives each record a tag of its own and deals the records to its workers in turn, not by a hash (an
xxh3 of an id would add some 0.1 us). A worker takes a bundle, whatever its size, for a batch: one array from
all bodies, and bytes again.

Left out: arrays and futures at the client (bundle_asyncio has them; here all requests share one body and
answers are only matched), request ids, signatures, routing keys, credits, deadlines, bounds on a message,
and everything that guards.
"""

from collections import defaultdict
from contextlib import suppress
from time import perf_counter
from typing import Any

import msgpack
import numpy as np
import zmq

from bench.children import say
from bench.floors.common import ANY_PORT, VALUES, WARM_UP_S, Stopwatch, main, run_floor
from bench.peers.models import MODELS

__all__ = ["REPLY", "REQUEST", "gateway", "run", "worker"]

REQUEST, REPLY = 1, 2
BODY = bytes(4 * VALUES)
DRAINED_AT_MOST = 256
RECORDS_AT_MOST = 256
NOBLOCK = int(zmq.NOBLOCK)
SNDMORE = int(zmq.SNDMORE)


def run(in_flight: int = 1000, seconds: float = 3.0, *, workers: int = 2, model: str = "echo") -> dict[str, Any]:
    """Measure this floor; takes `seconds` plus about two for processes and warm-up."""
    return run_floor("bench.floors.bundle_sync", in_flight=in_flight, seconds=seconds, workers=workers, model=model)


def client(gateway: str, in_flight: int, seconds: float, model: str) -> None:  # noqa: ARG001 - all are asked alike
    """Keep `in_flight` requests on their way: a bundle of n answers makes room for a bundle of n requests."""
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    recv, send, pack, unpack = socket.recv, socket.send, msgpack.packb, msgpack.unpackb
    stopwatch = Stopwatch()
    record = stopwatch.latencies_s.append
    sent_at: dict[int, float] = {}

    def request(first_tag: int, count: int, now: float) -> int:
        tags = range(first_tag, first_tag + count)
        sent_at.update(dict.fromkeys(tags, now))
        send(pack((1, REQUEST, [(tag, BODY) for tag in tags])))
        return first_tag + count

    def serve(next_tag: int, end_at: float) -> int:
        # A blocking recv drains by itself: it waits only when nothing is there, and never raises Again.
        now = 0.0
        while now < end_at:
            records = unpack(recv())[2]
            now = perf_counter()
            for tag, _ in records:
                record(now - sent_at.pop(tag))
            next_tag = request(next_tag, len(records), now)
        return next_tag

    next_tag = 1
    while next_tag <= in_flight:
        next_tag = request(next_tag, min(RECORDS_AT_MOST, in_flight + 1 - next_tag), perf_counter())
    next_tag = serve(next_tag, perf_counter() + WARM_UP_S)
    stopwatch.start()
    serve(next_tag, perf_counter() + seconds)
    say(**stopwatch.stop())


def gateway(workers: int) -> None:
    """Pass records both ways under own tags; a turn drains a socket, then sends one bundle a peer."""
    context = zmq.Context()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.ROUTER)
    front.bind(ANY_PORT)
    back.bind(ANY_PORT)
    say(clients=front.get_string(zmq.LAST_ENDPOINT), workers=back.get_string(zmq.LAST_ENDPOINT))
    members = [back.recv_multipart()[0] for _ in range(workers)]
    say()
    poller = zmq.Poller()
    poller.register(back, zmq.POLLIN)
    poller.register(front, zmq.POLLIN)
    hear_front, hear_back, tell_front, tell_back = front.recv, back.recv, front.send, back.send
    pack, unpack = msgpack.packb, msgpack.unpackb
    pending: dict[int, tuple[bytes, int]] = {}
    release = pending.pop
    last_tag = 0
    while True:
        ready = [socket for socket, _ in poller.poll()]
        if back in ready:
            answers: defaultdict[bytes, list[list[Any]]] = defaultdict(list)
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    hear_back(NOBLOCK)
                    for record in unpack(hear_back())[2]:
                        peer, record[0] = release(record[0])
                        answers[peer].append(record)
            for peer, records in answers.items():
                tell_front(peer, SNDMORE)
                tell_front(pack((1, REPLY, records)))
        if front in ready:
            dealt: list[list[list[Any]]] = [[] for _ in members]
            with suppress(zmq.Again):
                for _ in range(DRAINED_AT_MOST):
                    peer = hear_front(NOBLOCK)
                    for record in unpack(hear_front())[2]:
                        last_tag += 1
                        pending[last_tag] = peer, record[0]
                        record[0] = last_tag
                        dealt[last_tag % workers].append(record)
            for member, records in zip(members, dealt, strict=True):
                if records:
                    tell_back(member, SNDMORE)
                    tell_back(pack((1, REQUEST, records)))


def worker(gateway: str, model: str) -> None:
    """Make one array of all bodies of a bundle, run the model once, and answer with a body for each row."""
    run_model, _, values_out = MODELS[model]
    socket = zmq.Context().socket(zmq.DEALER)
    socket.connect(gateway)
    recv, send, pack, unpack = socket.recv, socket.send, msgpack.packb, msgpack.unpackb
    socket.send(b"ready")
    say()
    one_row = np.dtype((np.void, 4 * values_out))
    while True:
        tags, bodies = zip(*unpack(recv())[2], strict=True)
        rows = run_model(np.frombuffer(b"".join(bodies), np.float32).reshape(len(tags), -1))
        # tolist of rows seen as opaque items: all bodies in 1.8 us per 100, 6.4 by slices of the bytes.
        answers = rows.view(one_row).ravel().tolist()
        send(pack((1, REPLY, list(zip(tags, answers, strict=True)))))


if __name__ == "__main__":
    main(__doc__, run, {"client": client, "gateway": gateway, "worker": worker}, in_flight=1000)
