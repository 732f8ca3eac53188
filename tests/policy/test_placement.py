"""Who takes a request: the bound on each holder's load, and its credits."""

from __future__ import annotations

import math
import random
from collections import deque
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.policy.placement import LOAD_FACTOR, MIN_BOUND, Holder, Placement
from zmqinfer.policy.ring import key_hash

PLENTY = 10**6
KEY = key_hash(b"user-42")


def placement_of(count: int, credits_rows: int = PLENTY) -> Placement[Holder]:
    return Placement([Holder(f"w{i}", 1.0, credits_rows) for i in range(count)])


def in_order(placement: Placement[Holder], key: int = KEY) -> list[Holder]:
    """The holders in the order in which a key asks them."""
    return [placement._holders[name] for name in placement.ring.order(key)]


def bound(placement: Placement[Holder], holder: Holder, rows: int) -> int:
    """The rule of the design in exact arithmetic; weights are thousandths, as on the wire."""
    weights = {h.name: Fraction(round(h.weight * 1000)) for h in placement._holders.values()}
    share = weights[holder.name] / sum(weights.values())
    return max(2, math.ceil(Fraction(5, 4) * (placement.total + rows) * share))


def has_credit(holder: Holder, rows: int) -> bool:
    return holder.held == 0 or holder.held + rows <= holder.credits


def fits(placement: Placement[Holder], holder: Holder, rows: int) -> bool:
    return has_credit(holder, rows) and holder.held + rows <= bound(placement, holder, rows)


def assert_placed_by_the_rules(placement: Placement[Holder], key: int, rows: int) -> None:
    """States all rules of a single placement; changes nothing."""
    chosen = placement.place(key, rows)
    asked = in_order(placement, key)
    fitting = [holder for holder in asked if fits(placement, holder, rows)]
    if fitting:
        assert chosen is fitting[0]
        return
    able = [h for h in asked if has_credit(h, rows) and h.held <= bound(placement, h, rows)]
    if able:
        assert chosen is able[0]
        return
    assert chosen is None
    assert placement.total > 0 or not asked


def test_home_takes_what_it_can() -> None:
    """The same key goes to the same holder as long as the bound allows."""
    placement = placement_of(4)

    home = placement.preferred(KEY)

    assert home.name == placement.ring.home(KEY)
    for _ in range(MIN_BOUND):
        assert placement.place(KEY, 1) is home
        placement.take(home, 1)
    placement.check()


def test_home_that_fits_is_found_without_asking_the_others() -> None:
    """The common case is two look-ups, up to the last row of the bound and for any request to an idle one."""
    placement = Placement([Holder(f"swift-{i}", 1.0, PLENTY) for i in range(4)])
    home = placement.preferred(KEY)
    placement.take(home, 5)
    placement.take(placement._holders[next(n for n in placement.ring.members if n != home.name)], 11)
    alone = Placement([Holder("swift", 1.0, 8)])

    assert placement.place(KEY, 1) is home
    assert alone.place(KEY, 100) is alone.preferred(KEY)
    assert placement.ring._orders == alone.ring._orders == {}


def test_place_changes_nothing() -> None:
    """Only `take` counts."""
    placement = placement_of(4)

    for _ in range(10):
        assert placement.place(KEY, 1) is placement.preferred(KEY)

    assert placement.total == 0


def test_load_above_the_bound_goes_to_the_next_one_clockwise() -> None:
    """Of four, the holders take two each; at seven the home's bound is ceil(1.25 x 8 / 4) = 3."""
    placement = placement_of(4)
    first, second, third, fourth = in_order(placement)

    taken = []
    for _ in range(8):
        holder = placement.place(KEY, 1)
        assert holder is not None
        placement.take(holder, 1)
        taken.append(holder)

    assert taken == [first, first, second, second, third, third, first, second]
    assert fourth.held == 0


def test_two_rows_are_always_within_the_bound() -> None:
    """With 64 holders a share of ten rows is under one, yet a key's second request stays at its home."""
    placement = placement_of(64)
    home = placement.preferred(KEY)

    placement.take(home, 1)

    assert placement.place(KEY, 1) is home
    placement.take(home, 1)
    assert placement.place(KEY, 1) is in_order(placement)[1]


@pytest.mark.parametrize("count", [2, 3, 5, 6, 7, 9, 11, 13, 23, 49, 63, 64])
def test_bound_that_is_a_whole_number_is_kept_to_the_row(count: int) -> None:
    """Where 1.25 x total x share is whole, rounding must not add a row."""
    for turn in range(1, 200):
        placement = placement_of(count)
        home, other, *_ = in_order(placement)
        bound = 5 * turn
        total = 4 * turn * count
        assert LOAD_FACTOR * total == bound * count
        placement.take(home, bound - 1)
        placement.take(other, total - bound)
        assert placement.place(KEY, 1) is home
        placement.take(home, 1)
        placement.give_back(other, 1)
        assert placement.place(KEY, 1) is not home


