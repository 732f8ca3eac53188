"""What both clients ask of gateways beside calls, and what they make of the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from zmqinfer.errors import InvalidArgument, Status, Unavailable
from zmqinfer.machine.client.codec import Codec
from zmqinfer.records import Record
from zmqinfer.tensor import NAME

__all__ = ["drain_answer", "drain_words", "read_answer", "those_who_answered"]


def those_who_answered(outcomes: Sequence[Record | BaseException]) -> list[Record]:
    """Returns the answers of the gateways to a question; raises the first error if there is none."""
    answers = [outcome for outcome in outcomes if not isinstance(outcome, BaseException)]
    if not answers and isinstance(outcomes[0], BaseException):
        raise outcomes[0]
    return answers


def read_answer(reply: Record) -> Any:
    """Returns what a STATS record tells; raises `Unavailable` if the gateway does not know the question."""
    if reply[2] is None:
        raise Unavailable(f"the gateway does not know the question {reply[1]!r}; run the same release at both ends")
    return json.loads(reply[2])


def drain_words(worker: str) -> Record:
    """Returns what is asked of every gateway to drain a worker; raises `InvalidArgument` for what can be no name."""
    if not isinstance(worker, str) or not NAME.fullmatch(worker):
        raise InvalidArgument(f"worker is {worker!r}, expected a name of letters, digits and . _ : -")
    return ["drain", worker, None, ""]


def drain_answer(replies: Sequence[Record], codec: Codec) -> str:
    """Returns the words of the first gateway that knows the worker; raises the first one's error if none does."""
    for reply in replies:
        if reply[3] == Status.OK:
            return str(reply[4])
    raise codec.error([0, 1, replies[0][3], replies[0][4], None, "", 0, 1, 0, None, 0, 0, 0])
