"""The order of waiting: priorities, clients in turn, deadlines, and a worker's own people."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from zmqinfer.policy.waiting import WaitingRoom


@dataclass(eq=False)
class Someone:
    name: str
    owner: object = "alice"
    priority: int = 4
    deadline: float = 1.0
    home: str | None = None
    is_waiting: bool = field(default=False)
    size: int = 1
    calls: int = 1
    rank: float = 0.0
    leaves_home_at: float = 0.0

    def __repr__(self) -> str:
        return self.name

    @property
    def rows(self) -> int:
        return self.calls

    def cut(self, calls: int) -> Someone:
        head = Someone(
            f"{self.name}'",
            self.owner,
            self.priority,
            self.deadline,
            size=calls,
            calls=calls,
        )
        self.size -= calls
        self.calls -= calls
        return head


def block(name: str, calls: int, owner: object = "alice", deadline: float = 1.0) -> Someone:
    """A request of several calls, each of size 1."""
    return Someone(name, owner, deadline=deadline, size=calls, calls=calls)


class Client:
    """Told apart by identity alone."""


def room_of(*waiters: Someone, home: str | None = None, until: float = 10.0, now: float = 0.0) -> WaitingRoom[Someone]:
    room: WaitingRoom[Someone] = WaitingRoom()
    for waiter in waiters:
        room.put(waiter, now, home, until)
    return room


def order(room: WaitingRoom[Someone], worker: str = "w1") -> str:
    """The names in the order in which `worker` takes them."""
    names = []
    while (waiter := room.best(worker)) is not None:
        room.check()
        room.take(waiter)
        names.append(waiter.name)
    room.check()
    return " ".join(names)


def test_an_empty_room_has_nobody() -> None:
    """And asks for no timer."""
    room = room_of()

    assert (len(room), room.best("w1"), room.wake_at(), room.clear(), room.expire_homes(99)) == (
        0,
        None,
        float("inf"),
        [],
        False,
    )


def test_the_more_urgent_goes_first() -> None:
    """Of those who came together, whatever the deadline."""
    assert order(room_of(Someone("a", deadline=0.1), Someone("b", priority=1), Someone("c", priority=8))) == "b a c"


def test_half_a_second_of_waiting_is_worth_a_priority() -> None:
    """So who waits long enough goes before whoever comes."""
    room = room_of(Someone("a", priority=5), Someone("b", priority=8))
    room.put(Someone("c", priority=4), 0.4)
    room.put(Someone("d", priority=4), 0.6)
    room.put(Someone("e", priority=1), 4.0)
    assert order(room) == "c a d b e"


def test_no_priority_starves() -> None:
    """However many of a more urgent one keep coming: seven levels are 3.5 s."""
    room = room_of(Someone("patient", priority=8))
    now = 0.0
    while True:
        room.put(Someone("urgent", priority=1), now)
        best = room.best("w1")
        assert best is not None
        room.take(best)
        if best.name == "patient":
            break
        now += 0.01
    assert now == pytest.approx(3.51, abs=0.011)


def test_within_one_client_the_earliest_deadline_goes_first() -> None:
    """Equal deadlines go in order of arrival."""
    waiters = [Someone(name, deadline=at) for name, at in (("a", 3), ("b", 1), ("c", 2), ("d", 1))]

    assert order(room_of(*waiters)) == "b d c a"


def test_clients_take_turns() -> None:
    """Neither many requests nor early deadlines let one client starve another."""
    many = [Someone(f"a{number}", "alice", deadline=0.1) for number in range(4)]
    few = [Someone("b0", "bob", deadline=9.0), Someone("b1", "bob", deadline=8.0)]

    assert order(room_of(*many, *few)) == "a0 b1 a1 b0 a2 a3"


def test_a_client_who_joins_waits_for_its_turn() -> None:
    """Behind those whose turn it was, not behind all their requests, nor behind those who have just had one."""
    room = room_of(Someone("a0"), Someone("a1"), Someone("b0", "bob"), Someone("b1", "bob"))
    first = room.best("w1")
    assert first is not None
    room.take(first)

    room.put(Someone("c0", "carol"), 0.0)

    assert order(room) == "b0 c0 a1 b1"


def test_whoever_looks_does_not_take() -> None:
    """A worker without room for the best leaves it at its place."""
    room = room_of(Someone("a"), Someone("b", "bob"))

    assert [str(room.best("w1")), str(room.best("w2")), str(room.best("w1"))] == ["a", "a", "a"]
    assert len(room) == 2


def test_one_with_a_home_goes_to_its_worker_alone() -> None:
    """Until its time of waiting for it is over."""
    room = room_of(Someone("a"), home="w1", until=10.0)

    assert room.best("w2") is None
    assert not room.expire_homes(9.99)
    assert room.wake_at() == 10.0
    assert room.expire_homes(10.0)

    room.check()
    assert room.wake_at() == float("inf")
    assert order(room, "w2") == "a"


def test_a_worker_takes_its_own_people_before_anyone() -> None:
    """No other worker will do for them; but one of anyone's that is more urgent by a level goes first."""
    room = room_of(Someone("any", deadline=0.1), Someone("urgent", priority=3))
    room.put(Someone("own", deadline=9.0), 0.0, "w1", 10.0)

    assert order(room, "w1") == "urgent own any"


