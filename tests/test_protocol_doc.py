"""docs/PROTOCOL.md says what the code does: its tables, its test vectors and its examples."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from zmqinfer import checks, records, tensor, wire
from zmqinfer.errors import EXECUTED, Status
from zmqinfer.policy import ring
from zmqinfer.policy.ring import Ring, key_hash, version_of
from zmqinfer.records import Kind, Record
from zmqinfer.tensor import DTYPES, RESERVED_DTYPES, layout_of, pack
from zmqinfer.wire import decode, encode

PAGE = (Path(__file__).parents[1] / "docs" / "PROTOCOL.md").read_text(encoding="utf-8")
MEMBERS = {"w1": 1.0, "w2": 2.0, "w3": 0.5}

PAIR, OTHER = np.array([1.0, 2.0], "<f4"), np.array([3.0, 4.0], "<f4")
ONE = pack([PAIR])
BOTH = np.stack([PAIR, OTHER]).tobytes()
INPUT, OUTPUT = layout_of({"": PAIR}, None).raw, layout_of({"y": PAIR}, None).raw


def identity(number: int) -> bytes:
    return b"example-" + number.to_bytes(8, "big")


EXAMPLES: dict[str, Record] = {
    "HELLO": [bytes(range(16)), "example/1", None, None],
    "REQUEST": [1, 1, identity(32), "echo", None, [b"user-42"], 50_000, 4, 1, None, 1, INPUT, ONE],
    "REPLY": [1, 1, 0, OUTPUT, ONE, "worker_1", 1, 1, 1, None, 1, 60, 15],
    "REQUEST for two calls": [2, 0b11, identity(64), "echo", None, None, 50_000, 4, 1, None, 2, INPUT, BOTH],
    "REPLY to two calls": [2, 0b11, 0, OUTPUT, BOTH, "worker_1", 1, 1, 1, None, 2, 60, 15],
}


def table(head: str) -> list[list[str]]:
    """The cells of the table with this head, without the signs of code."""
    (rest,) = re.findall(rf"^\| {re.escape(head)} \|\n\|[-|]+\|\n((?:\|.*\n)+)", PAGE, re.MULTILINE)
    return [[cell.strip().strip("`") for cell in row.strip("|").split(" | ")] for row in rest.splitlines()]


def fields(kind: Kind) -> Iterator[tuple[int, str]]:
    """The positions and names of one kind's fields."""
    section = PAGE.partition(f"### {kind.name}\n")[2].partition("\n### ")[0]
    for position, name in re.findall(r"^\| (\d+) \| `([^`]+)` \|", section, re.MULTILINE):
        yield int(position), name


def test_kinds_are_listed() -> None:
    assert [(int(row[0]), row[1]) for row in table("number | kind | sent by | says")] == [(k, k.name) for k in Kind]


def test_statuses_are_listed() -> None:
    rows = table("number | status | meaning")
    assert [(int(row[0]), row[1]) for row in rows] == [(status, status.name) for status in Status]


def test_executed_codes_are_listed() -> None:
    rows = table("number | ran | the model")
    assert [(int(row[0]), row[1]) for row in rows] == list(enumerate(map(str, EXECUTED)))


def test_dtypes_are_listed() -> None:
    rows = table("dtype | bytes of an element")
    assert [(row[0], int(row[1])) for row in rows] == [(name, dtype.itemsize) for name, dtype in DTYPES.items()]
    for name in RESERVED_DTYPES:
        assert f"`{name}`" in PAGE


@pytest.mark.parametrize(("value", "constant"), [row[1:] for row in table("bound | value | constant")])
def test_bounds_are_those_of_the_code(value: str, constant: str) -> None:
    module, _, name = constant.partition(".")

    assert getattr({"wire": wire, "records": records, "tensor": tensor}[module], name) == int(value.replace(",", ""))


@pytest.mark.parametrize(("kind", "count"), [("REQUEST", "REQUEST_FIELDS"), ("REPLY", "REPLY_FIELDS")])
def test_fields_of_the_call_path_are_where_the_constants_say(kind: str, count: str) -> None:
    listed = list(fields(Kind[kind]))

    assert [position for position, _ in listed] == list(range(getattr(records, count)))
    assert [getattr(records, name.upper()) for _, name in listed] == [position for position, _ in listed]


@pytest.mark.parametrize("kind", list(checks._CONTROL_RULES))
def test_fields_of_other_kinds_are_those_that_are_checked(kind: Kind) -> None:
    wanted = [what.partition(",")[0] for what, _ in checks._CONTROL_RULES[kind]]

    assert list(fields(kind)) == list(enumerate(wanted))


def test_reasons_are_listed() -> None:
    reasons = {row[0] for row in table("reason | sent by | meaning, and what to do")}
    assert reasons >= {records.NO_SESSION, records.DRAIN, records.DRAINING, records.CLOSING, records.REPLACED}


@pytest.mark.parametrize(("text", "digest"), table("bytes | XXH3-64"))
def test_hashes_are_as_published(text: str, digest: str) -> None:
    assert f"{key_hash(text.encode()):016x}" == digest


@pytest.mark.parametrize(("weight", "points"), table("weight | points"))
def test_points_are_as_published(weight: str, points: str) -> None:
    assert len(ring._points("w1", float(weight))) == int(points)


@pytest.mark.parametrize(("key", "order"), table("key | home, then the others"))
def test_homes_are_as_published(key: str, order: str) -> None:
    raw = b"" if key == "the empty key" else key.encode()

    assert Ring(MEMBERS).order(key_hash(raw)) == tuple(order.split(", "))


def test_versions_and_digest_are_as_published() -> None:
    digest = key_hash("".join(f"{name}\n" for name in Ring(MEMBERS).homes).encode())
    wanted = [version_of(MEMBERS), f"{digest:016x}", version_of({"w1": 1.0}), version_of({})]

    assert [row[1] for row in table("what | value")] == wanted


@pytest.mark.parametrize("example", list(EXAMPLES))
def test_example_is_what_the_code_sends(example: str) -> None:
    """Byte by byte; what follows two spaces on a line explains."""
    text = PAGE.partition(f"<!-- example: {example} -->\n```text\n")[2].partition("```")[0]
    shown = bytes.fromhex("".join(re.findall(r"^((?:[0-9a-f]{2} )*[0-9a-f]{2})\b", text, re.MULTILINE)))
    kind, record = Kind[example.partition(" ")[0]], EXAMPLES[example]

    ((count, (head,)),) = encode(kind, [list(record)], 8)

    assert (count, shown.hex(" ")) == (1, bytes(head).hex(" "))
    assert decode(shown, []) == (kind, [record])


def test_every_example_of_the_page_is_checked() -> None:
    assert re.findall(r"<!-- example: (.*) -->", PAGE) == list(EXAMPLES)


def test_version_of_the_page_begins_with_that_of_the_wire() -> None:
    assert PAGE.startswith(f"# The wire protocol, version {wire.VERSION}.")
