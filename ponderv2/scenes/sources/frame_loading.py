"""One frame of a recording, decoded: colour registered to depth, undistorted, limited in size and depth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.pictures import decode_color, encoded_size
from ponderv2.scenes.sources.capture import Capture, Lens, Picture, RawFrame, scaled_intrinsics
from ponderv2.scenes.sources.registration import (
    rays_of,
    same_camera,
    sample_bilinear,
    sample_nearest,
    seen_at,
    warp_color,
)


@dataclass(frozen=True)
class Limits:
    """What is kept of a frame."""

    depth_min: float
    depth_max: float
    """Metres."""
    max_image_size: int | None


@dataclass(frozen=True)
class LoadedFrame:
    """Colour and depth of one pinhole camera."""

    intrinsics: Float[ndarray, "3 3"]
    color: UInt8[ndarray, "row column 3"]
    depth: UInt16[ndarray, "row column"]
    """Raw units; 0 = none."""
    jpeg: bytes | None
    """The recording's own file, when the colour is exactly that."""
    guessed: float
    """Share of pixels whose colour the colour camera did not see."""
    n_dropped: int
    """Depth measurements outside of the limits."""


@dataclass(frozen=True)
class _Color:
    """A colour picture of which the size is known before it is decoded."""

    picture: Picture
    jpeg: bytes | None
    decoded: UInt8[ndarray, "row column 3"] | None
    size: tuple[int, int]

    @staticmethod
    def of(picture: Picture) -> _Color:
        jpeg = picture.jpeg()
        if jpeg is not None:
            return _Color(picture, jpeg, None, encoded_size(jpeg, picture.name))
        decoded = picture.color()
        return _Color(picture, None, decoded, (decoded.shape[1], decoded.shape[0]))

    def pixels(self, at_least: tuple[int, int] | None = None) -> UInt8[ndarray, "row column 3"]:
        """RGB; with `at_least` perhaps at half the size or less, but not below that width and height."""
        if self.jpeg is not None:
            return decode_color(self.jpeg, self.picture.name, at_least)
        assert self.decoded is not None
        return self.decoded


def load_frame(raw: RawFrame, capture: Capture, limits: Limits) -> LoadedFrame:
    """Decode and register. Raises SceneError naming the file that cannot be used."""
    depth, n_dropped, intrinsics = load_depth(raw, capture, limits)
    height, width = depth.shape
    color = _Color.of(raw.color)
    if capture.depth_to_color is None:
        pixel = seen_pixels(raw.color_lens, color.size, intrinsics, (width, height))
        if pixel is None:
            untouched = color.size == (width, height)
            pixels = color.pixels((width, height))
            resized = pixels if untouched else _resized(pixels, width, height)
            return LoadedFrame(intrinsics, resized, depth, color.jpeg if untouched else None, 0.0, n_dropped)
        outside = ((pixel < -0.5) | (pixel > np.array(color.size) - 0.5)).any(axis=-1)
        sampled = sample_bilinear(color.pixels(), pixel)
        return LoadedFrame(intrinsics, sampled, depth, None, float(outside.mean()), n_dropped)
    color_lens = Lens(raw.color_lens.at_size(*color.size), None, raw.color_lens.distortion)
    metres = depth.astype(np.float64) * capture.depth_scale
    warped, guessed = warp_color(color.pixels(), color_lens, metres, intrinsics, capture.depth_to_color)
    return LoadedFrame(intrinsics, warped, depth, None, guessed, n_dropped)


def seen_pixels(
    color_lens: Lens,
    color_size: tuple[int, int],
    intrinsics: Float[ndarray, "3 3"],
    size: tuple[int, int],
) -> Float[ndarray, "row column 2"] | None:
    """Where the colour camera sees the rays of a pinhole camera of the same place; None = resizing will do.

    Both look from one point: where a ray is seen does not depend on depth. Sizes are width and height.
    """
    if same_camera(color_lens, color_size, Lens(intrinsics), size):
        return None
    lens = Lens(color_lens.at_size(*color_size), None, color_lens.distortion)
    return seen_at(rays_of(intrinsics, *size), lens, *color_size)


def load_depth(
    raw: RawFrame, capture: Capture, limits: Limits
) -> tuple[UInt16[ndarray, "row column"], int, Float[ndarray, "3 3"]]:
    """The depth picture without invalid numbers, how many were out of the limits, and its pinhole camera."""
    depth = raw.depth.depth()
    if depth.size == 0:
        raise SceneError(f"{raw.depth.name} is empty")
    height, width = depth.shape
    lens = raw.depth_lens
    intrinsics = lens.at_size(width, height)
    valid = (depth > 0) & (depth < 65535)
    metres = depth * capture.depth_scale
    kept = valid & (metres >= limits.depth_min) & (metres <= limits.depth_max)
    depth = np.where(kept, depth, 0).astype(np.uint16)
    n_dropped = int(valid.sum() - kept.sum())
    shrink = (limits.max_image_size or max(width, height)) / max(width, height)
    if shrink >= 1.0 and not any(lens.distortion):
        return depth, n_dropped, intrinsics
    new_width, new_height = (max(round(side * min(shrink, 1.0)), 1) for side in (width, height))
    target = scaled_intrinsics(intrinsics, new_width / width, new_height / height)
    pixel = seen_at(rays_of(target, new_width, new_height), lens, width, height)
    return sample_nearest(depth, pixel), n_dropped, target


def _resized(
    color: UInt8[ndarray, "row column 3"], width: int, height: int
) -> UInt8[ndarray, "height width 3"]:
    """Averages the pixels that fall into one."""
    from PIL import Image

    return np.asarray(Image.fromarray(color).resize((width, height), Image.Resampling.BILINEAR))
