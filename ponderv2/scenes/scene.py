"""A scene: points, posed frames, sensor sweeps and boxes, in one frame. Metres, right-handed, z up.

Nothing is required: a depth-only recording, a LiDAR drive and a folder of images are scenes too. Whoever
moves, crops or sub-samples a scene does it with the methods of these values, which know all their fields.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Shaped, UInt8
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.transforms import scale_of, transform_points
from ponderv2.io.arrays import read_arrays
from ponderv2.io.images import STORED_IMAGES, FrameImages, read_visible
from ponderv2.scenes.feature_maps import COMPUTE, FeatureFile

Item = TypeVar("Item")

FRAME_BYTES = 4096
"""Approximate memory of a camera with the names of its files: scenes of thousands of frames are not small."""


@dataclass(frozen=True)
class PointCloud:
    """Everything known of each point. All arrays have the same length and are sub-sampled together."""

    coord: Float[Tensor, "point 3"]
    color: Float[Tensor, "point 3"] | None = None
    """0..255. None: no colours are known."""
    normal: Float[Tensor, "point 3"] | None = None
    """Unit length, pointing into free space. None: no normals are known."""
    labels: Mapping[str, Int[Tensor, " point"]] = field(default_factory=dict)
    """Integer fields by name, as on disk: segment20, segment200, segment, instance. -1 = ignore."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres. What was subtracted when the points were read, as they lie far from zero: coord + origin, in
    double precision, is where they are in the file. Motions of a scene leave it alone."""
    fields: Mapping[str, Shaped[Tensor, "point ..."]] = field(default_factory=dict)
    """What else the data set has of each point: intensity, time, ring. Motions leave it alone."""

    def __len__(self) -> int:
        return len(self.coord)

    @staticmethod
    def empty() -> PointCloud:
        """No points: a scene of images."""
        return PointCloud(torch.zeros(0, 3))

    @property
    def arrays(self) -> dict[str, Tensor]:
        """Every array of the points by its name, those that are there."""
        known = {"coord": self.coord, "color": self.color, "normal": self.normal}
        return {name: one for name, one in known.items() if one is not None} | {**self.labels, **self.fields}

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.numel() * array.element_size() for array in self.arrays.values())

    def take(self, index: Tensor) -> PointCloud:
        """The chosen points (indices or a mask), with every field."""
        return replace(
            self,
            coord=self.coord[index],
            color=None if self.color is None else self.color[index],
            normal=None if self.normal is None else self.normal[index],
            labels={name: values[index] for name, values in self.labels.items()},
            fields={name: values[index] for name, values in self.fields.items()},
        )

    def moved(self, transform: Float[Tensor, "4 4"]) -> PointCloud:
        """The points after x' = transform x, a similarity or reflection; normals turn with them."""
        coord = transform_points(transform.double(), self.coord.double()).to(self.coord.dtype)
        if self.normal is None:
            return replace(self, coord=coord)
        turned = self.normal.double() @ transform[:3, :3].double().T
        normal = (turned / scale_of(transform)).to(self.normal.dtype)
        return replace(self, coord=coord, normal=normal)


@dataclass(frozen=True)
class Frame:
    """A posed camera at one time. Its images are read when asked for; each of them may be missing."""

    id: str
    camera: Camera
    """Of all images of the frame: they are registered and of one size."""
    depth_scale: float = 0.001
    """Metres per unit of the depth image."""
    color_path: Path | None = None
    depth_path: Path | None = None
    semantic_path: Path | None = None

    held_out: bool = False
    """For validation: never trained on, not part of the point cloud."""
    images: FrameImages = STORED_IMAGES
    """How the files are to be read; several images may share one file."""
    mask_path: Path | None = None
    """Image that is black where a pixel is hidden; None = all count."""
    time: float | None = None
    """Seconds, on the clock of the scene; None = unknown."""
    sensor: str = ""
    """Name of the camera, where a scene has several."""
    features: FeatureFile | None = None
    """Features that a 2D network computed of the colour image; None = there are none."""

    @property
    def has_color(self) -> bool:
        """Whether there is a colour image."""
        return self.color_path is not None

    @property
    def has_depth(self) -> bool:
        """Whether there is a depth image."""
        return self.depth_path is not None

    @property
    def has_image_features(self) -> bool:
        """Whether features of the colour image are stored."""
        return self.features is not None and self.has_color

    @property
    def key(self) -> str:
        """What tells the images of the frame from those of every other."""
        return str(self.depth_path or self.color_path or self.semantic_path or self.id)

    def moved(self, transform: Float[Tensor, "4 4"]) -> Frame:
        """The frame whose images are the same after x' = transform x of the world."""
        return replace(self, camera=self.camera.moved(transform))

    def read_color(self) -> UInt8[Tensor, "row column 3"]:
        """Colour 0..255. SceneError: there is none, or the file is missing, damaged or of another size."""
        if self.color_path is None:
            alone = "depth alone, " if self.has_depth else ""
            raise SceneError(f"frame {self.id} has {alone}no colour image ({self.key})")
        color = self.images.color(self.color_path, self._size)
        self._check_size(self.color_path, color.shape)
        return torch.from_numpy(np.array(color))

    def read_depth(self) -> Float[Tensor, "row column"]:
        """Depth along the optical axis, metres; 0 = no measurement. SceneError: as for colours."""
        if self.depth_path is None:
            raise SceneError(
                f"frame {self.id} has no depth image ({self.key})",
                fix="presets of drives (--preset outdoor) take points of a LiDAR in place of depth images",
            )
        depth = self.images.depth(self.depth_path, self._size)
        self._check_size(self.depth_path, depth.shape)
        return torch.from_numpy(depth) * self.depth_scale

    def read_semantic(self) -> Int[Tensor, "row column"]:
        """Class per pixel, -1 = unlabelled; -1 everywhere when the frame has no labels."""
        if self.semantic_path is None:
            return torch.full((self.camera.height, self.camera.width), -1, dtype=torch.int64)
        values = self.images.semantic(self.semantic_path, self._size)
        self._check_size(self.semantic_path, values.shape)
        return torch.from_numpy(values)

    def read_image_features(self) -> Float[Tensor, "channel row column"]:
        """A grid over the colour image; `sample_feature_map` looks pixels up. SceneError: there is none, it
        is damaged, of another model or settings, or the image is another one now."""
        if self.features is None or self.color_path is None:
            raise SceneError(f"frame {self.id} has no image features ({self.key})", fix=COMPUTE)
        return self.features.read(self.color_path)

    def read_visible(self) -> Bool[Tensor, "row column"]:
        """False where neither colour nor depth counts; True everywhere when the frame has no mask."""
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


