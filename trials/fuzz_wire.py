"""Broken messages for the decoder: `./run.sh fuzz`.

    .venv/bin/python -m trials.fuzz_wire --executions 10000000

With atheris, which sees which inputs reach new code; without it, or with --plain, by changing valid messages at
random. `decode` may raise nothing but ProtocolError, and what it takes must be what it gives again when it is
encoded and decoded once more. The exit code is 1 for a finding, which is printed in hexadecimal digits.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import mmap
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import FunctionType
from typing import Any

import msgpack

from bench.command import Command, whole
from zmqinfer.errors import ProtocolError
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import Buffer
from zmqinfer.wire import VERSION, decode, encode

__all__ = ["RECORDS", "Finding", "attempt", "changed", "mutants", "mutate_and_try", "valid_messages"]

_SIGNATURE: Record = [[["x", "FP32", [4]]], [["y", "FP32", [4]]]]
# One valid record of each kind, and some of another shape.
RECORDS: list[tuple[Kind, Record]] = [
    (Kind.HELLO, [b"s" * 16, "agent", None, b"host"]),
    (Kind.WELCOME, [b"s" * 16, "agent", 500, 2**20, [["m", 1, _SIGNATURE, 32, True, False]]]),
    (Kind.REQUEST, [1, 1, b"id", "m", None, [b"key"], 1_000_000, 4, 1, None, 1, b"layout", b"body"]),
    (Kind.REQUEST, [2, 0b101, b"id@", "m", None, [b"a", b"b"], 1_000_000, 4, 1, None, 2, b"layout", b"bodybody"]),
    (Kind.REQUEST, [32, 0b1111, b"id\0", "m", 1, None, 1_000_000, 4, 1, True, 4, b"layout", b"body" * 4, None, True]),
    (Kind.REQUEST, [1, 1, b"id", "m", None, None, 1_000_000, 4, 1, None, 1, b"layout", [[7, 8, b"s" * 16], 0, 4]]),
    (Kind.REPLY, [1, 1, 0, b"layout", b"body", "w1", 1, 1, 1, None, 1, 10, 20]),
    (Kind.REPLY, [1, 1, 3, "a sentence", None, "", 0, 0, 0, 5, 0, 0, 0, 1.5, [[]]]),
    (Kind.CANCEL, [1, 1]),
    (Kind.READY, [b"s" * 16, "w1", "agent", 1_000, None]),
    (Kind.MODELS, [0, ["m", 1, _SIGNATURE, 32, 64, True, False]]),
    (Kind.HEARTBEAT, [0, 64, 0, 5, [1, 2]]),
    (Kind.DISCONNECT, ["closing", ""]),
    (Kind.STATS, [1, "status", None, 0, 1]),
    (Kind.ADMIN, [1, "drain", "w1", None, ""]),
]
_MAX_PARTS = 3
# Where a byte of msgpack or of our numbers changes its meaning.
_EDGES = (0, 1, 3, 0x7F, 0x80, 0x90, 0xC0, 0xC1, 0xCA, 0xCF, 0xD4, 0xD9, 0xDC, 0xDD, 0xDF, 0xE0, 0xFF)
# Longer than any of the valid ones: there is room for several records and for fields behind the known ones.
_LONGEST = 2_048
_COUNT_BYTES = 8
_ATTEMPTS_AT, _DECODED_AT = 0, _COUNT_BYTES


class Finding(Exception):
    """What no input may do; the sentence is for people.

    Attributes:
        data: the input, as `attempt` takes it.
    """

    def __init__(self, sentence: str, data: bytes) -> None:
        super().__init__(sentence)
        self.data = data

    def __str__(self) -> str:
        return f"found something: {self.args[0]}\ninput, a byte for the parts and then the head: {self.data.hex()}"


def valid_messages() -> list[tuple[bytes, int]]:
    """Returns the valid messages that all others are made of: a head and the count of its parts."""
    found = [(msgpack.packb([VERSION, kind, [record] * count]), 0) for kind, record in RECORDS for count in (1, 2)]
    for kind, at in ((Kind.REQUEST, 12), (Kind.REPLY, 4)):
        record = next(record for which, record in RECORDS if which is kind)
        groups: list[tuple[int, list[Any]]] = [
            (_MAX_PARTS, [[number] for number in range(_MAX_PARTS)]),
            (_MAX_PARTS, [list(range(_MAX_PARTS))]),
            (1, [b"inline", [0]]),
        ]
        for parts, group in groups:
            records = [[*record[:at], payload, *record[at + 1 :]] for payload in group]
            found.append((msgpack.packb([VERSION, kind, records]), parts))
    found.append((msgpack.packb([VERSION, Kind.HEARTBEAT, []]), 0))
    return found


def attempt(data: bytes) -> bool:
    """Decodes what a fuzzer made, of which the first byte says how many parts come; whether it was a message.

    Raises:
        Finding: something else than `ProtocolError` came out, or the records did not survive a second journey.
    """
    parts: list[Buffer] = [b"part %d" % number for number in range(data[0] % (_MAX_PARTS + 1) if data else 0)]
    try:
        kind, records = decode(data[1:], parts)
    except ProtocolError:
        return False
    except Exception as error:  # noqa: BLE001 - this is what the fuzzer looks for
        raise Finding(f"decode raised {error!r:.200}, expected records or a ProtocolError", data) from None
    # As bytes: they tell 1 from 1.0 and from true, and a float that is no number equals itself.
    before = msgpack.packb([kind, records])
    # Both ways to fill a message: by a guess of its size, and one record after another.
    for size in (0, 2**40):
        try:
            after = msgpack.packb(_travelled(kind, records, size))
        except Exception as error:  # noqa: BLE001 - as above
            raise Finding(f"a {kind.name} was decoded, and its second journey raised {error!r:.200}", data) from None
        if after != before:
            raise Finding(f"a {kind.name} gave other records when it was encoded and decoded again", data)
    return True


def _travelled(kind: Kind, records: list[Record], size: int) -> tuple[Kind, list[Record]]:
    """Returns what the next hop makes of these records."""
    arrived: list[Record] = []
    which = kind
    for _, (head, *parts) in encode(kind, records, size):
        which, some = decode(bytes(head), parts)
        arrived += some
    return which, arrived


def changed(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Returns `data` with some changes: bits, bytes, pieces taken out, doubled, or put in from another message."""
    made = bytearray(data)
    for _ in range(chance.choice((0, 1, 1, 1, 2, 4, 8))):
        if not made:
            break
        at = chance.randrange(len(made))
        match chance.randrange(6):
            case 0:
                made[at] ^= 1 << chance.randrange(8)
            case 1:
                made[at] = chance.choice(_EDGES)
            case 2:
                del made[at : at + chance.randrange(1, 9)]
            case 3:
                made[at:at] = made[at : at + chance.randrange(1, 9)]
            case 4:
                other = chance.choice(others)
                made[at:at] = other[chance.randrange(len(other)) :][: chance.randrange(1, 17)]
            case _:
                made[at:at] = chance.randbytes(chance.randrange(1, 5))
    return bytes(made)


