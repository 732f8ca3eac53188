"""Which answers of a load are right."""

from __future__ import annotations

import numpy as np
import pytest

from zmqinfer.load.workload import Workload
from zmqinfer.machine.client.codec import Output

A, B = np.zeros(2, np.float32), np.ones(2, np.float32)


@pytest.mark.parametrize(
    ("got", "is_right"),
    [
        (A, True),
        (A + np.float32(1e-4), True),  # batches of another size differ in the last digits
        (B, False),
        (A.astype(np.float64), False),
        (np.zeros(3, np.float32), False),
        ({"y": A}, False),
    ],
)
def test_an_answer_agrees_with_the_one_that_belongs_to_its_input(got: Output, is_right: bool) -> None:
    """In kind and, nearly, in value; beside others that are right and without them."""
    workload = Workload("m", [A, B], [A, B])

    assert workload.right([0], [got]).tolist() == [is_right]
    assert workload.right([0, 1, 1], [got, B, A]).tolist() == [is_right, True, False]
    assert workload.right([], []).tolist() == []


def test_answers_of_several_arrays_agree_in_all() -> None:
    """Each array counts."""
    workload = Workload("m", [A], [{"a": A, "b": B}])

    assert workload.right([0, 0], [{"b": B, "a": A}, {"a": A, "b": A}]).tolist() == [True, False]


def test_of_a_model_that_is_not_steady_only_the_kind_of_an_answer_counts() -> None:
    """One that draws at random, or counts."""
    workload = Workload("m", [A], [A], is_steady=False)

    assert workload.right([0, 0], [B, np.zeros(3, np.float32)]).tolist() == [True, False]
    assert workload.right([0], [B]).tolist() == [True]


def test_large_answers_are_not_kept_for_long() -> None:
    """A round of thousands of them would not fit into memory."""
    assert Workload("m", [A], [np.zeros(2**20, np.float32)]).kept_answers == 16
    assert Workload("m", [A], [{"a": np.zeros(0)}]).kept_answers == 64 * 2**20
