"""Many inputs, as one stream or as the rows of one array."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import numpy as np
import pytest

from tests.client.served import X, held, model
from tests.processes import wait_until
from zmqinfer import AsyncClient, Client, LocalCluster
from zmqinfer.config import GatewaySettings
from zmqinfer.errors import (
    Executed,
    InvalidArgument,
    ModelError,
    Overloaded,
    TooLarge,
)
from zmqinfer.machine.client.call import SharedBody, body_bytes
from zmqinfer.machine.client.codec import Codec
from zmqinfer.machine.client.machine import ClientMachine
from zmqinfer.node.stream import GATHER_S
from zmqinfer.policy.arena import PAGE_BYTES


def test_many_come_in_order(client: Client) -> None:
    """More than are let in at a time, from a generator."""
    wanted = 3_000

    got = [float(y[0]) for y in client.infer_many("model", (np.full(1, n % 100, np.float32) for n in range(wanted)))]

    assert got == [n % 100 * 2 for n in range(wanted)]


@pytest.mark.parametrize("in_flight", [1, 2, 3, 7])
def test_many_reads_its_inputs_lazily(client: Client, in_flight: int) -> None:
    """At most `in_flight` inputs are ahead of the results."""
    taken = 0

    def inputs() -> Iterator[np.ndarray[Any, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield X

    results = client.infer_many("model", inputs(), in_flight=in_flight)
    before = taken
    ahead = [taken - number for number, _ in zip(range(10), results, strict=False)]

    assert before == 0
    assert max(ahead) <= in_flight
    results.close()  # type: ignore[attr-defined]


BAD = np.full(4, -1, np.float32)


def test_first_error_of_many_is_raised_at_its_place(client: Client) -> None:
    """The results before it come first, be it refused here or by the model."""
    for bad, error in ((BAD, ModelError), ([1.0], InvalidArgument)):
        got = []

        with pytest.raises(error):
            got.extend(client.infer_many("model", [X, X, bad, X]))  # type: ignore[list-item]

        # `extend` keeps what came before the error.
        assert len(got) == 2


def test_errors_of_many_may_take_their_places(client: Client) -> None:
    """With return_errors all others come too."""
    got = list(client.infer_many("model", [X, BAD, X, "nothing", X], return_errors=True))  # type: ignore[list-item]

    assert [type(one) for one in got] == [np.ndarray, ModelError, np.ndarray, InvalidArgument, np.ndarray]


def test_closing_many_early_takes_back_what_is_pending(client: Client) -> None:
    """Nobody will read it: the gateway counts it as cancelled and has nothing left, while the model still runs."""
    before = client.status()[0]["requests"]["outcomes"].get("CANCELLED", 0)
    with held() as x:
        # What is no input has its result as soon as the others are sent.
        results = client.infer_many("model", [None, *[x] * 100], in_flight=64, return_errors=True)  # type: ignore[list-item]
        assert isinstance(next(results), InvalidArgument)

        results.close()  # type: ignore[attr-defined]

        wait_until(lambda: client.status()[0]["requests"]["pending"] == 0)
        assert client.status()[0]["requests"]["outcomes"]["CANCELLED"] >= before + 63


@pytest.mark.parametrize("rows", [1, 7, 8, 9, 33])
def test_batch_is_split_and_joined(client: Client, rows: int) -> None:
    """The model takes 8 rows; n rows come back as n rows in their order."""
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)

    y = client.infer_batch("model", x)

    assert np.array_equal(y, x * 2)


@pytest.mark.slow
def test_batch_of_many_pieces_is_not_too_much(cluster: LocalCluster) -> None:
    """Only so many are sent at a time, for a gateway takes 10,000 requests of one client."""
    x = np.arange(90_000, dtype=np.float32) % 100
    with cluster.client() as client:
        assert np.array_equal(client.infer_batch("model", x, deadline_s=60), x * 2)


def test_error_of_a_piece_speaks_of_the_whole_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of which other pieces may have run: after NO a repeat has to be safe."""
    rows = np.ones((9, 100), np.float32)
    with LocalCluster(model, gateway=GatewaySettings(max_body_bytes=1_024)) as small, small.client() as client:
        with monkeypatch.context() as patch:
            # As before a gateway has told of the model: one row goes ahead, and runs.
            patch.setattr(Codec, "card", lambda *_: None)
            with pytest.raises(TooLarge) as second:
                client.infer_batch("model", rows)
        with pytest.raises(TooLarge) as first:
            client.infer_batch("model", rows)

    assert second.value.executed is Executed.MAYBE
    assert first.value.executed is Executed.NO


