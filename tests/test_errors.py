"""The closed list of outcomes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import pytest

from zmqinfer import errors
from zmqinfer.errors import EXECUTED, ConfigError, Executed, Status, UsageError, ZmqInferError, error_of

FAILURES = [status for status in Status if status is not Status.OK]


@pytest.mark.parametrize("status", FAILURES)
def test_every_status_has_its_own_class(status: Status) -> None:
    """What travels as a number comes out as the one class that stands for it."""
    error = error_of(status, "what happened", request_id=b"id", attempts=2, executed=Executed.MAYBE)

    assert error.status is status
    assert error.code == status.name
    assert (str(error), error.request_id, error.attempts) == ("what happened", b"id", 2)
    assert error.executed is Executed.MAYBE
    assert error.retry_after_ms is None


def test_no_two_statuses_share_a_class() -> None:
    """The list is one to one."""
    assert len({type(error_of(status, "")) for status in FAILURES}) == len(FAILURES)


@pytest.mark.parametrize("status", FAILURES)
def test_an_error_survives_pickling(status: Status) -> None:
    """A process pool brings errors home whole."""
    error = error_of(status, "text", where="queue", request_id=b"id", attempts=3, retry_after_ms=7)

    copy = pickle.loads(pickle.dumps(error))

    assert (type(copy), str(copy), vars(copy)) == (type(error), "text", vars(error))


@pytest.mark.parametrize(
    ("mine", "standard"),
    [
        (errors.InvalidArgument, ValueError),
        (errors.Unavailable, ConnectionError),
        (errors.DeadlineExceeded, TimeoutError),
    ],
)
def test_an_error_is_caught_where_users_expect_it(mine: type[ZmqInferError], standard: type[Exception]) -> None:
    """`except TimeoutError` catches a deadline."""
    error = mine("text")

    assert isinstance(error, standard)
    assert str(error) == "text"


def test_a_deadline_says_where_it_passed() -> None:
    """Only DeadlineExceeded keeps `where`; the others take and drop it."""
    late = error_of(Status.DEADLINE_EXCEEDED, "text", where="batch")
    other = error_of(Status.OVERLOADED, "text", where="batch")

    assert isinstance(late, errors.DeadlineExceeded)
    assert late.where == "batch"
    assert not hasattr(other, "where")


def test_local_errors_have_no_status() -> None:
    """A wrong program or file is no answer to a request."""
    assert not issubclass(ConfigError, ZmqInferError)
    assert not issubclass(UsageError, ZmqInferError)


def test_the_numbers_on_the_wire_stay() -> None:
    """Statuses and executed are part of the protocol: new ones are added at the end."""
    assert [status.value for status in Status] == list(range(17))
    assert (Status.OK, Status.MODEL_ERROR, Status.INTERNAL) == (0, 12, 16)
    assert EXECUTED == (Executed.NO, Executed.YES, Executed.MAYBE)
    assert all(name in dir(errors) for name in errors.__all__)


def test_errors_are_there_with_the_package() -> None:
    """As the documents write them, and without what a client loads: NumPy and ZeroMQ."""
    code = "import sys, zmqinfer; zmqinfer.errors.NotFound; sys.exit(bool({'numpy', 'zmq'} & sys.modules.keys()))"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)

    assert done.returncode == 0, done.stderr
