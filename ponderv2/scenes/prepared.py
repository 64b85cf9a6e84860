"""One scene on its way into the store: frames as they are decoded, then everything else.

Metres, right-handed, z up; poses camera-to-world with OpenCV axes; pixel centres at integers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Integer, UInt8, UInt16
from numpy import ndarray

from ponderv2.geometry.boxes import Boxes
from ponderv2.scenes.scene import Sweep


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


@dataclass(frozen=True)
class PreparedMesh:
    """A reference mesh: the best known surface of the scene."""

    vertices: Float[ndarray, "vertex 3"]
    faces: Integer[ndarray, "face 3"]
    colors: UInt8[ndarray, "vertex 3"] | None = None


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
    """What is known once the last frame has been seen."""

    cloud: PreparedCloud
    """Empty where a surface is needed and not made yet."""
    mesh: PreparedMesh | None = None
    notes: tuple[str, ...] = ()
    """What was found, chosen, dropped; ends in the report."""
    repairs: tuple[str, ...] = ()
    """What was wrong in the input and put right; ends in the report."""
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
        mesh: PreparedMesh | None = None,
        notes: tuple[str, ...] = (),
    ) -> SceneStream:
        """A scene whose points are known beforehand."""
        return SceneStream(frames, lambda: PreparedScene(cloud, mesh, notes))


def label_dtype(values: Int[ndarray, " point"]) -> type[np.signedinteger]:
    """The smaller of int16 and int32 that holds the labels."""
    fits = values.size == 0 or (values.min() >= -(2**15) and values.max() < 2**15)
    return np.int16 if fits else np.int32