@pytest.mark.parametrize("x", [np.ones((0, 3), np.float32), np.float32(1), np.array(1.0)])
def test_batch_without_rows_is_refused(client: Client, x: Any) -> None:
    """There is nothing to run."""
    with pytest.raises(InvalidArgument):
        client.infer_batch("model", x)


@pytest.mark.parametrize("memory_mb", [0, 1, 256])
@pytest.mark.parametrize("values", [4, 300_000])
def test_inputs_are_taken_as_they_are_when_they_are_given(cluster: LocalCluster, values: int, memory_mb: int) -> None:
    """One buffer may serve for all, whether they travel inline, as frames or in shared memory."""
    buffer = np.zeros(values, np.float32)

    def filled() -> Iterator[np.ndarray[Any, Any]]:
        for number in range(20):
            buffer[:] = number
            yield buffer

    with cluster.client(shared_memory_mb=memory_mb) as one:
        one.infer("model", buffer * 0)
        for number, y in enumerate(one.infer_many("model", filled())):
            assert np.all(y == 2 * number)  # type: ignore[operator]
        futures = [one.submit("model", x) for x in filled()]
        for number, future in enumerate(futures):
            assert np.all(future.result(10) == 2 * number)  # type: ignore[operator]


def test_large_inputs_of_many_calls_stay_within_what_a_gateway_takes(cluster: LocalCluster) -> None:
    """However many may be in flight: 320 MB by messages, of which a gateway takes 268 MB of one client."""
    x = np.zeros(2_000_000, np.float32)
    with cluster.client(shared_memory_mb=0) as one:
        assert sum(1 for _ in one.infer_many("model", (x for _ in range(40)))) == 40
        assert one._connection.machine.pending == 0


def test_large_inputs_that_are_refused_take_no_room() -> None:
    """Each has its error, though together they have more bytes than may be under way."""
    large = np.zeros(2_000_000, np.float32)
    with LocalCluster(model, gateway=GatewaySettings(max_body_bytes=2**20)) as small, small.client() as client:
        client.infer("model", X)

        got = list(client.infer_many("model", [large] * 20, return_errors=True))

    assert [type(one) for one in got] == [TooLarge] * 20


def test_what_a_worker_cannot_read_in_memory_is_sent_as_it_was_given(cluster: LocalCluster) -> None:
    """Though its caller has changed the array since."""
    x = np.ones(300_000, np.float32)
    with cluster.client() as one:
        one.infer("model", x)
        connection = one._connection
        body = connection.own("model", None, connection.machine.codec.encode("model", None, x, None))
        x[:] = 0
        assert isinstance(body[1], SharedBody)
        assert body_bytes(body[1]) == 1_200_000
        assert np.all(np.frombuffer(body[1].parts[0], np.float32) == 1)
        connection._memory.free(body[1].place)  # type: ignore[union-attr]


@pytest.mark.parametrize("return_errors", [False, True])
def test_error_of_a_source_is_raised_at_its_place(client: Client, return_errors: bool) -> None:
    """Behind the results of what it gave before, and it is never given out."""

    def failing() -> Iterator[np.ndarray[Any, Any]]:
        yield from (X, X + 1)
        raise KeyError("the source")

    got = []
    with pytest.raises(KeyError, match="the source"):
        got.extend(client.infer_many("model", failing(), return_errors=return_errors))

    assert [float(y[0]) for y in got] == [0, 2]


def test_interrupted_source_leaves_no_memory_behind(cluster: LocalCluster) -> None:
    """What it had given before is not sent."""

    def interrupted() -> Iterator[np.ndarray[Any, Any]]:
        yield np.zeros(300_000, np.float32)
        raise KeyboardInterrupt

    with cluster.client() as one:
        one.infer("model", X)
        with pytest.raises(KeyboardInterrupt):
            next(one.infer_many("model", interrupted()))
        memory = one._connection._memory
        if memory is not None:
            assert memory.lay([b"x"]) is not None  # takes up what was given back
            assert memory._arena.used == PAGE_BYTES


@pytest.mark.parametrize("xs", [None, 5])
def test_inputs_that_cannot_be_gone_through_are_refused(client: Client, xs: Any) -> None:
    """At the call."""
    with pytest.raises(InvalidArgument, match=r"xs is a .*, expected"):
        client.infer_many("model", xs)


