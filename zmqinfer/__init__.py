"""Model inference over ZeroMQ, where the unit on the wire is a batch, not a message."""

__version__ = "0.1.0"
