"""Blocks that two workers have at the same time, divided, moved and taken back in all orders."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, rule

from tests.machine.gateway.story import Story, workers_named
from zmqinfer.errors import Status
from zmqinfer.records import Kind

LATE_S = 0.01  # for an answer that takes longer a second worker is asked
CREDITS = 8
SHORT_S = 5.0  # long enough for a worker that falls silent, and over when a story ends


class HedgingStory(Story):
    """Three workers, of which some are lost while two of them have the same block and nobody has room for it."""

    @initialize()
    def begin(self) -> None:
        self.connection = {"alice": None, "bob": None}
        self.greet("alice")
        self.greet("bob")
        for name in ("w1", "w2", "w3"):
            self.join(name, CREDITS)
        self.learn()

    def learn(self) -> None:
        """Lets the gateway know when an answer is late, and save all that may be saved for second copies."""
        hedging = self.play.machine.routes.find("m", 1).hedging
        for _ in range(100):
            hedging.learn(LATE_S, 100, 0, 0.0)

    # One rule, for Hypothesis leaves some rules out of most stories, and what is looked for takes four of these.
    @rule(
        what=st.sampled_from(("ask", "ask", "fill", "reply", "reply", "reply", "lose", "join", "join", "cancel")),
        name=workers_named,
        which=st.integers(0, 20),
        calls=st.sampled_from((1, 4, 8)),
        is_either=st.booleans(),
    )
    def happens(self, what: str, name: str, which: int, calls: int, is_either: bool) -> None:
        peer = self.alive(name)
        match what:
            case "ask":
                self.ask_for_two_copies(calls, b"k1" if is_either else None)
            case "fill":
                self.take_the_room()
            case "reply" if peer and self.unanswered[peer]:
                # The last ones are those that took the room.
                one = self.unanswered[peer][-1 - which % len(self.unanswered[peer])]
                self.reply(peer, [one], Status.OK, *([0b10101, 0b10] if is_either else []))
            case "lose" if peer:
                self.play.loses(peer) if is_either else self.play.falls_silent(peer)
                del self.names[peer]
            case "join" if not peer:
                self.join(name, CREDITS)
            case "cancel" if pending := self.pending("alice"):
                self.cancel("alice", pending[which % len(pending)] // 32, 0b1011 if is_either else 0b100)
            case _:
                pass
        self.collect()

    def ask_for_two_copies(self, calls: int, key: bytes | None) -> None:
        """A block is asked for, and is not answered until a second worker was asked."""
        (record,) = self.blocks("alice", [calls], key=key, budget_s=SHORT_S)
        self.play.hears(self.connection["alice"] or "", Kind.REQUEST, [*record, None, True])
        self.play.waits(LATE_S + 0.001)

    def take_the_room(self) -> None:
        """Others take all of it: what must move then waits, and is divided when a part of it finds room."""
        room = sum(CREDITS - self.play.held(name) for name in self.names.values())
        records = self.blocks("bob", [1] * room, idempotent=False, budget_s=SHORT_S)
        self.play.hears(self.connection["bob"] or "", Kind.REQUEST, *records)


TestHedgingStory = pytest.mark.slow(HedgingStory.TestCase)
TestHedgingStory.settings = settings(max_examples=200, stateful_step_count=40)
