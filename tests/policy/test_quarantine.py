"""Inputs are kept out for ten minutes, and of very many the latest."""

from __future__ import annotations

import pytest

from zmqinfer.policy.quarantine import KEPT_S, MAX_DIGESTS, Quarantine, digest_of


def test_an_input_is_held_for_its_time() -> None:
    """And then forgotten altogether."""
    quarantine = Quarantine()
    quarantine.add(7, 100.0)

    assert quarantine.holds(7, 100.0)
    assert not quarantine.holds(8, 100.0)
    assert quarantine.holds(7, 100.0 + KEPT_S - 0.1)
    assert not quarantine.holds(7, 100.0 + KEPT_S)
    assert len(quarantine) == 0


def test_another_end_begins_the_time_anew() -> None:
    """The first time's end is not the second's."""
    quarantine = Quarantine()
    quarantine.add(7, 100.0)
    quarantine.add(7, 400.0)

    assert quarantine.holds(7, 100.0 + KEPT_S)
    assert not quarantine.holds(7, 400.0 + KEPT_S)


def test_of_very_many_the_oldest_go() -> None:
    """It is bounded."""
    quarantine = Quarantine()
    for digest in range(MAX_DIGESTS + 5):
        quarantine.add(digest, 100.0)

    assert len(quarantine) == MAX_DIGESTS
    assert not quarantine.holds(4, 100.0)
    assert quarantine.holds(5, 100.0)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (("m", b"layout", [b"body"]), ("n", b"layout", [b"body"])),
        (("m", b"layout", [b"body"]), ("m", b"layouu", [b"body"])),
        (("m", b"layout", [b"body"]), ("m", b"layout", [b"bodz"])),
        (("m", b"layoutb", [b"ody"]), ("m", b"layout", [b"body"])),
    ],
)
def test_other_inputs_have_other_digests(
    one: tuple[str, bytes, list[bytes]], other: tuple[str, bytes, list[bytes]]
) -> None:
    """By model, layout and payload, wherever one ends and the next begins."""
    assert digest_of(*one) != digest_of(*other)
    assert digest_of(*one) == digest_of(one[0], one[1], [one[2][0][:1], memoryview(one[2][0])[1:]])
