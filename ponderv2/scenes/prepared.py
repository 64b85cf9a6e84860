"""One scene on its way into the store: frames as they are decoded, then everything else.

Metres, right-handed, z up; poses camera-to-world with OpenCV axes; pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int, Int64, Integer, UInt8, UInt16
from numpy import ndarray

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.meshes import Mesh
from ponderv2.io.images import StoredImages, read_bytes
from ponderv2.scenes.point_arrays import cached_normals
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep


@dataclass(frozen=True)
class DecodedFrame:
    """A frame in memory: images of one camera and one size, each of which may be missing."""

    id: str
    """Unique in the scene; becomes the file name."""
    intrinsics: Float[ndarray, "3 3"]
    camera_to_world: Float[ndarray, "4 4"]
    color: UInt8[ndarray, "row column 3"] | None
    """None: the frame has no colour image."""
    depth: UInt16[ndarray, "row column"] | None
    """Along the optical axis, in units of `depth_scale`; 0 = no measurement. None: no depth image."""
    depth_scale: float = 0.001
    """Metres per unit of `depth`."""
    semantic: Integer[ndarray, "row column"] | None = None
    """Class per pixel, -1 = unlabelled."""
    held_out: bool = False
    """For validation: not to be trained on, not fused into the cloud."""
    color_file: bytes | None = None
    """The JPEG file that `color` was decoded from, to be stored unchanged; None = encode `color`."""
    visible: Bool[ndarray, "row column"] | None = None
    """False where neither colour nor depth counts: alpha or a mask hides the pixel. None = all count.
    Depth is stored as 0 there."""
    time: float | None = None
    """Seconds, on the clock of the scene; None = unknown."""
    sensor: str = ""
    """Name of the camera, where a scene has several."""

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of the images. Raises ValueError where there is none."""
        for image in (self.depth, self.color, self.semantic):
            if image is not None:
                return image.shape[1], image.shape[0]
        raise ValueError(f"expected an image in frame {self.id}, got none")

    @staticmethod
    def of(frame: Frame) -> DecodedFrame:
        """The images of a frame, read now. Raises SceneError where one of them is damaged."""
        color = frame.read_color().numpy() if frame.has_color else None
        depth = None
        if frame.has_depth:
            units = np.rint(frame.read_depth().numpy().astype(np.float64) / frame.depth_scale)
            depth = np.where(units < 2**16, units, 0).astype(np.uint16)
        return DecodedFrame(
            id=frame.id,
            intrinsics=frame.camera.intrinsics.double().numpy(),
            camera_to_world=torch.linalg.inv(frame.camera.world_to_camera.double()).numpy(),
            color=color,
            depth=depth,
            depth_scale=frame.depth_scale,
            semantic=frame.read_semantic().numpy() if frame.semantic_path is not None else None,
            held_out=frame.held_out,
            color_file=_jpeg_of(frame),
            visible=frame.read_visible().numpy() if frame.mask_path is not None else None,
            time=frame.time,
            sensor=frame.sensor,
        )

    def frame(self) -> Frame:
        """A frame whose images stay in memory; hidden pixels have no depth."""
        width, height = self.size
        pose = torch.from_numpy(np.linalg.inv(np.asarray(self.camera_to_world, np.float64)))
        intrinsics = torch.from_numpy(np.asarray(self.intrinsics, np.float32))
        place = Path(self.id)
        return Frame(
            id=self.id,
            camera=Camera(intrinsics, pose.float(), width, height),
            depth_scale=self.depth_scale,
            color_path=None if self.color is None else place,
            depth_path=None if self.depth is None else place,
            semantic_path=None if self.semantic is None else place,
            held_out=self.held_out,
            images=_ImagesInMemory(self),
            time=self.time,
            sensor=self.sensor,
        )


@dataclass(frozen=True)
class _ImagesInMemory:
    """Those of one decoded frame; paths are ignored."""

    of: DecodedFrame

    def color(self, path: Path, size: tuple[int, int]) -> UInt8[ndarray, "row column 3"]:
        """RGB 0..255."""
        assert self.of.color is not None
        return self.of.color

    def depth(self, path: Path, size: tuple[int, int]) -> Float32[ndarray, "row column"]:
        """In units of `depth_scale`; 0 = no measurement."""
        depth, visible = self.of.depth, self.of.visible
        assert depth is not None
        return (depth if visible is None else np.where(visible, depth, 0)).astype(np.float32)

    def semantic(self, path: Path, size: tuple[int, int]) -> Int64[ndarray, "row column"]:
        """Class per pixel, -1 = unlabelled."""
        assert self.of.semantic is not None
        return self.of.semantic.astype(np.int64)


def _jpeg_of(frame: Frame) -> bytes | None:
    """The file of the colour image, when it is a JPEG that can be stored as it is."""
    path = frame.color_path
    if path is None or not isinstance(frame.images, StoredImages):
        return None
    return read_bytes(path) if path.suffix.lower() in (".jpg", ".jpeg") else None


