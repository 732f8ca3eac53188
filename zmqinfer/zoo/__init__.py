"""The models that ship with zmqinfer: a model repository like any other, served when none is named.

    digits/     reads handwritten digits; real weights, real images    backend numpy
    echo/       answers what it was asked                              backend python, a function
    sleep/      answers after a known time                             backend python, a class
    heldout.py  the 360 images that digits never saw, with labels

`ZOO` is its folder: `find_models([ZOO])` finds the three.
"""

from pathlib import Path

__all__ = ["ZOO"]

ZOO = Path(__file__).parent
