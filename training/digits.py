"""Trains the digits model that ships with zmqinfer, and writes its weights and its held-out images.

    .venv/bin/python training/digits.py    # needs the extra `dev`: scikit-learn brings the data

The net is dense, 64-256-128-10 with ReLU between, so that it splits into three stages later. Of each
digit 36 images, drawn with a fixed seed, are held out: 360 of 1,797. They are never seen in training and
no choice was made by looking at them. The rest is trained on for 150 epochs, shifted by up to one pixel
each time it is seen, by Adam with a rate that falls along a cosine.

The same seed gives the same archives on the same machine. Other BLAS kernels add in another order, so
elsewhere the weights differ in their last bits; a test compares accuracies, never bytes.
"""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

FOLDER = Path(__file__).parents[1] / "zmqinfer" / "zoo" / "digits"

SIDE = 8
BRIGHTEST = 16
LAYERS = (SIDE * SIDE, 256, 128, 10)
HELDOUT_PER_DIGIT = 36
SPLIT_SEED = 0
EPOCHS = 150
BATCH = 64
PEAK_RATE = 2e-3
WEIGHT_DECAY = 1e-4

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]


def train(seed: int) -> tuple[dict[str, Floats], float]:
    """Trains a net and returns its weights (w0, b0, w1, ...) and its share of right held-out answers.

    The weights take pixels from 0 to 16; `seed` draws the first weights, the order and the shifts.
    """
    images, labels, heldout_images, heldout_labels = split()
    rng = np.random.default_rng(seed)
    net = _first_weights(rng)
    adam = _Adam(net)
    steps = EPOCHS * -(-len(images) // BATCH)
    step = 0
    for _ in range(EPOCHS):
        for x, y in _batches(images, labels, rng):
            rate = PEAK_RATE * 0.5 * (1 + np.cos(np.pi * step / steps))
            adam.descend(net, _gradients(net, x, y), rate)
            step += 1
    net["w0"] /= BRIGHTEST  # training saw pixels from 0 to 1
    right = forward(net, heldout_images.astype(np.float32))[-1].argmax(axis=1) == heldout_labels
    return net, float(right.mean())


def split() -> tuple[Bytes, Bytes, Bytes, Bytes]:
    """Returns (images, labels, held-out images, held-out labels); an image is 64 pixels from 0 to 16."""
    digits = load_digits()
    images = digits.data.astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(labels))
    is_heldout = np.zeros(len(labels), bool)
    for digit in range(LAYERS[-1]):
        is_heldout[order[labels[order] == digit][:HELDOUT_PER_DIGIT]] = True
    return images[~is_heldout], labels[~is_heldout], images[is_heldout], labels[is_heldout]


def forward(net: Mapping[str, Floats], x: Floats) -> list[Floats]:
    """Returns the input and what each layer answers to it, the logits last."""
    answers = [x]
    last = len(LAYERS) - 2
    for layer in range(last + 1):
        x = x @ net[f"w{layer}"] + net[f"b{layer}"]
        if layer < last:
            np.maximum(x, 0, out=x)
        answers.append(x)
    return answers


def _first_weights(rng: np.random.Generator) -> dict[str, Floats]:
    net = {}
    for layer, (inputs, outputs) in enumerate(pairwise(LAYERS)):
        spread = np.sqrt(2 / inputs)
        net[f"w{layer}"] = (rng.standard_normal((inputs, outputs)) * spread).astype(np.float32)
        net[f"b{layer}"] = np.zeros(outputs, np.float32)
    return net


def _batches(images: Bytes, labels: Bytes, rng: np.random.Generator) -> Iterator[tuple[Floats, Bytes]]:
    order = rng.permutation(len(labels))
    for start in range(0, len(order), BATCH):
        chosen = order[start : start + BATCH]
        yield _shifted(images[chosen], rng), labels[chosen]


def _shifted(images: Bytes, rng: np.random.Generator) -> Floats:
    """Moves each image by -1, 0 or 1 pixel both ways; what enters is empty paper."""
    padded = np.zeros((len(images), SIDE + 2, SIDE + 2), np.float32)
    padded[:, 1:-1, 1:-1] = images.reshape(-1, SIDE, SIDE)
    down, right = rng.integers(0, 3, (2, len(images), 1, 1))
    rows = np.arange(SIDE)[:, None] + down
    columns = np.arange(SIDE)[None, :] + right
    moved = padded[np.arange(len(images))[:, None, None], rows, columns]
    return moved.reshape(len(images), -1) / np.float32(BRIGHTEST)


def _gradients(net: Mapping[str, Floats], x: Floats, y: Bytes) -> dict[str, Floats]:
    """Returns the gradient of the mean cross entropy."""
    answers = forward(net, x)
    odds = np.exp(answers[-1] - answers[-1].max(axis=1, keepdims=True))
    slope = odds / odds.sum(axis=1, keepdims=True)
    slope[np.arange(len(y)), y] -= 1
    slope /= len(y)
    gradients = {}
    for layer in reversed(range(len(LAYERS) - 1)):
        gradients[f"w{layer}"] = answers[layer].T @ slope
        gradients[f"b{layer}"] = slope.sum(axis=0)
        if layer:
            slope = (slope @ net[f"w{layer}"].T) * (answers[layer] > 0)
    return gradients


class _Adam:
    """Adam with decoupled weight decay, at the constants of its paper."""

    def __init__(self, net: Mapping[str, Floats]) -> None:
        self._mean = {name: np.zeros_like(weights) for name, weights in net.items()}
        self._square = {name: np.zeros_like(weights) for name, weights in net.items()}
        self._steps = 0

    def descend(self, net: dict[str, Floats], gradients: Mapping[str, Floats], rate: float) -> None:
        self._steps += 1
        step_size = rate * np.sqrt(1 - 0.999**self._steps) / (1 - 0.9**self._steps)
        for name, gradient in gradients.items():
            self._mean[name] += np.float32(0.1) * (gradient - self._mean[name])
            self._square[name] += np.float32(0.001) * (gradient * gradient - self._square[name])
            if name.startswith("w"):
                net[name] *= np.float32(1 - rate * WEIGHT_DECAY)
            net[name] -= np.float32(step_size) * self._mean[name] / (np.sqrt(self._square[name]) + 1e-8)


def write_archive(path: Path, arrays: Mapping[str, NDArray[np.generic]]) -> None:
    """Writes an .npz whose bytes depend on nothing but the arrays: stored, not packed, and without a date."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            entry.create_system = 3  # as on Unix, wherever this runs
            with archive.open(entry, "w") as file:
                np.lib.format.write_array(file, array, version=(1, 0), allow_pickle=False)


def main() -> None:
    """Trains and writes both archives."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="model folder to write to")
    options = parser.parse_args()
    weights, accuracy = train(options.seed)
    _, _, images, labels = split()
    write_archive(options.folder / "1" / "weights.npz", weights)
    write_archive(options.folder / "heldout.npz", {"images": images, "labels": labels})
    print(f"{accuracy:.2%} of {len(labels)} held-out images right; wrote to {options.folder}")


if __name__ == "__main__":
    main()
