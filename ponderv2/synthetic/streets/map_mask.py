"""The map of a street as nuScenes has it: a mask of road and sidewalk, 0.1 m a pixel."""

from __future__ import annotations

import io

import numpy as np

from ponderv2.synthetic.streets.road import BEYOND, Road

PIXEL = 0.1
"""Metres. The lower left corner of the image is the origin of the world."""


def draw_map(road: Road) -> bytes:
    """A PNG file, 255 where there is road or sidewalk."""
    from PIL import Image, ImageDraw

    reach = road.profile.walk[1]
    size = np.ceil((road.line[:, :2].max(axis=0) + BEYOND) / PIXEL).astype(int)
    image = Image.new("L", (int(size[0]), int(size[1])), 0)
    draw = ImageDraw.Draw(image)
    s = np.arange(0.0, road.length + 0.5, 1.0)
    right, left = (road.to_world(s, np.full_like(s, sign * reach)) for sign in (-1.0, 1.0))
    draw.polygon(_pixels(np.concatenate([right, left[::-1]]), int(size[1])), fill=255)
    for crossing in road.crossings:
        half = crossing.half + crossing.sidewalk
        for side in crossing.sides:
            d = np.array([0.0, side * BEYOND])
            outline = road.to_world(
                np.array([crossing.s - half, crossing.s + half, crossing.s + half, crossing.s - half]),
                d[[0, 0, 1, 1]],
            )
            draw.polygon(_pixels(outline, int(size[1])), fill=255)
    target = io.BytesIO()
    image.save(target, "PNG")
    return target.getvalue()


def _pixels(xy: np.ndarray, height: int) -> list[tuple[float, float]]:
    return [(float(x) / PIXEL, float(height) - float(y) / PIXEL) for x, y in xy]
