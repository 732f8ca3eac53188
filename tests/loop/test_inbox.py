"""What other threads want of the thread that turns a loop."""

from __future__ import annotations

from zmqinfer.loop.inbox import Inbox


def test_work_is_done_once_in_its_order() -> None:
    """Work that puts more there included."""
    inbox, done = Inbox(), list[tuple[str, float]]()
    inbox.put(lambda now: done.append(("first", now)))
    inbox.put(lambda _: inbox.put(lambda now: done.append(("last", now))))

    assert inbox
    inbox.empty(7.0)
    inbox.empty(8.0)

    assert done == [("first", 7.0), ("last", 7.0)]
    assert not inbox


def test_two_may_empty_it() -> None:
    """Here one does so in the middle of the other: what is taken is taken once."""
    inbox, done = Inbox(), list[int]()
    inbox.put(lambda now: inbox.empty(now))
    for number in range(3):
        inbox.put(lambda _, number=number: done.append(number))

    inbox.empty(1.0)

    assert done == [0, 1, 2]
