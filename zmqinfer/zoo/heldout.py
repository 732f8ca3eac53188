"""Real images to ask the digits model about."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from zmqinfer.zoo import ZOO

__all__ = ["Heldout", "heldout"]


class Heldout(NamedTuple):
    """Handwritten digits that no training has seen.

    Attributes:
        images: float32 [360, 64], pixels from 0 to 16: rows as the model's input `pixels` takes them.
        labels: uint8 [360], the digits that were written.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.uint8]


def heldout() -> Heldout:
    """Loads the 360 held-out images; zoo/digits/README.md says where they come from."""
    with np.load(ZOO / "digits" / "heldout.npz", allow_pickle=False) as archive:
        return Heldout(archive["images"].astype(np.float32), archive["labels"])