def test_those_of_a_lost_worker_go_to_anyone() -> None:
    """In an order that keeps their turns."""
    room = room_of(Someone("a0"), Someone("a1"), Someone("b0", "bob"), home="w1")
    room.put(Someone("other"), 0.0, "w2", 10.0)

    room.release("w1")
    room.release("never seen")

    room.check()
    assert order(room, "w3") == "a0 b0 a1"
    assert len(room) == 1


def test_who_left_is_not_met_again() -> None:
    """Cancelled or expired, from any place in the order."""
    waiters = [Someone(name) for name in "abcde"]
    room = room_of(*waiters)

    for gone in (waiters[0], waiters[2], waiters[4]):
        room.remove(gone)

    assert len(room) == 2
    assert order(room) == "b d"


def test_the_last_to_leave_takes_everything_along() -> None:
    """An empty lane is no lane."""
    a, b = Someone("a"), Someone("b")
    room = room_of(a, home="w1")
    room.put(b, 0.0)

    room.remove(a)
    room.remove(b)

    room.check()
    assert (len(room), room._lanes) == (0, {})


def test_clearing_gives_everyone_back_once() -> None:
    """Homes included, and the room can be used again."""
    waiters = [Someone(name, owner) for name, owner in (("a", "alice"), ("b", "alice"), ("c", "bob"))]
    room = room_of(*waiters[:2], home="w1")
    room.put(waiters[2], 0.0)

    everyone = room.clear()

    assert sorted(map(str, everyone)) == ["a", "b", "c"]
    assert not any(waiter.is_waiting for waiter in waiters)
    assert (len(room), room.wake_at(), room.best("w1")) == (0, float("inf"), None)
    room.put(waiters[0], 0.0, "w1", 20.0)
    assert order(room) == "a"


def entries(room: WaitingRoom[Someone]) -> int:
    queues = [queue for lane in room._lanes.values() for queue in lane._levels.values()]
    return sum(len(queue._order) + sum(map(len, queue._heaps.values())) for queue in queues)


def test_the_departed_take_no_room() -> None:
    """Cancelling is O(1), and yet the memory follows those who wait."""
    room = room_of(Someone("stays", deadline=0.0))
    for number in range(2_000):
        passing = Someone(str(number))
        room.put(passing, 0.0)
        room.remove(passing)

    assert entries(room) < 100
    room.check()


