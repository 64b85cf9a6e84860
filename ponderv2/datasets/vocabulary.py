"""The 36 class names that three indoor benchmarks share, and the one that each label of a dataset maps to."""

from __future__ import annotations

CLASS_NAMES: tuple[str, ...] = (
    *("wall", "floor", "cabinet", "bed", "chair", "sofa", "table", "door", "window"),
    *("bookshelf", "bookcase", "picture", "counter", "desk", "shelves", "curtain", "dresser"),
    *("pillow", "mirror", "ceiling", "refrigerator", "television", "shower curtain", "nightstand"),
    *("toilet", "sink", "lamp", "bathtub", "garbagebin", "board", "beam", "column", "clutter"),
    *("other structure", "other furniture", "other property"),
)
"""The joint vocabulary of point prompt training, in the order of the published `class_embedding`."""

ROWS: dict[str, tuple[int, ...]] = {
    "Structured3D": (*range(9), 11, *range(13, 22), 23, 25, 26, 33, 34, 35),
    "ScanNet": (*range(10), 11, 12, 13, 15, 20, 22, 24, 25, 27, 34),
    "S3DIS": (19, 1, 0, 30, 31, 8, 7, 6, 4, 5, 10, 29, 32),
}
"""Row of the vocabulary for each label of a dataset, by the dataset's name."""

PUBLISHED_ROWS: dict[str, tuple[int, ...]] = {
    **ROWS,
    "S3DIS": (0, 1, 4, 5, 6, 7, 8, 10, 19, 29, 30, 31, 32),
}
"""As in the published code: the rows of S3DIS are sorted, so that only floor and clutter meet their own name
(Pointcept issue 425). Published weights were trained so."""

TEMPLATES: tuple[str, ...] = (
    *("itap of a {}", "a origami {}", "a rendering of a {}", "a painting of a {}"),
    *("a photo of a {}", "a photo of one {}", "a photo of a nice {}", "a photo of a weird {}"),
    *("a cropped photo of a {}", "a bad photo of a {}", "a good photo of a {}"),
    *("a photo of the large {}", "a photo of the small {}", "a photo of a clean {}", "a photo of a dirty {}"),
    *("a bright photo of a {}", "a dark photo of a {}"),
    *("a {} in a living room", "a {} in a bedroom", "a {} in a kitchen", "a {} in a bathroom"),
)
"""The 21 published sentences; `{}` stands for the name."""
