"""Measures what docs/RELIABILITY.md promises, on real processes under load that checks every answer.

    .venv/bin/python -m trials.promises --only kill --only stop

Each figure starts gateways and workers of its own through zmqinfer's command line, with default settings, does to
them what the figure is about, and says what was asked and what was measured. Some five minutes for all of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import resource
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeAlias

from bench.command import Command
from trials.promises import gateways, overload, workers
from trials.promises.row import Row, table
from zmqinfer.errors import ZmqInferError

Figure: TypeAlias = Callable[[Path], Coroutine[Any, Any, Row]]

FIGURES: dict[str, Figure] = {
    one.__name__: one
    for one in (
        workers.kill, workers.stop, workers.batch, workers.busy, gateways.gateway_stopped, gateways.gateways_killed,
        gateways.reconnect, overload.goodput,
    )
}  # fmt: skip


def measure(name: str) -> Row:
    """Measures one figure; one that breaks down does not hold either."""
    with tempfile.TemporaryDirectory(prefix=f"{name}-") as folder:
        cluster = Path(folder) / "cluster"
        try:
            row = asyncio.run(FIGURES[name](cluster))
        except (TimeoutError, ChildProcessError, ZmqInferError) as error:
            row = Row(name, "that it can be measured", "nothing", mistakes=[str(error)])
        for sentence in row.mistakes:
            print(f"not so, {name}: {sentence}", file=sys.stderr)
        if row.mistakes:
            for log in sorted(cluster.rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-3000:]}", file=sys.stderr)
    return row


def main() -> int:
    """Measures what is asked for; returns 1 if anything does not hold."""
    if sys.argv[1:2] == ["role"]:
        gateways.be_clients(**json.loads(sys.argv[3]))
        return 0
    command = Command("python -m trials.promises", __doc__)
    command.add_argument("--only", action="append", choices=FIGURES, metavar="NAME", help=", ".join(FIGURES))
    command.add_argument("--json", type=Path, metavar="FILE", help="where to write the figures as numbers too")
    given = command.parse_args()
    _allow_descriptors()
    rows = []
    for name in given.only or FIGURES:
        rows.append(measure(name))
        print(f"{name}: {'ok' if rows[-1].holds else 'NOT'}", file=sys.stderr, flush=True)
    print(table(rows))
    if given.json:
        found = [{**dataclasses.asdict(row), "holds": row.holds} for row in rows]
        given.json.write_text(json.dumps(found, indent=1) + "\n")
    return 0 if all(row.holds for row in rows) else 1


def _allow_descriptors() -> None:
    """Lets this process, and all that it starts, have as many descriptors as it may: a thousand clients need some."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    sys.exit(main())
