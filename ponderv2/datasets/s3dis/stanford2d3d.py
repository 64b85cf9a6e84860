"""Images of 2D-3D-S for the rooms of S3DIS: undistorted, and only the depth that belongs to the room.

Images are raw/<camera>_i<pitch>_<yaw>.jpg and _d<pitch>_<yaw>.png (4000 per metre, from 65500 on: none),
cameras have OpenCV's distortion, poses are camera-to-world with OpenCV axes. Metres, z up.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float64, Int, UInt16
from numpy import ndarray

from ponderv2.datasets.camera_text import read_matrix, read_pose
from ponderv2.datasets.recordings import ImageFile, Limits, RawFrame, Recording, Registered, register
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.errors import SceneError
from ponderv2.geometry.intrinsics import Intrinsics, pinhole, rays_of
from ponderv2.geometry.poses import clean_poses
from ponderv2.io.text import read_json
from ponderv2.scenes.prepared import DecodedFrame

if TYPE_CHECKING:
    from scipy.spatial import KDTree

DEPTH_SCALE = 1.0 / 4000.0
"""Metres per unit."""
FARTHEST = 65499 * DEPTH_SCALE
"""Larger numbers mean that nothing was measured."""
PART_5B = np.array(
    [
        [0.0, 1.0, 0.0, -4.09703582],
        [-1.0, 0.0, 0.0, 6.22617759],
        [0.0, 0.0, 1.0, 0.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
"""Area 5 was scanned in two parts: from the frame of 5b into that of 5a, which is that of S3DIS."""
_POSE_FILE = re.compile(r"(?P<camera>[^_]+)_pose_(?P<pitch>\d+)_(?P<yaw>\d+)\.txt")
_ROOM_OF_AREA = re.compile(r"(?P<room>.+)_(?P<area>\d)[ab]?")


@dataclass(frozen=True)
class RawView:
    """One image on disk."""

    folder: Path
    camera: str
    pitch: str
    yaw: str

    @property
    def id(self) -> str:
        """As in the published preparation."""
        return f"{self.camera}_{self.pitch}_{self.yaw}"

    @property
    def pose(self) -> Path:
        """4x4 numbers."""
        return self.folder / f"{self.camera}_pose_{self.pitch}_{self.yaw}.txt"

    @property
    def intrinsics(self) -> Path:
        """Width, height, fx, fy, cx, cy, k1, k2, p1, p2, k3."""
        return self.folder / f"{self.camera}_intrinsics_{self.pitch}.txt"

    @property
    def color(self) -> Path:
        """JPEG."""
        return self.folder / f"{self.camera}_i{self.pitch}_{self.yaw}.jpg"

    @property
    def depth(self) -> Path:
        """16-bit PNG."""
        return self.folder / f"{self.camera}_d{self.pitch}_{self.yaw}.png"

    def to_area(self) -> Float64[ndarray, "4 4"]:
        """From the frame of the scanned part into that of the area."""
        return PART_5B if is_part_5b(self.folder.parent) else np.eye(4)


def area_folders(noxyz: Path, area: str) -> tuple[Path, ...]:
    """The folders of an area that are there: area_3 for Area_3, area_5a and area_5b for Area_5."""
    number = area.rsplit("_", 1)[-1]
    names = (f"area_{number}", f"area_{number}a", f"area_{number}b")
    found = (noxyz / f"{name}{ending}" for name in names for ending in ("", "_no_xyz"))
    return tuple(path for path in found if path.is_dir())


def is_part_5b(folder: Path) -> bool:
    """Whether this is the part of Area 5 that has to be moved."""
    return folder.name.startswith("area_5b")


def find_views(noxyz: Path, area: str) -> dict[str, tuple[RawView, ...]]:
    """Images by room, sorted by camera, pitch and yaw. Empty where an area has none."""
    found: dict[str, list[RawView]] = defaultdict(list)
    for folder in area_folders(noxyz, area):
        table, raw = folder / "3d" / "camera_to_room.json", folder / "raw"
        if not (table.is_file() and raw.is_dir()):
            continue
        room_of = {str(camera): _room_name(str(room), area) for camera, room in read_json(table).items()}
        for name in sorted(path.name for path in raw.iterdir() if "_pose_" in path.name):
            parts = _POSE_FILE.fullmatch(name)
            room = room_of.get(parts["camera"]) if parts else None
            if parts and room:
                found[room].append(RawView(raw, parts["camera"], parts["pitch"], parts["yaw"]))
    return {room: tuple(views) for room, views in found.items()}


def _room_name(value: str, area: str) -> str:
    """`office_3_1` of Area_1 is its room office_3."""
    parts = _ROOM_OF_AREA.fullmatch(value)
    return parts["room"] if parts and parts["area"] == area.rsplit("_", 1)[-1] else value


def read_view_intrinsics(path: Path) -> Intrinsics:
    """Pinhole and distortion of a camera. Raises SceneError when the file does not hold eleven numbers."""
    values = read_matrix(path, (1, 11), (11, 1)).ravel()
    first, second, fx, fy, cx, cy, k1, k2, p1, p2, k3 = (float(one) for one in values)
    if not (np.isfinite(values).all() and min(fx, fy) > 0 and min(first, second) >= 1):
        raise SceneError(f"{path} holds no camera: focal lengths {fx:g} and {fy:g}")
    # Width and height occur in both orders; the optical axis meets the image near its middle.
    wide = abs(2 * cx - first) <= abs(2 * cx - second)
    size = (int(first), int(second)) if wide else (int(second), int(first))
    return Intrinsics(pinhole(fx, fy, cx, cy), size, (k1, k2, p1, p2, k3))


@dataclass
class ViewFindings:
    """Outcome of reading the images of a room; grows while they are read."""

    n_frames: int = 0
    unusable: list[str] = field(default_factory=list)
    poor: list[str] = field(default_factory=list)
    """Ids of those with too little depth of the room."""

    def notes(self) -> tuple[str, ...]:
        """For the report."""
        found = [f"{self.n_frames} images of 2D-3D-S"]
        if self.poor:
            found.append(f"{len(self.poor)} images that hardly show the room were left out ({self.poor[0]})")
        return tuple(found)

    def repairs(self) -> tuple[str, ...]:
        """For the report."""
        if not self.unusable:
            return ()
        return (f"{len(self.unusable)} unusable images were dropped ({self.unusable[0]})",)


@dataclass(frozen=True)
class KnownRoom:
    """The points that images are compared with."""

    tree: KDTree
    """Of the points, in the frame of the area."""
    segment: Int[ndarray, " point"]
    to_scene: Float64[ndarray, "4 4"]
    """From the frame of the area into that of the prepared scene."""


def room_frames(
    views: tuple[RawView, ...], room: KnownRoom, config: S3disConfig, found: ViewFindings
) -> Iterator[DecodedFrame]:
    """Images one after the other, with the class of the nearest point per pixel."""
    limits = Limits(0.0, FARTHEST, config.max_image_size)
    for view in views:
        try:
            registered = _registered(view, limits)
        except SceneError as error:
            found.unusable.append(f"{view.id}: {error.message}")
            continue
        depth, semantic = only_room(registered, room, config.near)
        if np.count_nonzero(depth) < config.min_valid * depth.size:
            found.poor.append(view.id)
            continue
        found.n_frames += 1
        yield replace(
            registered.frame,
            camera_to_world=room.to_scene @ registered.frame.camera_to_world,
            depth=depth,
            semantic=semantic,
        )


def view_pose(view: RawView) -> Float64[ndarray, "4 4"]:
    """Camera-to-area. Raises SceneError for an invalid pose."""
    clean = clean_poses(read_pose(view.pose)[None])
    if not clean.valid[0]:
        raise SceneError(f"{view.pose.name} is not a pose ({clean.reasons[0]})")
    if np.linalg.det(clean.camera_to_world[0]) < 0:
        raise SceneError(f"{view.pose.name} is mirrored, which no camera is")
    return view.to_area() @ clean.camera_to_world[0]


def _registered(view: RawView, limits: Limits) -> Registered:
    """In the frame of the area."""
    pose = view_pose(view)
    intrinsics = read_view_intrinsics(view.intrinsics)
    raw = RawFrame(view.id, ImageFile(view.color), ImageFile(view.depth), pose, intrinsics, intrinsics)
    return register(raw, Recording("2d3ds", (raw,), DEPTH_SCALE), limits)


def only_room(
    registered: Registered, room: KnownRoom, near: float
) -> tuple[UInt16[ndarray, "row column"], Int[ndarray, "row column"]]:
    """Depth where a point of the room lies within `near` metres, else 0, and the nearest point's class."""
    frame, measured = registered.frame, registered.depth
    pose = frame.camera_to_world
    height, width = measured.shape
    row, column = np.nonzero(measured)
    ray = rays_of(frame.intrinsics, width, height)[row, column]
    metres = measured[row, column] * DEPTH_SCALE
    points = np.concatenate([ray, np.ones((len(ray), 1))], axis=1) * metres[:, None]
    distance, nearest = room.tree.query(points @ pose[:3, :3].T + pose[:3, 3], distance_upper_bound=near)
    close = np.isfinite(distance)
    depth = np.zeros_like(measured)
    semantic = np.full(measured.shape, -1, np.int16)
    row, column = row[close], column[close]
    depth[row, column] = measured[row, column]
    semantic[row, column] = room.segment[np.asarray(nearest)[close]]
    return depth, semantic
