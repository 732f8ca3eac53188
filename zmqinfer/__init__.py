"""Model inference over ZeroMQ, where the unit on the wire is a batch, not a message.

    Client, AsyncClient    call models
    Options                what may be said of a call, for those who pass it on
    CallInfo, Answer       how a call was served, and what a body was answered with
    LocalCluster           a gateway and workers for a function of yours, in this process
    errors                 every way a call can fail

The map of the house is docs/ARCHITECTURE.md.
"""

from __future__ import annotations

__version__ = "0.1.0"
__all__ = ["Answer", "AsyncClient", "CallInfo", "Client", "LocalCluster", "Options", "__version__", "errors"]

TYPE_CHECKING = False  # as that of `typing`, which takes longer to import than all of this
if TYPE_CHECKING:
    from zmqinfer import errors
    from zmqinfer.aio import AsyncClient
    from zmqinfer.client import Client
    from zmqinfer.launch.local import LocalCluster
    from zmqinfer.node.answers import Answer, CallInfo
    from zmqinfer.node.arguments import Options

_HOMES = {
    "Answer": "zmqinfer.node.answers",
    "AsyncClient": "zmqinfer.aio",
    "CallInfo": "zmqinfer.node.answers",
    "Client": "zmqinfer.client",
    "LocalCluster": "zmqinfer.launch.local",
    "Options": "zmqinfer.node.arguments",
}


def __getattr__(name: str) -> object:
    """Imports a public name when it is first used: the command line must start fast."""
    import importlib

    if name == "errors":
        return importlib.import_module("zmqinfer.errors")
    if name not in _HOMES:
        raise AttributeError(f"module 'zmqinfer' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """Names what has not been imported yet, too."""
    return sorted({*globals(), *__all__})
