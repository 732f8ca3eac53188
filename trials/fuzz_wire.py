"""Broken messages for the decoder.

`./run.sh fuzz` runs it, and so does

    .venv/bin/python -m trials.fuzz_wire --executions 10000000

With atheris, which looks which inputs reach new code (`pip install atheris`); without it, or with
--plain, by changing valid messages at random. `decode` may raise nothing but ProtocolError, and what it takes
must be what it gives again when it is encoded and decoded once more.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgpack

from bench.command import Command, whole
from zmqinfer.errors import ProtocolError
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import Buffer
from zmqinfer.wire import VERSION, decode, encode

_SIGNATURE: Record = [[["x", "FP32", [4]]], [["y", "FP32", [4]]]]
# One valid record of each kind, and some of another shape.
RECORDS: list[tuple[Kind, Record]] = [
    (Kind.HELLO, [b"s" * 16, "agent", None, b"host"]),
    (Kind.WELCOME, [b"s" * 16, "agent", 500, 2**20, [["m", 1, _SIGNATURE, 32, True, False]]]),
    (Kind.REQUEST, [1, 1, b"id", "m", None, b"key", 1_000_000, 4, 1, None, 1, b"layout", b"body"]),
    (Kind.REQUEST, [32, 4, b"id\0", "m", 1, None, 1_000_000, 4, 1, True, 4, b"layout", b"body" * 4, None, True]),
    (Kind.REQUEST, [1, 1, b"id", "m", None, None, 1_000_000, 4, 1, None, 1, b"layout", [0, 1]]),
    (Kind.REPLY, [1, 1, 0, b"layout", b"body", "w1", 1, 1, 1, None, 1, 10, 20]),
    (Kind.REPLY, [1, 1, 3, "a sentence", None, "", 0, 0, 0, 5, 0, 0, 0]),
    (Kind.CANCEL, [1, 1]),
    (Kind.READY, [b"s" * 16, "w1", "agent", 1_000, None, [["m", 1, _SIGNATURE, 32, 64, True, False]]]),
    (Kind.HEARTBEAT, [0, 64, 0, 5, [1, 2]]),
    (Kind.DISCONNECT, ["closing", ""]),
    (Kind.STATS, [1, "status", None]),
    (Kind.ADMIN, [1, "drain", "w1", None, ""]),
]
_PROGRESS = re.compile(rb"tried (\d+) decoded (\d+)")


def heads() -> list[bytes]:
    """Returns the valid messages that all others are made of."""
    return [msgpack.packb([VERSION, kind, [record] * count]) for kind, record in RECORDS for count in (1, 2)]


def attempt(data: bytes) -> bool:
    """Decodes what a fuzzer made, the first byte says with how many parts; whether it was a message.

    Raises:
        Exception: a finding.
    """
    count = data[0] % 4 if data else 0
    parts: list[Buffer] = [data[:7] for _ in range(count)]
    try:
        kind, records = decode(data[1:], parts)
    except ProtocolError:
        return False
    again: list[Record] = []
    for _, (head, *some) in encode(kind, records, 2**40):
        got, more = decode(bytes(head), some)
        assert got is kind, (got, kind)
        again += more
    assert again == records, (again, records)
    return True


def mutants(seed: int) -> Iterator[bytes]:
    """Yields changed messages without end: bits, bytes, pieces taken out, doubled, or put in from another one."""
    chance = random.Random(seed)
    valid = heads()
    while True:
        data = bytearray(chance.choice(valid))
        for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 8))):
            if not data:
                break
            at = chance.randrange(len(data))
            match chance.randrange(6):
                case 0:
                    data[at] ^= 1 << chance.randrange(8)
                case 1:
                    data[at] = chance.choice((0, 1, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCF, 0xD9, 0xDC, 0xDF, 0xFF))
                case 2:
                    del data[at : at + chance.randrange(1, 9)]
                case 3:
                    data[at:at] = data[at : at + chance.randrange(1, 9)]
                case 4:
                    other = chance.choice(valid)
                    data[at:at] = other[chance.randrange(len(other)) :][: chance.randrange(1, 17)]
                case _:
                    data[at:at] = chance.randbytes(chance.randrange(1, 5))
        yield bytes((chance.randrange(256),)) + data


def mutate_and_try(executions: int, seed: int) -> int:
    """Tries so many mutants; returns how many of them were messages."""
    source = mutants(seed)
    return sum(attempt(next(source)) for _ in range(executions))


def _fuzz(executions: int, seed: int) -> int:
    """Is the process that atheris ends by itself; what it did is in its output."""
    atheris = importlib.import_module("atheris")
    atheris.instrument_func(decode)
    for name in ("zmqinfer.wire", "zmqinfer.checks"):
        for one in vars(sys.modules[name]).values():
            if getattr(one, "__module__", None) == name and callable(one) and hasattr(one, "__code__"):
                atheris.instrument_func(one)
    tried = decoded = 0

    def harness(data: bytes) -> None:
        nonlocal tried, decoded
        tried += 1
        decoded += attempt(data)
        if tried == executions:
            os.write(2, b"tried %d decoded %d\n" % (tried, decoded))

    with tempfile.TemporaryDirectory() as corpus:
        for number, head in enumerate(heads()):
            (Path(corpus) / str(number)).write_bytes(b"\2" + head)
        atheris.Setup([sys.argv[0], f"-runs={executions}", f"-seed={seed}", "-max_len=2048", corpus], harness)
        atheris.Fuzz()
    return 0


def main() -> int:
    """Tries so many inputs and says how it went; exit code 1 for a finding."""
    command = Command("python -m trials.fuzz_wire", __doc__)
    command.add_argument("--executions", type=whole, default=10_000_000)
    command.add_argument("--seed", type=whole, default=1)
    command.add_argument("--plain", action="store_true", help="without atheris, even if it is there")
    command.add_argument("--child", action="store_true", help="be the process that atheris ends")
    given = command.parse_args()
    if given.child:
        return _fuzz(given.executions, given.seed)
    if importlib.util.find_spec("atheris") is None:
        if not given.plain:
            print("atheris is not there, so inputs are drawn at random; for better ones: pip install atheris")
        given.plain = True
    began = time.perf_counter()
    if given.plain:
        tried, decoded = given.executions, mutate_and_try(given.executions, given.seed)
    else:
        arguments = ["--executions", str(given.executions), "--seed", str(given.seed)]
        done = subprocess.run(
            [sys.executable, "-m", "trials.fuzz_wire", "--child", *arguments],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            check=False,
        )
        told = _PROGRESS.search(done.stderr)
        if done.returncode or told is None:
            print(f"found something:\n{done.stderr[-4000:].decode(errors='replace')}", file=sys.stderr)
            return 1
        tried, decoded = int(told[1]), int(told[2])
    took_s = time.perf_counter() - began
    print(
        f"{tried:,} inputs in {took_s:.0f} s, of which {decoded:,} were messages; nothing but ProtocolError was raised"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
