"""SIGHUP of an operator, and that of a terminal that goes."""

from __future__ import annotations

import pytest

from zmqinfer.launch.terminal import WINDOW_S, Hangup, Wish

NEVER = float("inf")
START_S, TICK_S = 100.0, 0.1


@pytest.mark.parametrize(
    ("had_terminal", "gone_s", "asked_s", "wish", "at_s"),
    [
        (True, 5.0, 5.0, Wish.END, 5.0),
        (True, 5.0 + 0.8 * WINDOW_S, 5.0, Wish.END, 5.0 + 0.8 * WINDOW_S),
        (True, 5.0, 5.0 + 0.8 * WINDOW_S, Wish.END, 5.0 + 0.8 * WINDOW_S),
        (True, NEVER, 5.0, Wish.RENEW, 5.0 + WINDOW_S),
        (True, 2.0, 5.0, Wish.RENEW, 5.0),
        (True, 8.0, 5.0, Wish.RENEW, 5.0 + WINDOW_S),
        (False, NEVER, 5.0, Wish.RENEW, 5.0),
        (True, 5.0, NEVER, Wish.NOTHING, NEVER),
    ],
    ids=["closed", "shell first", "shell last", "there", "outlived", "closed later", "none", "no signal"],
)
def test_what_a_signal_asks_for(had_terminal: bool, gone_s: float, asked_s: float, wish: Wish, at_s: float) -> None:
    """The first answer that is not nothing, and when it comes."""
    hangup = Hangup(has_terminal=had_terminal)
    answers = []
    for tick in range(100):
        age_s = tick * TICK_S
        answers.append(
            hangup.look(
                START_S + age_s,
                has_terminal=had_terminal and age_s < gone_s,
                is_asked=age_s - TICK_S < asked_s <= age_s,
            )
        )
    told = [(answer, tick * TICK_S) for tick, answer in enumerate(answers) if answer is not Wish.NOTHING]

    assert told[:1] == ([] if wish is Wish.NOTHING else [(wish, pytest.approx(at_s, abs=1.5 * TICK_S))])
    assert wish is Wish.END or len(told) <= 1


def test_both_are_seen_at_once_by_a_program_that_was_stopped() -> None:
    """It had no time to see which came first."""
    hangup = Hangup(has_terminal=True)

    assert hangup.look(900.0, has_terminal=False, is_asked=True) is Wish.END
