"""README's first block runs as it is written."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_first_code_block_runs() -> None:
    """What a newcomer copies first must work."""
    block = re.search(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None

    done = subprocess.run([sys.executable, "-c", block[1]], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["[1.5]", "1000"]
