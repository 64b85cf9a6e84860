"""The 25 classes that are used of Structured3D: names, NYU40 ids and colours."""

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
    "picture",
    "desk",
    "shelves",
    "curtain",
    "dresser",
    "pillow",
    "mirror",
    "ceiling",
    "refrigerator",
    "television",
    "nightstand",
    "sink",
    "lamp",
    "otherstructure",
    "otherfurniture",
    "otherprop",
)
"""In the order of the class numbers."""

NYU40_IDS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 14, 15, 16, 17, 18, 19, 22, 24, 25, 32, 34, 35, 38, 39, 40)
"""Id of each class in the dataset's pictures."""

CLASS_OF_NYU40 = {nyu40: number for number, nyu40 in enumerate(NYU40_IDS)}
"""Ids that are not there are ignored (-1); 0 means unlabelled."""

COLORS = tuple(nyu40.COLORS[one] for one in NYU40_IDS)
"""RGB 0..255: the usual colours of the NYU40 ids, so that pictures compare with those of ScanNet."""
