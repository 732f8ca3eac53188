"""How much waits before a request that comes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tests.policy.test_waiting import Someone
from zmqinfer.policy.backlog import Backlog
from zmqinfer.policy.waiting import WaitingRoom

CLIENTS = ["alice", "bob", "carol"]


def backlog_of(*waiting: tuple[int, str, float, int]) -> Backlog:
    backlog = Backlog()
    for priority, client, deadline, rows in waiting:
        backlog.add(priority, client, deadline, rows)
    backlog.check()
    return backlog


def test_what_is_more_urgent_is_before_what_is_less() -> None:
    """Whoever asks for it, whatever time it has."""
    backlog = backlog_of((1, "alice", 9.0, 5), (4, "bob", 9.0, 7), (8, "bob", 0.1, 100))
    assert backlog.ahead_of(1, "bob", 1.0, 1) == 1
    assert backlog.ahead_of(4, "bob", 9.0, 1) == 5 + 7
    assert backlog.ahead_of(8, "alice", 9.0, 1) == 5 + 7 + 1


def test_of_others_as_much_as_the_client_gets() -> None:
    """And no more than they have."""
    backlog = backlog_of((4, "alice", 1.0, 1_000), (4, "bob", 1.0, 10))
    assert backlog.ahead_of(4, "carol", 1.0, 1) == 2
    assert backlog.ahead_of(4, "bob", 1.0, 1) == 10 + 11
    assert backlog.ahead_of(4, "alice", 1.0, 1) == 1_000 + 10


def test_what_has_left_is_forgotten() -> None:
    """Nothing is kept of clients who wait for nothing."""
    backlog = backlog_of((4, "alice", 1.0, 3), (4, "bob", 1.0, 2), (4, "alice", 1.0, -3))
    assert backlog.ahead_of(4, "alice", 1.0, 1) == 1
    backlog.add(4, "bob", 1.0, -2)
    backlog.check()
    assert (backlog.rows, backlog._levels) == (0, {})


@given(
    waiting=st.lists(
        st.tuples(st.sampled_from(CLIENTS), st.integers(0, 3), st.sampled_from([1, 1, 5, 32])), max_size=40
    ),
    newcomer=st.sampled_from(CLIENTS),
    deadline=st.integers(0, 3),
)
def test_it_is_what_the_room_takes_first(waiting: list[tuple[str, int, int]], newcomer: str, deadline: int) -> None:
    """But for the request that each other client is in the middle of."""
    room: WaitingRoom[Someone] = WaitingRoom()
    for number, (client, at, rows) in enumerate(waiting):
        room.put(Someone(str(number), client, deadline=float(at), calls=rows, size=rows), 0.0)
    expected = room.backlog.ahead_of(4, newcomer, float(deadline), 1)
    last = Someone("last", newcomer, deadline=float(deadline))
    room.put(last, 0.0)
    taken = 0
    while (waiter := room.best("w")) is not last:
        assert waiter is not None
        taken += waiter.rows
        room.take(waiter)

    assert taken - 32 * len(CLIENTS) <= expected <= taken + 32 * len(CLIENTS)
