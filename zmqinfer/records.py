"""The records: which fields each kind has, in which order, and their bounds.

docs/PROTOCOL.md is the specification; checks.py enforces it. A record is a list with fixed
positions; what follows the known positions is kept and forwarded. Records of the per-call path stay
plain lists, addressed by the constants below, at every hop.
"""

from __future__ import annotations

import enum
from typing import Any, TypeAlias

from zmqinfer.errors import EXECUTED, Executed

__all__ = ["MAX_CALLS", "MAX_RECORDS", "MAX_TAG", "PAYLOAD_AT", "Kind", "Record"]

MAX_RECORDS = 256
MAX_CALLS = 32
# The greatest of all bit sets of calls.
ALL_PLACES = 2**MAX_CALLS - 1
MAX_TAG = 2**63 - 1
MAX_ID_BYTES = 128
MAX_BUDGET_US = 300 * 10**6
MAX_ROWS = 65_536
# A payload inside the head; a larger one travels in parts. Half a head, so that a record that fits one hop fits
# the next, where its tag and version may have more bytes.
MAX_INLINE_BYTES = 2**19
MAX_COUNT = 2**53
MAX_TEXT = 4_096
PRIORITIES = 8
SESSION_BYTES = 16
MAX_MODELS = 64
# Of the running batch, in HEARTBEAT; a batch of more names the first ones.
MAX_TAGS = 1_024
# Of all fields behind the known ones of a record: with them one that fits a head still fits the next one.
MAX_ADDED_BYTES = 4_096
# msgpack unpacks 1,000 levels of lists and, in older releases, packs only 511.
MAX_NESTING = 8


class Kind(enum.IntEnum):
    """What the records of a message are. The numbers are part of the protocol."""

    HELLO = 1
    WELCOME = 2
    REQUEST = 3
    REPLY = 4
    CANCEL = 5
    READY = 6
    HEARTBEAT = 7
    DISCONNECT = 8
    STATS = 9
    ADMIN = 10
    MODELS = 11


Record: TypeAlias = list[Any]

# The first two positions of REQUEST, REPLY and CANCEL: which calls the record is about.
TAG = 0  # of their block; hop by hop, chosen by the sender, unique while pending
PLACES = 1  # which of the block's calls: a bit set of their places, of which there are `MAX_CALLS`

# The other positions in a REQUEST record.
REQUEST_ID = 2  # of the block; end to end, bytes. That of a call has its place added to the last byte
MODEL = 3
MODEL_VERSION = 4  # None: the gateway chooses
KEY = 5  # routing keys, a list of bytes with one for each call, or None
BUDGET_US = 6  # time left, not an instant: clocks do not travel
PRIORITY = 7  # 1 most urgent to 8
ATTEMPT = 8  # 1 for the first; counts only repeats after an answer
IDEMPOTENT = 9  # None: as the model says
ROWS = 10  # of all calls; of several calls each has one row
LAYOUT = 11
# Bytes, or for one call a list of buffers (on the wire: indices of parts), or a tuple that says where
# it lies in shared memory. That of several calls is their payloads behind one another, all of one size.
PAYLOAD = 12
REQUEST_FIELDS = 13
# True from a gateway to a worker, else most often missing: this is to be a batch of its own.
ALONE = 13
# What its caller says of hedging: true, false, or None or missing, as the model says.
HEDGE = 14
# True from a client, else most often missing: an earlier copy left that nobody has answered.
AGAIN = 15

# The other positions in a REPLY record.
STATUS = 2
# OK: the layout of one output row. Else: a sentence.
RESULT = 3
# OK: the payload, at the same position for both ends. Else: where it ended (queue, model, ...) or None.
OUTPUT = 4
WORKER = 5
SERVED_VERSION = 6
ATTEMPTS = 7
RAN = 8  # index in errors.EXECUTED
RETRY_AFTER_MS = 9
BATCH_ROWS = 10
QUEUE_US = 11  # from the arrival at the worker to the start of its batch
COMPUTE_US = 12
REPLY_FIELDS = 13

# Of all numbers of models: none is used twice in a session.
MAX_MODEL_NUMBER = 2**31 - 1

# Positions in a STATS record behind the tag and the subject.
ANSWER = 2
PAGE = 3  # from 0
PAGES = 4

# Values of RAN.
RAN_NO, RAN_YES, RAN_MAYBE = map(EXECUTED.index, (Executed.NO, Executed.YES, Executed.MAYBE))
# A value of OUTPUT, where a request ended: its payload lies in memory that its worker cannot read, and must come in
# the message.
INLINE = "inline"

# Reasons of a DISCONNECT. The first asks for a greeting, the second says that a node finishes what it holds and takes
# nothing more, the third is a goodbye: behind it nothing comes. A gateway echoes the last two to a worker: after
# "draining" no more requests come, after "closing" everything that the worker sent has arrived.
NO_SESSION = "no session"
DRAINING = "draining"
CLOSING = "closing"
# From a gateway to a worker: to drain because an operator wants it, and to end because another one has its name.
DRAIN = "drain"
REPLACED = "replaced"

PAYLOAD_AT = {Kind.REQUEST: PAYLOAD, Kind.REPLY: OUTPUT}
