"""The classes of the generated rooms. Names as in NYU40 and ScanNet where these have one."""

from __future__ import annotations

CLASS_NAMES: tuple[str, ...] = (
    "wall",
    "floor",
    "ceiling",
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "desk",
    "bookshelf",
    "door",
    "window",
    "picture",
    "curtain",
    "lamp",
    "plant",
    "television",
    "otherprop",
)

CLASS_COLORS: tuple[tuple[int, int, int], ...] = (
    (174, 199, 232),
    (152, 223, 138),
    (78, 71, 183),
    (31, 119, 180),
    (255, 187, 120),
    (188, 189, 34),
    (140, 86, 75),
    (255, 152, 150),
    (247, 182, 210),
    (148, 103, 189),
    (214, 39, 40),
    (197, 176, 213),
    (196, 156, 148),
    (219, 219, 141),
    (255, 127, 14),
    (44, 160, 44),
    (23, 190, 207),
    (82, 84, 163),
)
"""Red, green, blue of each class, 0..255."""

CLASS_INDEX: dict[str, int] = {name: index for index, name in enumerate(CLASS_NAMES)}

BOX_CLASSES: tuple[str, ...] = (
    "cabinet",
    "bed",
    "chair",
    "sofa",
    "table",
    "desk",
    "bookshelf",
    "lamp",
    "plant",
    "television",
)
"""Classes of the boxes: furniture and what stands on it or hangs, nothing that is part of the walls."""
