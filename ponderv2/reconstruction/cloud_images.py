"""Images of a point cloud without a GPU: squares with a z-buffer, seen from above at an angle.

Points that face away from the camera are left out, which opens the room: ceiling and front walls vanish.
The projection is parallel. Metres, z up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from numpy import ndarray

from ponderv2.reconstruction.images import RgbImage

ELEVATION = math.radians(48.0)
TURNED = math.radians(28.0)
"""Of the direction of view against the shorter side of the cloud."""
BACKGROUND = 255
MARGIN = 0.03
"""Of the image, on every side."""
FACING = -0.05
"""Cosine beyond which a point with a normal faces away."""
LARGEST_SPLAT = 25
SPACING_POINTS = 2000


@dataclass(frozen=True)
class CloudView:
    """A parallel projection: rows of `axes` point right, up and away from the camera."""

    axes: Float[ndarray, "3 3"]
    centre: Float[ndarray, "2"]
    """Middle of the image, metres along right and up."""
    pixels_per_metre: float

    @property
    def forward(self) -> Float[ndarray, "3"]:
        """The direction of view."""
        return self.axes[2]


def oblique_view(
    coord: Float[ndarray, "point 3"], normal: Float[ndarray, "point 3"] | None, width: int, height: int
) -> CloudView:
    """From above at an angle, the longer side across; of the four sides the one that most points face.

    One point in a hundred may lie outside of the image on each side.
    """
    low, high = np.quantile(coord[:, :2], (0.01, 0.99), axis=0)
    across = 0.0 if high[0] - low[0] >= high[1] - low[1] else math.pi / 2
    sides = [_axes(across + TURNED + turn) for turn in (0.0, math.pi, math.pi / 2, -math.pi / 2)]
    axes = sides[0]
    if normal is not None:
        axes = max(sides[:2], key=lambda one: int((normal @ one[2] < FACING).sum()))
    shown = coord if normal is None else coord[_facing(normal, axes)]
    place = (shown if len(shown) else coord) @ axes[:2].T
    low, high = np.quantile(place, (0.002, 0.998), axis=0)
    extent = np.maximum(high - low, 1e-6)
    scale = float(((1.0 - 2.0 * MARGIN) * np.array([width, height]) / extent).min())
    return CloudView(axes, (low + high) / 2, scale)


def _axes(azimuth: float) -> Float[ndarray, "3 3"]:
    """Right, up, away of a camera that looks down; at azimuth 0 it looks along y."""
    right = np.array([math.cos(azimuth), math.sin(azimuth), 0.0])
    level = np.array([-math.sin(azimuth), math.cos(azimuth), 0.0])
    vertical = np.array([0.0, 0.0, 1.0])
    up = math.sin(ELEVATION) * level + math.cos(ELEVATION) * vertical
    away = math.cos(ELEVATION) * level - math.sin(ELEVATION) * vertical
    return np.stack([right, up, away])


def _facing(normal: Float[ndarray, "point 3"], axes: Float[ndarray, "3 3"]) -> ndarray:
    """Points that face the camera, and those without a normal."""
    return (normal @ axes[2] < FACING) | ~(np.abs(normal) > 0).any(axis=1)


def cloud_image(
    coord: Float[ndarray, "point 3"],
    color: UInt8[ndarray, "point 3"],
    normal: Float[ndarray, "point 3"] | None,
    view: CloudView,
    width: int,
    height: int,
) -> RgbImage:
    """The cloud as the view shows it, on white. Surfaces that are seen at an angle are a little darker."""
    if normal is not None:
        kept = _facing(normal, view.axes)
        coord, color, normal = coord[kept], color[kept], normal[kept]
    image = np.full((height, width, 3), BACKGROUND, np.uint8)
    if len(coord) == 0:
        return image
    shade = 1.0 if normal is None else 0.72 + 0.28 * np.abs(normal @ view.forward)[:, None]
    shaded = np.rint(color * shade).astype(np.uint8)
    place = (coord @ view.axes[:2].T - view.centre) * view.pixels_per_metre
    column = np.floor(place[:, 0] + width / 2).astype(np.int64)
    row = np.floor(height / 2 - place[:, 1]).astype(np.int64)
    depth = coord @ view.forward
    order = np.argsort(-depth, kind="stable")  # the nearest is written last
    _splat(image, row[order], column[order], (depth[order], shaded[order]), _side(coord, view))
    return image


def _side(coord: Float[ndarray, "point 3"], view: CloudView) -> int:
    """Pixels of a splat, so that neighbours touch."""
    from scipy.spatial import KDTree

    if len(coord) < 2:
        return 3
    some = coord[:: max(1, len(coord) // SPACING_POINTS)]
    spacing = float(np.quantile(KDTree(coord).query(some, k=min(4, len(coord)))[0][:, -1], 0.8))
    return int(np.clip(math.ceil(spacing * view.pixels_per_metre * 1.2), 1, LARGEST_SPLAT))


def _splat(
    image: RgbImage,
    row: Int[ndarray, " point"],
    column: Int[ndarray, " point"],
    values: tuple[Float[ndarray, " point"], UInt8[ndarray, "point 3"]],
    side: int,
) -> None:
    """Squares around the pixels of the points, given from far to near, with a z-buffer, into the image."""
    depth, color = values
    nearest = np.full(image.shape[:2], np.inf)
    for offset in range(side * side):
        y, x = row + offset // side - side // 2, column + offset % side - side // 2
        inside = (y >= 0) & (y < image.shape[0]) & (x >= 0) & (x < image.shape[1])
        y, x = y[inside], x[inside]
        winner = np.full(image.shape[:2], -1)
        winner[y, x] = np.flatnonzero(inside)
        shown = winner >= 0
        distance = np.where(shown, depth[winner], np.inf)
        closer = distance < nearest
        nearest[closer] = distance[closer]
        image[closer] = color[winner[closer]]
