"""What the parts of a gateway share."""

from __future__ import annotations

from tests.machine.gateway.playbook import card, session_of
from zmqinfer.checks import CHECKS
from zmqinfer.config import GatewaySettings
from zmqinfer.machine.gateway.tables import Tables
from zmqinfer.records import Kind


def test_a_welcome_says_who_this_is_and_what_it_takes() -> None:
    """As the wire has it, with the models as they are given."""
    settings = GatewaySettings(heartbeat_ms=400, max_body_bytes=2**21)
    tables = Tables(settings, session_of("gateway"), "1.2.3", 4711, ("tcp://front:5555", "tcp://back:5556"), 1_000.0)
    models = [[*card()[:3], 32, True, False]]

    welcome = tables.welcome(models)

    CHECKS[Kind.WELCOME]([welcome])
    assert welcome == [session_of("gateway"), "zmqinfer/1.2.3 pid 4711", 400, 2**21, models]
