"""Images of LiDAR points: drawn into the images of cameras, and seen from above."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from ponderv2.geometry.cameras import Camera
from ponderv2.reconstruction.images import RgbImage

NEAREST = 0.5
"""Metres in front of a camera; points nearer than that are not drawn."""
GROUND = 24
"""Grey of what no point is seen of from above."""
EDGE = 3
"""Pixels between images."""
RINGS = 10.0
"""Metres between the circles around the sensor."""
RING = 70
"""Their grey."""


def points_in_image(
    image: RgbImage,
    camera: Camera,
    coord: Float[ndarray, "point 3"],
    color: UInt8[ndarray, "point 3"],
    side: int = 3,
) -> RgbImage:
    """The image with a square of `side` pixels at each point that its camera sees, the nearest on top.

    The image may have another size than that of the camera, with the same field of view. What lies behind
    something else is drawn, too: there is no depth to compare with.
    """
    drawn = image.copy()
    height, width = drawn.shape[:2]
    pose = camera.world_to_camera.double().numpy()
    local = coord.astype(np.float64) @ pose[:3, :3].T + pose[:3, 3]
    front = np.flatnonzero(local[:, 2] > NEAREST)
    homogeneous = local[front] @ camera.intrinsics.double().numpy().T
    pixel = homogeneous[:, :2] / homogeneous[:, 2:] + 0.5
    column = np.floor(pixel[:, 0] * width / camera.width).astype(np.int64)
    row = np.floor(pixel[:, 1] * height / camera.height).astype(np.int64)
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    seen = front[inside]
    far_to_near = np.argsort(-local[seen, 2], kind="stable")
    where = row[inside][far_to_near], column[inside][far_to_near]
    _squares(drawn, where, color[seen][far_to_near], side)
    return drawn


def seen_from_above(
    coord: Float[ndarray, "point 3"],
    color: UInt8[ndarray, "point 3"],
    reach: float,
    pixels: int = 600,
    side: int = 2,
) -> RgbImage:
    """A square around the origin of +-`reach` metres: x to the right, y upwards, the highest point on top."""
    image = np.full((pixels, pixels, 3), GROUND, np.uint8)
    scale = pixels / (2.0 * reach)
    axis = (np.arange(pixels) + 0.5) / scale - reach
    distance = np.hypot(axis[None], axis[:, None])
    on_ring = (np.abs(distance - RINGS * np.round(distance / RINGS)) < 0.6 / scale) & (distance > RINGS / 2)
    image[on_ring] = RING
    column = np.floor((coord[:, 0] + reach) * scale).astype(np.int64)
    row = np.floor((reach - coord[:, 1]) * scale).astype(np.int64)
    inside = np.flatnonzero((column >= 0) & (column < pixels) & (row >= 0) & (row < pixels))
    upwards = inside[np.argsort(coord[inside, 2], kind="stable")]
    _squares(image, (row[upwards], column[upwards]), color[upwards], side)
    return image


def _squares(
    image: RgbImage,
    where: tuple[Int[ndarray, " point"], Int[ndarray, " point"]],
    color: UInt8[ndarray, "point 3"],
    side: int,
) -> None:
    """Squares around pixels, the last point on top, into the image."""
    order = np.full(image.shape[:2], -1)
    rank = np.arange(len(color))
    for offset in range(side * side):
        row = where[0] + offset // side - (side - 1) // 2
        column = where[1] + offset % side - (side - 1) // 2
        inside = (row >= 0) & (row < image.shape[0]) & (column >= 0) & (column < image.shape[1])
        np.maximum.at(order, (row[inside], column[inside]), rank[inside])
    shown = order >= 0
    image[shown] = color[order[shown]]


def titled(image: RgbImage, text: str) -> RgbImage:
    """The image with a line of text in its upper left corner."""
    from PIL import Image, ImageDraw

    drawn = Image.fromarray(image)
    ImageDraw.Draw(drawn).text((4, 2), text, fill="white", stroke_width=1, stroke_fill="black")
    return np.asarray(drawn)


def tiled(images: list[RgbImage], columns: int) -> UInt8[ndarray, "height width 3"]:
    """Images of one size in rows, from the left, with a black edge; black where there is none."""
    images = [np.pad(image, ((0, EDGE), (0, EDGE), (0, 0))) for image in images]
    rows = math.ceil(len(images) / columns)
    blank = np.zeros_like(images[0])
    filled = [*images, *[blank] * (rows * columns - len(images))]
    return np.concatenate(
        [np.concatenate(filled[row * columns : (row + 1) * columns], axis=1) for row in range(rows)]
    )
