"""Structured3D as a source of scenes: its zip archives are indexed once, a scene per room."""

from __future__ import annotations

import fnmatch
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ponderv2.datasets.reader import DatasetReader
from ponderv2.datasets.structured3d.classes import CLASS_NAMES, COLORS
from ponderv2.datasets.structured3d.config import Structured3dConfig
from ponderv2.datasets.structured3d.room import OWN_WORLD, PUBLISHED_WORLD, RoomFiles, prepare_room
from ponderv2.errors import SceneError
from ponderv2.io.archives import ArchiveMember, archive_members, folder_members
from ponderv2.io.files import digest_of_files
from ponderv2.scenes.prepared import SceneStream
from ponderv2.scenes.reader import DatasetInfo

READER_VERSION = 1
"""Raised whenever the same archives and settings give other scenes, so that stored ones are regenerated."""
FILE = re.compile(r"(?:^|/)(scene_(\d{5}))/2D_rendering/([^/]+)/(panorama|perspective)/(.+)$")
ROOM = re.compile(r"\w[\w.-]*")
OTHER_ARCHIVES = re.compile(r"annotation_3d|bbox")
EXPECTED = "expected Structured3D_panorama_NN.zip and Structured3D_perspective_full_NN.zip, or their contents"
POINT_BYTES = 12 + 12 + 3 + 2
POINTS_OF_PANORAMA, POINTS_OF_VIEW = 360_000, 130_000
"""Rough numbers at one point per centimetre, for the estimate of disk space."""


@dataclass(frozen=True)
class Structured3dRoom:
    """One room."""

    split: str
    files: RoomFiles
    config: Structured3dConfig

    @property
    def name(self) -> str:
        """scene_00000/room_123."""
        return f"{self.files.scene}/room_{self.files.room}"

    def fingerprint(self) -> str:
        """Settings, and names and contents of the room's files.

        Members of archives count by size and checksum, which every reading of them verifies; files by all
        their bytes.
        """
        parts = [f"{READER_VERSION}", self.config.model_dump_json(exclude={"path", "scenes"})]
        members = {"panorama": self.files.panorama, **self.files.views}
        named = [(f"{view}/{name}", of[name]) for view, of in sorted(members.items()) for name in sorted(of)]
        parts += [f"{name} {one.size} {one.crc}" for name, one in named if one.name]
        return digest_of_files(((name, one.archive) for name, one in named if not one.name), *parts)

    def estimated_bytes(self) -> int:
        """Of the prepared scene, from the sizes of its packed images."""
        n_views = len(self.files.views)
        points = POINTS_OF_PANORAMA if self.config.points != "perspective" and self.files.panorama else 0
        points += POINTS_OF_VIEW * n_views if self.config.points != "panorama" else 0
        images = 0.0
        for view in self.files.views.values():
            for name, member in view.items():
                images += member.packed * (0.5 if name.startswith("rgb") else 1.3)
        scale = min(1.0, (0.01 / self.config.voxel) ** 2)
        return int(points * POINT_BYTES * scale + images) + 8192

    def read(self) -> SceneStream:
        """Read, fuse and label the room."""
        return prepare_room(self.files, self.config)


def find(config: Structured3dConfig) -> DatasetReader:
    """All rooms. Raises SceneError when there are none, saying what was looked for."""
    root = config.path
    if not root.exists():
        raise SceneError(f"no file or folder {root}", fix="give the folder of the Structured3D archives")
    rooms, warnings = _Rooms(config), []
    n_archives = 0
    for archive in _archives(root, config.furniture):
        try:
            rooms.add(archive_members(archive))
            n_archives += 1
        except SceneError as error:
            warnings.append(f"{error.message}; its views and rooms are left out")
    if root.is_dir():
        for folder in _extracted(root):
            rooms.add((f"{folder.name}/{name}", member) for name, member in folder_members(folder))
    files = rooms.found()
    if not files:
        reason = f" ({warnings[0]})" if warnings else ""
        raise SceneError(f"no rooms of Structured3D in {root}{reason}", fix=EXPECTED)
    scenes = tuple(Structured3dRoom(split_of(one.scene), one, config) for one in files)
    n_views = sum(len(one.views) for one in files)
    notes = (
        f"{len(scenes)} rooms with {n_views} perspective views in {root} ({n_archives} archives)",
        PUBLISHED_WORLD if config.mirrored_as_published else OWN_WORLD,
    )
    info = DatasetInfo(
        name="Structured3D",
        class_names=CLASS_NAMES,
        class_colors=COLORS,
        label_field="segment",
        splits=tuple(
            split for split in ("train", "val", "test") if any(scene.split == split for scene in scenes)
        ),
    )
    return DatasetReader(info, scenes, notes, tuple(warnings + rooms.warnings(files)), root=root)


