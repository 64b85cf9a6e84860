"""A recording as its layout describes it (images, cameras, poses), and its frames as arrays of one camera."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8, UInt16
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, rays_of, same_camera, scaled_intrinsics, seen_at
from ponderv2.geometry.registration import sample_bilinear, sample_nearest, warp_color
from ponderv2.io.depth_images import read_depth
from ponderv2.io.images import (
    ColorImage,
    decode_image,
    encoded_image_size,
    read_bytes,
    read_image,
    read_visible,
    transposed,
)
from ponderv2.scenes.prepared import DecodedFrame

SAME_ASPECT = 0.03
"""Relative difference of width / height below which images are of one camera (ScanNet: 0.4 %)."""
FULLY_VISIBLE = 254
"""Of 255: a resampled pixel counts only where all its source pixels count."""
_Warp = Callable[[UInt8[ndarray, "row column 3"]], tuple[UInt8[ndarray, "height width 3"], float]]


@runtime_checkable
class ImageSource(Protocol):
    """An image that is decoded when asked for."""

    @property
    def name(self) -> str:
        """For error messages."""
        ...

    def color(self) -> ColorImage:
        """RGB 0..255, what an alpha channel hides, and how the pixels were interpreted."""
        ...

    def depth(self) -> Shaped[ndarray, "row column"]:
        """Raw numbers of a depth image: uint16, otherwise int64 or float32."""
        ...

    def jpeg(self) -> bytes | None:
        """The encoded JPEG file, None when the image is stored in another way."""
        ...


@dataclass(frozen=True)
class ImageFile:
    """An image in a file of its own."""

    path: Path

    @property
    def name(self) -> str:
        """For error messages."""
        return str(self.path)

    def color(self) -> ColorImage:
        """RGB 0..255, what an alpha channel hides, and how the pixels were interpreted."""
        return read_image(self.path)

    def depth(self) -> Shaped[ndarray, "row column"]:
        """Raw numbers of a depth image: uint16, otherwise int64 or float32."""
        return read_depth(self.path)

    def jpeg(self) -> bytes | None:
        """The file, when it is a JPEG. Raises SceneError where it cannot be read."""
        return read_bytes(self.path) if self.path.suffix.lower() in (".jpg", ".jpeg") else None


@dataclass(frozen=True)
class MaskFile:
    """An image that hides pixels of a frame: they have neither colour nor depth."""

    path: Path
    hides: Literal["black", "white"] = "black"
    """black: pixels of 0 are hidden (nerfstudio, COLMAP); white: all others are (instant-ngp)."""

    def visible(self) -> Bool[ndarray, "row column"]:
        """True where a pixel counts. Raises SceneError for a file that is not an image."""
        lit = read_visible(self.path)
        return lit if self.hides == "black" else ~lit


@dataclass(frozen=True)
class RawFrame:
    """One view of a recording."""

    id: str
    color: ImageSource | None
    """None: the view has depth alone."""
    depth: ImageSource
    camera_to_world: Float[ndarray, "4 4"]
    """Of the depth camera; OpenCV axes, metres. May be invalid: it is checked later."""
    color_intrinsics: Intrinsics
    depth_intrinsics: Intrinsics
    mask: MaskFile | None = None
    """Of the colour camera (of the depth camera in a view without colour)."""
    time: float | None = None
    """Seconds, on the clock of the recording; None = unknown."""


@dataclass(frozen=True)
class Recording:
    """What a layout found in a folder."""

    layout: str
    frames: tuple[RawFrame, ...]
    depth_scale: float
    """Metres per unit of the depth images."""
    depth_to_color: Float[ndarray, "4 4"] | None = None
    """x_color = M x_depth, metres; None = the images are registered or nothing is known."""
    z_is_up: bool = False
    """Known from the layout."""
    cloud: Path | None = None
    """PLY file that comes with the recording, in the frame of the poses."""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    unit_declared: bool = False
    """Whether `depth_scale` is stated in a file of the recording; else it is the usual one of the layout."""
    unit_doubt: str = ""
    """Why the unit of depth looks wrong, as a clause; empty where it does not."""

    def noted(self, *notes: str, repairs: tuple[str, ...] = ()) -> Recording:
        """The recording with more to report."""
        return replace(self, notes=(*self.notes, *notes), repairs=(*self.repairs, *repairs))


@dataclass(frozen=True)
class Limits:
    """What is kept of a frame."""

    depth_min: float
    depth_max: float
    """Metres."""
    max_image_size: int | None


@dataclass(frozen=True)
class Registered:
    """Colour and depth of one pinhole camera, and what registering them took."""

    frame: DecodedFrame
    """In the pose of the recording. `color_file` is the recording's own, when the colour is exactly that."""
    guessed: float
    """Share of pixels whose colour the colour camera did not see."""
    n_dropped: int
    """Number of depth measurements outside the limits."""
    notes: tuple[str, ...] = ()
    """How the pixels of the colour image were interpreted. One phrase each."""

    @property
    def depth(self) -> UInt16[ndarray, "row column"]:
        """Of the frame, which always has one."""
        assert self.frame.depth is not None
        return self.frame.depth


