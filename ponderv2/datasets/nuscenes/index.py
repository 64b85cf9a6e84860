"""The index of one version of nuScenes: found or built for its tables, opened in milliseconds, read in parts.

It lies in the cache folder under the digest of the tables. Tables of more than SMALL bytes, which take longer
to read than the index to use, count with their sizes and with pieces of their contents.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.nuscenes import infos
from ponderv2.datasets.nuscenes.build import Build, Track, build, untracked
from ponderv2.datasets.nuscenes.schema import FORMAT
from ponderv2.datasets.nuscenes.tables import AGAIN, NEEDED, OPTIONAL
from ponderv2.datasets.nuscenes.values import token_key, token_text
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import rotation_of_quaternion
from ponderv2.io.files import cache_folder, digest_of_files, exclusively

SMALL = 128 * 2**20
"""Bytes of all tables together that are digested whole whenever they are opened."""
PARTS, PIECE = 256, 16_384
"""Of a larger table, evenly spread: the number of pieces that are digested, and bytes of each."""
BUILD_SECONDS = 1800.0
"""That another process is waited for which builds the same index."""


@dataclass(frozen=True)
class Sample:
    """A key frame."""

    id: int
    token: str
    scene: str
    number: int
    """In the scene, by time."""
    timestamp: int
    """Microseconds."""

    @property
    def name(self) -> str:
        """scene-0061/003_ca9a282c9e77460f8360f564131a8af5: in the order of time, and with the token."""
        return f"{self.scene}/{self.number:03d}_{self.token}"


@dataclass(frozen=True)
class Measurement:
    """What a camera or LiDAR measured at one time."""

    token: str
    channel: str
    modality: str
    timestamp: int
    """Microseconds."""
    filename: str
    """Below the folder of the data."""
    size: tuple[int, int]
    """Width and height; 0 for a LiDAR."""
    sensor_to_ego: Float64[ndarray, "4 4"]
    ego_to_global: Float64[ndarray, "4 4"]
    """At its own time."""
    intrinsics: Float64[ndarray, "3 3"] | None
    """None: of a LiDAR, or the table holds none."""

    @property
    def sensor_to_global(self) -> Float64[ndarray, "4 4"]:
        """Both in one; not-a-number where one of them is damaged."""
        return self.ego_to_global @ self.sensor_to_ego


@dataclass(frozen=True)
class Annotations:
    """Boxes of a sample in the world frame, in the conventions of the tables."""

    center: Float64[ndarray, "box 3"]
    size: Float64[ndarray, "box 3"]
    """Width, length, height."""
    rotation: Float64[ndarray, "box 4"]
    """Quaternion (w, x, y, z) from the frame of the box, whose x is its heading."""
    velocity: Float64[ndarray, "box 3"]
    """Metres per second; nan = unknown."""
    category: tuple[str, ...]
    instance: tuple[int, ...]
    """Row of the table of instances."""
    attribute: tuple[int, ...]
    """As counted by `classes.ATTRIBUTES`; -1 = none."""
    visibility: tuple[int, ...]
    n_lidar: tuple[int, ...]
    n_radar: tuple[int, ...]
    token: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.token)


@dataclass(frozen=True)
class NuscenesIndex:
    """One version. A plain value: each process and thread opens the file for itself."""

    path: Path
    """The SQLite file."""
    version: str

    @staticmethod
    def of(tables: Path, track: Track = untracked) -> NuscenesIndex:
        """The index of the tables in a folder or of a file of infos, built now if there is none yet.

        Raises SceneError for tables that cannot be used, OutputError where the cache cannot be written.
        """
        if tables.is_file():
            return NuscenesIndex(_built(tables, [tables], track), tables.stem)
        files = [tables / f"{name}.json" for name in NEEDED]
        missing = [path.name for path in files if not path.is_file()]
        if missing:
            raise SceneError(f"{tables} lacks {', '.join(missing)}", fix=AGAIN)
        files += [path for name in OPTIONAL if (path := tables / f"{name}.json").is_file()]
        return NuscenesIndex(_built(tables, files, track), tables.name)

    @property
    def problems(self) -> tuple[str, ...]:
        """What was wrong with the tables and was left out."""
        return tuple(json.loads(self._one("SELECT value FROM meta WHERE name = 'problems'")[0]))

    @functools.cached_property
    def has_cameras(self) -> bool:
        """Whether any camera measured anything."""
        found = (
            "SELECT 1 FROM data WHERE channel IN (SELECT id FROM channel WHERE modality = 'camera') LIMIT 1"
        )
        return self._first(found) is not None

    @functools.cached_property
    def has_labels(self) -> bool:
        """Whether there are labels of lidar segmentation."""
        return self._first("SELECT 1 FROM lidarseg LIMIT 1") is not None

    @functools.cached_property
    def scenes(self) -> tuple[str, ...]:
        """Names of the scenes that have samples, sorted."""
        found = "SELECT name FROM scene WHERE id IN (SELECT scene FROM sample) ORDER BY name"
        return tuple(name for (name,) in self._all(found))

    def samples(self, scenes: frozenset[str] | None = None) -> list[Sample]:
        """Key frames, scene by scene in the order of their names, in the order of time."""
        found = self._all(
            "SELECT sample.id, sample.token, scene.name, number, timestamp FROM sample "
            "JOIN scene ON scene.id = sample.scene ORDER BY scene.name, number"
        )
        rows = [(index, token_text(token), *rest) for index, token, *rest in found]
        return [Sample(*row) for row in rows if scenes is None or row[2] in scenes]

    def sample(self, scene: str, number: int) -> Sample | None:
        """One key frame by name of the scene and number in it."""
        row = self._first(
            "SELECT sample.id, sample.token, scene.name, number, timestamp FROM scene "
            "JOIN sample ON scene.id = sample.scene WHERE scene.name = ? AND number = ?",
            (scene, number),
        )
        return None if row is None else Sample(row[0], token_text(row[1]), *row[2:])

    def key_data(self, sample: Sample) -> dict[str, Measurement]:
        """What the sensors measured for a key frame, by channel."""
        rows = self._all(f"{_DATA} WHERE data.sample = ? AND is_key ORDER BY channel.id", (sample.id,))
        found = [_measurement(row) for row in rows]
        return {one.channel: one for one in found}

    def before(self, one: Measurement, sample: Sample, count: int) -> list[Measurement]:
        """Up to `count` earlier measurements of a sensor in the same scene, the latest first."""
        return self._beside(one, sample, count, "<", "DESC")

    def after(self, one: Measurement, sample: Sample, count: int) -> list[Measurement]:
        """Up to `count` later measurements of a sensor in the same scene, the earliest first."""
        return self._beside(one, sample, count, ">", "ASC")

    def _beside(
        self, one: Measurement, sample: Sample, count: int, relation: str, order: str
    ) -> list[Measurement]:
        rows = self._all(
            f"{_DATA} WHERE data.scene = (SELECT scene FROM sample WHERE id = ?) "
            "AND data.channel = (SELECT id FROM channel WHERE name = ?) "
            f"AND timestamp {relation} ? ORDER BY timestamp {order} LIMIT ?",
            (sample.id, one.channel, one.timestamp, count),
        )
        return [_measurement(row) for row in rows]

    def label_file(self, token: str) -> str | None:
        """File of the classes of a LiDAR measurement, below the folder of the data."""
        row = self._first("SELECT filename FROM lidarseg WHERE token = ?", (token_key(token),))
        return None if row is None else row[0]

    @functools.cached_property
    def label_categories(self) -> dict[int, str]:
        """Categories by their number in label files; empty where the table has no such numbers."""
        rows = self._all("SELECT label, name FROM category WHERE label IS NOT NULL")
        return {label: name for label, name in rows}

    def annotations(self, sample: Sample) -> Annotations:
        """The boxes of a key frame."""
        rows = self._all(
            "SELECT x, y, z, width, length, height, qw, qx, qy, qz, vx, vy, vz, category.name, instance, "
            "attribute, visibility, n_lidar, n_radar, token FROM box "
            "JOIN category ON category.id = box.category WHERE sample = ? ORDER BY number",
            (sample.id,),
        )
        numbers = np.array([row[:13] for row in rows], np.float64).reshape(len(rows), 13)
        columns = list(zip(*(row[13:] for row in rows), strict=True)) or [()] * 7
        tokens = tuple(token_text(token) for token in columns[6])
        return Annotations(
            numbers[:, :3], numbers[:, 3:6], numbers[:, 6:10], numbers[:, 10:13], *columns[:6], token=tokens
        )

    def files(self) -> list[tuple[str, str, str]]:
        """Scene, channel and file of every key frame's measurement."""
        return self._all(
            "SELECT scene.name, channel.name, filename FROM data JOIN scene ON scene.id = data.scene "
            "JOIN channel ON channel.id = data.channel WHERE is_key"
        )

    def _all(self, statement: str, values: tuple[Any, ...] = ()) -> list[Any]:
        try:
            return (
                _connection(self.path, os.getpid(), threading.get_ident())
                .execute(statement, values)
                .fetchall()
            )
        except sqlite3.Error as error:
            raise SceneError(
                f"the index {self.path} is damaged ({error})", fix=f"delete {self.path}; it is built again"
            ) from error

    def _first(self, statement: str, values: tuple[Any, ...] = ()) -> Any:
        rows = self._all(statement, values)
        return rows[0] if rows else None

    def _one(self, statement: str) -> Any:
        row = self._first(statement)
        if row is None:
            raise SceneError(
                f"the index {self.path} is damaged", fix=f"delete {self.path}; it is built again"
            )
        return row


