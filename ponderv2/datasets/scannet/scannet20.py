"""The 20 classes of ScanNet's semantic benchmark: names, NYU40 ids and colours."""

from __future__ import annotations

from ponderv2.datasets import nyu40

CLASS_NAMES = (
    "wall",
    "floor",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "door",
    "window",
    "bookshelf",
    "picture",
    "counter",
    "desk",
    "curtain",
    "refridgerator",
    "shower curtain",
    "toilet",
    "sink",
    "bathtub",
    "otherfurniture",
)
"""In the order of the class numbers; 'refridgerator' is the benchmark's own spelling."""

NYU40_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 24, 28, 33, 34, 36, 39)
"""Id of each class on disk and in submissions."""

CLASS_OF_NYU40 = {nyu40: number for number, nyu40 in enumerate(NYU40_IDS)}
"""Ids that are not there are ignored (-1)."""

COLORS = tuple(nyu40.COLORS[one] for one in NYU40_IDS)
"""RGB 0..255, as the benchmark draws them."""
