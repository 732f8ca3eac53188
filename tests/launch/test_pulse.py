"""What a child says to its parent, and what each learns of the other's end."""

from __future__ import annotations

import os
import threading

from tests.processes import wait_until
from zmqinfer.launch.pulse import Ear, Pulse


def test_a_child_learns_that_it_is_alone() -> None:
    """However its parent ended; and the pipe is not passed on to what the child starts."""
    ear = Ear()
    alone = threading.Event()
    pulse = Pulse(os.dup(ear.descriptor))
    assert not os.get_inheritable(pulse._descriptor)
    pulse.start(alone.set)
    pulse.begin()

    def look() -> bool:
        ear.listen(5.0)
        return ear.is_ready

    wait_until(look, what="a sign of life")
    ear.began()
    ear.close()

    assert alone.wait(10)


def test_no_sign_of_life_before_it_is_ready() -> None:
    """To load a model may take long; and then at once, for what comes first may hang it."""
    ear = Ear()
    pulse = Pulse(os.dup(ear.descriptor))
    ear.listen(5.0)
    assert not ear.is_ready
    assert ear.silent_for(1_000.0) == 0.0

    pulse.begin()
    ear.listen(6.0)

    assert ear.silent_for(7.0) == 1.0
    ear.began()
    ear.close()


def test_last_words_are_heard_and_are_no_sign_of_life() -> None:
    """Also of a process that is gone, as far as a pipe takes them at once; and beside earlier signs of life."""
    ear = Ear()
    pulse = Pulse(os.dup(ear.descriptor))
    ear.began()

    pulse.say("no weights in ü.npz" + 5_000 * "!")
    ear.listen(5.0)

    assert ear.told.startswith("no weights in ü.npz!")
    assert not ear.is_ready
    pulse.begin()
    pulse.say("the end")
    os.close(pulse._descriptor)
    ear.listen(6.0)
    ear.listen(7.0)
    assert (ear.told, ear.is_ready, ear.heard_at) == ("the end", True, 6.0)
    ear.close()
