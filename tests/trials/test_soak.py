"""The soak test's judging, with series made up, and one short run of the real thing."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest

from trials.soak.faults import KILL, KINDS, RENEW, Plan
from trials.soak.shown import draw
from trials.soak.verdict import (
    Fault,
    Sample,
    Series,
    judge_faults,
    judge_processes,
    more_descriptors,
    slope_mb,
    unbalanced,
)

ROOT = Path(__file__).parents[2]
FORM_S = 1_200.0


def series(
    name: str = "gateway_0",
    *,
    lived_s: float = FORM_S,
    mb_per_10_min: float = 0.0,
    noise_mb: float = 0.0,
    warm_up_mb: float = 0.0,
    late_descriptors: int = 0,
) -> Series:
    """A process sampled every 5 s, whose memory first rises by `warm_up_mb` within a tenth of its life."""
    random = Random(name)
    samples = [
        Sample(
            at_s=at_s,
            memory_mb=50
            + min(1.0, at_s / (lived_s / 10)) * warm_up_mb
            + at_s / 600 * mb_per_10_min
            + random.uniform(-noise_mb, noise_mb),
            descriptors=20 + random.randrange(3) + (late_descriptors if at_s > 0.7 * lived_s else 0),
            threads=4,
        )
        for at_s in (5.0 * number for number in range(int(lived_s / 5) + 1))
    ]
    return Series(name, 1, samples)


def others(*without: str) -> list[Series]:
    """A healthy process of each other role, so that none is missing."""
    return [series(name) for name in ("gateway_1", "worker_3", "client") if name not in without]


def test_a_healthy_noisy_series_passes() -> None:
    """Noise, and what it takes to get warm, are no growth."""
    healthy = series(noise_mb=1.5, warm_up_mb=40.0, mb_per_10_min=0.3)

    assert abs(slope_mb(healthy.samples)) < 0.8
    assert judge_processes([healthy, *others()], FORM_S) == []


def test_a_leaking_series_is_named() -> None:
    """Even below noise as large as itself."""
    leaking = series("worker_1", noise_mb=1.5, mb_per_10_min=2.5)

    (sentence,) = judge_processes([leaking, *others()], FORM_S)

    assert slope_mb(leaking.samples) == pytest.approx(2.5, abs=0.6)
    assert "memory of worker_1 (process 1) grew by 2." in sentence


def test_exactly_the_bound_is_too_much() -> None:
    """The slope must be under it."""
    assert slope_mb(series(mb_per_10_min=0.5).samples) == pytest.approx(0.5)
    assert len(judge_processes([series(mb_per_10_min=1.001), *others()], FORM_S)) == 1
    assert judge_processes([series(mb_per_10_min=0.999), *others()], FORM_S) == []


def test_a_descriptor_leak_is_named() -> None:
    """Eight more in the last quarter than in the second."""
    leaking = series("client", late_descriptors=8)

    (sentence,) = judge_processes([leaking, *others("client")], FORM_S)

    assert more_descriptors(leaking.samples) == pytest.approx(8, abs=1)
    assert "client (process 1) had" in sentence
    assert "more descriptors" in sentence


def test_a_few_descriptors_more_are_no_leak() -> None:
    """A connection or two may be open at the end."""
    assert judge_processes([series(late_descriptors=3), *others()], FORM_S) == []


def test_who_did_not_live_long_is_not_judged() -> None:
    """Of a process that lived four minutes nobody can say whether it grows."""
    assert judge_processes([series(lived_s=240, mb_per_10_min=50, late_descriptors=50), *others()], FORM_S) == []
    assert judge_processes([series(lived_s=240, mb_per_10_min=50)], 240) == []


def test_a_long_form_that_judged_no_worker_says_so() -> None:
    """A check that looked at nothing must not pass."""
    young = series("worker_3", lived_s=120)

    assert judge_processes([series(), young, series("client")], FORM_S) == [
        "no worker lived for 300 s, so none was judged"
    ]


def test_a_fault_that_never_happened_is_named() -> None:
    """Each kind, in a form that has time for all."""
    done = [Fault(float(number), kind, "x") for number, kind in enumerate(KINDS) if kind != RENEW]

    assert judge_faults(KINDS, done, FORM_S) == [f"this fault never happened: {RENEW}"]
    assert judge_faults(KINDS, [*done, Fault(9.0, RENEW, "all")], FORM_S) == []


def test_a_short_form_needs_two_kinds() -> None:
    """It has no time for all, but one kind alone is no churn."""
    one_kind = [Fault(1.0, KILL, "worker_1"), Fault(2.0, KILL, "worker_2")]

    assert judge_faults(KINDS, one_kind, 12.0) == ["1 kinds of fault happened, expected 2 at least"]
    assert judge_faults(KINDS, [*one_kind, Fault(3.0, RENEW, "all")], 12.0) == []


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"received": 12}, ["received 12 == refused 1 + accepted 10"]),
        ({"pending": 3}, ["accepted 10 == answered 8 + pending 3"]),
        ({"outcomes": {"OK": 8}}, ["answered 8 + refused 1 == outcomes 8"]),
        ({}, []),
    ],
)
def test_books_that_do_not_balance_are_shown(changed: dict[str, object], says: list[str]) -> None:
    """Each of the three equations by itself."""
    books = {
        "received": 11,
        "refused": 1,
        "accepted": 10,
        "answered": 8,
        "pending": 2,
        "outcomes": {"OK": 8, "OVERLOADED": 1},
    }

    assert unbalanced({**books, **changed}) == says  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", range(1, 6))
def test_the_plan_keeps_its_distances(seed: int) -> None:
    """No worker is killed twice within 30 s, rolling restarts are rare and early, and one worker lives on."""
    plan = Plan(seed, FORM_S)
    workers = ["worker_1", "worker_2", "worker_3"]
    kinds: list[tuple[float, str]] = []
    kills: list[tuple[float, str]] = []
    at_s = 0.0
    while (at_s := at_s + plan.random.uniform(5, 15)) < FORM_S:
        kind = plan.next(workers, at_s)
        kinds.append((at_s, kind))
        if kind == KILL:
            killed = plan.random.choice(plan.killable(workers, at_s))
            plan.note_kill(killed, at_s)
            kills.append((at_s, killed))

    assert {kind for _, kind in kinds} == set(KINDS)
    renewals = [at_s for at_s, kind in kinds if kind == RENEW]
    assert all(at_s <= FORM_S / 3 for at_s in renewals)
    assert all(later - earlier >= 180 for earlier, later in pairwise(renewals))
    for worker in workers:
        times = [at_s for at_s, killed in kills if killed == worker]
        assert all(later - earlier >= 30 for earlier, later in pairwise(times))
    assert not [at_s for at_s, killed in kills if killed == "worker_3" and at_s > FORM_S / 3]


def test_the_picture_of_a_long_run_is_as_large_as_promised(tmp_path: Path) -> None:
    """1,200 x 700 pixels, restarted processes included."""
    path = tmp_path / "soak.png"
    draw([*others(), series(), series("worker_3", lived_s=100)], [Fault(60.0, KILL, "worker_1")], path)

    header = path.read_bytes()[:24]
    assert (int.from_bytes(header[16:20]), int.from_bytes(header[20:24])) == (1200, 700)


@pytest.mark.slow
def test_some_seconds_of_the_real_thing(tmp_path: Path) -> None:
    """Processes die and come and go, every call is answered rightly, and everything is written down."""
    command = [sys.executable, "-m", "trials.soak", "--minutes", "0.07", "--pause-s", "0.2", "0.5", "--sample-s", "0.5"]
    # Of 10,000 calls in hand a client's next one is refused: a busy machine may stand still for more than a second.
    command += ["--most-per-s", "1000"]
    done = subprocess.run(
        [*command, "--out", tmp_path],
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "slopes and descriptors are not judged" in done.stdout
    report = json.loads((tmp_path / "soak.json").read_text())
    assert len({fault["kind"] for fault in report["faults"]}) >= 2
    assert report["calls"] > 1_000
    assert report["failed"] == report["wrong"] == 0
    assert {one["name"] for one in report["processes"]} >= {"client", "gateway_0", "gateway_1", "worker_1"}
    assert (tmp_path / "soak.png").stat().st_size > 10_000