@dataclass(frozen=True)
class PreparedCloud:
    """Points with colour, normal and labels; all arrays have one length."""

    coord: Float[ndarray, "point 3"]
    """In double precision where it is far from zero: an origin is subtracted when it is written."""
    color: UInt8[ndarray, "point 3"] | None
    """None: nothing is known of colours, and no file of them is written."""
    normal: Float32[ndarray, "point 3"]
    """Unit length, pointing into free space."""
    labels: Mapping[str, Int[ndarray, " point"]] = field(default_factory=dict)
    """Integer fields by file name: segment, segment20, segment200, instance. -1 = ignore."""
    fields: Mapping[str, ndarray] = field(default_factory=dict)
    """Further arrays with a row per point, by file name: intensity, time, ring."""

    @staticmethod
    def empty() -> PreparedCloud:
        """No points."""
        none = np.zeros((0, 3), np.float32)
        return PreparedCloud(none, None, none)

    @staticmethod
    def of(cloud: PointCloud) -> PreparedCloud:
        """The points of a scene; normals that are not known are estimated."""
        normal = cached_normals(cloud.coord) if cloud.normal is None and len(cloud) else cloud.normal
        return PreparedCloud(
            cloud.coord.numpy(),
            None if cloud.color is None else np.rint(cloud.color.numpy()).astype(np.uint8),
            np.zeros((0, 3), np.float32) if normal is None else normal.float().numpy(),
            {name: values.numpy() for name, values in cloud.labels.items()},
            {name: values.numpy() for name, values in cloud.fields.items()},
        )

    def points(self, origin: tuple[float, float, float]) -> PointCloud:
        """As the points of a scene, after `origin` was subtracted."""
        return PointCloud(
            torch.from_numpy(self.coord.astype(np.float32)),
            None if self.color is None else torch.from_numpy(self.color.astype(np.float32)),
            torch.from_numpy(self.normal),
            {name: torch.from_numpy(values.astype(np.int64)) for name, values in self.labels.items()},
            origin,
            {name: torch.from_numpy(values) for name, values in self.fields.items()},
        )


@dataclass(frozen=True)
class FusionSettings:
    """How depth frames are fused into a surface. Metres."""

    voxel_size: float = 0.02
    truncation: float = 0.08
    """On both sides of the surface."""
    depth_max: float = 6.0
    """Farther depth is not fused."""
    min_weight: float = 3.0
    """Cells seen in fewer frames give no surface."""


@dataclass(frozen=True)
class NeededSurface:
    """What is to be known to make the points of a scene from its frames."""

    settings: FusionSettings
    has_color: tuple[bool, ...]
    """Of each frame that may come."""
    where: str
    """Named in messages: the recording."""
    doubt: str = ""
    """What may be wrong with the depths of the recording, as a clause; empty where nothing is."""


@dataclass(frozen=True)
class PreparedScene:
    """A scene without its frames: what is known once the last of them was read."""

    cloud: PreparedCloud
    """Empty where a surface is needed and not made yet."""
    mesh: Mesh | None = None
    """The best known surface of the scene, a reference for reconstruction."""
    notes: tuple[str, ...] = ()
    """What was found, chosen, dropped; ends in the report."""
    repairs: tuple[str, ...] = ()
    """What was wrong in the input and corrected; ends in the report."""
    origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres, subtracted already from points, mesh and frames, as they were far from zero."""
    recording_to_scene: Float[ndarray, "4 4"] | None = None
    """What was done to the world of the recording, such as turning it upright; None = nothing."""
    sweeps: tuple[Sweep, ...] = ()
    """Of range sensors; each is read when it is written."""
    boxes: Boxes | None = None
    """Around objects; `category` counts the `box_classes` of the data set."""


@dataclass(frozen=True)
class SceneStream:
    """Frames may be a generator, so that a long recording never is in memory as a whole."""

    frames: Iterable[DecodedFrame]
    finish: Callable[[], PreparedScene]
    """Called after the last frame was taken."""
    needs_surface: NeededSurface | None = None
    """None: the scene brings its points."""

    @staticmethod
    def of(
        cloud: PreparedCloud,
        frames: Iterable[DecodedFrame] = (),
        mesh: Mesh | None = None,
        notes: tuple[str, ...] = (),
    ) -> SceneStream:
        """A scene whose points are known beforehand."""
        return SceneStream(frames, lambda: PreparedScene(cloud, mesh, notes))

    @staticmethod
    def of_scene(scene: Scene) -> SceneStream:
        """A scene that is known as a whole; its frames are decoded one by one.

        Without points and sweeps, the points are those of the depth images.
        """

        def finish() -> PreparedScene:
            cloud, origin = PreparedCloud.of(scene.cloud), scene.cloud.origin
            return PreparedScene(cloud, origin=origin, sweeps=scene.sweeps, boxes=scene.boxes)

        with_depth = [frame for frame in scene.frames if frame.has_depth]
        needed = None
        if with_depth and not len(scene.cloud) and not scene.sweeps:
            colors = tuple(frame.has_color for frame in scene.frames)
            needed = NeededSurface(FusionSettings(), colors, scene.name)
        return SceneStream(map(DecodedFrame.of, scene.frames), finish, needed)

    def scene(self, name: str) -> Scene:
        """The whole scene, its frames decoded in memory. Its cloud is empty where a surface is needed."""
        frames = tuple(frame.frame() for frame in self.frames)
        made = self.finish()
        return Scene(name, made.cloud.points(made.origin), frames, made.sweeps, made.boxes)


def label_dtype(values: Int[ndarray, " point"]) -> type[np.signedinteger]:
    """The smaller of int16 and int32 that holds the labels."""
    fits = values.size == 0 or (values.min() >= -(2**15) and values.max() < 2**15)
    return np.int16 if fits else np.int32
