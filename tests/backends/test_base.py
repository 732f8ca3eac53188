"""Every backend is what the engine expects."""

from __future__ import annotations

import pytest

from zmqinfer.backends.base import Backend
from zmqinfer.backends.numpy_dense import NumpyDense
from zmqinfer.backends.python_callable import BareFunction, PythonCallable


def _accepts(backend: type[Backend]) -> type[Backend]:
    return backend


@pytest.mark.parametrize("backend", [_accepts(NumpyDense), _accepts(PythonCallable), _accepts(BareFunction)])
def test_a_backend_has_all_that_the_protocol_names(backend: type[Backend]) -> None:
    """Four methods and two hooks, of which the hooks may be None."""
    for name in ("load", "infer", "close", "signature", "before", "after"):
        assert hasattr(backend, name)
