"""Settings of RGB-D recordings: layout, pairing, poses, fusion. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from ponderv2.config import CommandOption, StrictConfig
from ponderv2.datasets.settings import DatasetSettings

LayoutName = Literal[
    "auto",
    "7scenes",
    "bundlefusion",
    "tum",
    "redwood",
    "replica",
    "scannet",
    "nerfstudio",
    "sens",
    "sun3d",
    "generic",
]
QuaternionOrder = Literal["xyzw", "wxyz"]
PoseDirection = Literal["camera_to_world", "world_to_camera"]
Axes = Literal["opencv", "opengl", "ros"]
"""Of a camera: x right, y down, z forward; x right, y up, z backward; x forward, y left, z up."""
Up = Literal["auto", "x", "-x", "y", "-y", "z", "-z"]


class FusionConfig(StrictConfig):
    """Fusion of depth frames into an oriented point cloud."""

    voxel_size: Annotated[PositiveFloat, CommandOption("--voxel")] = 0.02
    """Voxel size of the fused surface, metres."""
    truncation: PositiveFloat = 0.08
    """Truncation distance on both sides of the surface, metres."""
    depth_max: PositiveFloat = 6.0
    """Metres; farther depth is kept in the frames but not fused."""
    min_weight: NonNegativeFloat = 3.0
    """Cells seen in fewer frames give no surface; lowered for recordings of few frames."""


class PairingConfig(StrictConfig):
    """Which image, depth image and pose are one frame, where the files leave it open."""

    rule: Literal["auto", "name", "number", "time", "order"] = "auto"
    """auto = by whole name, else by the number that varies, else by time, else by order if counts agree."""
    time_unit: Literal["auto", "s", "ms", "us", "ns"] = "auto"
    """Of timestamps; auto = recognised by their size and spacing."""
    image_gap: PositiveFloat = 0.02
    """Largest gap in seconds between colour and depth image of a frame."""
    pose_gap: PositiveFloat = 0.15
    """Largest gap in seconds between two poses across which the pose of a frame is interpolated."""
    first_pose: NonNegativeInt | None = None
    """Number of the image that the first pose belongs to, where poses are not numbered."""


class GenericConfig(StrictConfig):
    """Layout `generic`: folders of images, a list of poses. What is `auto` is decided by the depth images."""

    color: Annotated[str | None, CommandOption("--color-dir")] = None
    """Folder of the colour images, in the recording; by default found by its name; `none` = depth only."""
    depth: Annotated[str | None, CommandOption("--depth-dir")] = None
    """Folder of the depth images, in the recording; by default found by its name."""
    poses: Annotated[str | None, CommandOption("--poses")] = None
    """File of the poses, or folder with one file each; by default the only one that holds poses."""
    quaternion: Annotated[QuaternionOrder | Literal["auto"], CommandOption("--quaternion")] = "auto"
    """Order of the four numbers of a quaternion."""
    direction: Annotated[PoseDirection | Literal["auto"], CommandOption("--direction")] = "auto"
    """Whether the poses map camera to world or world to camera."""
    axes: Annotated[Axes | Literal["auto"], CommandOption("--axes")] = "auto"
    """Axes of the cameras: y down (opencv), y up (opengl), x forward (ros)."""
    pose_unit: PositiveFloat | None = None
    """Metres per unit of the translations; by default metres, or what the depth images say."""


class RgbdConfig(DatasetSettings):
    """Posed RGB-D recordings of any known layout; the layout is recognised by its files."""

    pretrain_preset: ClassVar[str | None] = "capture"

    kind: Literal["rgbd"] = "rgbd"
    path: Path = Path()
    """A recording, or a folder of recordings."""
    layout: LayoutName = "auto"
    name: str | None = None
    """Name of the scene when there is one; by default that of the folder."""
    dataset: str = "rgbd"
    """Name of the dataset, written into dataset.yaml."""
    split: str = "train"
    val_scenes: tuple[str, ...] = ()
    """Names or patterns (`office*`) of the scenes that go into the split `val`."""
    stride: PositiveInt = 1
    """Take every n-th frame."""
    max_frames: PositiveInt | None = None
    """Take at most this many frames, evenly spaced."""
    holdout: NonNegativeInt = 0
    """Every n-th frame is held out for validation and not fused; 0 = none."""
    depth_min: NonNegativeFloat = 0.1
    """Metres; nearer measurements are dropped."""
    depth_max: PositiveFloat = 10.0
    """Metres; farther measurements are dropped."""
    depth_scale: PositiveFloat | None = None
    """Metres per unit of the depth images; by default that of the layout."""
    intrinsics: Path | None = None
    """File with the intrinsics of the depth camera: 3x3 or 4x4 numbers, `fx fy cx cy`, or Open3D's JSON."""
    color_intrinsics: Path | None = None
    """File with the intrinsics of the colour camera, where it differs from the depth camera."""
    depth_to_color: Path | None = None
    """File with a 4x4 matrix: x_color = M x_depth, metres."""
    max_image_size: PositiveInt | None = None
    """Longest side of the prepared images, pixels."""
    up_axis: Up = "auto"
    """The axis of the recording that points up; auto = known from the layout or estimated from the floor."""
    masks: Literal["black", "white", "ignore"] | None = None
    """Mask value that hides pixels; by default black (in instant-ngp's white)."""
    cloud: Literal["auto", "fuse"] = "auto"
    """auto = the recording's own PLY when it has one; fuse = always from the depth frames."""
    fusion: FusionConfig = FusionConfig()
    pairing: PairingConfig = PairingConfig()
    generic: GenericConfig = GenericConfig()
