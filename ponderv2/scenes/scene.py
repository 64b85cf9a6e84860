"""A scene: points with labels and photographs, in one frame. Metres, right-handed, z up."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.transforms import transform_points
from ponderv2.io.images import STORED_IMAGES, FrameImages, read_visible


@dataclass(frozen=True)
class PointCloud:
    """Everything known of each point. All arrays have the same length and are sub-sampled together."""

    coord: Float[Tensor, "point 3"]
    color: Float[Tensor, "point 3"]
    """0..255."""
    normal: Float[Tensor, "point 3"]
    """Unit length, pointing into free space."""
    labels: Mapping[str, Int[Tensor, " point"]] = field(default_factory=dict)
    """Integer fields by name, as on disk: segment20, segment200, segment, instance. -1 = ignore."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres. What was subtracted when the points were read, as they lie far from zero: coord + origin, in
    double precision, is where they are in the file. Motions of a scene leave it alone."""

    def __len__(self) -> int:
        return len(self.coord)

    def take(self, index: Tensor) -> PointCloud:
        """The chosen points (indices or a mask), with every field."""
        labels = {name: values[index] for name, values in self.labels.items()}
        return PointCloud(self.coord[index], self.color[index], self.normal[index], labels, self.origin)


@dataclass(frozen=True)
class Frame:
    """One posed view with depth and, where there is one, a colour image. Both are read when asked for."""

    id: str
    camera: Camera
    """Of the colour *and* the depth picture: prepared frames are registered and of one size."""
    depth_scale: float
    """Metres per unit of the depth picture."""
    color_path: Path | None
    """None: the view has depth alone."""
    depth_path: Path
    semantic_path: Path | None = None

    held_out: bool = False
    """Kept for validation: never trained on, not part of the point cloud."""
    pictures: FrameImages = STORED_IMAGES
    """How the files are to be read; several pictures may share one file."""
    mask_path: Path | None = None
    """Image that is black where a pixel is hidden; None = all count."""

    @property
    def has_color(self) -> bool:
        """Whether there is a colour image."""
        return self.color_path is not None

    def read_color(self) -> UInt8[Tensor, "row column 3"]:
        """Colour 0..255. SceneError: there is none, or the file is missing, damaged or of another size."""
        if self.color_path is None:
            raise SceneError(
                f"the view {self.id} has depth alone: there is no colour of it ({self.depth_path})"
            )
        color = self.pictures.color(self.color_path, self._size)
        self._check_size(self.color_path, color.shape)
        return torch.from_numpy(np.array(color))

    def read_depth(self) -> Float[Tensor, "row column"]:
        """Depth along the optical axis, metres; 0 = no measurement."""
        depth = self.pictures.depth(self.depth_path, self._size)
        self._check_size(self.depth_path, depth.shape)
        return torch.from_numpy(depth) * self.depth_scale

    def read_semantic(self) -> Int[Tensor, "row column"]:
        """Class per pixel, -1 = unlabelled; -1 everywhere when the frame has no labels."""
        if self.semantic_path is None:
            return torch.full((self.camera.height, self.camera.width), -1, dtype=torch.int64)
        values = self.pictures.semantic(self.semantic_path, self._size)
        self._check_size(self.semantic_path, values.shape)
        return torch.from_numpy(values)

    def read_visible(self) -> Bool[Tensor, "row column"]:
        """False where neither colour nor depth counts; True everywhere when the view has no mask."""
        if self.mask_path is None:
            return torch.ones(self.camera.height, self.camera.width, dtype=torch.bool)
        visible = read_visible(self.mask_path)
        self._check_size(self.mask_path, visible.shape)
        return torch.from_numpy(visible)

    @property
    def _size(self) -> tuple[int, int]:
        return self.camera.width, self.camera.height

    def _check_size(self, path: Path, shape: tuple[int, ...]) -> None:
        expected = (self.camera.height, self.camera.width)
        if shape[:2] != expected:
            raise SceneError(
                f"{path} has {shape[1]} x {shape[0]} pixels, its camera {expected[1]} x {expected[0]}",
                fix="prepare the scene again",
            )


@dataclass(frozen=True)
class Scene:
    """Points and photographs of one place, in one frame."""

    name: str
    cloud: PointCloud
    frames: tuple[Frame, ...] = ()
    units_per_metre: float = 1.0
    """1 until an augmentation scales the scene; depth pictures stay in metres."""

    @property
    def only_depth(self) -> bool:
        """Whether there are views and none of them has a colour image."""
        return bool(self.frames) and not any(frame.has_color for frame in self.frames)

    def moved(self, transform: Float[Tensor, "4 4"]) -> Scene:
        """The scene after x' = transform x, a similarity: points, normals and cameras move together."""
        coord = transform_points(transform.double(), self.cloud.coord.double()).to(self.cloud.coord.dtype)
        turned = self.cloud.normal.double() @ transform[:3, :3].double().T
        scale = float(torch.linalg.det(transform[:3, :3].double()).abs() ** (1.0 / 3.0))
        cloud = replace(self.cloud, coord=coord, normal=(turned / scale).to(self.cloud.normal.dtype))
        frames = tuple(replace(frame, camera=frame.camera.moved(transform)) for frame in self.frames)
        return replace(self, cloud=cloud, frames=frames, units_per_metre=self.units_per_metre * scale)
