"""Which worker is a key's home, and what a change of members moves."""

from __future__ import annotations

import bisect
import random
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from zmqinfer.policy import ring as ring_module
from zmqinfer.policy.ring import SLOTS, VIRTUAL_NODES, Ring, key_hash, ring_of, version_of

KEYS = 100_000
# Three members for the vectors below.
GOLDEN = {"w1": 1.0, "w2": 2.0, "w3": 0.5}

names = st.from_regex(r"\A[A-Za-z0-9._:-]{1,16}\Z")
weights = st.integers(10, 4000).map(lambda thousandths: thousandths / 1000)
law = settings(derandomize=True, deadline=None, max_examples=25)


def members(low: int = 2) -> st.SearchStrategy[dict[str, float]]:
    return st.integers(low, 64).flatmap(lambda count: st.dictionaries(names, weights, min_size=count, max_size=count))


@pytest.fixture(scope="module")
def key_slots() -> NDArray[np.int64]:
    """The slots of 100,000 keys."""
    return np.array([key_hash(b"user-%d" % i) >> 48 for i in range(KEYS)])


def number(name: str) -> int:
    """A name as a number, the same in every ring, so that numpy can compare homes."""
    return key_hash(name.encode()) >> 1


def owners(ring: Ring) -> NDArray[np.int64]:
    """The home of each slot, as a number."""
    numbers = {name: number(name) for name in ring.members}
    return np.array([numbers[name] for name in ring.homes])


def sanity_buffer(length: int) -> bytes:
    """The input that xxHash's own test vectors are made of."""
    state = 2_654_435_761
    content = bytearray()
    for _ in range(length):
        content.append(state >> 56)
        state = state * 11_400_714_785_074_694_797 % 2**64
    return bytes(content)


def plain_ring(weights: dict[str, float]) -> list[tuple[int, str]]:
    """The points of a ring as the protocol defines them, in order."""
    return sorted(
        (key_hash(f"{name}#{i}".encode()), name)
        for name, weight in weights.items()
        for i in range(max(1, round(VIRTUAL_NODES * weight)))
    )


def walk(points: list[tuple[int, str]], slot: int) -> Iterator[str]:
    """All names from a slot's start onward, round the ring, with repetitions."""
    first = bisect.bisect_left(points, (slot << 48, ""))
    return (name for _, name in points[first:] + points[:first])


@pytest.mark.parametrize(
    ("length", "digest"),
    [
        (0, 0x2D06800538D394C2),
        (1, 0xC44BDFF4074EECDB),
        (6, 0x27B56A84CD2D7325),
        (12, 0xA713DAF0DFBB77E7),
        (24, 0xA3FE70BF9D3510EB),
        (48, 0x397DA259ECBA1F11),
        (80, 0xBCDEFBBB2C47C90A),
        (195, 0xCD94217EE362EC3A),
        (403, 0xCDEB804D65C6DEA4),
        (512, 0x617E49599013CB6B),
    ],
)
def test_keys_are_hashed_as_xxhash_publishes(length: int, digest: int) -> None:
    """XXH3-64 with seed 0, by the vectors of xxHash's cli/xsum_sanity_check.c, one for each of its paths."""
    assert key_hash(sanity_buffer(length)) == digest


@pytest.mark.parametrize(
    ("name", "i", "point"),
    [
        ("w1", 0, 0x9B9AFB3B54650EFA),
        ("w1", 2, 0x4BBFDEF99A9B5AE0),
        ("w1", 149, 0x467D02D97DE7E709),
        ("host-4711", 0, 0x8C3821C913EBF876),
    ],
)
def test_points_are_as_published(name: str, i: int, point: int) -> None:
    """Another implementation can check its virtual nodes by these."""
    points = ring_module._points(name, 1.0).tolist()

    assert points[i] == point == key_hash(f"{name}#{i}".encode())
    assert len(points) == VIRTUAL_NODES == 150


@pytest.mark.parametrize(
    ("weight", "count"),
    [
        (1.0, 150),
        (0.5, 75),
        (2, 300),
        (0.001, 1),
        (0.01, 2),
        (0.03, 4),
        (0.05, 8),
        (1.003, 150),
        (1.004, 151),
    ],
)
def test_points_go_by_weight(weight: float, count: int) -> None:
    """150 points per unit of weight, halves rounded to even, and never none."""
    assert len(ring_module._points("w1", weight)) == count


@pytest.mark.parametrize(
    ("key", "home", "order"),
    [
        (b"user-42", "w3", ("w3", "w2", "w1")),
        (b"", "w1", ("w1", "w3", "w2")),
        (b"a", "w2", ("w2", "w1", "w3")),
        (b"session-7", "w2", ("w2", "w3", "w1")),
    ],
)
def test_homes_are_as_published(key: bytes, home: str, order: tuple[str, ...]) -> None:
    """The same in every process, whatever its PYTHONHASHSEED."""
    ring = Ring(GOLDEN)

    assert ring.home(key_hash(key)) == home
    assert ring.order(key_hash(key)) == order