@pytest.mark.parametrize("in_flight", [0, -1, "a", 1.5, None])
def test_number_in_flight_that_cannot_be_is_refused(client: Client, in_flight: Any) -> None:
    """At the call, before any input is taken."""
    with pytest.raises(InvalidArgument, match=r"in_flight is .*, expected"):
        client.infer_many("model", [X], in_flight=in_flight)


def test_results_of_a_slow_source_do_not_wait_for_a_full_window(client: Client) -> None:
    """What is there is sent: a source that takes its time has its first result before it is asked for another input."""
    given = 0

    def source() -> Iterator[Any]:
        nonlocal given
        for n in range(5):
            time.sleep(2 * GATHER_S)
            given += 1
            yield X + n

    stream = client.infer_many("model", source())

    first = next(stream)

    assert given == 1
    assert np.array_equal(first, X * 2)
    assert sum(1 for _ in stream) == 4


async def collected(cluster: LocalCluster, xs: Any, **options: Any) -> list[Any]:
    """What an `AsyncClient` makes of many inputs."""
    async with AsyncClient(cluster.address) as client:
        return [y async for y in client.infer_many("model", xs, **options)]


async def later(xs: list[Any]) -> AsyncIterator[Any]:
    for x in xs:
        yield x


@pytest.mark.parametrize("how", ["sync", "plain", "async"])
def test_each_input_may_have_a_key_of_its_own(cluster: LocalCluster, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One key is taken with each input, so both may come for ever; what is wrong with a key is said at its place."""
    keys = ["anna", b"\xff", None, 5, "x" * 129]
    seen: list[tuple[bytes | None, int]] = []
    submit = ClientMachine.submit

    def note(self: Any, owner: object, model: str, body: Any, rows: Any, options: Any, now: float) -> int:
        seen.append((options.key, options.priority))
        return submit(self, owner, model, body, rows, options, now)

    monkeypatch.setattr(ClientMachine, "submit", note)
    xs = [X + n for n in range(6)]
    options: dict[str, Any] = {"keys": iter(keys), "priority": 2, "return_errors": True}
    if how == "sync":
        with cluster.client() as client:
            got: list[Any] = list(client.infer_many("model", xs, **options))
    else:
        got = asyncio.run(collected(cluster, xs if how == "plain" else later(xs), **options))

    assert seen == [(b"anna", 2), (b"\xff", 2), (None, 2)]
    assert [float(y[0]) for y in got[:3]] == [0, 2, 4]
    assert [str(error).split(",")[0] for error in got[3:]] == [
        "key is a int",
        "key has 129 bytes",
        "there are fewer keys than inputs",
    ]


@pytest.mark.parametrize("options", [{"keys": "text"}, {"keys": 5}, {"keys": ["a"], "key": "b"}])
def test_keys_that_cannot_be_gone_through_are_refused(client: Client, options: dict[str, Any]) -> None:
    """At the call; text is many keys to nobody but Python."""
    with pytest.raises(InvalidArgument, match=r"keys (is a|were given), expected|keys is a \w+, expected|expected one"):
        client.infer_many("model", [X], **options)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("limit", ["max_client_requests", "max_queued"])
def test_a_stream_is_not_refused_for_its_own_size(limit: str, how: str) -> None:
    """It has fewer in flight after a refusal, and sends again what was refused, in its order and with its key."""
    xs = [X + n for n in range(300)]
    options: dict[str, Any] = {"in_flight": 200, "keys": (f"k{n % 7}" for n in range(300))}
    with LocalCluster(model, gateway={limit: 20}, settings={"max_batch_size": 4}) as small, small.client() as client:
        got: list[Any] = (
            list(client.infer_many("model", xs, **options))
            if how == "sync"
            else asyncio.run(collected(small, xs, **options))
        )

    assert [float(y[0]) for y in got] == [2 * n for n in range(300)]


@pytest.mark.slow
def test_a_stream_that_is_too_much_by_itself_is_refused() -> None:
    """With one in flight it is others that take all there is."""
    with LocalCluster(model, gateway={"max_client_requests": 1}) as small, small.client() as client, held() as x:
        client.submit("model", x)

        with pytest.raises(
            Overloaded, match=r"this client's requests in hand would come to 2, the limit is 1; .*, as infer_many does"
        ):
            next(client.infer_many("model", [X] * 20, in_flight=8))
