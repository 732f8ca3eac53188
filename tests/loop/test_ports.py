"""What the loops need of sockets is what both kinds of sockets have."""

from __future__ import annotations

from zmqinfer.loop.ports import FULL, GONE, SENT, DealerPort, RouterPort
from zmqinfer.node import ports
from zmqinfer.sim import network


def test_zeromqs_sockets_and_those_of_the_virtual_network_have_all_that_is_needed() -> None:
    """Mypy compares the types; this shows that nothing is left abstract."""
    for protocol, kinds in ((RouterPort, (ports.Router, network.Router)), (DealerPort, (ports.Dealer, network.Dealer))):
        wanted = {name for name in vars(protocol) if not name.startswith("_")}
        assert wanted
        for kind in kinds:
            assert wanted - {"is_signalled"} <= set(dir(kind))


def test_outcomes_differ() -> None:
    """They are plain numbers, for one comes with each message."""
    assert len({SENT, FULL, GONE}) == 3
