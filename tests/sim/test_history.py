"""The judge of a run, on histories that are forged."""

from __future__ import annotations

import pytest

from zmqinfer.errors import Executed, Status
from zmqinfer.scenario import TimedModel
from zmqinfer.sim.history import Call, History, Violation, answer_to, body_of, is_poison

NO, YES, MAYBE = Executed.NO, Executed.YES, Executed.MAYBE


def begin(history: History, *, may_run_twice: bool = True) -> Call:
    return history.begin(TimedModel("m", idempotent=may_run_twice), 2.0, 1.0)


def end(history: History, call: Call, status: Status = Status.OK, ran: Executed = YES, now: float = 2.0) -> None:
    history.end(call, status, answer_to(call.model, call.body) if not status else b"", ran, now, 0.0)


def test_a_call_that_ran_and_was_answered_is_in_order() -> None:
    """And counted."""
    history = History()
    call = begin(history)
    history.ran(call.body, 1.5)
    end(history, call)
    lost = begin(history)
    history.give_up(lost)

    history.check_all_ended()
    assert history.outcomes() == {"OK": 1, "given up": 1}


def test_an_input_holds_its_number_and_whether_it_is_poison() -> None:
    """The answer depends on the model and on all of the input."""
    history = History()
    calls = [begin(history) for _ in range(8)]
    row = body_of(7, is_poison=True)
    assert history.of(row) is calls[7]
    assert (is_poison(row), is_poison(calls[7].body)) == (True, False)
    assert len({answer_to("a", row), answer_to("b", row), answer_to("a", body_of(8, is_poison=True))}) == 3


def test_a_second_outcome_is_a_violation() -> None:
    """Of whatever kind."""
    history = History()
    call = begin(history)
    end(history, call, Status.UNAVAILABLE, NO)
    with pytest.raises(Violation, match="ended as UNAVAILABLE and as OVERLOADED"):
        end(history, call, Status.OVERLOADED, NO)


def test_an_outcome_of_a_call_taken_back_is_a_violation() -> None:
    """Its owner hears nothing of it."""
    history = History()
    call = begin(history)
    history.give_up(call)
    with pytest.raises(Violation, match="taken back"):
        end(history, call, Status.UNAVAILABLE, NO)


def test_a_call_is_condemned_only_if_a_worker_vanished_with_it_alone() -> None:
    """Killed, or cut off."""
    history = History()
    harmless, alone = begin(history), begin(history)
    for call in (harmless, alone):
        history.ran(call.body, 1.5)
    history.of(alone.body).has_vanished = True

    end(history, alone, Status.POISONED)
    with pytest.raises(Violation, match="call 0 ended as POISONED, and has ended no worker"):
        end(history, harmless, Status.POISONED)


def test_the_answer_of_another_call_is_a_violation() -> None:
    """Or of another model."""
    history = History()
    call, other = begin(history), begin(history)
    history.ran(call.body, 1.5)
    for wrong in (answer_to("m", other.body), answer_to("n", call.body), b""):
        with pytest.raises(Violation, match="was answered"):
            history.end(call, Status.OK, wrong, YES, 2.0, 0.0)
        call.status = None


def test_what_is_said_of_execution_must_be_true() -> None:
    """Before and after."""
    history = History()
    call = begin(history)
    with pytest.raises(Violation, match="never ran"):
        end(history, call, Status.MODEL_ERROR, YES)
    call = begin(history)
    end(history, call, Status.UNAVAILABLE, NO)
    with pytest.raises(Violation, match="said not to have run, and ran at"):
        history.ran(call.body, 2.5)
    call = begin(history)
    history.ran(call.body, 1.5)
    with pytest.raises(Violation, match="said not to have run"):
        end(history, call, Status.UNAVAILABLE, NO)


def test_a_second_run_of_what_may_not_is_a_violation() -> None:
    """Of what may, it is none."""
    history = History()
    twice, once = begin(history), begin(history, may_run_twice=False)
    for call in (twice, once, twice):
        history.ran(call.body, 1.5)
    with pytest.raises(Violation, match="may not run twice"):
        history.ran(once.body, 1.6)


def test_late_is_a_violation_unless_the_client_was_frozen() -> None:
    """250 ms after the deadline, or after it went on."""
    history = History()
    end(history, begin(history), Status.DEADLINE_EXCEEDED, MAYBE, 3.249)
    with pytest.raises(Violation, match=r"0\.251 s after its deadline"):
        end(history, begin(history), Status.DEADLINE_EXCEEDED, MAYBE, 3.251)
    history.end(begin(history), Status.DEADLINE_EXCEEDED, b"", MAYBE, 9.2, 9.0)


def test_one_that_never_ended_is_a_violation() -> None:
    """It is named."""
    history = History()
    begin(history)
    with pytest.raises(Violation, match="1 calls never ended, the first is 0"):
        history.check_all_ended()
