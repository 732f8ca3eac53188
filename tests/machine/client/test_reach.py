"""Calls of clients that set `fail_fast_s`, in virtual time."""

from __future__ import annotations

import pytest

from tests.machine.client.playbook import BEAT_S, START, Playbook, did_not_run, echo
from zmqinfer.errors import EXECUTED, Executed, Status
from zmqinfer.records import BUDGET_US, RAN, RESULT, STATUS, Kind, Record

# A gateway that says nothing is lost after three heartbeats.
LOST_S = 3 * BEAT_S
FAST_S = 2.5


def lost(**how: float) -> Playbook:
    """A client whose only gateway has gone while a call was pending."""
    play = Playbook(fail_fast_s=FAST_S, **how).up()
    play.alive.clear()
    return play


def is_unavailable(record: Record, executed: Executed) -> bool:
    return (record[STATUS], EXECUTED[record[RAN]]) == (Status.UNAVAILABLE, executed)


def test_calls_end_when_no_gateway_was_there_for_so_long() -> None:
    """Those that had left may have run; the sentence names the setting."""
    play = lost()
    play.calls("left")
    play.requests()

    assert not play.waits(FAST_S - 0.1).ended()
    ended = play.waits(0.2).ended()

    assert is_unavailable(ended["left"], Executed.MAYBE)
    assert "tcp://g0:5555 for 2.5 s, which is fail_fast_s" in ended["left"][RESULT]


def test_later_calls_end_at_once() -> None:
    """Nobody waits again for what is known already; nothing of them leaves when there is a gateway."""
    play = lost()
    play.calls("first")
    play.waits(FAST_S + 0.1).ended()
    play.is_connected = False
    play.waits(2 * BEAT_S).heard(0)

    for number in range(3):
        play.calls(number)
        assert is_unavailable(play.waits(0).ended()[number], Executed.NO)
        play.waits(5.0)

    play.is_connected = True
    assert play.kinds() == [Kind.HELLO]


def test_gateway_that_comes_back_is_used_at_once() -> None:
    """The client goes on greeting it, at rest too."""
    play = lost()
    play.calls("first")
    play.waits(60.0).ended()

    play.up()
    play.calls("second")
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked))

    assert play.ended()["second"][STATUS] == Status.OK


def test_one_gateway_of_several_is_enough() -> None:
    """Only when none is left calls fail."""
    play = Playbook(2, fail_fast_s=FAST_S).up(0, 1)
    play.alive = {1}
    play.calls("one")
    play.requests(0)
    assert not play.waits(20.0).ended()

    play.alive = set()
    assert play.waits(LOST_S + FAST_S).ended()["one"][STATUS] == Status.UNAVAILABLE


def test_silence_that_is_no_loss_yet_is_waited_for() -> None:
    """However short the setting: only after three heartbeats a gateway counts as lost."""
    play = Playbook(fail_fast_s=0.1).up()
    play.alive.clear()
    play.calls("one")
    play.requests()

    assert not play.waits(LOST_S - 0.1).ended()
    assert play.waits(BEAT_S + 0.2).ended()


@pytest.mark.parametrize("pause_s", [0.0, 100.0])
def test_own_pause_is_nobodys_silence(pause_s: float) -> None:
    """A client that asked nothing for long, or was stopped, gives the gateways all their time."""
    play = lost()
    play.calls("before")
    (asked,) = play.asked()
    play.says(0, Kind.REPLY, echo(asked)).ended()
    play.now += pause_s

    play.calls("after")

    assert not play.waits(FAST_S - 0.1).ended()
    assert play.waits(0.2).ended()


def test_client_that_never_reached_any_fails_as_fast() -> None:
    """Counted from when it began to dial, if that is sooner than connect_timeout_s."""
    play = Playbook(fail_fast_s=FAST_S, connect_timeout_s=20.0)
    play.calls("one")

    assert not play.waits(FAST_S - 0.1).ended()
    assert is_unavailable(play.waits(0.2).ended()["one"], Executed.MAYBE)


def test_without_it_calls_have_all_their_time() -> None:
    """It is off by default."""
    play = Playbook().up()
    play.alive.clear()
    play.calls("one", deadline_s=100.0)
    assert not play.waits(START / 20).ended()


@pytest.mark.parametrize("ends", ["given up", "late", "closed"])
def test_what_never_left_did_not_run(ends: str) -> None:
    """A socket without a connection takes nothing, from before its gateway is known to be lost; nor does it leave."""
    play = lost()
    play.calls("left")
    play.requests()
    play.is_connected = False
    play.calls("behind", 30.0 if ends == "given up" else 0.5)

    if ends == "closed":
        play.flushed().machine.fail_all("the client was closed")
    play.waits(FAST_S + 0.1 if ends == "given up" else 0.6 if ends == "late" else 0.0)

    ended = play.ended()
    assert EXECUTED[ended["behind"][RAN]] == Executed.NO
    if "left" in ended:
        assert EXECUTED[ended["left"][RAN]] == Executed.MAYBE
    play.is_connected = True
    assert all(record[BUDGET_US] == 0 for record in play.asked())


def test_what_left_in_part_may_have_run() -> None:
    """Calls of a block that were refused wait to leave again, while others of it are with the gateway."""
    play = lost()
    numbers = [play.calls(name) for name in ("with the gateway", "refused")]
    play.requests()
    play.says(0, Kind.REPLY, did_not_run(numbers[1], status=Status.OVERLOADED, retry_after_ms=10))
    play.is_connected = False

    ended = play.waits(FAST_S + 0.1).ended()

    assert {EXECUTED[record[RAN]] for record in ended.values()} == {Executed.MAYBE}
