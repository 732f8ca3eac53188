"""What a process must not load: drawing is for `zmqinfer bench`, `report` and `simulate --out`."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Every module of ours, then a gateway, a worker and both clients at work; and at last what does draw.
SCRIPT = """
import asyncio, importlib, pkgutil, sys
import numpy as np
import zmqinfer

def drawing():
    return sorted({name.partition(".")[0] for name in sys.modules} & {"matplotlib", "mpl_toolkits", "PIL", "contourpy"})

for module in pkgutil.walk_packages(zmqinfer.__path__, "zmqinfer."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
assert not drawing(), drawing()

async def ask(address):
    async with zmqinfer.AsyncClient(address) as client:
        await client.infer("predict", np.zeros(1))

with zmqinfer.LocalCluster(lambda x: x, workers=1) as cluster, cluster.client() as client:
    client.infer("predict", np.zeros(1))
    asyncio.run(ask(cluster.address))
assert not drawing(), drawing()

from zmqinfer.load import canvas
canvas.figure_of(700)
assert "matplotlib" in drawing()
assert "matplotlib.pyplot" not in sys.modules
"""


@pytest.mark.slow
def test_no_node_and_no_client_loads_what_draws() -> None:
    """It takes 0.6 s and 37 MB; whoever draws does without pyplot, which wants a screen."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
