"""An array as the body of a request or of a reply, in the two encodings of the HTTP peers.

    raw       the float32 bytes of one row, little-endian
    msgpack   [bin]: an array of one item, the same bytes (what mosec's MsgpackMixin reads and writes)

For rows of a known length a msgpack body is those bytes behind a few constant ones, so both encodings are a
prefix and the row: nothing is packed per call, and no row of 602 kB is copied for it. As a command, it writes
the body for wrk (whose wrk.lua takes the content type from the file's name):

    python -m bench.peers.bodies echo msgpack echo.msgpack
"""

import argparse
from pathlib import Path

import numpy as np

from bench.peers.models import MODELS, Floats

__all__ = ["CONTENT_TYPES", "prefix", "request_body", "rows"]

CONTENT_TYPES = {"raw": "application/octet-stream", "msgpack": "application/msgpack"}

_SEED = 1
_INK = 16  # the largest value of a pixel of the digits


def prefix(encoding: str, values: int) -> bytes:
    """Return what stands before the bytes of a row of `values` float32."""
    if encoding == "raw":
        return b""
    import msgpack  # of this encoding alone: the environment of gRPC has none

    row = bytes(4 * values)
    packed: bytes = msgpack.packb((row,))
    return packed.removesuffix(row)


def rows(model: str, count: int) -> Floats:
    """Return `count` different inputs of a model, the same ones each time: [count, values in]."""
    random = np.random.default_rng(_SEED)
    # Each darker than the next, or the means of large ones would be too much alike to tell answers apart.
    inks = np.linspace(_INK / 2, _INK, count, dtype=np.float32)[:, np.newaxis]
    return inks * random.random((count, MODELS[model].values_in), np.float32)


def request_body(model: str, encoding: str) -> bytes:
    """Return the body of one request."""
    row = rows(model, 1)
    return prefix(encoding, row.size) + row.tobytes()


def _main() -> None:
    parser = argparse.ArgumentParser(description="Writes the body of one request to a file, for wrk.")
    parser.add_argument("model", choices=MODELS)
    parser.add_argument("encoding", choices=CONTENT_TYPES)
    parser.add_argument("file", type=Path, help="ends in .msgpack if its content does")
    asked = parser.parse_args()
    asked.file.write_bytes(request_body(asked.model, asked.encoding))


if __name__ == "__main__":
    _main()
