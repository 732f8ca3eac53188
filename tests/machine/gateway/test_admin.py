"""What operators order, and what they are told."""

from __future__ import annotations

import pytest

from tests.machine.gateway.playbook import Playbook
from zmqinfer.errors import Status
from zmqinfer.records import Kind


def test_drain_is_passed_on_to_the_worker() -> None:
    """It leaves as after SIGTERM; the operator hears that it was asked."""
    play = Playbook().with_workers("w1").with_clients("c")

    play.hears("c", Kind.ADMIN, [1, "drain", "w1", None, ""])

    assert play.says("w1", Kind.DISCONNECT)[0] == "drain"
    assert play.says("c", Kind.ADMIN) == [1, "drain", "w1", Status.OK, "worker 'w1' was asked to drain"]


@pytest.mark.parametrize(
    ("command", "argument", "status", "words"),
    [
        ("drain", "w9", Status.NOT_FOUND, "no worker 'w9' here; connected: w1"),
        ("dance", "w1", Status.INVALID_ARGUMENT, "command 'dance' is not known; known: drain"),
        ("drain", "\n" * 4_000, Status.NOT_FOUND, "no worker '\\n"),
        ("drain", "x" * 4_096, Status.NOT_FOUND, "no worker 'xxx"),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_sentence(
    command: str, argument: str, status: Status, words: str
) -> None:
    """It says what there is, within what a record can carry."""
    play = Playbook().with_workers("w1").with_clients("c")

    answer = play.hears("c", Kind.ADMIN, [1, command, argument, None, ""]).says("c", Kind.ADMIN)

    assert answer[3] == status
    assert answer[4].startswith(words)