def test_table_and_version_are_as_published() -> None:
    """One digest over all 65,536 homes, one name a line, and the versions that gateways compare."""
    ring = Ring(GOLDEN)

    assert key_hash("".join(name + "\n" for name in ring.homes).encode()) == 0xB89B068DE8ED9701
    assert ring.version == version_of(GOLDEN) == "945ef11f6cb9ed26"
    assert version_of({"w1": 1.0}) == "15c149575efcb36f"
    assert version_of({}) == "2d06800538d394c2"


@pytest.mark.slow
@law
@given(members(low=1), st.lists(st.integers(0, SLOTS - 1), max_size=20))
def test_table_is_what_the_protocol_says(weights: dict[str, float], slots: list[int]) -> None:
    """A slot's order is that of a plain walk over the sorted points, from the slot's start."""
    ring = Ring(weights)
    points = plain_ring(weights)

    for slot in [0, SLOTS - 1, *slots]:
        order = tuple(dict.fromkeys(walk(points, slot)))
        assert ring.order(slot << 48) == order
        assert ring.home(slot << 48 | 0xFFFF_FFFF_FFFF) == order[0]


def test_slot_belongs_to_the_first_point_at_or_after_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """On the start counts, before it does not, and after the last point the first one is next."""
    points = {"a": [2 << 48, (9 << 48) + 5], "b": [(2 << 48) + 1, (6 << 48) - 1]}
    monkeypatch.setattr(ring_module, "_points", lambda name, weight: np.array(points[name], np.uint64))

    ring = Ring({"a": 1.0, "b": 1.0})

    assert "".join(ring.homes[:11]) == "aaabbbaaaaa"
    assert set(ring.homes[10:]) == {"a"}
    assert ring.order(3 << 48) == ("b", "a")


def test_clash_of_two_points_goes_to_the_smaller_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever came first."""
    monkeypatch.setattr(ring_module, "_points", lambda name, weight: np.array([5 << 48], np.uint64))

    for order in ("abc", "cba", "bca"):
        ring = Ring(dict.fromkeys(order, 1.0))
        assert set(ring.homes) == {"a"}
        assert ring.order(0) == ring.order(7 << 48) == ("a", "b", "c")


@pytest.mark.slow
@law
@given(members(), st.randoms(use_true_random=False))
def test_ring_does_not_depend_on_the_order_of_its_members(weights: dict[str, float], rng: random.Random) -> None:
    """Two gateways that met the workers in another order agree."""
    shuffled = list(weights.items())
    rng.shuffle(shuffled)

    one, other = Ring(weights), Ring(dict(shuffled))

    assert one == other
    assert one.version == other.version
    assert one.homes == other.homes
    assert one.moved(other) == 0


def test_version_tells_any_two_member_lists_apart() -> None:
    """Another name, another weight, however near, or one member more."""
    lists = [GOLDEN, {**GOLDEN, "w3": 0.501}, {**GOLDEN, "w4": 1.0}, {"w1": 1.0, "w2": 2.0, "w4": 0.5}]

    assert len({Ring(weights).version for weights in lists}) == len(lists)
    assert all(Ring(weights) != Ring(GOLDEN) for weights in lists[1:])


@pytest.mark.slow
@law
@given(members(), st.data())
def test_change_moves_no_key_between_survivors(
    key_slots: NDArray[np.int64], weights: dict[str, float], draw: st.DataObject
) -> None:
    """Of 100,000 keys a leave moves those of the member that left, all of them, and a join the reverse."""
    leaver = draw.draw(st.sampled_from(sorted(weights)))
    before = Ring(weights)
    after = Ring({name: weight for name, weight in weights.items() if name != leaver})

    homes, later = owners(before)[key_slots], owners(after)[key_slots]

    assert np.array_equal(homes != later, homes == number(leaver))
    assert before.moved(after) == after.moved(before) == before.share()[leaver]


@pytest.mark.slow
@law
@given(members(), st.data())
def test_change_of_one_weight_moves_keys_only_from_or_to_its_member(
    key_slots: NDArray[np.int64], weights: dict[str, float], draw: st.DataObject
) -> None:
    """More weight only gains keys, less only loses them."""
    name = draw.draw(st.sampled_from(sorted(weights)))
    before, after = Ring(weights), Ring({**weights, name: weights[name] + 1})

    homes, later = owners(before)[key_slots], owners(after)[key_slots]

    assert set(later[homes != later].tolist()) <= {number(name)}


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 8, 64])
def test_change_moves_about_its_share_of_the_keys(key_slots: NDArray[np.int64], count: int) -> None:
    """One of N moves at most 1.5/N of 100,000 keys, in each of 50 sets, and 1/N within 3 % on average.

    The share of a member is a random variable, of 150 gaps between points. Measured over 33 times 50 sets of
    2 to 64 members: mean 1.0015/N, standard deviation 0.06/N to 0.10/N, at most 1.29/N. A mean over 50
    sets so has a standard deviation of about 1.1 %, and 1 of those 33 was beyond 3 %. The sets are fixed.
    """
    rng = random.Random(count)
    moved = []
    for _ in range(50):
        drawn = [f"host-{pid}" for pid in rng.sample(range(10**6), count)]
        all_of_them, all_but_one = Ring(dict.fromkeys(drawn, 1.0)), Ring(dict.fromkeys(drawn[1:], 1.0))
        changed = owners(all_of_them)[key_slots] != owners(all_but_one)[key_slots]
        moved.append(float(changed.mean()) * count)

    assert max(moved) <= 1.5
    assert abs(sum(moved) / len(moved) - 1) <= 0.03


@pytest.mark.slow
@law
@given(members(low=1), st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_order_visits_every_member_once_and_home_first(weights: dict[str, float], hashes: list[int]) -> None:
    """Also for members so light that they have a single point."""
    ring = Ring(weights)

    for key in hashes + hashes:
        order = ring.order(key)
        assert tuple(sorted(order)) == ring.members
        assert order[0] == ring.home(key)


def test_successor_is_who_takes_over_when_the_home_leaves() -> None:
    """The second in a key's order is its home in the ring without the first."""
    weights = {f"w{i}": 1.0 for i in range(8)}
    ring = Ring(weights)
    rings = {gone: Ring({n: w for n, w in weights.items() if n != gone}) for gone in weights}

    for i in range(1000):
        key = key_hash(b"user-%d" % i)
        home, *others = ring.order(key)
        assert rings[home].order(key) == tuple(others)