def mutants(seed: int) -> Iterator[bytes]:
    """Yields changed messages without end, as `attempt` takes them."""
    chance = random.Random(seed)
    valid = valid_messages()
    heads = [head for head, _ in valid]
    while True:
        head, count = chance.choice(valid)
        # Most keep their parts: a message with others is refused whatever else it says.
        parts = count if chance.randrange(4) else chance.randrange(_MAX_PARTS + 1)
        yield bytes((parts,)) + changed(head, heads, chance)


def mutate_and_try(executions: int, seed: int) -> int:
    """Tries so many mutants; returns how many of them were messages.

    Raises:
        Finding: one did what none may do.
    """
    source = mutants(seed)
    return sum(attempt(next(source)) for _ in range(executions))


# With atheris ------------------------------------------------------------------------------------


def _instrument(atheris: Any) -> None:
    """Makes every function of the decoder tell atheris where it goes, the rules in its tables too."""
    for one in gc.get_objects():
        if isinstance(one, FunctionType) and one.__module__ in {"zmqinfer.wire", "zmqinfer.checks"}:
            atheris.instrument_func(one)


def _fuzz(executions: int, seed: int, folder: Path) -> None:
    """Is the process that atheris ends by itself, without a word to us: what it counts it leaves in a file."""
    atheris = importlib.import_module("atheris")
    _instrument(atheris)
    corpus = folder / "corpus"
    corpus.mkdir()
    for number, (head, parts) in enumerate(valid_messages()):
        (corpus / str(number)).write_bytes(bytes((parts,)) + head)
    attempts = decoded = 0
    with (folder / "counts").open("r+b") as file:
        counts = mmap.mmap(file.fileno(), 2 * _COUNT_BYTES)

    def harness(data: bytes) -> None:
        nonlocal attempts, decoded
        attempts += 1
        counts[_ATTEMPTS_AT:_DECODED_AT] = attempts.to_bytes(_COUNT_BYTES, "little")
        try:
            if attempt(data):
                decoded += 1
                counts[_DECODED_AT:] = decoded.to_bytes(_COUNT_BYTES, "little")
        except Finding as finding:
            (folder / "finding").write_text(str(finding))
            os._exit(1)

    options = [f"-runs={executions}", f"-seed={seed}", f"-max_len={_LONGEST}", f"-artifact_prefix={folder}/crash-"]
    atheris.Setup([sys.argv[0], *options, str(corpus)], harness)
    atheris.Fuzz()


