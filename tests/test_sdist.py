"""What users of a package index get."""

from __future__ import annotations

import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="only a checkout says which files there are to be")
def test_the_source_distribution_is_the_repository(tmp_path: Path) -> None:
    """Each file that is tracked and no other, so that its tests pass there too: `./run.sh test --sdist`."""
    build = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, timeout=60)
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout

    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as files:
        found = {name.partition("/")[2] for name in files.getnames()}
        top = archive.name.removesuffix(".tar.gz")
        page = files.extractfile(f"{top}/PKG-INFO")
        assert page is not None
        text = page.read().decode()
        is_executable = bool(files.getmember(f"{top}/run.sh").mode & 0o100)

    assert found - {"PKG-INFO"} >= {name for name in tracked.splitlines() if (ROOT / name).exists()}
    assert is_executable
    # On the page of the index, which shows this, a link into the repository leads nowhere.
    assert "docs/OPERATIONS.md has an example" in text
    assert re.findall(r"\]\((?!https?://)[^)]*\)", text) == []


def test_names_of_documents_are_their_links() -> None:
    """So that the page of an index, where there are no links, still says which document is meant."""
    links = re.findall(r"\[([^\]]+)\]\((?!https?://)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))

    assert len(links) > 5
    assert all(text == path and (ROOT / path).exists() for text, path in links), links
