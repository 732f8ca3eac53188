"""One request in a worker's hands."""

from __future__ import annotations

import numpy as np

from zmqinfer.machine.worker.task import Batch, Bound, Task
from zmqinfer.policy.batching import Batcher, BatchLimits
from zmqinfer.tensor import layout_of

LAYOUT = layout_of({"x": np.zeros(4, np.float32)}, None)


def test_a_task_is_what_the_batcher_waits_with() -> None:
    """Its rows are those of its record, and it does not wait before it is offered."""
    bound = Bound(LAYOUT, (0,))
    record = [7, 1, b"id", "m", 1, None, 1_000, 4, 1, None, 3, LAYOUT.raw, bytes(48)]
    task = Task(0, record, bound, 48, 2.0, 1.0)
    assert (task.rows, task.is_waiting) == (3, False)

    batcher: Batcher[Task] = Batcher(BatchLimits())
    batcher.offer(task, bound)

    assert task.is_waiting
    assert batcher.take(1.0) == (bound, [task], 3)
    assert not task.is_waiting


def test_only_one_and_the_same_bound_batches_together() -> None:
    """Comparing layouts for each request would cost more than the worker's table of them."""
    bound, twin = Bound(LAYOUT, (0,)), Bound(LAYOUT, (0,))

    assert bound != twin
    assert len({bound, twin, bound}) == 2


def test_a_batch_remembers_when_it_was_handed_over() -> None:
    """Replies say from that how long a request waited."""
    batch = Batch(0, Bound(LAYOUT, (0,)), [], 0, 5.0)

    assert (batch.engine, batch.started_at) == (0, 5.0)
