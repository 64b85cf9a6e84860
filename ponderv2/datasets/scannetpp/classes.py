"""Colours for the classes of ScanNet++, whose names are read from the dataset's own list."""

from __future__ import annotations

import colorsys

GOLDEN = 0.618033988749895
"""Hues that far apart (of a turn) stay apart however many there are."""


def class_colors(n_classes: int) -> tuple[tuple[int, int, int], ...]:
    """RGB 0..255; neighbours differ."""
    colors = (
        colorsys.hsv_to_rgb(number * GOLDEN % 1.0, (0.75, 0.45)[number % 2], (0.95, 0.8, 0.6)[number % 3])
        for number in range(n_classes)
    )
    return tuple((round(255 * r), round(255 * g), round(255 * b)) for r, g, b in colors)
