"""Where the fields of the per-call path lie, and which numbers the protocol counts on."""

from __future__ import annotations

import pytest

from zmqinfer import records
from zmqinfer.records import MAX_CALLS, MAX_ROWS, MAX_TAG, PAYLOAD_AT, Kind

BOTH = ("TAG", "PLACES")
REQUEST = (
    *BOTH,
    "REQUEST_ID",
    "MODEL",
    "MODEL_VERSION",
    "KEY",
    "BUDGET_US",
    "PRIORITY",
    "ATTEMPT",
    "IDEMPOTENT",
    "ROWS",
    "LAYOUT",
    "PAYLOAD",
)
REPLY = (
    *BOTH,
    "STATUS",
    "RESULT",
    "OUTPUT",
    "WORKER",
    "SERVED_VERSION",
    "ATTEMPTS",
    "RAN",
    "RETRY_AFTER_MS",
    "BATCH_ROWS",
    "QUEUE_US",
    "COMPUTE_US",
)


@pytest.mark.parametrize(("names", "count"), [(REQUEST, "REQUEST_FIELDS"), (REPLY, "REPLY_FIELDS")])
def test_each_field_has_a_position_of_its_own(names: tuple[str, ...], count: str) -> None:
    """The order is part of the protocol; both kinds begin with which calls they are about."""
    assert [getattr(records, name) for name in names] == list(range(getattr(records, count)))


def test_payloads_lie_where_the_wire_looks_for_them() -> None:
    """These two kinds alone bring bodies."""
    assert PAYLOAD_AT == {Kind.REQUEST: records.PAYLOAD, Kind.REPLY: records.OUTPUT}


def test_kinds_are_numbered_from_one_without_a_gap() -> None:
    """The numbers are on the wire."""
    assert [kind.value for kind in Kind] == list(range(1, len(Kind) + 1))


@pytest.mark.parametrize("numbers", [MAX_TAG + 1, 256])
def test_blocks_of_the_most_calls_divide_all_numbers_evenly(numbers: int) -> None:
    """Tags, and the last byte of request ids, so that counting within a block never carries."""
    assert numbers % MAX_CALLS == 0


def test_a_block_may_have_as_many_rows_as_calls() -> None:
    """Each of its calls has one."""
    assert MAX_CALLS <= MAX_ROWS
