"""The frames of a scene in memory, and rays through random pixels of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.rays import RayBundle, rays_through_pixels
from ponderv2.scenes.scene import Frame

Item = TypeVar("Item")


@dataclass(frozen=True)
class PixelTargets:
    """Rays in the frame of the scene and what they should show."""

    rays: RayBundle
    frame: Int[Tensor, " ray"]
    color: Float[Tensor, "ray 3"]
    """0..1."""
    distance: Float[Tensor, " ray"]
    """Along the ray, scene units; 0 = no measurement."""
    colored: Bool[Tensor, " ray"] | None = None
    """Whether a colour was recorded and no mask hides it; None = all have one."""


@dataclass(frozen=True)
class Recording:
    """Decoded pictures of one size and their cameras."""

    color: UInt8[Tensor, "frame row column 3"]
    """0 where there is none."""
    depth: Float[Tensor, "frame row column"]
    """Metres along the optical axis; 0 = no measurement."""
    intrinsics: Float[Tensor, "frame 3 3"]
    world_to_camera: Float[Tensor, "frame 4 4"]
    colored: Bool[Tensor, "frame row column"] | None = None
    """Pixels with a colour that no mask hides; None = all."""

    @staticmethod
    def read(frames: Sequence[Frame], tracked: Iterable[Frame] | None = None) -> Recording:
        """All pictures of `frames`. SceneError: none, or of several sizes.

        `tracked` is an iterable over the same frames that shows how far the reading is.
        """
        if not frames:
            raise SceneError("the scene has no frames to fit", fix="prepare it with its depth images")
        sizes = {(frame.camera.width, frame.camera.height) for frame in frames}
        if len(sizes) > 1:
            raise SceneError(f"the frames have several sizes: {sorted(sizes)}", fix="prepare the scene again")
        width, height = sizes.pop()
        color = torch.zeros(len(frames), height, width, 3, dtype=torch.uint8)
        depth = torch.zeros(len(frames), height, width)
        whole = all(frame.has_color and frame.mask_path is None for frame in frames)
        colored = None if whole else torch.zeros(len(frames), height, width, dtype=torch.bool)
        for index, frame in enumerate(frames if tracked is None else tracked):
            depth[index] = frame.read_depth()
            if frame.has_color:
                color[index] = frame.read_color()
                if colored is not None:
                    colored[index] = frame.read_visible()
        return Recording(
            color,
            depth,
            torch.stack([frame.camera.intrinsics for frame in frames]),
            torch.stack([frame.camera.world_to_camera for frame in frames]),
            colored,
        )

    def __len__(self) -> int:
        return len(self.color)

    def pixels(
        self, frame: Int[Tensor, " ray"], row: Int[Tensor, " ray"], column: Int[Tensor, " ray"]
    ) -> PixelTargets:
        """The rays through some pixels."""
        made = rays_through_pixels(
            torch.stack([column, row], dim=-1).float(),
            frame,
            self.intrinsics,
            self.world_to_camera,
            torch.zeros(len(self), dtype=torch.int64),
        )
        color = self.color[frame, row, column].float() / 255.0
        distance = self.depth[frame, row, column] * made.distance_per_depth
        colored = None if self.colored is None else self.colored[frame, row, column]
        return PixelTargets(made.rays, frame, color, distance, colored)

    def random_pixels(self, n_rays: int, generator: torch.Generator) -> PixelTargets:
        """Pixels drawn evenly from all frames."""
        _, height, width, _ = self.color.shape
        frame, row, column = (
            torch.randint(most, (n_rays,), generator=generator) for most in (len(self), height, width)
        )
        return self.pixels(frame, row, column)

    def surface_points(self, most: int = 3_000_000) -> Float[Tensor, "point 3"]:
        """What the frames measured: every n-th pixel in both directions, at most `most` of them."""
        stride = math.ceil(math.sqrt(self.depth.numel() / most))
        points = []
        for index in range(len(self)):
            measured: Bool[Tensor, "row column"] = self.depth[index, ::stride, ::stride] > 0
            row, column = torch.nonzero(measured).unbind(dim=-1)
            seen = self.pixels(torch.full_like(row, index), row * stride, column * stride)
            points.append(seen.rays.origins + seen.rays.directions * seen.distance[:, None])
        return torch.cat(points)


def thinned(frames: Sequence[Item], most: int) -> tuple[Item, ...]:
    """At most `most` frames, spread evenly over the recording."""
    if len(frames) <= most:
        return tuple(frames)
    return tuple(frames[(2 * i + 1) * len(frames) // (2 * most)] for i in range(most))
