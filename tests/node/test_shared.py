"""Shared memory between processes: what is laid down is read, and nothing else can be."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from zmqinfer import Client
from zmqinfer.launch.processes import ProcessCluster
from zmqinfer.node.shared import SHARED_ABOVE_BYTES, SharedMemory, SharedReader, host_token

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="shared memory is offered on Linux alone")

SESSION = bytes(range(16))


def named(place: Any, session: bytes = SESSION) -> Any:
    """A place as a worker gets it: with the session that the gateway puts in."""
    return ([*place[0], session], *place[1:])


@pytest.fixture
def memory() -> Any:
    made = SharedMemory(SESSION, 2**28)
    yield made
    made.close()


def test_what_is_laid_down_is_read_where_it_lies(memory: SharedMemory) -> None:
    """Each part whole; the reader has a view and cannot write."""
    reader = SharedReader()
    place = memory.lay([b"abc", memoryview(b"x" * 100_000)])
    assert place is not None

    first, second = reader.view(named(place))

    assert (bytes(first), bytes(second)) == (b"abc", b"x" * 100_000)
    assert memoryview(first).readonly
    again = memory.lay([b"d"])
    assert again is not None
    assert bytes(reader.view(named(again))[0]) == b"d"
    reader.close()


def test_memory_is_used_again_and_bounded(memory: SharedMemory) -> None:
    """What is given back is taken first; without room there is no place, and the payload travels as frames."""
    first = memory.lay([b"a" * 10_000])
    assert first is not None
    memory.free(first)
    assert memory.lay([b"b" * 10_000]) == first

    class Large(bytes):
        def __len__(self) -> int:
            return 2**40

    assert memory.lay([Large()]) is None


def test_only_memory_of_the_named_session_is_read(memory: SharedMemory, tmp_path: Path) -> None:
    """Another session, another file, another descriptor, nothing at all: each is refused."""
    reader = SharedReader()
    place = memory.lay([b"secret"])
    assert place is not None
    with (tmp_path / "file").open("wb") as file:
        for wrong in (
            named(place, bytes(16)),
            ([os.getpid(), file.fileno(), SESSION], 0, 1),
            ([os.getpid(), 10**6, SESSION], 0, 1),
            ([2**31 - 1, place[0][1], SESSION], 0, 1),
        ):
            with pytest.raises(OSError, match=r"no memory of this session|No such file"):
                reader.view(wrong)


def test_what_is_put_in_the_place_of_memory_while_it_is_looked_at_is_not_read(
    memory: SharedMemory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its number may be another file's by the time of the opening: what was opened is looked at."""
    place, other = memory.lay([b"own"]), SharedMemory(bytes(16), 2**20)
    another = other.lay([b"another session's"])
    assert place is not None
    assert another is not None

    def swap(path: Any, flags: int, opened: Any = os.open) -> int:
        os.dup2(another[0][1], place[0][1])
        return int(opened(path, flags))

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", swap)
        read = SharedReader().read(named(place))

    assert read is None
    other.close()


def test_a_pipe_in_the_place_of_memory_keeps_no_reader(tmp_path: Path) -> None:
    """To open one waits for a writer, and the loop of a worker with it."""
    os.mkfifo(tmp_path / "pipe")
    file = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    read: list[object] = []
    place = named(([os.getpid(), file], 0, 1))
    thread = threading.Thread(target=lambda: read.append(SharedReader().read(place)), daemon=True)

    thread.start()
    thread.join(10)

    assert read == [None]
    os.close(file)


def test_part_beyond_the_end_is_refused(memory: SharedMemory) -> None:
    """Numbers may be anything."""
    reader = SharedReader()
    place = memory.lay([b"abc"])
    assert place is not None
    size = os.fstat(place[0][1]).st_size

    for at, length in ((size, 1), (0, size + 1), (2**52, 2**52)):
        with pytest.raises(ValueError, match="a part ends at"):
            reader.view((named(place)[0], at, length))


def test_memory_that_its_owner_could_cut_off_is_refused() -> None:
    """A look behind the end of a mapped file ends the process."""
    number = os.memfd_create(f"zmqinfer-{SESSION.hex()}", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(number, 4_096)
    try:
        with pytest.raises(ValueError, match="not sealed"):
            SharedReader().view(([os.getpid(), number, SESSION], 0, 1))
    finally:
        os.close(number)


def test_owner_cannot_cut_off_what_it_sealed(memory: SharedMemory) -> None:
    """The seals hold for the owner too, and others of the machine cannot open it."""
    place = memory.lay([b"abc"])
    assert place is not None
    number = place[0][1]

    with pytest.raises(PermissionError):
        os.ftruncate(number, 0)
    assert os.fstat(number).st_mode & 0o777 == 0o600
    with pytest.raises(PermissionError):
        fcntl.fcntl(number, 1033, 0) if fcntl.fcntl(number, 1034) & 1 else os.ftruncate(number, 2**40)


def test_reader_lets_go_of_owners_that_are_gone() -> None:
    """Within a few seconds; the memory is then the system's again."""
    code = (
        "import sys; from zmqinfer.node.shared import SharedMemory; m = SharedMemory(bytes(range(16)), 2**20);"
        "p = m.lay([b'abc']); print(*p[0], flush=True); sys.stdin.read()"
    )
    owner = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    pid, number = map(int, owner.stdout.readline().split())
    reader = SharedReader()
    assert bytes(reader.view(([pid, number, SESSION], 0, 3))[0]) == b"abc"

    reader.tidy(100.0)
    assert mapped() == 1
    owner.kill()
    owner.communicate()
    reader.tidy(103.0)
    assert mapped() == 1
    reader.tidy(106.0)

    assert mapped() == 0


def mapped() -> int:
    """How many maps of such memory this process has."""
    return sum("/memfd:zmqinfer-" in line for line in Path("/proc/self/maps").read_text().splitlines())


def test_hosts_are_alike_within_one_and_told_apart_by_user() -> None:
    """Kernel, process namespace and user."""
    token = host_token()

    assert token == host_token()
    assert token is not None
    assert token.endswith(b" %d" % os.geteuid())


@pytest.mark.slow
def test_large_inputs_of_a_live_cluster_travel_by_name_and_outlive_a_killed_client() -> None:
    """Right answers through memory and, with a model that writes to its input, through copies; no file is left."""
    with ProcessCluster(1) as cluster:
        gateway, (worker,) = cluster.pids
        xs = [np.full(SHARED_ABOVE_BYTES, n, np.float32) for n in range(6)]
        with Client(cluster.clients_address) as client:
            for _ in range(2):
                for x, y in zip(xs, client.infer_many("echo", xs), strict=True):
                    assert np.array_equal(x, y)  # type: ignore[arg-type]
            assert maps_of(worker) == 1
            assert maps_of(gateway) == 0
        code = (
            "import numpy, sys; from zmqinfer import Client; c = Client(sys.argv[1]);"
            "x = numpy.zeros(50_000, numpy.float32); c.infer('echo', x); c.infer('echo', x); print(1, flush=True);"
            "sys.stdin.read()"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", code, cluster.clients_address], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert other.stdout is not None
        assert other.stdout.readline() == b"1\n"
        other.kill()
        other.communicate()
        give_up_at = time.monotonic() + 10
        while maps_of(worker) and time.monotonic() < give_up_at:
            time.sleep(0.1)
        assert maps_of(worker) == 0
        with Client(cluster.clients_address) as client:
            assert np.array_equal(client.infer("echo", xs[1]), xs[1])  # type: ignore[arg-type]


def maps_of(pid: int) -> int:
    return sum("/memfd:zmqinfer-" in line for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
