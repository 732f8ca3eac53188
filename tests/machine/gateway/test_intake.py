"""A gateway whose workers cannot keep up: who would wait for nothing is told so, and nobody else is."""

from __future__ import annotations

from tests.machine.gateway.playbook import Playbook, card, reply, request
from zmqinfer.errors import Status
from zmqinfer.machine.gateway.ledger import RAN_NO
from zmqinfer.records import RESULT, RETRY_AFTER_MS, STATUS, TAG, Kind


def flood(play: Playbook, client: str, calls: int, budget_s: float) -> Playbook:
    """A client asks for so much at once."""
    return play.hears(client, Kind.REQUEST, *[request(tag, budget_s=budget_s) for tag in range(calls)])


def draining(play: Playbook, seconds: float, *, calls_each_s: int, worker: str = "w1") -> Playbook:
    """Lets the worker, which takes one request at a time, answer so many a second."""
    for _ in range(round(seconds * calls_each_s)):
        play.waits(1 / calls_each_s).answers(worker)
    return play


def one_at_a_time() -> Playbook:
    """A worker that takes one request at a time, and two clients."""
    return Playbook().with_workers("w1", credits_rows=1).with_clients("a", "b")


def is_taken(play: Playbook, client: str, budget_s: float, tag: int = 9_000) -> bool:
    """Whether a request is let in now."""
    play.said(client, Kind.REPLY)
    play.hears(client, Kind.REQUEST, request(tag, budget_s=budget_s))
    refused = play.said(client, Kind.REPLY)
    assert [(record[TAG], record[STATUS]) for record in refused] in ([], [(tag, Status.OVERLOADED)])
    return not refused


def test_who_would_wait_for_nothing_is_refused_at_once() -> None:
    """And told when that would be otherwise; who has the time waits, and who is more urgent waits less."""
    play = flood(one_at_a_time(), "a", 101, 4.0)
    draining(play, 1.5, calls_each_s=20).said("a", Kind.REPLY)

    play.hears("a", Kind.REQUEST, request(200, budget_s=3.0))
    refused = play.says("a", Kind.REPLY)
    assert (refused[TAG], refused[STATUS]) == (200, Status.OVERLOADED)
    # 70 wait, one is at work, and this is one: 3.6 s at 20 a second, and a quarter more for caution.
    assert "may take 4.50 s to answer it, and it has 3.00 s" in refused[RESULT]
    assert 1_490 <= refused[RETRY_AFTER_MS] <= 1_510

    play.hears("a", Kind.REQUEST, request(201, budget_s=5.0), request(202, budget_s=1.0, priority=1))
    play.says_nothing("a")


def test_a_young_queue_refuses_nobody() -> None:
    """What was answered at leisure before says nothing of how fast it empties."""
    play = one_at_a_time()
    for tag in range(5):
        play.hears("a", Kind.REQUEST, request(tag)).waits(1.0).answers("w1")

    flood(play, "a", 50, 1.0)

    assert is_taken(play, "a", 0.5)


def test_a_queue_of_others_is_not_before_who_takes_turns_with_them() -> None:
    """Of two clients each gets half, however many requests the other has waiting."""
    play = draining(flood(one_at_a_time(), "a", 3_000, 60.0), 1.0, calls_each_s=100)

    assert is_taken(play, "b", 1.0)
    assert is_taken(play, "b", 0.06, tag=9_001)
    assert not is_taken(play, "b", 0.03, tag=9_002)


def test_those_with_more_time_are_not_before_who_has_less() -> None:
    """Of one client the earliest deadline goes first."""
    play = draining(flood(one_at_a_time(), "a", 1_000, 60.0), 1.0, calls_each_s=100)

    assert is_taken(play, "a", 1.0)
    assert is_taken(play, "a", 30.0, tag=9_001)
    assert is_taken(play, "a", 60.0, tag=9_002)
    assert not is_taken(flood(play, "b", 4_500, 60.0), "b", 60.0)


def test_a_worker_with_long_batches_is_not_judged_by_half_a_batch() -> None:
    """Its 32 answers come every 300 ms; between them nobody is told that there will be none."""
    play = Playbook()
    play.joins("w1", card(credits_rows=64)).with_clients("a")
    flood(play, "a", 150, 30.0)
    for number in range(3):
        asked = play.said("w1", Kind.REQUEST)
        play.waits(0.1)
        assert is_taken(play, "a", 3.0, tag=9_000 + 2 * number)
        play.waits(0.2)
        assert is_taken(play, "a", 3.0, tag=9_001 + 2 * number)
        play.hears("w1", Kind.REPLY, *[reply(record) for record in asked[:32]])


def test_a_pause_is_not_work() -> None:
    """A worker that stood still for a second is as fast as before."""
    play = draining(flood(one_at_a_time(), "a", 300, 30.0), 1.0, calls_each_s=100)
    assert is_taken(play, "b", 0.1)
    play.waits(1.0).answers("w1")

    draining(play, 0.5, calls_each_s=100)

    assert is_taken(play, "b", 0.15, tag=9_001)


def test_what_did_not_run_says_nothing_of_the_pace() -> None:
    """Calls that come back unrun leave a queue fast and would be taken for work."""
    play = flood(one_at_a_time(), "a", 1_000, 2.0)
    for _ in range(200):
        play.waits(0.005).answers("w1", status=Status.DEADLINE_EXCEEDED, ran=RAN_NO)
    draining(play, 0.5, calls_each_s=20)

    assert not is_taken(play, "a", 5.0)


def test_name_that_is_nearly_right_is_answered_with_the_right_one() -> None:
    """Not with one that has nothing in common, and not with a name that would take long to compare."""
    long = "a_name_of_more_than_32_characters_"
    models = [card(name) for name in ("resnet-50", "tokenizer", long)]
    play = Playbook(age_s=4.0).with_clients("a").joins("w1", *models)

    said = {}
    for tag, name in enumerate(("resnet50", "whisper", long[:-1])):
        play.said("a", Kind.WELCOME)
        play.hears("a", Kind.REQUEST, request(tag, name))
        said[name] = play.says("a", Kind.REPLY)[RESULT]

    assert "no worker serves model 'resnet50'; did you mean 'resnet-50'?; served now: " in said["resnet50"]
    assert "did you mean" not in said["whisper"] + said[long[:-1]]
