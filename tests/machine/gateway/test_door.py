"""One of a gateway's two sockets: what leaves through it, and who offends."""

from __future__ import annotations

from zmqinfer.machine.gateway.door import MAX_OFFENCES, Door
from zmqinfer.records import Kind, Record
from zmqinfer.wire import decode


def said(door: Door) -> list[tuple[object, Kind, Record]]:
    words = []
    for outbox in door.dirty:
        for head, *parts in outbox.messages(0.0):
            kind, records = decode(bytes(head), parts)
            words += [(outbox.address, kind, record) for record in records]
    door.dirty.clear()
    return words


def test_door_speaks_to_peers_without_a_session() -> None:
    """They have no outbox of their own."""
    door = Door()

    door.say(b"peer", "wrong door", "go there")
    door.no_session(b"other")

    (first, second) = said(door)
    assert first == (b"peer", Kind.DISCONNECT, ["wrong door", "go there"])
    assert second[:2] == (b"other", Kind.DISCONNECT)
    assert second[2][0] == "no session"


def test_offender_is_told_once_and_cut_off_with_the_third() -> None:
    """Each peer has its own count."""
    door = Door()

    verdicts = [door.offend(b"peer", f"offence {n}") for n in range(MAX_OFFENCES + 1)]

    assert verdicts == [False, False, True, True]
    assert door.cut == [b"peer"]
    assert [word[2] for word in said(door)] == [["protocol", "offence 0"]]
    assert door.unheard == {b"peer"}
    assert door.offences == MAX_OFFENCES + 1


def test_end_of_a_connection_ends_its_record_of_offences() -> None:
    """The next connection is another peer."""
    door = Door()
    for _ in range(MAX_OFFENCES):
        door.offend(b"peer", "")

    door.forget(b"peer")
    door.forget(b"never seen")

    assert not door.unheard


def test_record_of_offenders_is_bounded() -> None:
    """Those who offended last are remembered."""
    door = Door()

    for n in range(10_050):
        door.offend(b"%d" % n, "")

    assert len(door._offences) == 10_000
    assert b"10049" in door._offences
    assert b"0" not in door._offences
