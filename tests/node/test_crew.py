"""Two threads for one loop: the duty passes on when the one who has it stays away."""

from __future__ import annotations

import threading

import pytest

from zmqinfer.node.crew import Crew, RelievedError


def test_steps_follow_one_another_until_one_is_the_last() -> None:
    """All on one thread, while nobody stays away."""
    seen: list[str] = []

    def step() -> bool:
        seen.append(threading.current_thread().name)
        return len(seen) < 1_000

    Crew(step, 0.05).run()

    assert len(seen) == 1_000
    assert len(set(seen)) == 1


def test_who_comes_back_soon_keeps_the_duty() -> None:
    """A short batch costs no change of threads."""
    kept: list[bool] = []

    def step() -> bool:
        crew.leave()
        kept.append(crew.come_back())
        return len(kept) < 1_000

    crew = Crew(step, 0.05)
    crew.run()

    assert kept == [True] * 1_000


@pytest.mark.slow
def test_who_stays_away_is_relieved_and_stands_by() -> None:
    """Twice: the first thread is away until the second has done a step, and then the other way round."""
    steps: list[str] = []
    away: list[str] = []
    done = [threading.Event(), threading.Event()]

    def step() -> bool:
        me = threading.current_thread().name
        if len(away) < 2 and len(steps) == len(away):
            turn = len(away)
            away.append(me)
            crew.leave()
            assert done[turn].wait(10)
            assert not crew.come_back()
            raise RelievedError
        steps.append(me)
        done[len(steps) - 1].set()
        return len(steps) < 2

    crew = Crew(step, 0.05)
    crew.run()

    assert len(set(away)) == 2
    assert steps == away[::-1]


def test_an_error_is_raised_where_the_loop_was_started() -> None:
    """Whoever started it must know."""

    def step() -> bool:
        raise ValueError("a defect")

    with pytest.raises(ValueError, match="a defect"):
        Crew(step, 0.05).run()


@pytest.mark.slow
def test_a_thread_that_never_comes_back_does_not_keep_the_loop_from_ending() -> None:
    """The other one does the last step."""
    for_ever = threading.Event()
    is_away = False

    def step() -> bool:
        nonlocal is_away
        if not is_away:
            is_away = True
            crew.leave()
            for_ever.wait(10)
            raise RelievedError
        return False

    crew = Crew(step, 0.05)
    crew.run()

    assert is_away
    for_ever.set()
