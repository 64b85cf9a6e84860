"""The 25 classes that are kept of Structured3D: names, NYU40 ids and colours."""

from __future__ import annotations

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

CLASS_COLORS = (
    (174, 199, 232),
    (152, 223, 138),
    (31, 119, 180),
    (255, 187, 120),
    (188, 189, 34),
    (140, 86, 75),
    (255, 152, 150),
    (214, 39, 40),
    (197, 176, 213),
    (196, 156, 148),
    (247, 182, 210),
    (66, 188, 102),
    (219, 219, 141),
    (140, 57, 197),
    (202, 185, 52),
    (51, 176, 203),
    (78, 71, 183),
    (255, 127, 14),
    (91, 163, 138),
    (146, 111, 194),
    (112, 128, 144),
    (96, 207, 209),
    (94, 106, 211),
    (82, 84, 163),
    (100, 85, 144),
)
"""RGB 0..255: the usual colours of the NYU40 ids, so that pictures compare with those of ScanNet."""
