"""What runs in the process of an isolated model; isolation.py is the worker's side of it."""

from __future__ import annotations

import logging
import signal
import socket
import sys
from pathlib import Path

import msgpack

from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.node.isolation import READ_BYTES
from zmqinfer.node.models import find_models, load_engine, target_config
from zmqinfer.node.report import Report, start_logging
from zmqinfer.node.spawn import end_with
from zmqinfer.tensor import parse_layout

__all__ = ["main"]


def _serve(connection: socket.socket, kind: str, what: str, worker: int) -> None:
    """Loads a model, and runs what it is sent until the other side is gone."""
    try:
        (config,) = [target_config(what, ModelSettings())] if kind == "function" else find_models([Path(what)])
        config, engine = load_engine(config, worker)
    except ConfigError as error:
        Report("model", worker_pid=worker).raised("cannot be loaded", error, logging.DEBUG)
        connection.sendall(msgpack.packb([str(error), "", None]))
        return
    connection.sendall(msgpack.packb(["", config.name, engine.signature.to_wire()]))
    batches = msgpack.Unpacker(connection.makefile("rb", 0), read_size=READ_BYTES, max_buffer_size=0)
    for rows, layout, order, parts in batches:
        outcomes = engine.run_parts([tuple(part) for part in parts], rows, parse_layout(layout), tuple(order))
        connection.sendall(msgpack.packb(outcomes))
    engine.close()


def main() -> None:
    """Begins the model's process, as `IsolatedModel.load` starts it."""
    descriptor, (kind, what), parent = int(sys.argv[1]), sys.argv[2:4], int(sys.argv[4])
    # These may be sent to all processes, or come with the end of a terminal, but are for the worker, which lets this
    # one finish. What the model starts shall not ignore them, as it would if they were ignored only here.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    start_logging(sys.argv[5])
    # A model that hangs would never find out that the worker is gone.
    end_with(parent)
    with socket.socket(fileno=descriptor) as connection:
        _serve(connection, kind, what, parent)
