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

    assert admission.admit(alice, 1, 10)
    assert admission.admit(alice, 1, 20)
    assert admission.admit(bob, 1, 5)
    assert (admission.requests, admission.bytes) == (3, 35)
    assert (alice.requests, alice.bytes, bob.requests, bob.bytes) == (2, 30, 1, 5)

    admission.release(alice, 1, 10)
    assert (admission.requests, admission.bytes, alice.requests, alice.bytes) == (2, 25, 1, 20)


@pytest.mark.parametrize(
    ("mine", "others", "size", "status", "words"),
    [
        ([], [], MIB + 1, Status.TOO_LARGE, "1,048,577 bytes, this gateway takes 1,048,576"),
        ([1] * 3, [], 1, Status.OVERLOADED, "this client's requests in hand would come to 4, the limit is 3"),
        ([MIB, MIB], [], 1, Status.OVERLOADED, "this client's .* come to 2,097,153 bytes, the limit is 2,097,152"),
        ([1] * 2, [1] * 3, 1, Status.OVERLOADED, "the gateway's requests in hand would come to 6, the limit is 5"),
        ([MIB], [MIB] * 3, 1, Status.OVERLOADED, "the gateway's .* come to 4,194,305 bytes, the limit is 4,194,304"),
    ],
)
def test_a_full_gateway_says_which_limit_and_by_how_much(
    mine: list[int], others: list[int], size: int, status: Status, words: str
) -> None:
    """At the limit is in, one more is out, and nothing is counted for it."""
    admission, alice = Admission(LIMITS), Usage()
    rest = [Usage(), Usage()]
    assert all(admission.admit(alice, 1, body) for body in mine)
    assert all(admission.admit(rest[number % 2], 1, body) for number, body in enumerate(others))
    before = admission.requests, admission.bytes, alice.requests, alice.bytes

    assert not admission.admit(alice, 1, size)

    assert (admission.requests, admission.bytes, alice.requests, alice.bytes) == before
    got, sentence = admission.refusal(alice, 1, size)
    assert got is status
    assert re.search(words, sentence), sentence


def test_the_largest_body_is_let_in() -> None:
    """A limit is the last value that passes."""
    assert Admission(LIMITS).admit(Usage(), 1, MIB)


def test_block_is_let_in_as_a_whole_or_not_at_all() -> None:
    """Its calls count one by one, and so do their bodies against the limit of one."""
    admission, alice = Admission(LIMITS), Usage()
    assert admission.admit(alice, 1, 1)

    assert not admission.admit(alice, 3, 3)
    assert admission.refusal(alice, 3, 3)[0] is Status.OVERLOADED
    assert admission.admit(alice, 2, MIB + 1)

    assert (admission.requests, alice.requests, alice.bytes) == (3, 3, MIB + 2)
    assert admission.refusal(Usage(), 2, 2 * MIB + 1)[0] is Status.TOO_LARGE


@settings(max_examples=60)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 3), st.sampled_from([0, 1, MIB // 2, MIB, MIB + 1]), st.booleans())
    )
)
def test_sums_always_keep_their_limits(steps: list[tuple[int, int, int, bool]]) -> None:
    """Whoever comes and goes; and a refusal names a limit that would have been broken."""
    admission, clients = Admission(LIMITS), [Usage(), Usage(), Usage()]
    held: list[tuple[Usage, int, int]] = []
    for who, calls, body, leaves in steps:
        size = calls * body
        if leaves and held:
            admission.release(*held.pop())
        usage = clients[who]
        fits = (
            body <= MIB
            and sum(count for _, count, _ in held) + calls <= 5
            and sum(held_bytes for _, _, held_bytes in held) + size <= 4 * MIB
            and sum(count for owner, count, _ in held if owner is usage) + calls <= 3
            and sum(held_bytes for owner, _, held_bytes in held if owner is usage) + size <= 2 * MIB
        )

        assert admission.admit(usage, calls, size) == fits

        if fits:
            held.append((usage, calls, size))
        else:
            assert (admission.refusal(usage, calls, size)[0] is Status.TOO_LARGE) == (body > MIB)
        assert admission.requests == sum(count for _, count, _ in held)
        assert admission.bytes == sum(held_bytes for _, _, held_bytes in held)
    for usage, calls, size in held:
        admission.release(usage, calls, size)
    assert {(one.requests, one.bytes) for one in [admission, *clients]} == {(0, 0)}
