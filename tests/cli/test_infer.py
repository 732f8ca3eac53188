"""`infer` against a running cluster: what it reads, what it prints, and how it ends."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.conftest import Cluster, said
from tests.processes import here, parsed, run, saved
from zmqinfer.zoo.heldout import heldout

pytestmark = pytest.mark.slow


def test_infer_takes_npy_json_and_standard_input(cluster: Cluster, tmp_path: Path) -> None:
    """The same image three ways, and as rows of one call."""
    images, labels = heldout().images, heldout().labels
    npy = saved(tmp_path / "x.npy", images[0])
    many = saved(tmp_path / "many.npy", images[:40])
    text = tmp_path / "x.json"
    text.write_text(json.dumps(images[0].tolist()))
    at = ("-g", cluster.clients)

    answers = [
        parsed(run("infer", "digits", npy, *at)),
        parsed(run("infer", "digits", text, *at)),
        parsed(run("infer", "digits", "-", *at, stdin=npy.read_bytes())),
        parsed(run("infer", "digits", "-", *at, stdin=text.read_bytes())),
    ]
    rows = parsed(run("infer", "digits", many, "--batch", *at))
    to_file = run("infer", "digits", npy, "--output", tmp_path / "y.npy", *at)

    assert {int(np.argmax(answer)) for answer in answers} == {int(labels[0])}
    assert np.asarray(rows).shape == (40, 10)
    assert np.mean(np.argmax(rows, axis=1) == labels[:40]) > 0.9
    assert to_file.returncode == 0
    assert np.allclose(np.load(tmp_path / "y.npy"), answers[0], 1e-3, 1e-3)


def test_what_json_has_no_numbers_for_is_strict_json(cluster: Cluster, tmp_path: Path) -> None:
    """It is printed by name, and `infer` reads what it has printed; bare NaN is read too, as Python writes it."""
    npy = saved(tmp_path / "x.npy", np.array([np.nan, np.inf, -np.inf, 1.5], np.float32))
    printed = '["NaN", "Infinity", "-Infinity", 1.5]\n'
    pair = b'{"x": ["NaN", 2], "scale": "Infinity"}'

    once = run("infer", "echo", npy, "-g", cluster.clients)
    again = run("infer", "echo", "-", "-g", cluster.clients, stdin=once.stdout.encode())
    bare = run("infer", "echo", "-", "-g", cluster.clients, stdin=b"[NaN, Infinity, -Infinity, 1.5]")
    several = run("infer", "pair", "-", "-g", cluster.clients, stdin=pair)

    assert once.stdout == again.stdout == bare.stdout == printed, once.stderr + again.stderr + bare.stderr
    assert parsed(several) == {"total": "NaN", "scaled": ["NaN", "Infinity"]}


def test_infer_of_a_model_with_several_inputs(cluster: Cluster, tmp_path: Path) -> None:
    """A JSON object or .npz in, a JSON object out; JSON numbers take the declared dtype."""
    text = tmp_path / "x.json"
    text.write_text('{"x": [1, 2], "scale": 3}')
    np.savez(tmp_path / "x.npz", x=np.array([1, 2], np.float32), scale=np.float32(3))
    np.savez(tmp_path / "unnamed.npz", np.array([1, 2], np.float32))

    answers = [parsed(here("infer", "pair", file, "-g", cluster.clients)) for file in (text, tmp_path / "x.npz")]
    unnamed = parsed(here("infer", "echo", tmp_path / "unnamed.npz", "-g", cluster.clients))

    assert answers == [{"total": 9.0, "scaled": [3.0, 6.0]}] * 2
    assert unnamed == [1.0, 2.0]


@pytest.mark.parametrize(
    ("model", "content", "words"),
    [
        ("digits", np.ones(64), ["'pixels'", "FP64", "FP32"]),
        ("digits", np.ones(63, np.float32), ["'pixels'", "63", "64"]),
        ("digits", np.ones((1, 64), np.float32), ["'pixels'", "[1, 64]", "[64]"]),
        ("pair", {"x": [1, 2]}, ["'scale'"]),
        ("pair", {"x": [1, 2], "scale": 3, "zoom": 1}, ["'zoom'"]),
        ("pair", {"x": [-1, 2], "scale": 3}, ["ValueError: x is negative"]),
    ],
)
def test_bad_input_ends_with_1_and_names_what_came(
    cluster: Cluster, tmp_path: Path, model: str, content: Any, words: list[str]
) -> None:
    """The request was made and failed: exit code 1, with name, what came, and what was expected."""
    file = tmp_path / "x"
    if isinstance(content, np.ndarray):
        file = saved(tmp_path / "x.npy", content)
    else:
        file.write_text(json.dumps(content))

    text = said(here("infer", model, file, "-g", cluster.clients), 1)

    assert all(word in text for word in words), text


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"[1, [2]]",
        b'["a"]',
        b"null",
        b'{"pixels": [1, [2]]}',
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff",
        b"PK\x03\x04 and no more",
        b"[" * 100_000,
    ],
)
def test_file_that_holds_no_array_ends_with_2(cluster: Cluster, tmp_path: Path, content: bytes) -> None:
    """The file is named."""
    file = tmp_path / "given.json"
    file.write_bytes(content)

    assert "given.json" in said(here("infer", "digits", file, "-g", cluster.clients), 2)


@pytest.mark.parametrize(("redirection", "word"), [("<&-", "standard input is closed"), ("0>/dev/null", "be read")])
def test_standard_input_that_cannot_be_read_ends_with_2(redirection: str, word: str) -> None:
    """The shell may close it, or open it for writing alone."""
    line = f"exec {sys.executable} -m zmqinfer infer digits - {redirection}"

    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, timeout=30, check=False)

    assert word in said(done, 2)
    assert "Traceback" not in done.stderr


def test_pickled_file_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    """Never pickle."""
    file = tmp_path / "evil.npy"
    np.save(file, np.array([{"a": 1}], dtype=object), allow_pickle=True)

    assert "evil.npy" in said(here("infer", "digits", file, "-g", cluster.clients), 2)
