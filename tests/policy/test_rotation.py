"""Holders that are much worse than the others are out for a while, come back on trial, and are never most of all."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.policy.rotation import Rotation, Standing, Work, _median

LOOK_S = 0.5


@dataclass
class Team:
    """Holders that each do some work between two looks, as `does` says: calls, failures, and seconds of a batch."""

    does: dict[str, tuple[int, int, float]]
    idle: set[str] = field(default_factory=set)
    rows: int = 4
    now: float = 1_000.0
    rotation: Rotation = field(default_factory=Rotation)
    works: dict[str, Work] = field(default_factory=dict)
    changes: list[tuple[float, str, Standing]] = field(default_factory=list)

    def goes_on(self, looks: int) -> Team:
        """Works and is looked at; who is out does nothing, who is on trial does one call."""
        for _ in range(looks):
            self.now += LOOK_S
            for name, (calls, failed, batch_s) in self.does.items():
                done = self.works.get(name, Work())
                standing = self.rotation.standing(name)
                if standing is Standing.TRIAL:
                    calls, failed = 4, 4 if failed * 2 >= calls else 0
                batches = 0.0 if standing is Standing.OUT else (calls - failed) / self.rows
                if standing is not Standing.OUT:
                    rows = int(batches * self.rows)
                    self.works[name] = Work(
                        done.calls + calls, done.failed + failed, done.batches + batches, done.rows + rows,
                        done.busy_s + batches * batch_s,
                    )  # fmt: skip
            self.works = {name: self.works[name] for name in self.does}
            for name, standing, why in self.rotation.look(self.works, self.idle, self.now):
                assert why
                self.changes.append((self.now, name, standing))
        return self

    def standings(self) -> dict[str, str]:
        """Of everyone who is not in."""
        found = {name: self.rotation.standing(name) for name in self.does}
        return {name: standing.value for name, standing in found.items() if standing is not Standing.IN}


GOOD = (40, 0, 0.010)
FAILING = (40, 40, 0.001)
SLOW = (40, 0, 0.100)


@pytest.mark.parametrize("bad", [FAILING, SLOW])
def test_one_that_is_much_worse_is_out_and_comes_back_on_trial(bad: tuple[int, int, float]) -> None:
    """Within some looks; after about 5 s it is tried; when it does well it is in again."""
    team = Team({"a": GOOD, "b": GOOD, "c": bad}).goes_on(4)

    assert team.standings() == {"c": "out"}
    out_at = team.changes[0][0]
    team.does["c"] = GOOD
    while team.standings().get("c") == "out":
        team.goes_on(1)
    assert 3.75 <= team.now - out_at <= 6.75
    assert team.standings() == {"c": "trial"}
    team.goes_on(4)
    assert team.standings() == {}


def test_one_that_stays_bad_is_out_longer_each_time() -> None:
    """Up to a minute; and a trial is a few calls."""
    team = Team({"a": GOOD, "b": GOOD, "c": FAILING}).goes_on(400)

    spans = []
    for (began, _, standing), (ended, _, following) in zip(team.changes, team.changes[1:], strict=False):
        assert {standing, following} == {Standing.OUT, Standing.TRIAL}
        if standing is Standing.OUT:
            spans.append(ended - began)
    assert len(spans) >= 4
    assert all(0.75 * 5 * n <= span <= 1.25 * 5 * n + LOOK_S for n, span in enumerate(spans, start=1)), spans


@pytest.mark.parametrize("all_do", [FAILING, SLOW])
def test_what_all_do_is_no_fault_of_one(all_do: tuple[int, int, float]) -> None:
    """A model that fails for a bad caller fails everywhere."""
    assert Team({"a": all_do, "b": all_do, "c": all_do}).goes_on(10).standings() == {}


@pytest.mark.parametrize(
    ("count", "bad", "out"), [(1, 1, 0), (2, 1, 1), (3, 1, 1), (4, 2, 2), (5, 3, 0), (6, 2, 2), (10, 4, 4)]
)
def test_never_more_than_half_are_out(count: int, bad: int, out: int) -> None:
    """With most of them bad nobody is worse than the others."""
    does = {f"w{n}": FAILING if n < bad else GOOD for n in range(count)}

    assert len(Team(does).goes_on(5).standings()) == out


def test_those_who_get_nothing_anyway_count_as_not_in() -> None:
    """One of four is stuck in a batch and one is out: a second one stays."""
    does = {"a": GOOD, "b": GOOD, "c": FAILING, "d": (0, 0, 0.0)}
    assert Team(does, idle={"d"}).goes_on(5).standings() == {"c": "out"}
    does = {"a": GOOD, "b": FAILING, "d": (0, 0, 0.0)}
    assert Team(does, idle={"d"}).goes_on(5).standings() == {}


@pytest.mark.parametrize(
    "does",
    [
        {"a": GOOD, "b": (4, 4, 0.01)},  # too few calls to say anything, as they come
        {"a": (40, 0, 0.0001), "b": (40, 0, 0.002)},  # twenty times as long, and nobody would notice
        {"a": GOOD, "b": (40, 15, 0.01)},  # some of its callers' inputs are bad
        {"a": (40, 18, 0.01), "b": (40, 30, 0.01)},  # worse, but not by much
    ],
)
def test_a_difference_that_may_be_chance_is_none(does: dict[str, tuple[int, int, float]]) -> None:
    """Of calls, of times, of failures."""
    team = Team(does)
    assert team.goes_on(2).standings() == {}


def test_a_slow_one_is_told_from_one_with_larger_batches() -> None:
    """A batch of eight times the rows may take eight times as long."""
    rotation = Rotation()
    for look in range(1, 8):
        works = {
            "a": Work(40 * look, 0, 10.0 * look, 40 * look, 0.1 * look),
            "b": Work(320 * look, 0, 10.0 * look, 320 * look, 0.8 * look),
        }
        assert rotation.look(works, (), 1_000.0 + look) == []


def test_the_last_one_left_is_in() -> None:
    """Whatever it did while there were others."""
    team = Team({"a": GOOD, "b": GOOD, "c": FAILING}).goes_on(5)
    team.does = {"c": FAILING}

    assert team.goes_on(1).standings() == {}


def test_a_new_life_has_a_new_record() -> None:
    """A holder that left is forgotten."""
    team = Team({"a": GOOD, "b": GOOD, "c": FAILING}).goes_on(5)
    del team.does["c"]
    team.goes_on(1)
    team.does["c"] = GOOD
    team.works.pop("c", None)

    assert team.goes_on(2).standings() == {}


def test_times_out_are_forgiven_after_a_good_minute() -> None:
    """The next one is short again."""
    team = Team({"a": GOOD, "b": GOOD, "c": FAILING}).goes_on(60)
    team.does["c"] = GOOD
    team.goes_on(400)
    assert team.standings() == {}
    team.changes.clear()
    team.does["c"] = FAILING

    team.goes_on(40)

    (out_at, _, _), (back_at, _, _) = team.changes[:2]
    assert back_at - out_at <= 1.25 * 5 + LOOK_S


@given(st.lists(st.sampled_from([0.0, 0.1, 0.5, 2.0, 7.0]), max_size=9), st.data())
@settings(derandomize=True, deadline=None)
def test_the_median_of_the_others(figures: list[float], data: st.DataObject) -> None:
    """As computed from a list of the others, with equal figures among them too."""
    figures.sort()
    left_out = data.draw(st.sampled_from([None, *figures]))
    others = figures.copy()
    if left_out is not None:
        others.remove(left_out)

    assert _median(figures, left_out) == (statistics.median(others) if others else None)


def test_one_that_is_out_is_back_when_all_others_are_stuck() -> None:
    """A bad one is better than none; and it is not put out again while that is so."""
    team = Team({"a": GOOD, "b": SLOW}).goes_on(6)
    assert team.standings() == {"b": "out"}

    team.idle = {"a"}
    assert team.goes_on(1).standings() == {}
    assert team.goes_on(10).standings() == {}

    team.idle = set()
    assert team.goes_on(6).standings() == {"b": "out"}