def test_bound_goes_by_weight() -> None:
    """A holder of three quarters of the weight takes three quarters of the rows, and a quarter more."""
    heavy, light = Holder("heavy", 3.0, PLENTY), Holder("light", 1.0, PLENTY)
    placement = Placement([heavy, light])

    for _ in range(400):
        holder = placement.place(KEY, 1)
        assert holder is not None
        placement.take(holder, 1)

    assert (heavy.share, light.share) == (0.75, 0.25)
    assert placement.preferred(KEY) is heavy
    assert heavy.held == 375
    assert light.held == 25


def test_holder_without_credit_is_passed_over() -> None:
    """The gateway never sends more rows than a holder lets it."""
    placement = placement_of(3, credits_rows=1)
    first, second, _ = in_order(placement)

    placement.take(first, 1)
    assert placement.place(KEY, 1) is second

    first.credits = 2
    assert placement.place(KEY, 1) is first


def test_request_above_the_credit_goes_only_to_a_holder_of_nothing() -> None:
    """Or it would never go anywhere."""
    placement = placement_of(2, credits_rows=8)
    first, second = in_order(placement)

    assert placement.place(KEY, 100) is first
    placement.take(first, 1)
    assert placement.place(KEY, 100) is second
    placement.take(second, 1)
    assert placement.place(KEY, 100) is None


def test_request_above_every_bound_goes_home_unless_that_is_above_its_bound_already() -> None:
    """Many rows of one key still go where the key's rows went before."""
    placement = placement_of(4)
    first, second, *_ = in_order(placement)

    assert placement.place(KEY, 50) is first
    placement.take(first, 3)
    assert placement.place(KEY, 50) is first
    placement.take(first, 27)

    assert placement.place(KEY, 50) is second


def test_nobody_takes_a_request_when_all_credit_is_out() -> None:
    """The caller lets it wait; the first credit that comes back ends that."""
    placement = placement_of(2, credits_rows=4)
    first, second = in_order(placement)
    placement.take(first, 4)
    placement.take(second, 4)

    assert placement.place(KEY, 1) is None

    placement.give_back(second, 1)
    assert placement.place(KEY, 1) is second


def test_holder_above_its_bound_takes_nothing_though_it_alone_has_credit() -> None:
    """A slow worker with much credit must not collect what the others have no credit for."""
    placement = placement_of(2)
    first, second = in_order(placement)
    second.credits = 2
    placement.take(second, 2)
    placement.take(first, 10)

    assert placement.place(KEY, 1) is None


def test_holder_of_two_rows_takes_another_when_it_alone_has_credit() -> None:
    """It holds no more than the bound, however small its share; nobody who could take the row holds less."""
    heavy, light = Holder("heavy", 9.9, 1), Holder("light", 0.1, PLENTY)
    placement = Placement([heavy, light])
    placement.take(heavy, 1)
    placement.take(light, 2)

    assert placement.place(KEY, 1) is light
    placement.take(light, 1)
    assert placement.place(KEY, 1) is None


def test_without_holders_nobody_takes_anything() -> None:
    """A model whose workers are all gone."""
    placement: Placement[Holder] = Placement([])

    assert placement.place(KEY, 1) is None
    with pytest.raises(LookupError):
        placement.preferred(KEY)
    placement.check()


def test_work_that_waited_goes_to_any_holder_that_fits() -> None:
    """Whoever the home is; and never above the bound or the credit."""
    placement = placement_of(4, credits_rows=10)
    first, second, third, fourth = in_order(placement)
    for holder, rows in ((first, 9), (second, 10), (third, 3), (fourth, 0)):
        placement.take(holder, rows)

    assert not placement.admits(first, 1)
    assert not placement.admits(second, 1)
    assert placement.admits(third, 1)
    assert placement.admits(fourth, 1)


def test_work_above_every_bound_is_admitted_by_each_that_is_not_above_its_own() -> None:
    """Or a request of many rows that waited would wait for ever."""
    placement = placement_of(3)
    first, second, third = in_order(placement)
    placement.take(first, 40)

    assert not placement.admits(first, 50)
    assert placement.admits(second, 50)
    assert placement.admits(third, 50)


def test_block_is_spread_over_idle_holders() -> None:
    """A burst of calls is worked on by all; the home has the most."""
    placement = placement_of(4)

    parts = placement.spread(KEY, 32, 32)

    assert parts == list(zip(in_order(placement), (10, 10, 10, 2), strict=True))


