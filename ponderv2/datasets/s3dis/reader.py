"""S3DIS from its text files, with images and normals of 2D-3D-S where given: a scene per room."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Float32, Float64
from numpy import ndarray

from ponderv2.datasets.reader import DatasetReader, fingerprint
from ponderv2.datasets.s3dis.classes import CLASS_NAMES, COLORS
from ponderv2.datasets.s3dis.config import S3disConfig
from ponderv2.datasets.s3dis.room import (
    RoomPoints,
    alignment,
    annotation_files,
    inner_viewpoints,
    moved,
    point_files,
    read_angles,
    read_room,
)
from ponderv2.datasets.s3dis.stanford2d3d import (
    PART_5B,
    KnownRoom,
    RawView,
    ViewFindings,
    area_folders,
    find_views,
    is_part_5b,
    room_frames,
    view_pose,
)
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_files
from ponderv2.scenes.origin import compact
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream
from ponderv2.scenes.reader import DatasetInfo

READER_VERSION = 1
"""Raised whenever the same input gives other scenes."""
UPRIGHT = np.array([[1.0, 0, 0, 0], [0, 0, -1.0, 0], [0, 1.0, 0, 0], [0, 0, 0, 1.0]])
"""The meshes have y up: (x, y, z) becomes (x, -z, y)."""
MESH_MARGIN = 0.1
"""Metres around a room within which faces are searched."""
BYTES_PER_LINE = 32
"""Of a text file, so that rather too many points are expected than too few."""
BYTES_PER_POINT = 31
"""Of the arrays in the store."""
LARGEST_SIDE = 1280
"""Pixels, of the images of 2D-3D-S."""
BYTES_PER_VIEW = 1.2
"""Colour, depth and classes, per square of the longest side."""
FAR_FROM_MESH = 0.1
"""Metres from the mesh that are reported."""
TYPICAL = "expected Area_1/office_1/Annotations/*.txt and so on, as in Stanford3dDataset_v1.2"


@dataclass(frozen=True)
class S3disRoom:
    """One room."""

    split: str
    name: str
    folder: Path
    angle: float | None
    """Degrees; None = the room is not turned."""
    views: tuple[RawView, ...]
    meshes: tuple[Path, ...]
    mesh_digest: str
    """Of their contents: the rooms of an area share them."""
    config: S3disConfig

    def fingerprint(self) -> str:
        """Settings, angle, and names and contents of the files."""
        settings = self.config.model_dump(mode="json", exclude={"path", "noxyz", "areas"})
        images = [
            path for view in self.views for path in (view.color, view.depth, view.pose, view.intrinsics)
        ]
        files = fingerprint(
            self.folder, point_files(self.folder), f"{READER_VERSION} {self.angle} {settings}"
        )
        views = {path.name: path for path in images}
        return digest_of_files(sorted(views.items()), files, self.mesh_digest)

    def estimated_bytes(self) -> int:
        """From the sizes of the text files and the number of images."""
        text = sum(path.stat().st_size for path in point_files(self.folder))
        side = min(self.config.max_image_size or LARGEST_SIDE, LARGEST_SIDE)
        return round(text / BYTES_PER_LINE * BYTES_PER_POINT + len(self.views) * BYTES_PER_VIEW * side**2)

    def read(self) -> SceneStream:
        """Read points, images and normals, and turn them together."""
        room = read_room(self.folder)
        turn = np.eye(4) if self.angle is None else alignment(room.coord, self.angle)
        found = ViewFindings()
        return SceneStream(self._frames(room, turn, found), lambda: self._surface(room, turn, found))

    def _frames(
        self, room: RoomPoints, turn: Float[ndarray, "4 4"], found: ViewFindings
    ) -> Iterator[DecodedFrame]:
        if not self.views:
            return
        from scipy.spatial import KDTree

        known = KnownRoom(KDTree(room.coord, balanced_tree=False, compact_nodes=False), room.segment, turn)
        yield from room_frames(self.views, known, self.config, found)

    def _surface(self, room: RoomPoints, turn: Float[ndarray, "4 4"], found: ViewFindings) -> PreparedScene:
        normal, how = self._normals(room.coord)
        cloud = PreparedCloud(
            compact(moved(room.coord, turn)),
            room.color,
            (normal.astype(np.float64) @ turn[:3, :3].T).astype(np.float32),
            {"segment": room.segment, "instance": room.instance},
        )
        turned = "not turned" if self.angle is None else f"turned by {-self.angle % 360:g} degrees about z"
        notes = (*room.notes, turned, how, *(found.notes() if self.views else ()))
        return PreparedScene(cloud, None, notes, (*room.repairs, *found.repairs()))

    def _normals(self, coord: Float64[ndarray, "point 3"]) -> tuple[Float32[ndarray, "point 3"], str]:
        """Normals before the room is turned, and where they come from."""
        if self.meshes:
            from ponderv2.geometry.nearest_faces import nearest_normals

            triangles = self._triangles(coord)
            if len(triangles):
                normal, distance = nearest_normals(coord, triangles)
                far = float((distance > FAR_FROM_MESH).mean())
                words = f", {far:.1%} of the points are farther than 10 cm from it" if far else ""
                return normal, f"normals: of the nearest face of the 2D-3D-S mesh{words}"
        if self.config.normals == "mesh":
            raise SceneError(
                f"no mesh of 2D-3D-S reaches into {self.folder}", fix="--set source.normals=estimate"
            )
        from ponderv2.geometry.normals import estimate_normals

        eyes, which = self._eyes(coord)
        return estimate_normals(coord, eyes), f"normals: estimated from the points, turned towards {which}"

    def _eyes(self, coord: Float64[ndarray, "point 3"]) -> tuple[Float64[ndarray, "eye 3"], str]:
        cameras = []
        for view in self.views:
            try:
                cameras.append(view_pose(view)[:3, 3])
            except SceneError:  # reported when the images were read
                continue
        return (
            (np.stack(cameras), "the cameras")
            if cameras
            else (inner_viewpoints(coord), "the inside of the room")
        )

    def _triangles(self, coord: Float64[ndarray, "point 3"]) -> Float64[ndarray, "face 3 3"]:
        from ponderv2.geometry.nearest_faces import near_box
        from ponderv2.io.obj import read_obj

        lower, upper = coord.min(axis=0) - MESH_MARGIN, coord.max(axis=0) + MESH_MARGIN
        parts = [np.empty((0, 3, 3))]
        for path in self.meshes:
            to_area = (PART_5B if is_part_5b(path.parent.parent) else np.eye(4)) @ UPRIGHT
            corners = moved(read_obj(path).reshape(-1, 3).astype(np.float64), to_area)
            parts.append(near_box(corners.reshape(-1, 3, 3), lower, upper))
        return np.concatenate(parts)


def find(config: S3disConfig) -> DatasetReader:
    """All rooms. Raises SceneError when this is not S3DIS, or lacks what the settings ask for."""
    root = _root(config.path)
    areas = [area for area in config.areas if (root / area).is_dir()]
    if not areas:
        raise SceneError(f"{root} has none of the areas {', '.join(config.areas)}", fix=TYPICAL)
    angles = {area: root / area / f"{area}_alignmentAngle.txt" for area in areas}
    aligned = "aligned" in root.name.lower() or not any(path.is_file() for path in angles.values())
    if aligned:
        _refuse_unknown_turn(root, config)
    if config.noxyz is not None and not any(area_folders(config.noxyz, area) for area in areas):
        raise SceneError(
            f"{config.noxyz} has no folders area_1 .. area_6 of 2D-3D-S",
            fix="--noxyz the folder that the noXYZ archives were unpacked in",
        )
    scenes = [
        scene for area in areas for scene in _rooms_of(root / area, None if aligned else angles[area], config)
    ]
    if not scenes:
        raise SceneError(f"no rooms in {root}", fix=TYPICAL)
    info = DatasetInfo("S3DIS", CLASS_NAMES, COLORS, "segment", tuple(areas))
    return DatasetReader(info, tuple(scenes), _notes(root, scenes, aligned, config), root=root)


def _root(path: Path) -> Path:
    """The folder of the areas: the given one or one below it; the archive with angles of two."""
    if not path.is_dir():
        raise SceneError(f"no folder {path}", fix="give the folder of Stanford3dDataset_v1.2")
    if path.name.startswith("Area_") and path.parent.is_dir() and any(path.glob("*/Annotations")):
        raise SceneError(
            f"{path} is one area", fix=f"give {path.parent} and --set source.areas=[{path.name}]"
        )
    level = [path]
    for _ in range(3):
        found = [folder for folder in level if any(one.is_dir() for one in folder.glob("Area_[0-9]"))]
        if found:
            return min(found, key=lambda folder: ("aligned" in folder.name.lower(), str(folder)))
        level = [one for folder in level for one in sorted(folder.iterdir()) if one.is_dir()]
    raise SceneError(f"{path} is not S3DIS: no folder Area_1 .. Area_6 in it", fix=TYPICAL)


def _refuse_unknown_turn(root: Path, config: S3disConfig) -> None:
    if config.noxyz is not None:
        raise SceneError(
            f"{root} is the aligned archive: its rooms are rotated by unknown angles, so that "
            "images and meshes of 2D-3D-S do not fit",
            fix="use Stanford3dDataset_v1.2 (without _Aligned_Version), or leave source.noxyz out",
        )


def _rooms_of(area: Path, angle_file: Path | None, config: S3disConfig) -> list[S3disRoom]:
    degrees = _angles(area, angle_file) if config.align and angle_file is not None else None
    noxyz = config.noxyz
    views = find_views(noxyz, area.name) if noxyz is not None and config.frames else {}
    meshes: tuple[Path, ...] = ()
    if noxyz is not None and config.normals != "estimate":
        found = (folder / "3d" / "rgb.obj" for folder in area_folders(noxyz, area.name))
        meshes = tuple(path for path in found if path.is_file())
    if config.normals == "mesh" and not meshes:
        raise SceneError(
            f"no mesh (3d/rgb.obj) of {area.name} in {noxyz or 'source.noxyz, which is not given'}",
            fix="--set source.normals=auto",
        )
    digest = digest_of_files((path.parent.parent.name, path) for path in meshes)
    scenes = []
    for room in sorted(path for path in area.iterdir() if path.is_dir() and point_files(path)):
        angle = None
        if degrees is not None:
            if room.name not in degrees:
                raise SceneError(f"{angle_file} has no angle of {room.name}", fix="--set source.align=false")
            angle = degrees[room.name]
        chosen = _chosen(views.get(room.name, ()), config)
        scenes.append(S3disRoom(area.name, room.name, room, angle, chosen, meshes, digest, config))
    return scenes


def _angles(area: Path, angle_file: Path) -> dict[str, float]:
    if not angle_file.is_file():
        raise SceneError(
            f"{area} lacks {angle_file.name}, which says how its rooms are turned",
            fix="unpack Stanford3dDataset_v1.2.zip again, or --set source.align=false",
        )
    return read_angles(angle_file)


def _chosen(views: tuple[RawView, ...], config: S3disConfig) -> tuple[RawView, ...]:
    """Every stride-th view, at most N, evenly spread."""
    chosen = views[:: config.stride]
    if config.max_frames is None or len(chosen) <= config.max_frames:
        return chosen
    keep = np.linspace(0, len(chosen) - 1, config.max_frames).round().astype(int)
    return tuple(chosen[index] for index in keep)


def _notes(root: Path, scenes: list[S3disRoom], aligned: bool, config: S3disConfig) -> tuple[str, ...]:
    notes = [f"S3DIS, {len(scenes)} rooms of {len({scene.split for scene in scenes})} areas in {root}"]
    if aligned:
        notes.append("the aligned archive: rooms are turned already and are left as they are")
    elif config.align:
        notes.append("rooms are turned by the angles of Area_*_alignmentAngle.txt")
    n_views = sum(len(scene.views) for scene in scenes)
    if config.noxyz is not None and config.frames:
        without = sum(not scene.views for scene in scenes)
        notes.append(f"{n_views} images of 2D-3D-S; {without} rooms have none")
    bare = [scene for scene in scenes if not annotation_files(scene.folder)]
    if bare:
        notes.append(
            f"{len(bare)} rooms have no Annotations and get no classes, the first is {bare[0].folder}"
        )
    return tuple(notes)
