"""Clients share what they wait for, in rows."""

from __future__ import annotations

import weakref
from dataclasses import dataclass

import pytest

from zmqinfer.policy.fair_queue import FairQueue


@dataclass(eq=False)
class Someone:
    owner: object
    rows: int = 1
    deadline: float = 1.0
    is_here: bool = True


def is_here(who: Someone) -> bool:
    return who.is_here


def take(queue: FairQueue[Someone]) -> Someone:
    who, _ = queue.first(is_here)
    assert who is not None
    queue.pop()
    return who


@pytest.mark.parametrize("sizes", [(1, 32), (1, 1), (5, 7), (32, 32), (17, 3)])
def test_each_gets_as_many_rows(sizes: tuple[int, int]) -> None:
    """Whatever the sizes of their requests: never more than one request of each apart."""
    queue: FairQueue[Someone] = FairQueue()
    clients = ["small", "large"]
    for client, rows in zip(clients, sizes, strict=True):
        for _ in range(400):
            queue.put(Someone(client, rows))
    got = dict.fromkeys(clients, 0)
    for _ in range(400):
        who = take(queue)
        got[str(who.owner)] += who.rows
        assert abs(got["small"] - got["large"]) <= sum(sizes)


def test_who_comes_back_at_once_has_not_paid_less() -> None:
    """A client whose last request has just left goes behind those that had fewer rows meanwhile."""
    queue: FairQueue[Someone] = FairQueue()
    for _ in range(100):
        queue.put(Someone("patient"))
    taken = 0
    for _ in range(33):
        queue.put(Someone("greedy", 32))
        while take(queue).owner != "greedy":
            taken += 1
    assert taken >= 32 * 3 - 32


def test_who_comes_late_makes_up_for_nothing() -> None:
    """It shares from then on."""
    queue: FairQueue[Someone] = FairQueue()
    for _ in range(200):
        queue.put(Someone("early"))
    for _ in range(100):
        take(queue)
    for _ in range(100):
        queue.put(Someone("late"))
    order = [take(queue).owner for _ in range(100)]
    assert order.count("late") == pytest.approx(50, abs=1)


def test_clients_that_left_take_no_room() -> None:
    """Also those of whom nothing was ever taken."""
    queue: FairQueue[Someone] = FairQueue()
    stays = Someone("stays", deadline=0.0)
    queue.put(stays)
    for number in range(100):
        gone = Someone(number, is_here=False)
        queue.put(gone)
    queue.compact(is_here)
    assert len(queue._order) == len(queue._heaps) == 1
    assert take(queue) is stays
    assert queue.first(is_here) == (None, 0)


def test_who_is_gone_is_kept_while_it_is_in_debt() -> None:
    """Python may give a new owner the address of one that nobody else knows any more."""

    class Owner:
        pass

    queue: FairQueue[Someone] = FairQueue()
    gone = Owner()
    known = weakref.ref(gone)
    queue.put(Someone(gone, 100, deadline=0.5))
    queue.put(Someone("patient"))
    assert take(queue).rows == 100

    del gone

    assert known() is not None
    assert take(queue).owner == "patient"
    assert queue.first(is_here) == (None, 0)
    assert known() is None
