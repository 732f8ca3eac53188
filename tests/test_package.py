"""What `import zmqinfer` gives."""

from __future__ import annotations

import zmqinfer


def test_what_is_imported_late_is_listed() -> None:
    """For completion in shells and notebooks, before anything was used."""
    assert {"AsyncClient", "Client", "LocalCluster", "errors", "__version__"} <= set(dir(zmqinfer))