def split_of(scene: str) -> str:
    """The official split: by the number of the scene."""
    number = int(scene.removeprefix("scene_"))
    return "train" if number < 3000 else "val" if number < 3250 else "test"


class _Rooms:
    """Collects the wanted files of every room as archives are gone through."""

    def __init__(self, config: Structured3dConfig) -> None:
        self.config = config
        self.rooms: dict[tuple[str, str], RoomFiles] = {}
        self.unexpected: Counter[str] = Counter()
        self.images = {"depth.png", "semantic.png", "rgb_rawlight.png", f"rgb_{config.lighting}.png"}

    def add(self, members: Iterable[tuple[str, ArchiveMember]]) -> None:
        for path, member in members:
            match = FILE.search(path)
            if match is None:
                continue
            scene, _, room, kind, rest = match.groups()
            if self._unwanted(scene):
                continue
            if not ROOM.fullmatch(room):
                self.unexpected[f"{member.archive}: a room called '{room}'"] += 1
                continue
            target = self._target(scene, room, kind, rest)
            if target is not None:
                files, name = target
                if name not in files or files[name].fault:
                    files[name] = member

    def _unwanted(self, scene: str) -> bool:
        wanted = self.config.scenes
        return bool(wanted) and not any(fnmatch.fnmatch(scene, pattern) for pattern in wanted)

    def _target(
        self, scene: str, room: str, kind: str, rest: str
    ) -> tuple[dict[str, ArchiveMember], str] | None:
        """Where a file belongs and under which name; None for files that are not needed."""
        parts = rest.split("/")
        if kind == "panorama":
            if parts == ["camera_xyz.txt"]:
                return self._room(scene, room).panorama, parts[0]
            if len(parts) == 2 and parts[0] == self.config.furniture and parts[1] in self.images:
                return self._room(scene, room).panorama, parts[1]
            return None
        wanted = {*self.images, "camera_pose.txt"}
        if len(parts) == 3 and parts[0] == self.config.furniture and parts[2] in wanted:
            if not ROOM.fullmatch(parts[1]):
                self.unexpected[f"{scene}/{room}: a view called '{parts[1]}'"] += 1
                return None
            return self._room(scene, room).views.setdefault(parts[1], {}), parts[2]
        return None

    def _room(self, scene: str, room: str) -> RoomFiles:
        return self.rooms.setdefault((scene, room), RoomFiles(scene, room))

    def found(self) -> list[RoomFiles]:
        """Rooms with images, by scene and room; a camera without images is not a room."""
        rooms = [self.rooms[key] for key in sorted(self.rooms)]
        return [one for one in rooms if one.views or len(one.panorama) > 1]

    def warnings(self, files: list[RoomFiles]) -> list[str]:
        """What the user should know about the archives as a whole."""
        warnings = [f"{what}: left out" for what in self.unexpected]
        without_views = sum(not one.views for one in files)
        without_panorama = sum(not one.panorama for one in files)
        if without_views and self.config.furniture != "simple":
            warnings.append(
                f"{without_views} of {len(files)} rooms have no perspective views: points, no frames"
            )
        if without_panorama and self.config.points != "perspective":
            warnings.append(
                f"{without_panorama} of {len(files)} rooms have no panorama: points from views alone"
            )
        return warnings


def _archives(root: Path, furniture: str) -> list[Path]:
    """The zip files that may hold wanted images."""
    paths = [root] if root.is_file() else sorted(root.glob("*.zip"))
    other = [f"perspective_{one}" for one in ("full", "empty") if one != furniture]
    return [
        path
        for path in paths
        if not OTHER_ARCHIVES.search(path.name) and not any(word in path.name for word in other)
    ]


def _extracted(root: Path) -> list[Path]:
    """Folders of scenes at most two levels down, or the folder itself."""
    if re.fullmatch(r"scene_\d{5}", root.name):
        return [root]
    for pattern in ("scene_*", "*/scene_*"):
        found = [
            path for path in sorted(root.glob(pattern)) if path.is_dir() and (path / "2D_rendering").is_dir()
        ]
        if found:
            return found
    return []