def test_block_goes_home_whole_when_the_load_allows() -> None:
    """With 200 rows under way one block more is within everybody's bound."""
    placement = placement_of(2)
    for holder in in_order(placement):
        placement.take(holder, 90)

    assert placement.spread(KEY, 20, 20) == [(in_order(placement)[0], 20)]


def test_block_is_not_divided_below_the_grain() -> None:
    """On two idle holders the bound for a block of 32 is 20 rows, which a grain of 16 makes 32; not so for a single."""
    placement = placement_of(2)
    first, second = in_order(placement)
    first.grain = second.grain = 16

    assert placement.spread(KEY, 32, 32) == [(first, 32)]
    assert placement.room(second, 32) == 32

    placement.take(first, 32)
    assert placement.spread(KEY, 32, 32) == [(first, 16), (second, 16)]
    assert placement.place(KEY, 9) is second


def test_request_of_one_call_is_never_divided() -> None:
    """Whatever its rows: it is placed as `place` says."""
    placement = placement_of(4, credits_rows=8)
    first, *_ = in_order(placement)

    assert placement.spread(KEY, 32, 1) == [(first, 32)]

    for holder in in_order(placement):
        placement.take(holder, 8)
    assert placement.spread(KEY, 1, 1) == []


def test_waiting_block_gets_as_much_as_fits() -> None:
    """A holder's room is what its credit and its bound leave, or one row where it would get a single request."""
    placement = placement_of(2, credits_rows=12)
    first, second = in_order(placement)
    placement.take(first, 7)
    placement.take(second, 12)

    assert placement.room(first, 32) == 5
    assert placement.room(first, 3) == 3
    assert placement.room(second, 32) == 0


def test_what_a_holder_holds_passes_to_the_next_placement() -> None:
    """A join or a leave makes a new placement; holders persist, the total and the shares are new."""
    holders = [Holder(f"w{i}", 1.0, PLENTY) for i in range(4)]
    earlier = Placement(holders)
    for rows, holder in enumerate(holders, 1):
        earlier.take(holder, rows)

    later = Placement(holders[1:])

    assert later.total == 2 + 3 + 4
    assert [holder.share for holder in holders[1:]] == [1 / 3] * 3
    later.check()


def test_what_a_holder_that_left_gives_back_counts_for_nobody() -> None:
    """A draining worker finishes; the total of those who stay is not touched."""
    gone, stays = Holder("gone", 1.0, PLENTY), Holder("stays", 1.0, PLENTY)
    earlier = Placement([gone, stays])
    earlier.take(gone, 3)
    earlier.take(stays, 2)
    later = Placement([stays])

    earlier.give_back(gone, 3)

    assert gone.held == 0
    assert later.total == 2
    later.check()


def test_placements_of_the_same_members_share_one_ring() -> None:
    """One table per set of holders, however many models they serve."""
    one, other = placement_of(5), placement_of(5)

    assert one.ring is other.ring


def test_holder_can_be_extended() -> None:
    """The gateway's own record is a holder; what comes out is what was put in."""

    class Engine(Holder):
        __slots__ = ("answered",)

        def __init__(self, name: str) -> None:
            super().__init__(name, 1.0, 32)
            self.answered = 0

    placement = Placement([Engine("w1")])
    engine = placement.place(KEY, 1)

    assert engine is not None
    assert engine.answered == 0
    assert not hasattr(engine, "__dict__")


