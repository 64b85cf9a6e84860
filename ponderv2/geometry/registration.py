"""Colour images brought into the depth camera. Pixel centres at integers, metres."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8, UInt16
from numpy import ndarray

from ponderv2.geometry.intrinsics import Intrinsics, rays_of, seen_at


def sample_bilinear(
    image: UInt8[ndarray, "row column 3"], pixel: Float[ndarray, "*batch 2"]
) -> UInt8[ndarray, "*batch 3"]:
    """Colour between pixels; outside of the image the nearest edge."""
    height, width = image.shape[:2]
    x = np.clip(pixel[..., 0], 0, width - 1)
    y = np.clip(pixel[..., 1], 0, height - 1)
    left = np.clip(np.floor(x).astype(np.int64), 0, max(width - 2, 0))
    top = np.clip(np.floor(y).astype(np.int64), 0, max(height - 2, 0))
    right, bottom = np.minimum(left + 1, width - 1), np.minimum(top + 1, height - 1)
    fx, fy = (x - left)[..., None].astype(np.float32), (y - top)[..., None].astype(np.float32)
    upper = image[top, left] * (1 - fx) + image[top, right] * fx
    lower = image[bottom, left] * (1 - fx) + image[bottom, right] * fx
    return np.clip(upper * (1 - fy) + lower * fy + 0.5, 0, 255).astype(np.uint8)


def sample_nearest(
    image: UInt16[ndarray, "row column"], pixel: Float[ndarray, "*batch 2"]
) -> UInt16[ndarray, "*batch"]:
    """Value of the nearest pixel; 0 outside of the image. Depth must not be averaged across edges."""
    column, row = (np.rint(pixel[..., axis]).astype(np.int64) for axis in (0, 1))
    inside = (column >= 0) & (row >= 0) & (column < image.shape[1]) & (row < image.shape[0])
    values = image[np.where(inside, row, 0), np.where(inside, column, 0)]
    return np.where(inside, values, 0).astype(np.uint16)


def warp_color(
    color: UInt8[ndarray, "row column 3"],
    color_intrinsics: Intrinsics,
    depth: Float[ndarray, "height width"],
    intrinsics: Float[ndarray, "3 3"],
    depth_to_color: Float[ndarray, "4 4"],
) -> tuple[UInt8[ndarray, "height width 3"], float]:
    """The colour image as the depth camera would have taken it, and the share of pixels that are guessed.

    Where depth is missing, the nearest measured depth stands in. Points that the colour camera cannot see
    (hidden behind something, outside of its image) take the colour of the nearest point that it sees.
    """
    height, width = depth.shape
    ray = rays_of(intrinsics, width, height)
    filled = _filled(depth)
    points = np.concatenate([ray, np.ones((height, width, 1))], axis=-1) * filled[..., None]
    moved = points @ depth_to_color[:3, :3].T + depth_to_color[:3, 3]
    z = np.maximum(moved[..., 2], 1e-6)
    pixel = seen_at(moved[..., :2] / z[..., None], color_intrinsics, color.shape[1], color.shape[0])
    inside = (
        (pixel[..., 0] > -0.5)
        & (pixel[..., 1] > -0.5)
        & (pixel[..., 0] < color.shape[1] - 0.5)
        & (pixel[..., 1] < color.shape[0] - 0.5)
        & (moved[..., 2] > 0)
    )
    seen = inside & ~_hidden(pixel, z, depth > 0, inside, color.shape[:2])
    warped = sample_bilinear(color, pixel)
    return _spread(warped, seen), float(1.0 - seen.mean())


def _filled(depth: Float[ndarray, "height width"]) -> Float[ndarray, "height width"]:
    """Missing depth replaced by the nearest measured one (2 m when there is none)."""
    if not (depth > 0).any():
        return np.full(depth.shape, 2.0)
    return _spread(depth, depth > 0).astype(np.float64)


def _spread(values: ndarray, known: Bool[ndarray, "height width"]) -> ndarray:
    """Unknown pixels take the value of the nearest known one."""
    if known.all() or not known.any():
        return values
    from scipy.ndimage import distance_transform_edt

    nearest = np.asarray(distance_transform_edt(~known, return_distances=False, return_indices=True))
    return values[nearest[0], nearest[1]]


def _hidden(
    pixel: Float[ndarray, "height width 2"],
    z: Float[ndarray, "height width"],
    measured: Bool[ndarray, "height width"],
    inside: Bool[ndarray, "height width"],
    color_shape: tuple[int, int],
) -> Bool[ndarray, "height width"]:
    """Z-buffer of the colour camera at the resolution of the depth image, widened by a pixel."""
    from scipy.ndimage import minimum_filter

    height, width = z.shape
    cell = pixel * (width / color_shape[1], height / color_shape[0])
    column = np.clip(cell[..., 0].round().astype(np.int64), 0, width - 1)
    row = np.clip(cell[..., 1].round().astype(np.int64), 0, height - 1)
    used = measured & inside
    buffer = np.full(height * width, np.inf)
    index: Int[ndarray, " point"] = (row * width + column)[used]
    np.minimum.at(buffer, index, z[used])
    nearest = minimum_filter(buffer.reshape(height, width), size=3)[row, column]
    return z > nearest * 1.03 + 0.04