@dataclass(frozen=True)
class _Color:
    """A colour image of which the size is known before it is decoded."""

    source: ImageSource
    jpeg: bytes | None
    decoded: ColorImage | None
    size: tuple[int, int]

    @staticmethod
    def of(source: ImageSource) -> _Color:
        jpeg = source.jpeg()
        if jpeg is not None:
            return _Color(source, jpeg, None, encoded_image_size(jpeg, source.name))
        decoded = source.color()
        return _Color(source, None, decoded, (decoded.rgb.shape[1], decoded.rgb.shape[0]))

    def pixels(self, at_least: tuple[int, int] | None = None) -> ColorImage:
        """With `at_least` perhaps at half the size or less, but not below that width and height."""
        if self.jpeg is not None:
            return decode_image(self.jpeg, self.source.name, at_least)
        assert self.decoded is not None
        return self.decoded

    def standing(self, camera: Intrinsics, depth_size: tuple[int, int]) -> _Color:
        """The image with the rows and columns of its camera.

        The orientation that EXIF data give is for showing the image; cameras and depth belong to the pixels
        as they are stored. Unless their sizes say otherwise: then rows and columns are exchanged.
        """
        wanted = camera.size or depth_size
        crosswise = (self.size[1], self.size[0])
        if same_aspect(self.size, wanted) or not same_aspect(crosswise, wanted):
            return self
        image = self.pixels()
        if image.orientation < 5:
            return self
        turned = transposed(image)
        turned = ColorImage(turned.rgb, turned.visible, (*turned.notes, "turned as EXIF says"))
        return _Color(self.source, None, turned, crosswise)


def register(raw: RawFrame, recording: Recording, limits: Limits) -> Registered:
    """Decode a frame and bring its colour into the depth camera.

    Raises SceneError naming the file that cannot be used.
    """
    depth, n_dropped, intrinsics = load_depth(raw, recording, limits)
    height, width = depth.shape
    size = (width, height)
    if raw.color is None:
        visible = None if raw.mask is None else _resized_mask(raw.mask.visible(), *size)
        kept = depth if visible is None else np.where(visible, depth, 0).astype(np.uint16)
        frame = DecodedFrame(
            raw.id,
            intrinsics,
            raw.camera_to_world,
            None,
            kept,
            recording.depth_scale,
            visible=visible,
            time=raw.time,
        )
        return Registered(frame, 0.0, n_dropped)
    color = _Color.of(raw.color).standing(raw.color_intrinsics, size)
    _refuse_other_aspect(raw.color.name, color.size, raw.color_intrinsics, "colour")
    metres = depth.astype(np.float64) * recording.depth_scale
    warp = _warp(raw.color_intrinsics, color.size, metres, intrinsics, recording.depth_to_color)
    image = color.pixels(size if warp is None else None)
    if warp is None:
        untouched = color.size == size
        pixels, guessed = image.rgb if untouched else _resized(image.rgb, *size), 0.0
        jpeg = color.jpeg if untouched and image.is_plain_jpeg else None
    else:
        (pixels, guessed), jpeg = warp(image.rgb), None
    visible = _visible(raw, image, size, warp)
    notes = image.notes
    if image.orientation != 1:
        notes = (*notes, "orientation in EXIF data left aside: cameras belong to the stored pixels")
    if visible is not None:
        depth = np.where(visible, depth, 0).astype(np.uint16)
    frame = DecodedFrame(
        raw.id,
        intrinsics,
        raw.camera_to_world,
        pixels,
        depth,
        recording.depth_scale,
        color_file=jpeg,
        visible=visible,
        time=raw.time,
    )
    return Registered(frame, guessed, n_dropped, notes)


def _warp(
    color_intrinsics: Intrinsics,
    color_size: tuple[int, int],
    metres: Float[ndarray, "row column"],
    intrinsics: Float[ndarray, "3 3"],
    depth_to_color: Float[ndarray, "4 4"] | None,
) -> _Warp | None:
    """How an image of the colour camera becomes one of the depth camera, with the share of pixels guessed.

    None = resizing will do.
    """
    camera = Intrinsics(color_intrinsics.at_size(*color_size), None, color_intrinsics.distortion)
    if depth_to_color is not None:
        return lambda image: warp_color(image, camera, metres, intrinsics, depth_to_color)
    pixel = seen_pixels(color_intrinsics, color_size, intrinsics, (metres.shape[1], metres.shape[0]))
    if pixel is None:
        return None
    outside = ((pixel < -0.5) | (pixel > np.array(color_size) - 0.5)).any(axis=-1)
    return lambda image: (sample_bilinear(image, pixel), float(outside.mean()))


