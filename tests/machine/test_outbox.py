"""What must be sent to one peer: in order, once, and what is not taken stays."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from zmqinfer.machine.outbox import Outbox
from zmqinfer.records import (
    ALL_PLACES,
    BUDGET_US,
    MAX_BUDGET_US,
    MAX_CALLS,
    MAX_RECORDS,
    PAYLOAD,
    PLACES,
    REQUEST_ID,
    ROWS,
    TAG,
    Kind,
    Record,
)
from zmqinfer.wire import MAX_BUNDLE_BYTES, decode

NOW = 1_000.0


def request(tag: int, payload: Any = b"body") -> Record:
    return [tag, 1, b"id", "m", None, None, 0, 4, 1, None, 1, b"layout", payload]


def outbox(address: bytes | int | None = 7) -> tuple[Outbox, list[Outbox]]:
    dirty: list[Outbox] = []
    return Outbox(address, dirty), dirty


def read(frames: list[Any]) -> tuple[Kind, list[Record]]:
    head, *parts = frames
    return decode(head, parts)


def sent(box: Outbox, dirty: list[Outbox], now: float = NOW) -> list[tuple[Kind, list[Record]]]:
    """Empties an outbox as a shell does whose sockets are never full."""
    dirty.clear()
    return [read(frames) for frames in box.messages(now)]


def test_it_enters_the_list_once() -> None:
    """When the first record comes, and again after it was emptied."""
    box, dirty = outbox()
    assert dirty == []

    box.put(Kind.CANCEL, [1, 1])
    box.put(Kind.CANCEL, [2, 1])
    box.beat()
    assert (dirty, len(box)) == ([box], 2)

    assert sent(box, dirty) == [(Kind.CANCEL, [[1, 1], [2, 1]])]
    assert (dirty, len(box)) == ([], 0)
    box.put(Kind.CANCEL, [3, 1])
    assert dirty == [box]


def test_one_message_for_each_kind_greetings_first_and_partings_last() -> None:
    """Nothing is heard without a session, and nothing after its end."""
    box, dirty = outbox()
    words: list[tuple[Kind, Record]] = [
        (Kind.DISCONNECT, ["closing", ""]),
        (Kind.CANCEL, [1, 1]),
        (Kind.HEARTBEAT, [0, 1, 0, None, []]),
        (Kind.STATS, [5, "status", None, 0, 1]),
        (Kind.ADMIN, [6, "drain", "w1", None, ""]),
        (Kind.HELLO, [b"s" * 16, "agent", None, None]),
    ]
    for kind, record in words:
        box.put(kind, record)
    box.put_request(request(1), NOW + 1, 4)

    assert [kind for kind, _ in sent(box, dirty)] == [
        Kind.HELLO,
        Kind.REQUEST,
        Kind.CANCEL,
        Kind.HEARTBEAT,
        Kind.STATS,
        Kind.ADMIN,
        Kind.DISCONNECT,
    ]


def test_budgets_are_reckoned_when_they_leave() -> None:
    """What waited in the outbox has less time left; within what the protocol can say."""
    box, dirty = outbox()
    for tag, deadline in enumerate((NOW + 2.0, NOW + 0.5, NOW - 9.0, NOW + 1e6)):
        box.put_request(request(tag), deadline, 4)

    ((_, records),) = sent(box, dirty, NOW + 0.25)

    assert [record[BUDGET_US] for record in records] == [1_750_000, 250_000, 0, MAX_BUDGET_US]


def test_a_block_is_one_record_with_one_budget() -> None:
    """The outbox counts records, and those behind a block keep their own deadlines."""
    box, dirty = outbox()
    record = request(0, b"body" * MAX_CALLS)
    record[PLACES], record[ROWS] = ALL_PLACES, MAX_CALLS
    record[REQUEST_ID] = bytes(16)
    box.put_request(record, NOW + 2, 4 * MAX_CALLS)
    box.put_request(request(1), NOW + 1, 4)
    assert (len(box), box.size) == (2, 4 * MAX_CALLS + 4 + 2 * 100)

    ((_, (block, single)),) = sent(box, dirty)

    assert (block[PLACES], block[PAYLOAD], block[BUDGET_US]) == (ALL_PLACES, b"body" * MAX_CALLS, 2_000_000)
    assert (single[PLACES], single[BUDGET_US]) == (1, 1_000_000)


def test_a_beat_is_sent_only_if_nothing_else_is() -> None:
    """Any traffic is a sign of life."""
    box, dirty = outbox()
    box.beat()
    box.beat()
    assert dirty == [box]
    assert sent(box, dirty) == [(Kind.HEARTBEAT, [])]

    box.put(Kind.CANCEL, [1, 1])
    box.beat()
    assert sent(box, dirty) == [(Kind.CANCEL, [[1, 1]])]


def test_nothing_is_sent_without_an_address() -> None:
    """It is kept for the next connection, and goes there."""
    box, dirty = outbox(b"old")
    box.put(Kind.CANCEL, [1, 1])
    box.readdress(None)
    assert sent(box, dirty) == []
    box.put(Kind.CANCEL, [2, 1])
    assert sent(box, dirty) == []

    box.readdress(b"new")

    assert (dirty, box.address) == ([box], b"new")
    assert sent(box, dirty) == [(Kind.CANCEL, [[1, 1], [2, 1]])]


def test_a_peer_that_proves_gone_while_it_is_written_to_loses_nothing() -> None:
    """The shell stops asking, and its list has dropped the outbox already; the next connection gets everything."""
    box, dirty = outbox(b"old")
    box.put(Kind.CANCEL, [1, 1])
    dirty.clear()
    attempt = box.messages(NOW)
    next(attempt)

    box.readdress(None)
    attempt.close()
    box.readdress(b"new")
    box.put(Kind.CANCEL, [2, 1])

    assert dirty == [box]
    assert sent(box, dirty) == [(Kind.CANCEL, [[1, 1], [2, 1]])]


def test_an_empty_outbox_needs_no_list_for_a_new_address() -> None:
    """There is nothing to send there."""
    box, dirty = outbox(b"old")
    box.readdress(b"new")

    assert (dirty, sent(box, dirty)) == ([], [])


def test_one_kind_can_be_dropped() -> None:
    """A list of models that is out of date, or requests of a session that is over, with their budgets."""
    box, dirty = outbox()
    box.put_request(request(1), NOW + 1, 4)
    box.put(Kind.CANCEL, [1, 1])
    box.discard(Kind.REQUEST)
    box.discard(Kind.WELCOME)
    box.put_request(request(2), NOW + 2, 4)

    assert [(kind, [record[TAG] for record in records]) for kind, records in sent(box, dirty)] == [
        (Kind.REQUEST, [2]),
        (Kind.CANCEL, [1]),
    ]


def test_clearing_drops_everything() -> None:
    """The bytes are given back, and it can be filled again."""
    box, dirty = outbox()
    box.put_request(request(1), NOW + 1, 4)
    assert box.size == 104

    box.clear()

    assert (len(box), box.size, sent(box, dirty)) == (0, 0, [])
    box.put_request(request(2), NOW + 1, 4)
    assert [len(records) for _, records in sent(box, dirty)] == [1]


def test_size_is_what_the_payloads_come_to() -> None:
    """Until they have left."""
    box, dirty = outbox()
    box.put_request(request(1, b"x" * 100), NOW, 100)
    box.put(Kind.REPLY, [1, 1, 0, b"", b"x" * 10, "w", 1, 1, 1, None, 1, 0, 0], 10)
    assert box.size == 310

    sent(box, dirty)

    assert box.size == 0


def test_it_may_be_emptied_while_it_is_sent() -> None:
    """The attempt showed that the peer is gone, and the machine dropped what it held."""
    box, dirty = outbox(b"peer")
    for tag in range(3 * MAX_RECORDS):
        box.put(Kind.CANCEL, [tag, 1])
    box.put_request(request(1), NOW + 1, 4)
    messages = box.messages(NOW)
    next(messages)

    box.clear()
    messages.close()

    assert (len(box), sent(box, dirty)) == (0, [])


def test_a_message_that_was_not_taken_is_made_anew() -> None:
    """With the budget of then."""
    box, dirty = outbox()
    box.put_request(request(1), NOW + 1, 4)
    for frames in box.messages(NOW):
        assert read(frames)[1][0][BUDGET_US] == 1_000_000
        break
    assert len(box) == 1

    ((_, (record,)),) = sent(box, dirty, NOW + 0.5)

    assert record[BUDGET_US] == 500_000


def test_the_callers_record_keeps_its_payload() -> None:
    """It may have to be sent again elsewhere."""
    body = [b"x" * 100_000, b"y"]
    record = request(1, body)
    box, dirty = outbox()
    box.put_request(record, NOW + 1, 100_001)

    assert sent(box, dirty)[0][1][0][PAYLOAD] == body
    assert record[PAYLOAD] is body


KINDS = (Kind.REQUEST, Kind.CANCEL, Kind.STATS)
BIG = bytes(MAX_BUNDLE_BYTES // 3)


@settings(max_examples=40)
@given(
    turns=st.lists(
        st.tuples(
            st.lists(st.tuples(st.sampled_from(KINDS), st.sampled_from([1, 3, 300]), st.booleans()), max_size=3),
            st.integers(0, 4),
        ),
        max_size=8,
    )
)
def test_what_a_full_socket_does_not_take_stays_in_order(
    turns: list[tuple[list[tuple[Kind, int, bool]], int]],
) -> None:
    """However often it stops, each record of a kind leaves once, in the order it came, with its own deadline."""
    box, dirty = outbox()
    put: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    got: dict[Kind, list[int]] = {kind: [] for kind in KINDS}
    tag = 0

    def deliver(room: int) -> None:
        for frames in box.messages(NOW):
            if not room:
                dirty.append(box)
                return
            room -= 1
            kind, records = read(frames)
            got[kind] += [record[TAG] for record in records]
            if kind is Kind.REQUEST:
                assert all(record[BUDGET_US] == record[TAG] * 100 for record in records)

    for fills, room in turns:
        for kind, count, is_big in fills:
            for _ in range(count if not is_big else 2):
                tag += 1
                put[kind].append(tag)
                if kind is Kind.REQUEST:
                    # A hundred microseconds for each tag, and half of one against rounding.
                    deadline = NOW + tag * 1e-4 + 5e-7
                    box.put_request(request(tag, [BIG] if is_big else b""), deadline, len(BIG) if is_big else 0)
                else:
                    box.put(kind, [tag, 1] if kind is Kind.CANCEL else [tag, "status", None, 0, 1])
        if dirty:
            assert dirty == [box]
            dirty.clear()
            deliver(room)
        assert bool(dirty) == bool(len(box))
        assert len(box) == sum(map(len, put.values())) - sum(map(len, got.values()))
    deliver(10**6)

    assert got == put