def test_orders_are_kept_once_for_each_point() -> None:
    """What a spill costs the memory is bounded, whatever keys come: slots of one point share a tuple."""
    ring = Ring(GOLDEN)

    orders = [ring.order(slot << 48) for slot in range(SLOTS)]

    assert len(ring._orders) <= len(plain_ring(GOLDEN)) == 525
    assert ring.order(0) is orders[0]


def test_orders_of_many_members_are_dropped_before_they_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand members have half a gigabyte of orders. Those that come after a drop are the same."""
    ring, plenty = Ring(GOLDEN), Ring(GOLDEN)
    orders = [plenty.order(slot << 48) for slot in range(0, SLOTS, 64)]
    monkeypatch.setattr(ring_module, "_NAMES_KEPT", 30)

    assert [ring.order(slot << 48) for slot in range(0, SLOTS, 64)] == orders
    assert len(ring._orders) <= 10


def test_shares_follow_the_weights() -> None:
    """The parts add up to one, and a member of double weight owns about twice as much."""
    share = Ring({"light": 1.0, "heavy": 2.0}).share()

    assert list(share) == ["heavy", "light"]
    assert sum(share.values()) == 1
    assert share["heavy"] == pytest.approx(2 / 3, rel=0.1)


def test_member_may_own_nothing() -> None:
    """One point among 15,000 may be the first of no slot; its owner is still asked when others are full."""
    ring = Ring({"heavy": 100.0, "tiny": 0.001})

    assert set(ring.share()) == {"heavy", "tiny"}
    assert ring.share()["tiny"] < 0.01
    assert set(ring.order(0)) == {"heavy", "tiny"}


def test_empty_ring_has_no_home() -> None:
    """A look-up error that says what to do; everything else is empty."""
    ring = Ring({})

    with pytest.raises(LookupError, match="the ring has no members"):
        ring.home(0)
    assert ring.order(0) == ring.members == ring.homes == ()
    assert ring.share() == {}
    assert ring.moved(Ring({})) == 0
    assert ring.moved(Ring(GOLDEN)) == Ring(GOLDEN).moved(ring) == 1


def test_ring_that_is_in_use_is_shared() -> None:
    """The models of one set of workers need one table."""
    ring = ring_of(GOLDEN)

    assert ring_of(dict(reversed(GOLDEN.items()))) is ring == Ring(GOLDEN)
    assert ring_of({**GOLDEN, "w1": 1.5}) is not ring
    assert len(ring) == 3
    assert repr(ring) == "<Ring 945ef11f6cb9ed26 of 3>"


def test_ring_that_nobody_uses_is_forgotten() -> None:
    """Sharing holds no memory."""
    before = len(ring_module._rings)

    for i in range(5):
        ring_of({f"passing-{i}": 1.0})

    assert len(ring_module._rings) == before
