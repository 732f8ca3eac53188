"""Whether a request is let in: every bound, for all and for each client."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.policy.admission import Admission, Usage

MIB = 2**20
LIMITS = GatewaySettings(
    max_requests=5, max_client_requests=3, max_bytes=4 * MIB, max_client_bytes=2 * MIB, max_body_bytes=MIB
)


def test_what_is_let_in_is_counted_and_given_back() -> None:
    """For the client and for all."""
    admission, alice, bob = Admission(LIMITS), Usage(), Usage()

    assert admission.admit(alice, 10)
    assert admission.admit(alice, 20)
    assert admission.admit(bob, 5)
    assert (admission.requests, admission.bytes) == (3, 35)
    assert (alice.requests, alice.bytes, bob.requests, bob.bytes) == (2, 30, 1, 5)

    admission.release(alice, 10)
    assert (admission.requests, admission.bytes, alice.requests, alice.bytes) == (2, 25, 1, 20)


@pytest.mark.parametrize(
    ("mine", "others", "size", "status", "words"),
    [
        ([], [], MIB + 1, Status.TOO_LARGE, "1,048,577 bytes, this gateway takes 1,048,576"),
        ([1] * 3, [], 1, Status.OVERLOADED, "this client has 3 requests in hand, the limit is 3"),
        ([MIB, MIB], [], 1, Status.OVERLOADED, "this client's .* come to 2,097,153 bytes, the limit is 2,097,152"),
        ([1] * 2, [1] * 3, 1, Status.OVERLOADED, "the gateway has 5 requests in hand, the limit is 5"),
        ([MIB], [MIB] * 3, 1, Status.OVERLOADED, "the gateway's .* come to 4,194,305 bytes, the limit is 4,194,304"),
    ],
)
def test_a_full_gateway_says_which_limit_and_by_how_much(
    mine: list[int], others: list[int], size: int, status: Status, words: str
) -> None:
    """At the limit is in, one more is out, and nothing is counted for it."""
    admission, alice = Admission(LIMITS), Usage()
    rest = [Usage(), Usage()]
    assert all(admission.admit(alice, body) for body in mine)
    assert all(admission.admit(rest[number % 2], body) for number, body in enumerate(others))
    before = admission.requests, admission.bytes, alice.requests, alice.bytes

    assert not admission.admit(alice, size)

    assert (admission.requests, admission.bytes, alice.requests, alice.bytes) == before
    got, sentence = admission.refusal(alice, size)
    assert got is status
    assert re.search(words, sentence), sentence


def test_the_largest_body_is_let_in() -> None:
    """A limit is the last value that passes."""
    assert Admission(LIMITS).admit(Usage(), MIB)


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from([0, 1, MIB // 2, MIB, MIB + 1]), st.booleans())))
def test_sums_always_keep_their_limits(steps: list[tuple[int, int, bool]]) -> None:
    """Whoever comes and goes; and a refusal names a limit that would have been broken."""
    admission, clients = Admission(LIMITS), [Usage(), Usage(), Usage()]
    held: list[tuple[Usage, int]] = []
    for who, size, leaves in steps:
        if leaves and held:
            admission.release(*held.pop())
        usage = clients[who]
        fits = (
            size <= MIB
            and len(held) < 5
            and sum(body for _, body in held) + size <= 4 * MIB
            and sum(owner is usage for owner, _ in held) < 3
            and sum(body for owner, body in held if owner is usage) + size <= 2 * MIB
        )

        assert admission.admit(usage, size) == fits

        if fits:
            held.append((usage, size))
        else:
            assert (admission.refusal(usage, size)[0] is Status.TOO_LARGE) == (size > MIB)
        assert (admission.requests, admission.bytes) == (len(held), sum(body for _, body in held))
    for usage, size in held:
        admission.release(usage, size)
    assert {(one.requests, one.bytes) for one in [admission, *clients]} == {(0, 0)}
