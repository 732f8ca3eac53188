"""Whether a request may run more than once."""

from __future__ import annotations

import pytest

from zmqinfer.policy.twice import may_run_twice


@pytest.mark.parametrize(
    ("declared", "of_model", "may"),
    [
        (None, True, True),
        (None, False, False),
        (True, False, True),
        (False, True, False),
    ],
)
def test_the_caller_overrules_the_model(declared: bool | None, of_model: bool, may: bool) -> None:
    """Who says nothing leaves it to the model."""
    assert may_run_twice(declared, of_model) is may