def test_those_who_gave_up_their_home_take_no_room_in_it() -> None:
    """A worker that hangs is asked for nothing; its lane must not keep all who ever waited for it."""
    room: WaitingRoom[Someone] = WaitingRoom()
    for number in range(2_000):
        room.put(Someone(str(number)), 0.0, "w1", number + 1.5)
        room.expire_homes(number)
        if (waiter := room.best("w2")) is not None:
            room.take(waiter)

    assert len(room) < 5
    assert entries(room) < 100
    room.check()


def test_one_who_comes_back_waits_once() -> None:
    """A request that left its home, ran, and lost its worker may wait for the first home again."""
    a = Someone("a")
    room = room_of(a, home="w1", until=1.0)
    room.put(Someone("b", deadline=9.0), 0.0, "w1", 5.0)
    room.expire_homes(1.0)
    assert room.best("w2") is a
    room.take(a)

    room.put(a, 0.0, "w1", 6.0)

    assert len(room) == 2
    assert order(room, "w1") == "a b"


# Requests of several calls -------------------------------------------------------------------------


def test_calls_are_counted() -> None:
    """A block is as many as its calls, however it goes."""
    taken, removed, cleared = block("a", 5), block("b", 3), block("c", 2)
    room = room_of(taken, removed)
    room.put(cleared, 0.0, "w1", 10.0)
    assert (len(room), room.count, room.bytes) == (10, 10, 10)

    assert room.best("w2") is taken
    room.take(taken)
    assert (room.count, room.bytes) == (5, 5)
    room.remove(removed)
    assert (room.count, room.bytes) == (2, 2)
    room.check()

    assert room.clear() == [cleared]
    assert (room.count, room.bytes) == (0, 0)


def test_part_of_a_block_waits_beside_it() -> None:
    """Nothing is counted twice; each of them can leave alone."""
    whole = block("a", 8)
    room = room_of(whole, Someone("z", deadline=9.0))

    gone, stays = whole.cut(3), whole.cut(1)
    for head in (gone, stays):
        room.divide(whole, head)
        room.check()
    assert (room.count, room.bytes, stays.is_waiting) == (9, 9, True)
    room.remove(gone)
    room.check()

    assert (room.count, room.bytes) == (6, 6)
    assert sorted(order(room).split()[:2]) == ["a", "a'"]
    assert (room.count, room.bytes) == (0, 0)


def test_part_of_a_block_has_its_home_and_leaves_it_with_it() -> None:
    """At the same instant, whichever part is left."""
    first, whole, last = block("a", 2), block("b", 4), block("c", 2)
    room = room_of(first, home="w1", until=1.0)
    room.put(whole, 0.0, "w1", 2.0)
    room.put(last, 0.0, "w1", 3.0)

    head = whole.cut(1)
    room.divide(whole, head)

    assert (head.home, head.rank) == ("w1", whole.rank)
    assert room.best("w2") is None
    room.remove(whole)
    room.expire_homes(1.0)
    assert (first.home, head.home, last.home) == (None, "w1", "w1")
    assert room.wake_at() == 2.0
    assert room.expire_homes(2.0)
    assert (first.home, head.home, last.home) == (None, None, "w1")
    room.check()


def test_part_of_a_block_that_may_go_to_anyone_stays_so() -> None:
    """Its time of waiting for its own worker is over, and does not begin again."""
    whole = block("a", 4)
    room = room_of(whole, home="w1", until=1.0)
    room.expire_homes(1.0)

    head = whole.cut(2)
    room.divide(whole, head)

    assert (head.home, room.wake_at()) == (None, float("inf"))
    assert sorted(order(room, "w2").split()) == ["a", "a'"]


def take_one(room: WaitingRoom[Someone], worker: str = "w1") -> str:
    """Gives `worker` one call of the one who is next, as when its credit is for no more."""
    waiter = room.best(worker)
    assert waiter is not None
    if waiter.calls > 1:
        head = waiter.cut(1)
        room.take_part(waiter, head)
    else:
        room.take(waiter)
    room.check()
    return waiter.name


