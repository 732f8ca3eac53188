"""A gateway that drains sends its clients elsewhere and answers all that it has, or that comes before they know."""

from __future__ import annotations

from tests.machine.gateway.playbook import Playbook, request, session_of
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import Status
from zmqinfer.records import STATUS, Kind


def drained(play: Playbook) -> bool:
    return play.machine.is_drained(play.now)


def test_a_gateway_that_nobody_uses_is_drained_at_once() -> None:
    """Workers greet whoever comes next."""
    play = Playbook().with_workers("w1")
    assert not drained(play)

    assert drained(play.drains())


def test_it_answers_what_it_has_and_what_still_comes_and_waits_for_the_goodbye() -> None:
    """A client knows of it only when it has read so."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1))

    play.drains()
    assert play.says("c", Kind.DISCONNECT)[0] == "draining"
    play.hears("c", Kind.REQUEST, request(2))
    assert not drained(play)
    play.answers("w1")

    assert [record[STATUS] for record in play.said("c", Kind.REPLY)] == [Status.OK, Status.OK]
    assert not drained(play)
    play.hears("c", Kind.DISCONNECT, ["closing", ""])
    assert drained(play)


def test_clients_that_are_owed_nothing_and_do_not_read_are_left_after_a_second() -> None:
    """A sync client reads only when it is called."""
    play = Playbook().with_workers("w1").with_clients("c").drains()

    play.waits(0.9)
    assert not drained(play)
    play.waits(0.2)
    assert drained(play)


def test_what_takes_too_long_is_left_when_the_grace_is_over() -> None:
    """Its clients ask another gateway."""
    play = Playbook(GatewaySettings(drain_grace_s=3.0)).with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1))

    play.drains().waits(2.9)
    assert not drained(play)
    play.waits(0.2)
    assert drained(play)


def test_a_stranger_is_not_let_in_and_not_sent_away() -> None:
    """It repeats its greeting until there is another gateway at this address."""
    play = Playbook().with_workers("w1").drains()
    play.hears("c", Kind.HELLO, [session_of("c"), "agent", None, None])

    play.says_nothing("c")
    assert drained(play)


def test_a_client_that_comes_back_for_its_answers_gets_them_and_is_told() -> None:
    """On another connection."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.hears("c", Kind.REQUEST, request(1))
    play.drains().loses("c")
    play.answers("w1")

    play.greets("c2", session_of("c"))

    assert play.says("c2", Kind.REPLY)[STATUS] == Status.OK
    assert play.says("c2", Kind.DISCONNECT)[0] == "draining"


def test_draining_twice_is_draining_once() -> None:
    """The grace is that of the first time."""
    play = Playbook().with_workers("w1").with_clients("c")
    play.drains().drains()

    assert len(play.said("c", Kind.DISCONNECT)) == 1
