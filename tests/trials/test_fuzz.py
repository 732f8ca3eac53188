"""Short forms of the fuzzing hold, and what is wrong is found."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from tests.processes import ROOT
from trials import fuzz_wire
from trials.fuzz_live import Seen, judged
from trials.fuzz_wire import Finding, attempt, mutate_and_try, valid_messages
from zmqinfer.records import Kind
from zmqinfer.wire import decode

BOOKS = {"received": 5, "refused": 1, "accepted": 4, "answered": 4, "pending": 0, "outcomes": {"OK": 5}}


def seen(**changes: Any) -> Seen:
    """A good run, but for these."""
    good = {
        "calls": 10,
        "longest_silence_s": 0.1,
        "bytes_before": 2**26,
        "bytes_after": 2**26 + 2**20,
        "descriptors_before": 20,
        "descriptors_after": 22,
        "status": {"requests": BOOKS, "protocol_errors": 7},
    }
    return Seen(**{**good, **changes})


# The decoder -------------------------------------------------------------------------------------


def test_every_kind_is_among_the_messages_that_others_are_made_of() -> None:
    """And all of them are right."""
    messages = valid_messages()

    assert {decode(head, [b""] * parts)[0] for head, parts in messages} == set(Kind)
    assert all(attempt(bytes((parts,)) + head) for head, parts in messages)


def test_changed_messages_find_nothing() -> None:
    """The short form of `python -m trials.fuzz_wire`; enough of them are messages all the same."""
    assert mutate_and_try(20_000, seed=3) > 1_000


def raising(head: bytes, parts: list[Any]) -> Any:
    """A decoder that is surprised by some bytes."""
    if b"\xc1" in head:
        raise KeyError("a surprise")
    return decode(head, parts)


def forgetting(head: bytes, parts: list[Any]) -> Any:
    """A decoder that drops what follows the known fields of a CANCEL."""
    kind, records = decode(head, parts)
    return kind, [record[:-1] for record in records] if kind is Kind.CANCEL else records


@pytest.mark.parametrize("defect", [raising, forgetting])
def test_a_decoder_with_a_defect_is_found(defect: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether it raises or loses something, and the sentence brings the input."""
    monkeypatch.setattr(fuzz_wire, "decode", defect)

    with pytest.raises(Finding) as caught:
        mutate_and_try(20_000, seed=3)

    assert caught.value.data.hex() in str(caught.value)


# The gateway -------------------------------------------------------------------------------------


def test_a_good_run_has_nothing_to_say() -> None:
    """Some growth is allowed."""
    assert judged(seen()) == []


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dead": ["the gateway"]}, "the gateway ended"),
        ({"dead": ["worker_1"]}, "worker_1 ended"),
        ({"failures": ["WorkerLost()"]}, "1 honest calls failed, the first with WorkerLost"),
        ({"wrong": 2}, "2 honest calls were answered wrongly"),
        ({"calls": 0}, "no honest call was answered"),
        ({"longest_silence_s": 3.1}, "nothing for 3.1 s"),
        ({"broken_answers": ["a head"]}, "the gateway sent 1 broken messages"),
        ({"bytes_after": 2**26 + 2**26}, "grew by 64 MiB"),
        ({"descriptors_after": 25}, "25 descriptors"),
        ({"status": {}}, "did not tell its status"),
        (
            {"status": {"requests": {**BOOKS, "refused": 2, "answered": 3, "pending": 1}, "protocol_errors": 1}},
            "not hold",
        ),
        (
            {"status": {"requests": {**BOOKS, "pending": 1}, "protocol_errors": 1}},
            "accepted 4 == answered 4 + pending 1",
        ),
        ({"status": {"requests": BOOKS, "protocol_errors": 0}}, "it was not attacked"),
    ],
)
def test_what_does_not_hold_is_said(changes: dict[str, Any], words: str) -> None:
    """In a sentence each."""
    (said,) = judged(seen(**changes))

    assert words in said


@pytest.mark.parametrize("words", [["--fast"], ["wires"], ["--quick", "--seed", "2"], ["--help"]])
def test_run_sh_refuses_what_it_does_not_know_of_fuzzing(words: list[str]) -> None:
    """It once took no notice, and ran all of it."""
    done = subprocess.run(
        [ROOT / "run.sh", "fuzz", *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=10,
        check=False,
    )

    assert done.returncode == 2, done.stdout + done.stderr
    assert words[-1] in done.stderr


@pytest.mark.slow
def test_a_gateway_outlives_two_thousand_hostile_messages() -> None:
    """The short form of `python -m trials.fuzz_live`: its honest client notices nothing."""
    done = subprocess.run(
        [sys.executable, "-m", "trials.fuzz_live", "--messages", "2000", "--seed", "2"],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "2,000 in" in done.stdout
    assert done.stderr == ""