_DATA = (
    "SELECT data.token, channel.name, channel.modality, timestamp, filename, width, height, c.x, c.y, c.z, "
    "c.qw, c.qx, c.qy, c.qz, data.x, data.y, data.z, data.qw, data.qx, data.qy, data.qz, intrinsics "
    "FROM data JOIN channel ON channel.id = data.channel JOIN calibration c ON c.id = data.calibration"
)


def _measurement(row: tuple[Any, ...]) -> Measurement:
    token, channel, modality, timestamp, filename, width, height = row[:7]
    intrinsics = None
    if row[21] is not None:
        try:
            intrinsics = np.array(json.loads(row[21]), np.float64)
        except (ValueError, TypeError):
            intrinsics = np.full((3, 3), np.nan)
    return Measurement(
        token=token_text(token),
        channel=channel,
        modality=modality,
        timestamp=timestamp,
        filename=filename,
        size=(width, height),
        sensor_to_ego=rigid(row[7:10], row[10:14]),
        ego_to_global=rigid(row[14:17], row[17:21]),
        intrinsics=intrinsics,
    )


def rigid(translation: Any, quaternion: Any) -> Float64[ndarray, "4 4"]:
    """The pose of a translation and a quaternion (w, x, y, z); not-a-number where one of them is."""
    w, x, y, z = np.array(quaternion, np.float64)
    pose = np.eye(4)
    pose[:3, :3] = rotation_of_quaternion(np.array([x, y, z, w]))
    pose[:3, 3] = np.array(translation, np.float64)
    return pose


