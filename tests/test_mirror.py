"""Each module below the shells has its test file at the same path."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
PURE = ("*.py", "policy/**/*.py", "machine/**/*.py", "loop/**/*.py", "sim/**/*.py", "backends/**/*.py")
# At the top of the package, but shells: tests/node has their real sockets.
SHELLS = {"client.py", "aio.py"}


def test_every_module_below_the_shells_has_its_test_file() -> None:
    """zmqinfer/policy/ring.py is tested by tests/policy/test_ring.py."""
    package = ROOT / "zmqinfer"
    modules = [path.relative_to(package) for pattern in PURE for path in sorted(package.glob(pattern))]
    wanted = [
        module.with_name(f"test_{module.name}")
        for module in modules
        if not module.name.startswith("__") and str(module) not in SHELLS
    ]
    assert wanted

    missing = [f"tests/{path}" for path in wanted if not (ROOT / "tests" / path).is_file()]

    assert not missing, f"{len(missing)} test files are missing: {', '.join(missing)}"