def _visible(
    raw: RawFrame, image: ColorImage, size: tuple[int, int], warp: _Warp | None
) -> Bool[ndarray, "row column"] | None:
    """What neither alpha nor a mask hides, in the depth camera; None where nothing is hidden."""
    known = image.visible
    if raw.mask is not None:
        mask = raw.mask.visible()
        height, width = image.rgb.shape[:2]
        if not same_aspect((mask.shape[1], mask.shape[0]), (width, height)):
            raise SceneError(
                f"{raw.mask.path} has {mask.shape[1]} x {mask.shape[0]} pixels, its image {width} x {height}",
                fix="give masks the size of their images",
            )
        mask = _resized_mask(mask, width, height)
        known = mask if known is None else known & mask
    if known is None or known.all():
        return None
    if warp is None:
        return _resized_mask(known, *size)
    shades = np.repeat(known[..., None].astype(np.uint8) * np.uint8(255), 3, axis=2)
    return warp(shades)[0][..., 0] >= FULLY_VISIBLE


def same_aspect(first: tuple[int, int], second: tuple[int, int]) -> bool:
    """Whether two sizes, width and height, can be of one camera: but for the rounding of small ones."""
    slack = SAME_ASPECT + 1.0 / min(*first, *second)
    return abs(first[0] * second[1] / (first[1] * second[0]) - 1.0) <= slack


def _refuse_other_aspect(name: str, size: tuple[int, int], camera: Intrinsics, kind: str) -> None:
    if camera.size is None or same_aspect(size, camera.size):
        return
    option = "--intrinsics" if kind == "depth" else "--color-intrinsics"
    raise SceneError(
        f"{name} has {size[0]} x {size[1]} pixels and the camera is given for "
        f"{camera.size[0]} x {camera.size[1]}: of another aspect ratio, the {kind} cannot be of this camera",
        fix=f"give the {kind} camera with {option}",
    )


def seen_pixels(
    color_intrinsics: Intrinsics,
    color_size: tuple[int, int],
    intrinsics: Float[ndarray, "3 3"],
    size: tuple[int, int],
) -> Float[ndarray, "row column 2"] | None:
    """Where the colour camera sees the rays of a pinhole camera with the same optical centre, or None.

    None: resizing is enough. With one optical centre, where a ray is seen does not depend on depth. Sizes are
    width and height.
    """
    if same_camera(color_intrinsics, color_size, Intrinsics(intrinsics), size):
        return None
    camera = Intrinsics(color_intrinsics.at_size(*color_size), None, color_intrinsics.distortion)
    return seen_at(rays_of(intrinsics, *size), camera, *color_size)


def load_depth(
    raw: RawFrame, recording: Recording, limits: Limits
) -> tuple[UInt16[ndarray, "row column"], int, Float[ndarray, "3 3"]]:
    """The depth image without invalid numbers, how many were out of the limits, and its pinhole camera."""
    depth = raw.depth.depth()
    if depth.size == 0:
        raise SceneError(f"{raw.depth.name} is empty")
    if depth.dtype != np.uint16:
        raise SceneError(
            f"{raw.depth.name} holds {depth.dtype}, and the other depth images whole numbers of 16 bits",
            fix="store all depth images in the same way",
        )
    height, width = depth.shape
    camera = raw.depth_intrinsics
    _refuse_other_aspect(raw.depth.name, (width, height), camera, "depth")
    intrinsics = camera.at_size(width, height)
    valid = (depth > 0) & (depth < 65535)
    metres = depth * recording.depth_scale
    kept = valid & (metres >= limits.depth_min) & (metres <= limits.depth_max)
    depth = np.where(kept, depth, 0).astype(np.uint16)
    n_dropped = int(valid.sum() - kept.sum())
    shrink = (limits.max_image_size or max(width, height)) / max(width, height)
    if shrink >= 1.0 and not any(camera.distortion):
        return depth, n_dropped, intrinsics
    new_width, new_height = (max(round(side * min(shrink, 1.0)), 1) for side in (width, height))
    target = scaled_intrinsics(intrinsics, new_width / width, new_height / height)
    pixel = seen_at(rays_of(target, new_width, new_height), camera, width, height)
    return sample_nearest(depth, pixel), n_dropped, target


def _resized(
    color: UInt8[ndarray, "row column 3"], width: int, height: int
) -> UInt8[ndarray, "height width 3"]:
    """Averages the pixels that fall into one."""
    from PIL import Image

    return np.asarray(Image.fromarray(color).resize((width, height), Image.Resampling.BILINEAR))


def _resized_mask(
    visible: Bool[ndarray, "row column"], width: int, height: int
) -> Bool[ndarray, "height width"]:
    """True where all that falls into a pixel is visible."""
    from PIL import Image

    if visible.shape == (height, width):
        return visible
    shades = Image.fromarray(visible.astype(np.uint8) * np.uint8(255))
    return np.asarray(shades.resize((width, height), Image.Resampling.BILINEAR)) >= FULLY_VISIBLE