holders = st.integers(2, 64).flatmap(
    lambda count: st.lists(
        st.tuples(st.integers(10, 4000), st.integers(1, 64) | st.just(PLENTY)), min_size=count, max_size=count
    )
)
steps = st.lists(
    st.tuples(
        st.sampled_from(["place", "place", "place", "give back", "join", "leave", "credits"]),
        st.integers(0, 2**64 - 1),
        st.just(1) | st.integers(1, 40),
    ),
    max_size=60,
)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(holders, steps)
def test_every_placement_obeys_the_bound_and_the_credits(
    specs: list[tuple[int, int]], steps: list[tuple[str, int, int]]
) -> None:
    """In rows, by weight, over the ready holders, while they come and go: against exact arithmetic."""
    known = [Holder(f"w{i}", weight / 1000, credits_rows) for i, (weight, credits_rows) in enumerate(specs)]
    ready, spare = known[::2], known[1::2]
    placement = Placement(ready)
    counted_in = dict.fromkeys(ready, placement)
    taken: deque[tuple[Holder, int]] = deque()

    for step, number, rows in steps:
        chosen: Holder | None
        match step:
            case "place":
                assert_placed_by_the_rules(placement, number, rows)
                chosen = placement.place(number, rows)
                if chosen is not None:
                    assert chosen.held <= bound(placement, chosen, rows)
                    placement.take(chosen, rows)
                    taken.append((chosen, rows))
            case "give back" if taken:
                chosen, held = taken.popleft()
                counted_in[chosen].give_back(chosen, held)
            case "join" if spare:
                ready.append(spare.pop(number % len(spare)))
                placement = Placement(ready)
                counted_in |= dict.fromkeys(ready, placement)
            case "leave" if len(ready) > 1:
                spare.append(ready.pop(number % len(ready)))
                placement = Placement(ready)
                counted_in |= dict.fromkeys(ready, placement)
            case "credits":
                ready[number % len(ready)].credits = rows
        placement.check()


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(holders, st.lists(st.integers(0, 80), min_size=64, max_size=64), st.integers(1, 100))
def test_waiting_work_is_admitted_somewhere_whenever_it_could_be_placed(
    specs: list[tuple[int, int]], held: list[int], rows: int
) -> None:
    """`admits` and `place` agree on whether a request must wait, and `admits` asks no key."""
    ready = [Holder(f"w{i}", weight / 1000, credits_rows) for i, (weight, credits_rows) in enumerate(specs)]
    for holder, already in zip(ready, held, strict=False):
        holder.held = already
    placement = Placement(ready)

    chosen = placement.place(KEY, rows)

    assert (chosen is not None) == any(placement.admits(holder, rows) for holder in ready)
    for holder in ready:
        room, before = placement.room_for_each(holder, rows), holder.held
        for taken in range(rows + 1):
            assert (taken < room) == (taken < rows and placement.admits(holder, 1))
            placement.take(holder, 1)
        placement.give_back(holder, rows + 1)
        assert (holder.held, placement.total) == (before, sum(one.held for one in ready))
    for holder in ready:
        if fits(placement, holder, rows):
            assert placement.admits(holder, rows)
    if chosen is not None:
        assert placement.admits(chosen, rows)


@pytest.mark.slow
@settings(derandomize=True, deadline=None, max_examples=60)
@given(holders, st.lists(st.integers(0, 80), min_size=64, max_size=64), st.integers(2, 32), st.integers(0, 2**64 - 1))
def test_spread_fills_holders_in_order_up_to_bound_and_credit(
    specs: list[tuple[int, int]], held: list[int], rows: int, key: int
) -> None:
    """Each has all it may before the next has any, and nothing is left while somebody might have more."""
    ready = [Holder(f"w{i}", weight / 1000, credits_rows) for i, (weight, credits_rows) in enumerate(specs)]
    for holder, already in zip(ready, held, strict=False):
        holder.held = already
        holder.grain = 1 + already % 5
    placement = Placement(ready)
    bounds = {h: -(-bound(placement, h, rows) // h.grain) * h.grain for h in in_order(placement, key)}
    rooms = {h: max(0, min(bounds[h], h.credits) - h.held) for h in in_order(placement, key)}

    parts = placement.spread(key, rows, rows)

    wanted, left = [], rows
    for holder, room in rooms.items():
        if room and left:
            wanted.append((holder, min(room, left)))
            left -= wanted[-1][1]
    assert parts == wanted
    for holder, part in parts:
        assert placement.room(holder, rows) >= part


@pytest.mark.parametrize("count", [2, 3, 16, 64])
def test_bound_holds_over_a_hundred_thousand_keys(count: int) -> None:
    """Skewed keys, one to four rows, uneven weights, ten rows a holder in flight, answers in any order."""
    rng = random.Random(count)
    thousandths = [rng.randrange(250, 4000) for _ in range(count)]
    ready = [Holder(f"w{i}", weight / 1000, PLENTY) for i, weight in enumerate(thousandths)]
    weight_of = dict(zip(ready, thousandths, strict=True))
    placement = Placement(ready)
    taken: list[tuple[Holder, int]] = []
    at_home = 0

    for turn in range(25_000):
        key = key_hash(b"user-%d" % int(rng.paretovariate(0.5)))
        rows = rng.choice((1, 1, 1, 4))
        chosen = placement.place(key, rows)
        assert chosen is not None
        at_home += chosen is placement.preferred(key)
        reached = 5 * (placement.total + rows) * weight_of[chosen]
        whole = 4 * sum(thousandths)
        # Whole numbers: held <= ceil(reached / whole). Only a request of many rows may end above it.
        assert chosen.held <= max(2, -(-reached // whole)), turn
        if rows == 1:
            assert chosen.held + 1 <= max(2, -(-reached // whole)), turn
        placement.take(chosen, rows)
        taken.append((chosen, rows))
        while placement.total > 10 * count:
            i = rng.randrange(len(taken))
            taken[i], taken[-1] = taken[-1], taken[i]
            placement.give_back(*taken.pop())

    placement.check()
    assert at_home > 5_000
