"""Load for many minutes while processes die, freeze, restart and come and go; nothing may fail, nothing may grow.

    .venv/bin/python -m trials.soak --minutes 20

Starts `zmqinfer up` with two gateways and three workers, measures what an `AsyncClient` of this process gets
through, and then sends 30 % of that, whatever becomes of the earlier calls; each answer is checked against its
own input. All along something is done to the system, drawn by a seed. Memory, descriptors and threads of all
processes are sampled, and the gateways' books checked. Rolling restarts come in the first third only, and one
worker is not killed from then on, so that a process of each role lives long enough to be judged.

Linux only, for it reads /proc. Writes results/soak/soak.json and soak.png; the exit code is 1 if something did
not hold, with a sentence for each.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import tempfile
from pathlib import Path

from bench.command import Command, whole, within
from trials.soak.faults import hold_calls
from trials.soak.processes import SoakError, Up
from trials.soak.shown import tell, write
from trials.soak.trial import MAX_RATE_PER_S, Form, Soak
from zmqinfer.errors import ZmqInferError
from zmqinfer.node.memory import keep_freed_memory


def main() -> int:
    """Runs the trial; returns the exit code."""
    if sys.argv[1:2] == ["role"]:
        hold_calls(**json.loads(sys.argv[3]))
        return 0
    command = Command("python -m trials.soak", __doc__)
    command.add_argument("--minutes", type=float, default=20.0, help="time under load, at most 600")
    command.add_argument("--seed", type=whole, default=1, help="of the faults and inputs")
    command.add_argument("--pause-s", type=within, nargs=2, default=(5.0, 15.0), metavar=("LEAST", "MOST"),
                         help="between two faults")  # fmt: skip
    command.add_argument("--sample-s", type=within, default=5.0, help="between two samples")
    command.add_argument("--most-per-s", type=within, default=MAX_RATE_PER_S, help="calls, if capacity allows more")
    command.add_argument("--out", type=Path, default=Path("results/soak"))
    given = command.parse_args()
    if not 0 < given.minutes <= 600:
        command.error(f"--minutes is {given.minutes:g}, expected more than 0 and at most 600")
    if given.pause_s[0] > given.pause_s[1]:
        command.error(f"--pause-s is {given.pause_s[0]:g} {given.pause_s[1]:g}, expected the lesser one first")
    if not Path("/proc/self/fd").is_dir():
        command.error("there is no /proc/self/fd here; this trial needs Linux")
    keep_freed_memory()  # this process is the client, and judged as the nodes are
    form = Form(given.minutes, given.seed, (given.pause_s[0], given.pause_s[1]), given.sample_s, given.most_per_s)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        try:
            return run(form, Path(folder), given.out)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            return 128 + signal.SIGINT


def run(form: Form, folder: Path, out: Path) -> int:
    """Runs one form with its sockets in `folder`; returns the exit code."""
    up = Up(folder)
    soak = Soak(form, up)
    broken: list[str] = []
    try:
        up.wait_until_ready()
        asyncio.run(soak.run())
    except* (SoakError, ZmqInferError) as group:
        broken.append(str(group.exceptions[0]))
    finally:
        not_stopped = up.stop()
    if not_stopped and not broken:
        broken.append(not_stopped)
    broken += soak.judge()
    write(soak, broken, out)
    tell(soak, broken)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
