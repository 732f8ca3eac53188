"""The digits that ship: the files are the ones that were made, and they are good."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from zmqinfer.node.models import find_models, load_here
from zmqinfer.zoo import ZOO
from zmqinfer.zoo.heldout import heldout

ENOUGH = 0.975
SCRIPT = Path(__file__).parents[1] / "training" / "digits.py"


@pytest.fixture(scope="module")
def training() -> ModuleType:
    """training/digits.py, which is no part of the package."""
    spec = importlib.util.spec_from_file_location("training_digits", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("name", "checksum"),
    [
        ("heldout.npz", "e4d66aec8b10728030f9fccb5b41bce8b1508397a9b38e512908d46bbe8ee69e"),
        ("1/weights.npz", "5c0ed70be8135bd247e31b7c88035fefc558929f007f635dda401152671ddc3b"),
    ],
)
def test_the_shipped_files_are_the_ones_that_were_made(name: str, checksum: str) -> None:
    """Whoever trains anew on purpose writes the new checksum here."""
    assert hashlib.sha256((ZOO / "digits" / name).read_bytes()).hexdigest() == checksum


def test_the_shipped_weights_read_the_heldout_images() -> None:
    """At least 97.5 % of the 360; a single image is 0.28 points."""
    images, labels = heldout()
    model = load_here(next(config for config in find_models([ZOO]) if config.name == "digits"))

    logits = model.infer({"pixels": images})["logits"]

    assert (logits.argmax(axis=1) == labels).mean() >= ENOUGH


@pytest.mark.slow
def test_a_fresh_training_is_as_good(training: ModuleType) -> None:
    """Accuracy, never bytes: BLAS kernels add in different orders. Another seed than the shipped one."""
    # Matrices this small are multiplied sooner by one thread, and beside others ten times as soon.
    with threadpool_limits(1):
        weights, accuracy = training.train(1)

    assert accuracy >= ENOUGH
    assert [(name, array.dtype, array.shape) for name, array in weights.items()] == [
        ("w0", np.float32, (64, 256)),
        ("b0", np.float32, (256,)),
        ("w1", np.float32, (256, 128)),
        ("b1", np.float32, (128,)),
        ("w2", np.float32, (128, 10)),
        ("b2", np.float32, (10,)),
    ]


@pytest.mark.slow
def test_the_heldout_images_are_kept_out_of_training(training: ModuleType) -> None:
    """36 of each digit; the split is the shipped one, and the two halves are all the images there are."""
    images, _, heldout_images, heldout_labels = training.split()

    assert len(images) + len(heldout_images) == 1797
    assert np.bincount(heldout_labels).tolist() == [36] * 10
    assert heldout_images.tolist() == heldout().images.tolist()
    assert heldout_labels.tolist() == heldout().labels.tolist()
    assert not {image.tobytes() for image in images} & {image.tobytes() for image in heldout_images}


@pytest.mark.slow
def test_an_archive_depends_on_its_arrays_alone(training: ModuleType, tmp_path: Path) -> None:
    """No date, no packing: the same arrays give the same bytes."""
    arrays = {"a": np.arange(3), "b": np.ones((2, 2), np.float32)}

    for name in ("one.npz", "two.npz"):
        training.write_archive(tmp_path / name, arrays)

    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    with np.load(tmp_path / "one.npz", allow_pickle=False) as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            name: array.tolist() for name, array in arrays.items()
        }
