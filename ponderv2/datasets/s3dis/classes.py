"""The 13 classes of S3DIS: names in the order of the class numbers, and colours."""

from __future__ import annotations

CLASS_NAMES = (
    "ceiling",
    "floor",
    "wall",
    "beam",
    "column",
    "window",
    "door",
    "table",
    "chair",
    "sofa",
    "bookcase",
    "board",
    "clutter",
)
"""Files of the dataset begin with these names; other beginnings (stairs) count as clutter."""

CLUTTER = CLASS_NAMES.index("clutter")

COLORS = (
    (233, 229, 107),
    (95, 156, 196),
    (179, 116, 81),
    (241, 149, 131),
    (81, 163, 148),
    (77, 174, 84),
    (108, 135, 75),
    (41, 49, 101),
    (79, 79, 76),
    (223, 52, 52),
    (89, 47, 95),
    (81, 109, 114),
    (233, 233, 229),
)
"""RGB 0..255, as figures of this dataset usually show the classes."""

BOX_CLASSES = ("table", "chair", "sofa", "bookcase", "board")
"""Of the detection benchmark (GSDN, FCAF3D)."""