def _with_atheris(executions: int, seed: int) -> tuple[int, int]:
    """Runs the process above; returns how many inputs it tried and how many were messages.

    Raises:
        Finding: one did what none may do.
        ChildProcessError: it did not do what it should, by no fault of an input.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "counts").write_bytes(bytes(2 * _COUNT_BYTES))
        own = ["--executions", str(executions), "--seed", str(seed), "--child-in", name]
        with (folder / "log").open("wb") as log:
            child = subprocess.Popen(
                [sys.executable, "-m", "trials.fuzz_wire", *own], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            try:
                code = child.wait()
            finally:
                if child.poll() is None:
                    child.kill()
                    child.wait()
        counts = (folder / "counts").read_bytes()
        attempts, decoded = (int.from_bytes(one, "little") for one in (counts[:_DECODED_AT], counts[_DECODED_AT:]))
        with contextlib.suppress(FileNotFoundError):
            raise _Told((folder / "finding").read_text())
        for left in folder.glob("crash-*"):
            raise Finding(f"the process ended with {code}: it crashed, hung or took too much memory", left.read_bytes())
        if code or attempts < executions:
            words = (folder / "log").read_text(errors="replace").strip().splitlines()[-3:]
            raise ChildProcessError(f"atheris ended with {code} after {attempts:,} inputs: {' / '.join(words)}")
    return attempts, decoded


class _Told(Finding):
    """A finding in the words of the process that made it."""

    def __init__(self, words: str) -> None:
        super().__init__(words, b"")

    def __str__(self) -> str:
        return str(self.args[0])


def main() -> int:
    """Tries so many inputs and says how it went; exit code 1 for a finding."""
    command = Command("python -m trials.fuzz_wire", __doc__)
    command.add_argument("--executions", type=whole, default=10_000_000)
    command.add_argument("--seed", type=whole, default=1)
    command.add_argument("--plain", action="store_true", help="without atheris, even if it is there")
    command.add_argument("--child-in", type=Path, help="be the process that atheris ends, with its files here")
    given = command.parse_args()
    if given.child_in is not None:
        _fuzz(given.executions, given.seed, given.child_in)
        return 0
    is_plain = given.plain
    if not is_plain:
        try:
            importlib.import_module("atheris")
        except ImportError:
            print("atheris is not installed, so valid messages are changed at random: pip install atheris", flush=True)
            is_plain = True
    began = time.perf_counter()
    try:
        if is_plain:
            attempts, decoded = given.executions, mutate_and_try(given.executions, given.seed)
        else:
            attempts, decoded = _with_atheris(given.executions, given.seed)
    except (Finding, ChildProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    if not decoded:
        print(f"none of {attempts:,} inputs was a message, so nothing was tried; is this a defect?", file=sys.stderr)
        return 1
    took_s = time.perf_counter() - began
    print(f"{attempts:,} inputs in {took_s:.1f} s, of which {decoded:,} were messages: nothing was found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