def evenly_spread(frames: Sequence[Item], n_frames: int) -> tuple[Item, ...]:
    """At most `n_frames` frames, in the middle of equal parts of the recording."""
    if len(frames) <= n_frames:
        return tuple(frames)
    return tuple(frames[(2 * i + 1) * len(frames) // (2 * n_frames)] for i in range(n_frames))


@runtime_checkable
class SweepFiles(Protocol):
    """Reads sweeps from files. A value that can be pickled."""

    def points(self, path: Path) -> PointCloud:
        """The points of a sweep, in the frame of the sensor and metres. Raises SceneError."""
        ...


class PreparedSweeps:
    """The store's own: an archive of arrays with a row per point, of which `coord` is one."""

    def points(self, path: Path) -> PointCloud:
        """The points of a sweep, in the frame of the sensor and metres. Raises SceneError."""
        try:
            arrays = {name: torch.from_numpy(values) for name, values in read_arrays(path).items()}
            coord = arrays.pop("coord").float()
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SceneError(f"the sweep {path} cannot be read ({error})", fix="prepare it again") from error
        lengths = {len(values) for values in (coord, *arrays.values())}
        if coord.dim() != 2 or coord.shape[1] != 3 or len(lengths) > 1:
            raise SceneError(f"the arrays of the sweep {path} differ in length", fix="prepare it again")
        return PointCloud(coord, fields=arrays)


PREPARED_SWEEPS = PreparedSweeps()


@dataclass(frozen=True)
class Sweep:
    """What a LiDAR or another range sensor measures in one revolution. Its points are read when asked for."""

    id: str
    sensor: str
    """Name of the sensor."""
    world_to_sensor: Float[Tensor, "4 4"]
    """Any invertible affine map: scaling and mirroring are part of it."""
    path: Path
    time: float | None = None
    """Seconds, on the clock of the scene; None = unknown."""
    held_out: bool = False
    """For validation: never trained on, not part of the point cloud."""
    files: SweepFiles = PREPARED_SWEEPS
    """How the file is to be read."""

    def read(self) -> PointCloud:
        """The points in the frame of the sensor, metres. Raises SceneError."""
        return self.files.points(self.path)

    def read_in_world(self) -> PointCloud:
        """The points in the frame of the scene. Raises SceneError."""
        return self.read().moved(torch.linalg.inv(self.world_to_sensor.double()))

    def moved(self, transform: Float[Tensor, "4 4"]) -> Sweep:
        """The sweep that measures the same distances after x' = transform x of the world."""
        moved = self.world_to_sensor.double() @ torch.linalg.inv(transform.double())
        return replace(self, world_to_sensor=moved.to(self.world_to_sensor.dtype))


@dataclass(frozen=True)
class Scene:
    """Everything known of one scene, in one coordinate frame."""

    name: str
    cloud: PointCloud
    frames: tuple[Frame, ...] = ()
    sweeps: tuple[Sweep, ...] = ()
    boxes: Boxes | None = None
    """Around objects. None: nobody annotated them, which is not the same as no boxes."""
    units_per_metre: float = 1.0
    """1 until an augmentation scales the scene; depth images and sweeps stay in metres."""

    @property
    def only_depth(self) -> bool:
        """Whether there are frames and none of them has a colour image."""
        return bool(self.frames) and not any(frame.has_color for frame in self.frames)

    @property
    def n_bytes(self) -> int:
        """Memory, without images and sweeps on disk."""
        boxes = () if self.boxes is None else self.boxes.arrays.values()
        return (
            self.cloud.n_bytes
            + FRAME_BYTES * (len(self.frames) + len(self.sweeps))
            + sum(array.numel() * array.element_size() for array in boxes)
        )

    def take(self, index: Tensor) -> Scene:
        """The scene with the chosen points (indices or a mask) only."""
        return replace(self, cloud=self.cloud.take(index))

    def moved(self, transform: Float[Tensor, "4 4"]) -> Scene:
        """The scene after x' = transform x, a similarity or reflection: everything in it moves together.

        Raises:
            ValueError: there are boxes, and the transform does not keep the vertical vertical.
        """
        return replace(
            self,
            cloud=self.cloud.moved(transform),
            frames=tuple(frame.moved(transform) for frame in self.frames),
            sweeps=tuple(sweep.moved(transform) for sweep in self.sweeps),
            boxes=None if self.boxes is None else self.boxes.moved(transform),
            units_per_metre=self.units_per_metre * scale_of(transform),
        )
