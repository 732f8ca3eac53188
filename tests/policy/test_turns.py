"""Clients take turns, in rows."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from zmqinfer.policy.turns import Turns


@dataclass(eq=False)
class Someone:
    client: object
    rows: int = 1
    deadline: float = 1.0
    is_here: bool = True


def is_here(who: Someone) -> bool:
    return who.is_here


def take(turns: Turns[Someone]) -> Someone:
    who, _ = turns.first(is_here)
    assert who is not None
    turns.pop()
    return who


@pytest.mark.parametrize("sizes", [(1, 32), (1, 1), (5, 7), (32, 32), (17, 3)])
def test_each_gets_as_many_rows(sizes: tuple[int, int]) -> None:
    """Whatever the sizes of their requests: never more than one request of each apart."""
    turns: Turns[Someone] = Turns()
    clients = ["small", "large"]
    for client, rows in zip(clients, sizes, strict=True):
        for _ in range(400):
            turns.put(Someone(client, rows))
    got = dict.fromkeys(clients, 0)
    for _ in range(400):
        who = take(turns)
        got[str(who.client)] += who.rows
        assert abs(got["small"] - got["large"]) <= sum(sizes)


def test_who_comes_back_at_once_has_not_paid_less() -> None:
    """A client whose last request has just left goes behind those that had fewer rows meanwhile."""
    turns: Turns[Someone] = Turns()
    for _ in range(100):
        turns.put(Someone("patient"))
    taken = 0
    for _ in range(33):
        turns.put(Someone("greedy", 32))
        while take(turns).client != "greedy":
            taken += 1
    assert taken >= 32 * 3 - 32


def test_who_comes_late_makes_up_for_nothing() -> None:
    """It shares from then on."""
    turns: Turns[Someone] = Turns()
    for _ in range(200):
        turns.put(Someone("early"))
    for _ in range(100):
        take(turns)
    for _ in range(100):
        turns.put(Someone("late"))
    order = [take(turns).client for _ in range(100)]
    assert order.count("late") == pytest.approx(50, abs=1)


def test_clients_that_left_take_no_room() -> None:
    """Also those of whom nothing was ever taken."""
    turns: Turns[Someone] = Turns()
    stays = Someone("stays", deadline=0.0)
    turns.put(stays)
    for number in range(100):
        gone = Someone(number, is_here=False)
        turns.put(gone)
    turns.compact(is_here)
    assert len(turns._order) == len(turns._heaps) == 1
    assert take(turns) is stays
    assert turns.first(is_here) == (None, 0)