def test_a_part_that_leaves_ends_its_clients_turn() -> None:
    """The rest of the block is next when it is that client's turn again, before what has a later deadline."""
    room = room_of(block("a", 3), block("b", 1, "bob"), Someone("c", deadline=9.0), block("d", 2, "bob"))

    assert [take_one(room) for _ in range(7)] == ["a", "b", "a", "d", "a", "d", "c"]
    assert room.count == 0


def test_a_part_that_leaves_its_home_ends_the_turn_there() -> None:
    """Each home has turns of its own."""
    room = room_of(block("a", 2), block("b", 2, "bob"), home="w1")
    room.put(block("c", 2), 0.0)
    room.put(block("d", 2, "bob"), 0.0)

    assert [take_one(room, worker) for worker in ("w1", "w2", "w1", "w2", "w1", "w2", "w1", "w2")] == [*"acbdacbd"]


class Room(RuleBasedStateMachine):
    """A waiting room and a naive list of who waits where.

    The model knows the set that any choice must come from: of each priority and client the earliest deadline, and
    of the priorities one whose next cannot be later than that of another. Fairness between clients is reckoned
    apart, below.
    """

    def __init__(self) -> None:
        super().__init__()
        self.room: WaitingRoom[Someone] = WaitingRoom()
        self.clients = [Client() for _ in range(3)]
        self.now = 100.0
        self.count = 0
        self.homes: dict[Someone, str | None] = {}
        self.until: dict[Someone, float] = {}
        self.taken: list[Someone] = []

    @rule(
        owner=st.integers(0, 2),
        priority=st.sampled_from([1, 4, 4, 8]),
        deadline=st.integers(0, 5),
        home=st.sampled_from([None, "w1", "w2"]),
        calls=st.sampled_from([1, 1, 2, 5, 32]),
    )
    def put(self, owner: int, priority: int, deadline: int, home: str | None, calls: int) -> None:
        self.count += 1
        who = self.clients[owner]
        waiter = Someone(f"n{self.count}", who, priority, float(deadline), size=calls, calls=calls)
        self.room.put(waiter, self.now, home, self.now + 1.0)
        self.homes[waiter] = home
        self.until[waiter] = self.now + 1.0

    def _next(self, lane: str | None) -> dict[int, list[Someone]]:
        """By priority those of a lane who may be next: for each client its earliest deadline."""
        inside = [waiter for waiter, home in self.homes.items() if home == lane]
        return {
            priority: [
                min((one for one in level if one.owner is client), key=lambda one: one.deadline)
                for client in self.clients
                if any(one.owner is client for one in level)
            ]
            for priority in {one.priority for one in inside}
            if (level := [one for one in inside if one.priority == priority])
        }

    @staticmethod
    def _latest_rank(levels: dict[int, list[Someone]]) -> float:
        """The rank that the next one of a lane has at most."""
        return min((max(one.rank for one in level) for level in levels.values()), default=float("inf"))

    @precondition(lambda self: any(waiter.calls > 1 for waiter in self.homes))
    @rule(which=st.integers(0), calls=st.integers(1, 31))
    def divide(self, which: int, calls: int) -> None:
        blocks = [waiter for waiter in self.homes if waiter.calls > 1]
        self._divide(blocks[which % len(blocks)], calls)

    def _divide(self, waiter: Someone, calls: int) -> Someone:
        head = waiter.cut(min(calls, waiter.calls - 1))
        self.room.divide(waiter, head)
        self.homes[head], self.until[head] = self.homes[waiter], self.until[waiter]
        return head

    @precondition(lambda self: self.taken)
    @rule()
    def comes_back(self) -> None:
        """Its worker was lost."""
        waiter = self.taken.pop()
        self.room.put(waiter, self.now)
        self.homes[waiter], self.until[waiter] = None, 0.0

    @rule(worker=st.sampled_from(["w1", "w2", "w3"]), room=st.sampled_from([32, 32, 3, 1]))
    def take(self, worker: str, room: int) -> None:
        best = self.room.best(worker)
        own, anyone = self._next(worker), self._next(None)
        if best is None:
            assert not own
            assert not anyone
            return
        lane = self.homes[best]
        levels = anyone if lane is None else own
        assert any((best.owner, best.deadline) == (one.owner, one.deadline) for one in levels.get(best.priority, ())), (
            best,
            levels,
        )
        assert best.rank <= self._latest_rank({at: level for at, level in levels.items() if at != best.priority})
        if lane is None:
            assert not own or best.rank + 0.5 <= self._latest_rank(own)
        else:
            assert self._latest_rank(anyone) + 0.5 > best.rank
        if best.calls > room:
            head = best.cut(min(room, best.calls - 1))
            self.room.take_part(best, head)
            self.homes[head] = self.homes[best]
            best = head
        else:
            self.room.take(best)
        del self.homes[best]
        self.taken.append(best)

    @precondition(lambda self: self.homes)
    @rule(which=st.integers(0))
    def remove(self, which: int) -> None:
        waiter = list(self.homes)[which % len(self.homes)]
        self.room.remove(waiter)
        del self.homes[waiter]

    @rule(seconds=st.sampled_from([0.0, 0.3, 1.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds
        over = [one for one, home in self.homes.items() if home is not None and self.until[one] <= self.now]

        assert self.room.expire_homes(self.now) == bool(over)

        self.homes.update(dict.fromkeys(over))
        due = self.room.wake_at()
        assert due == float("inf") or due > self.now

    @rule(home=st.sampled_from(["w1", "w2"]))
    def release(self, home: str) -> None:
        self.room.release(home)
        self.homes.update({one: None for one, at in self.homes.items() if at == home})

    @rule()
    def clear(self) -> None:
        assert sorted(map(str, self.room.clear())) == sorted(map(str, self.homes))
        self.homes.clear()

    @invariant()
    def agrees(self) -> None:
        self.room.check()
        assert len(self.room) == self.room.bytes == sum(waiter.calls for waiter in self.homes)
        for waiter, home in self.homes.items():
            assert waiter.is_waiting
            assert waiter.home == home
        settled = [self.until[one] for one, home in self.homes.items() if home is not None]
        due = self.room.wake_at()
        assert not settled or (due < float("inf") and due <= min(settled))


TestRoom = Room.TestCase
TestRoom.settings = settings(max_examples=60, stateful_step_count=40)
TestRoom = pytest.mark.slow(TestRoom)


@pytest.mark.parametrize("counts", [(50, 1, 1), (1, 30, 30), (7, 7, 7)])
def test_no_client_is_passed_over_twice_by_another(counts: tuple[int, ...]) -> None:
    """Between two turns of a client every other one has at most one."""
    room: WaitingRoom[Someone] = WaitingRoom()
    for client, count in enumerate(counts):
        for number in range(count):
            room.put(Someone(f"{client}", client, deadline=float(number % 5)), 0.0)

    assert_fair(order(room).split())


def assert_fair(turns: list[str]) -> None:
    for client in set(turns):
        mine = [at for at, name in enumerate(turns) if name == client]
        for low, high in zip([-1, *mine], mine, strict=False):
            between = turns[low + 1 : high]
            assert len(set(between)) == len(between)


@pytest.mark.parametrize("counts", [(30, 1, 1), (1, 30, 30), (7, 7, 7), (32, 32, 32)])
def test_no_client_is_passed_over_twice_by_the_parts_of_anothers_block(counts: tuple[int, ...]) -> None:
    """A block of many calls is worth as many turns as it has to be cut."""
    room = room_of(*[block(str(client), calls, client) for client, calls in enumerate(counts)])

    turns = [take_one(room) for _ in range(sum(counts))]

    assert_fair(turns)
    assert [turns.count(str(client)) for client in range(len(counts))] == list(counts)
