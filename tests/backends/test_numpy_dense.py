"""Dense networks from weights.npz."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zmqinfer.backends.numpy_dense import NumpyDense
from zmqinfer.config import ModelSettings
from zmqinfer.errors import ConfigError
from zmqinfer.model_config import ModelConfig
from zmqinfer.signature import Signature, TensorSpec
from zmqinfer.tensor import Array

NET: dict[str, Array] = {
    "w0": np.array([[1, -1, 0], [0, 1, 2]], np.float32),
    "b0": np.array([0, 0, -3], np.float32),
    "w1": np.array([[1], [10], [100]], np.float32),
    "b1": np.array([-0.5], np.float32),
}
PIXELS = Signature((TensorSpec("pixels", "FP32", (2,)),), (TensorSpec("logits", "FP32", (1,)),))


def model(folder: Path, signature: Signature | None = None) -> NumpyDense:
    settings = ModelSettings(backend="numpy")
    return NumpyDense(ModelConfig("net", settings, signature, source="net/model.toml", folders=(folder,)))


def loaded(folder: Path, net: dict[str, Array], signature: Signature | None = None) -> NumpyDense:
    np.savez(folder / "weights.npz", **net)  # type: ignore[arg-type]
    backend = model(folder, signature)
    backend.load()
    return backend


def refused(folder: Path, net: dict[str, Array], signature: Signature | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(folder, net, signature)
    assert "weights.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_relu_stands_between_the_layers_and_not_behind_the_last(tmp_path: Path) -> None:
    """Worked out by hand: hidden (1, 0, 1), (0, 2, 1) and (0, 0, 0)."""
    backend = loaded(tmp_path, NET)
    x = np.array([[1, 2 - 1 + 1], [-1, 1 + 1], [-2, -9]], np.float32)

    y = backend.infer({"x": x})["y"]

    hidden = np.maximum(x @ NET["w0"] + NET["b0"], 0)
    assert y.tolist() == (hidden @ NET["w1"] + NET["b1"]).tolist()
    assert y[2].tolist() == [-0.5]
    assert y.dtype == np.float32


def test_inputs_stay_as_they_were(tmp_path: Path) -> None:
    """They may be views of what a socket brought, read-only."""
    backend = loaded(tmp_path, {"w0": NET["w0"], "b0": NET["b0"]})
    x = np.ones((4, 2), np.float32)
    x.flags.writeable = False

    assert backend.infer({"x": x})["y"].shape == (4, 3)
    assert x.tolist() == np.ones((4, 2)).tolist()


def test_the_signature_is_derived_where_none_is_declared(tmp_path: Path) -> None:
    """Input x, output y, of the lengths that the weights have."""
    assert loaded(tmp_path, NET).signature == Signature(
        (TensorSpec("x", "FP32", (2,)),), (TensorSpec("y", "FP32", (1,)),)
    )


def test_the_declared_names_are_used(tmp_path: Path) -> None:
    """As model.toml calls them."""
    backend = loaded(tmp_path, NET, PIXELS)

    assert backend.signature is PIXELS
    assert list(backend.infer({"pixels": np.zeros((1, 2), np.float32)})) == ["logits"]


def test_nan_hurts_only_its_own_row(tmp_path: Path) -> None:
    """And warns nobody."""
    x = np.array([[np.nan, 0], [1, 1], [3e38, 3e38]], np.float32)

    y = loaded(tmp_path, NET).infer({"x": x})["y"]

    assert np.isnan(y[0]).all()
    assert np.isfinite(y[1]).all()


def test_closing_lets_the_weights_go(tmp_path: Path) -> None:
    """Twice is fine."""
    backend = loaded(tmp_path, NET)

    backend.close()
    backend.close()


def _without(*names: str) -> dict[str, Array]:
    return {name: array for name, array in NET.items() if name not in names}


@pytest.mark.parametrize(
    ("net", "sentence"),
    [
        ({}, "holds nothing, expected float32 arrays w0, b0, w1, b1, ..."),
        (_without("b1"), "holds b0, w0, w1, expected"),
        (_without("w0", "b0"), "holds b1, w1, expected"),
        (NET | {"labels": NET["b0"]}, "holds labels, b0, w0, b1, w1, expected"),
        (NET | {"w0": NET["w0"].astype(np.float64)}, "w0 is float64 [2, 3], expected float32 with 2 axes"),
        (NET | {"w1": NET["w1"][:, 0]}, "w1 is float32 [3], expected float32 with 2 axes"),
        (NET | {"b1": NET["w1"]}, "b1 is float32 [3, 1], expected float32 with 1 axis"),
        (NET | {"b1": np.zeros(0, np.float32)}, "b1 is float32 [0], expected float32"),
        (NET | {"b0": NET["b1"]}, "w0 is [2, 3] and b0 [1], expected b0 to begin with 3"),
        (NET | {"w1": NET["w0"]}, "b0 is [3] and w1 [2, 3], expected w1 to begin with 3"),
        (NET | {"b1": np.array([np.nan], np.float32)}, "b1 holds NaN or infinity, expected finite weights"),
        (NET | {"b1": np.array([None])}, "cannot be read (Object arrays cannot be loaded"),
    ],
)
def test_wrong_weights_are_one_sentence(tmp_path: Path, net: dict[str, Array], sentence: str) -> None:
    """The file, what it holds, and what was expected."""
    assert sentence in refused(tmp_path, net)


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda path: path.unlink(), "does not exist, expected float32 arrays"),
        (lambda path: path.write_bytes(b""), "cannot be read"),
        (lambda path: path.write_bytes(b"text"), "cannot be read"),
        (lambda path: path.write_bytes(b"\x80\x04N."), "cannot be read"),  # a pickle, which is never loaded
        (lambda path: path.write_bytes(path.read_bytes()[:-30]), "cannot be read"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"NUMPY", b"NUMPI")), "cannot be read"),
        (lambda path: path.unlink() or path.mkdir(), "cannot be read"),
    ],
)
def test_a_broken_archive_is_one_sentence(tmp_path: Path, spoil, sentence: str) -> None:  # type: ignore[no-untyped-def]
    """Missing, empty, torn or something else."""
    path = tmp_path / "weights.npz"
    np.savez(path, **NET)  # type: ignore[arg-type]
    spoil(path)

    with pytest.raises(ConfigError, match=r"weights\.npz") as caught:
        model(tmp_path).load()
    assert sentence in str(caught.value)


def test_a_single_array_is_no_archive(tmp_path: Path) -> None:
    """numpy.save writes one, numpy.savez several."""
    with (tmp_path / "weights.npz").open("wb") as file:
        np.save(file, NET["w0"])

    with pytest.raises(ConfigError, match="is a single array, expected float32 arrays"):
        model(tmp_path).load()


@pytest.mark.parametrize(
    ("signature", "sentence"),
    [
        (Signature((TensorSpec("x", "FP32", (3,)),), PIXELS.outputs), "inputs are x FP32 [3], but"),
        (Signature((TensorSpec("x", "FP64", (2,)),), PIXELS.outputs), "inputs are x FP64 [2], but"),
        (Signature((TensorSpec("x", "FP32", (-1,)),), PIXELS.outputs), "has one FP32 [2]; correct"),
        (Signature(PIXELS.inputs * 2, PIXELS.outputs), "inputs are pixels FP32 [2], pixels FP32 [2], but"),
        (Signature(PIXELS.inputs, (TensorSpec("y", "FP32", (2,)),)), "outputs are y FP32 [2], but"),
    ],
)
def test_a_declaration_must_agree_with_the_weights(tmp_path: Path, signature: Signature, sentence: str) -> None:
    """Both files are named."""
    text = refused(tmp_path, NET, signature)

    assert text.startswith("net/model.toml: ")
    assert sentence in text
