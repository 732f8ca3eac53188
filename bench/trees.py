"""Commits checked out beside each other, to be measured in turns."""

from __future__ import annotations

import subprocess
import tempfile
from contextlib import ExitStack
from pathlib import Path

__all__ = ["ROOT", "git", "tree_of"]

ROOT = Path(__file__).resolve().parents[1]


def git(*words: str) -> str:
    """Returns what git says in this checkout."""
    return subprocess.run(["git", *words], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()


def tree_of(commit: str, stack: ExitStack) -> Path:
    """Checks a commit out into a folder of its own, which goes when `stack` ends."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()), "tree")
    git("worktree", "add", "--detach", str(folder), commit)
    stack.callback(git, "worktree", "remove", "--force", str(folder))
    return folder