@functools.lru_cache(maxsize=32)
def _connection(path: Path, process: int, thread: int) -> sqlite3.Connection:
    """Of one process and thread: a connection must not cross either."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)


def _built(tables: Path, files: list[Path], track: Track) -> Path:
    """The file of the index. One process builds it, the others wait."""
    path = cache_folder() / "nuscenes" / f"{_digest(tables, files)[:40]}.sqlite"
    if not path.is_file():
        with exclusively(path, BUILD_SECONDS):
            if not path.is_file():
                build(tables, path, track, infos.fill if tables.is_file() else Build.run)
    return path


def _digest(tables: Path, files: list[Path]) -> str:
    """Of the contents of the tables; of large ones, of their sizes and of PARTS pieces of each."""
    about = f"nuScenes {FORMAT} {tables.name}"
    if sum(path.stat().st_size for path in files) <= SMALL:
        return digest_of_files(((path.name, path) for path in files), about)
    return digest_of_files((), about, *(_pieces(path) for path in files))


def _pieces(path: Path) -> str:
    """Digest of the size of a file, and of pieces of it: all of a small one."""
    size = path.stat().st_size
    found = hashlib.sha256(f"{path.name} {size}".encode())
    with path.open("rb") as stream:
        if size <= PARTS * PIECE:
            found.update(stream.read())
            return found.hexdigest()
        for part in range(PARTS):
            stream.seek(part * (size - PIECE) // (PARTS - 1))
            found.update(stream.read(PIECE))
    return found.hexdigest()
