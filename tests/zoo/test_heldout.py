"""The held-out images as users get them."""

from __future__ import annotations

import numpy as np

from zmqinfer.zoo.heldout import heldout


def test_images_are_as_the_model_takes_them() -> None:
    """float32 rows of 64 pixels from 0 to 16, one label each."""
    images, labels = heldout()

    assert (images.dtype, images.shape) == (np.float32, (360, 64))
    assert (labels.dtype, labels.shape) == (np.uint8, (360,))
    assert (images.min(), images.max()) == (0, 16)
    assert set(labels.tolist()) == set(range(10))
