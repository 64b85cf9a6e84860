"""A recording as its layout describes it: where the images are, cameras, poses. Nothing is decoded yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from jaxtyping import Bool, Float, Shaped
from numpy import ndarray

from ponderv2.geometry.intrinsics import Intrinsics
from ponderv2.io.depth_images import read_depth
from ponderv2.io.images import ColorImage, read_bytes, read_image, read_visible


@runtime_checkable
class ImageSource(Protocol):
    """An image that is decoded when asked for."""

    @property
    def name(self) -> str:
        """For error messages."""
        ...

    def color(self) -> ColorImage:
        """RGB 0..255, what an alpha channel hides, and how the pixels were understood."""
        ...

    def depth(self) -> Shaped[ndarray, "row column"]:
        """Raw numbers of a depth image: uint16, or int64 or float32 where they are none of that."""
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
        """RGB 0..255, what an alpha channel hides, and how the pixels were understood."""
        return read_image(self.path)

    def depth(self) -> Shaped[ndarray, "row column"]:
        """Raw numbers of a depth image: uint16, or int64 or float32 where they are none of that."""
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
        """True where a pixel counts. Raises SceneError for a file that is no image."""
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
    """PLY file in the frame of the poses that the recording brings along."""
    notes: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    unit_declared: bool = False
    """Whether `depth_scale` stands in a file of the recording; else it is what is usual for the layout."""
