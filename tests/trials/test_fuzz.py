"""Short forms of the fuzzing, and that it can find something."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.processes import ROOT
from trials import fuzz_wire


def test_changed_messages_raise_nothing_but_protocol_errors() -> None:
    """And some of them are messages all the same."""
    assert fuzz_wire.mutate_and_try(20_000, seed=3) > 100


def test_a_decoder_with_a_defect_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that raises something else, and one that changes what it takes."""

    def raising(head: bytes, parts: list[object]) -> object:
        if b"\xc1" in head:
            raise KeyError(head)
        return decode(head, parts)

    def changing(head: bytes, parts: list[object]) -> object:
        kind, records = decode(head, parts)
        return kind, [[*record[:-1], "changed"] for record in records] if b"agent" in head else records

    decode = fuzz_wire.decode
    for defect, error in ((raising, KeyError), (changing, Exception)):
        monkeypatch.setattr(fuzz_wire, "decode", defect)
        with pytest.raises(error):
            fuzz_wire.mutate_and_try(20_000, seed=3)


@pytest.mark.slow
def test_a_live_gateway_survives_hostile_messages() -> None:
    """Beside an honest client that notices nothing."""
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
    assert "2,000 hostile messages" in done.stdout
