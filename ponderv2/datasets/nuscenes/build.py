"""Builds the index of nuScenes: its tables as one SQLite file, joined, in the order in which they are read.

Records are streamed, and the joins of the large tables happen on disk: memory stays below some 200 MB for the
2.6 million records of the whole data set. Radars are left out. What leads nowhere is counted, left out and
reported; where most of a table does, the tables are of different versions, and nothing is built.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES
from ponderv2.datasets.nuscenes.tables import AGAIN, Record, estimated_records, records
from ponderv2.errors import SceneError
from ponderv2.io.files import replacement, temporary_path

FORMAT = 2
"""Of the index; raised whenever the same tables give another one."""
SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
CREATE TABLE scene (id INTEGER PRIMARY KEY, token, name TEXT, location TEXT);
CREATE TABLE sample (id INTEGER PRIMARY KEY, token, scene INTEGER, number INTEGER, timestamp INTEGER);
CREATE TABLE category (id INTEGER PRIMARY KEY, name TEXT, label INTEGER);
CREATE TABLE channel (id INTEGER PRIMARY KEY, name TEXT, modality TEXT);
CREATE TABLE calibration (
    id INTEGER PRIMARY KEY, x REAL, y REAL, z REAL, qw REAL, qx REAL, qy REAL, qz REAL, intrinsics TEXT
);
CREATE TABLE data (
    scene INTEGER, channel INTEGER, timestamp INTEGER, token, sample INTEGER, is_key INTEGER,
    calibration INTEGER, filename TEXT, width INTEGER, height INTEGER,
    x REAL, y REAL, z REAL, qw REAL, qx REAL, qy REAL, qz REAL,
    PRIMARY KEY (scene, channel, timestamp, token)
) WITHOUT ROWID;
CREATE TABLE lidarseg (token PRIMARY KEY, filename TEXT) WITHOUT ROWID;
CREATE TABLE box (
    sample INTEGER, number INTEGER, token, instance INTEGER, category INTEGER, attribute INTEGER,
    visibility INTEGER, n_lidar INTEGER, n_radar INTEGER, x REAL, y REAL, z REAL, width REAL, length REAL,
    height REAL, qw REAL, qx REAL, qy REAL, qz REAL, vx REAL, vy REAL, vz REAL,
    PRIMARY KEY (sample, number)
) WITHOUT ROWID;
"""
SCRATCH = """
CREATE TABLE scratch.pose (token, x, y, z, qw, qx, qy, qz);
CREATE TABLE scratch.data (
    scene, channel, timestamp, token, sample, is_key, calibration, filename, width, height, pose
);
CREATE TABLE scratch.box (
    token, sample, instance, attribute, visibility, n_lidar, n_radar, x, y, z, width, length, height,
    qw, qx, qy, qz, previous, next
);
"""
FILL_DATA = """
INSERT OR REPLACE INTO data
SELECT d.scene, d.channel, d.timestamp, d.token, d.sample, d.is_key, d.calibration, d.filename, d.width,
    d.height, p.x, p.y, p.z, p.qw, p.qx, p.qy, p.qz
FROM scratch.data d JOIN scratch.pose p ON p.token = d.pose ORDER BY d.scene, d.channel, d.timestamp, d.token
"""
FILL_BOXES = """
INSERT INTO box
SELECT b.sample, ROW_NUMBER() OVER (PARTITION BY b.sample ORDER BY b.rowid) - 1, b.token,
    b.instance % 4294967296, b.instance / 4294967296, b.attribute, b.visibility, b.n_lidar, b.n_radar,
    b.x, b.y, b.z, b.width, b.length, b.height, b.qw, b.qx, b.qy, b.qz, b.vx, b.vy, b.vz
FROM (
    SELECT b.rowid, b.*,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_x - first_x) / seconds END AS vx,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_y - first_y) / seconds END AS vy,
        CASE WHEN seconds > 0 AND seconds <= most THEN (last_z - first_z) / seconds END AS vz
    FROM (
        SELECT b.rowid, b.*,
            COALESCE(n.x, b.x) AS last_x, COALESCE(n.y, b.y) AS last_y, COALESCE(n.z, b.z) AS last_z,
            COALESCE(p.x, b.x) AS first_x, COALESCE(p.y, b.y) AS first_y, COALESCE(p.z, b.z) AS first_z,
            1e-6 * (COALESCE(ns.timestamp, s.timestamp) - COALESCE(ps.timestamp, s.timestamp)) AS seconds,
            CASE WHEN n.token IS NOT NULL AND p.token IS NOT NULL THEN 3.0 ELSE 1.5 END AS most
        FROM scratch.box b JOIN sample s ON s.id = b.sample
            LEFT JOIN scratch.box p ON p.token = b.previous LEFT JOIN sample ps ON ps.id = p.sample
            LEFT JOIN scratch.box n ON n.token = b.next LEFT JOIN sample ns ON ns.id = n.sample
    ) b
) b
"""
"""Velocities as the development kit computes them: between the neighbours of an annotation, over the times of
their samples; one-sided at the ends of a track; unknown (NULL) over more than 1.5 s, 3 s between two
neighbours."""
AT_ONCE = 20_000
"""Records of one call."""


LARGE = 32 * 2**20
"""Bytes of a table whose progress is shown."""


@runtime_checkable
class Track(Protocol):
    """Shows progress: the same records, of which there are about `total`."""

    def __call__(self, iterable: Iterable[Record], label: str, total: int | None) -> Iterable[Record]:
        """The records, one by one."""
        ...


def untracked(iterable: Iterable[Record], label: str, total: int | None) -> Iterable[Record]:
    """Shows nothing."""
    return iterable


def token_key(token: Any) -> bytes | str:
    """What stands for a token in the index: half the bytes where it is hexadecimal."""
    if not isinstance(token, str):
        raise TypeError(f"a token is text, not {token!r}"[:80])
    if len(token) == 32:
        try:
            made = bytes.fromhex(token)
        except ValueError:
            return token
        if made.hex() == token:
            return made
    return token


def token_text(key: bytes | str) -> str:
    """The token of a key."""
    return key.hex() if isinstance(key, bytes) else key


def inside(name: Any) -> str | None:
    """The name of a file below the folder of the data; None where it leads out of it, or is no name."""
    if not isinstance(name, str) or not name or "\0" in name or "\\" in name or ":" in name.split("/")[0]:
        return None
    return None if name.startswith("/") or ".." in name.split("/") else name


@dataclass
class _References:
    """References of one kind from the records of a table."""

    what: str
    of: str
    table: str
    """That holds what they lead to."""
    total: int = 0
    lost: int = 0
    example: str = ""

    def follow(self, found: Any, token: Any) -> bool:
        """Counts one; whether it leads anywhere."""
        self.total += 1
        if found is not None:
            return True
        self.lost += 1
        self.example = self.example or str(token)
        return False

    def problem(self) -> str | None:
        """What is to be reported. Raises SceneError where most lead nowhere."""
        if not self.lost:
            return None
        place = f"in {self.table}.json" if self.table else "below the folder of the data"
        words = (
            f"{self.lost} of {self.total} {self.of} name {self.what} that is not {place} "
            f"('{self.example[:40]}')"
        )
        if 2 * self.lost > self.total and not self.table:
            raise SceneError(words, fix="names of files start at the folder of samples/ and sweeps/")
        if 2 * self.lost > self.total:
            raise SceneError(f"{words}: the tables are of different versions", fix=AGAIN)
        return f"{words}; they are left out"


@dataclass
class Build:
    """One index in the making."""

    tables: Path
    database: sqlite3.Connection
    problems: list[str] = field(default_factory=list)
    references: list[_References] = field(default_factory=list)
    samples: dict[bytes | str, tuple[int, int, int]] = field(default_factory=dict)
    """Number in the index, scene and time of each."""
    track: Track = untracked
    """Shows the progress of large tables."""

    def run(self) -> None:
        """Every table. Raises SceneError."""
        self._samples(self._scenes())
        self._data()
        self._boxes()
        lost = [one.problem() for one in self.references]
        self.problems += [one for one in lost if one is not None]

    def _scenes(self) -> dict[bytes | str, int]:
        """Numbers of the scenes."""
        logs: dict[str, str] = {}
        if (self.tables / "log.json").is_file():
            for number, one in enumerate(records(self.tables / "log.json")):
                with self._reported("log", number):
                    logs[str(one.get("token"))] = str(one.get("location", ""))
        found: dict[bytes | str, int] = {}

        def row(one: Record) -> tuple[Any, ...]:
            key = token_key(one["token"])
            found[key] = len(found)
            return found[key], key, str(one["name"]), logs.get(str(one.get("log_token")), "")

        self._insert("INSERT INTO scene VALUES (?, ?, ?, ?)", self._rows("scene", row))
        return found

    def _samples(self, scenes: dict[bytes | str, int]) -> None:
        """Numbered within their scene by time."""
        lost = self._references("a scene", "samples", "scene")
        rows: list[tuple[int, int, bytes | str, bytes | str]] = []

        def row(one: Record) -> None:
            scene = scenes.get(token_key(one["scene_token"]))
            if lost.follow(scene, one["scene_token"]) and scene is not None:
                rows.append(
                    (scene, _whole(one["timestamp"]), token_key(one["token"]), token_key(one["next"]))
                )

        for _ in self._rows("sample", row):
            pass
        rows.sort(key=lambda one: one[:2])
        self._check_order(rows)
        numbers: dict[int, int] = {}
        made: list[tuple[Any, ...]] = []
        for index, (scene, timestamp, token, _) in enumerate(rows):
            numbers[scene] = numbers.get(scene, -1) + 1
            self.samples[token] = (index, scene, timestamp)
            made.append((index, token, scene, numbers[scene], timestamp))
        self._insert("INSERT INTO sample VALUES (?, ?, ?, ?, ?)", made)
        self.database.execute("CREATE INDEX sample_of_scene ON sample (scene, number)")

    def _check_order(self, rows: list[tuple[int, int, bytes | str, bytes | str]]) -> None:
        """Whether the chains of `next` follow the times."""
        following = {one[2]: other for one, other in zip(rows, [*rows[1:], None], strict=False)}
        wrong = 0
        for scene, _, token, after in rows:
            other = following[token]
            expected = other[2] if other is not None and other[0] == scene else ""
            wrong += after != expected
        if wrong:
            self.problems.append(
                f"{wrong} of {len(rows)} samples are not followed by the next one in time: timestamps are "
                "out of order, or tokens lead nowhere; samples are read in the order of their times"
            )

    def _sensors(self) -> dict[bytes | str, tuple[int, int]]:
        """Number and channel of each calibrated sensor that is no radar."""
        channels: dict[bytes | str, tuple[int, str, str]] = {}

        def channel(one: Record) -> tuple[Any, ...]:
            made = (len(channels), str(one["channel"]), str(one["modality"]))
            channels[token_key(one["token"])] = made
            return made

        self._insert("INSERT INTO channel VALUES (?, ?, ?)", self._rows("sensor", channel))
        lost = self._references("a sensor", "calibrated sensors", "sensor")
        found: dict[bytes | str, tuple[int, int]] = {}

        def calibration(one: Record) -> tuple[Any, ...] | None:
            sensor = channels.get(token_key(one["sensor_token"]))
            if not lost.follow(sensor, one["sensor_token"]) or sensor is None:
                return None
            found[token_key(one["token"])] = (len(found), -1 if sensor[2] == "radar" else sensor[0])
            intrinsics = json.dumps(one["camera_intrinsic"]) if one["camera_intrinsic"] else None
            return len(found) - 1, *_pose(one), intrinsics

        rows = self._rows("calibrated_sensor", calibration)
        self._insert(f"INSERT INTO calibration VALUES ({_marks(9)})", rows)
        return found

    def _data(self) -> None:
        """Measurements of cameras and LiDARs with the pose of the vehicle at their time."""
        sensors = self._sensors()

        def pose(one: Record) -> tuple[Any, ...]:
            return token_key(one["token"]), *_pose(one)

        self._insert(f"INSERT INTO scratch.pose VALUES ({_marks(8)})", self._rows("ego_pose", pose))
        self.database.execute("CREATE INDEX scratch.pose_of ON pose (token)")
        no_sample = self._references("a sample", "measurements", "sample")
        no_sensor = self._references("a calibrated sensor", "measurements", "calibrated_sensor")
        outside = self._references("a file", "measurements", "")

        def measured(one: Record) -> tuple[Any, ...] | None:
            sample = self.samples.get(token_key(one["sample_token"]))
            sensor = sensors.get(token_key(one["calibrated_sensor_token"]))
            there = no_sensor.follow(sensor, one["calibrated_sensor_token"])
            if (
                not no_sample.follow(sample, one["sample_token"])
                or not there
                or sensor is None
                or sample is None
            ):
                return None
            if sensor[1] < 0:
                return None
            if not outside.follow(inside(one["filename"]), one["filename"]):
                return None
            when, token, file = _whole(one["timestamp"]), token_key(one["token"]), str(one["filename"])
            size, is_key = (_whole(one["width"]), _whole(one["height"])), bool(one["is_key_frame"])
            what = (sample[1], sensor[1], when, token, sample[0], is_key, sensor[0], file)
            return *what, *size, token_key(one["ego_pose_token"])

        self._insert(f"INSERT INTO scratch.data VALUES ({_marks(11)})", self._rows("sample_data", measured))
        no_pose = self._references("an ego pose", "measurements", "ego_pose")
        lost = self.database.execute(
            "SELECT COUNT(*), MIN(HEX(pose)) FROM scratch.data "
            "WHERE pose NOT IN (SELECT token FROM scratch.pose)"
        ).fetchone()
        no_pose.total = self.database.execute("SELECT COUNT(*) FROM scratch.data").fetchone()[0]
        no_pose.lost, no_pose.example = lost[0], str(lost[1] or "").lower()
        self.database.execute(FILL_DATA)
        self.database.execute("CREATE INDEX key_data ON data (sample) WHERE is_key")
        if (self.tables / "lidarseg.json").is_file():
            outside = self._references("a file", "labels", "")
            rows = self._rows(
                "lidarseg",
                lambda one: (
                    (token_key(one["sample_data_token"]), one["filename"])
                    if outside.follow(inside(one["filename"]), one["filename"])
                    else None
                ),
            )
            self._insert("INSERT OR REPLACE INTO lidarseg VALUES (?, ?)", rows)

    def _objects(self) -> dict[bytes | str, int]:
        """Category and number of each instance in one whole number: category * 2^32 + number."""
        categories: dict[bytes | str, int] = {}

        def category(one: Record) -> tuple[Any, ...]:
            number = categories.setdefault(token_key(one["token"]), len(categories))
            label = one.get("index")
            return number, str(one["name"]), None if label is None else _whole(label)

        self._insert("INSERT INTO category VALUES (?, ?, ?)", self._rows("category", category))
        lost = self._references("a category", "instances", "category")
        found: dict[bytes | str, int] = {}
        for number, one in enumerate(records(self.tables / "instance.json")):
            with self._reported("instance", number):
                of = categories.get(token_key(one["category_token"]))
                if lost.follow(of, one["category_token"]) and of is not None:
                    found[token_key(one["token"])] = of * 2**32 + number
        return found

    def _attributes(self) -> dict[bytes | str, int]:
        names = {name: number for number, name in enumerate(ATTRIBUTES)}
        found: dict[bytes | str, int] = {}
        for number, one in enumerate(records(self.tables / "attribute.json")):
            with self._reported("attribute", number):
                found[token_key(one["token"])] = names.get(str(one["name"]), -1)
        return found

    def _boxes(self) -> None:
        instances, attributes = self._objects(), self._attributes()
        no_sample = self._references("a sample", "annotations", "sample")
        no_instance = self._references("an instance", "annotations", "instance")

        def box(one: Record) -> tuple[Any, ...] | None:
            sample = self.samples.get(token_key(one["sample_token"]))
            instance = instances.get(token_key(one["instance_token"]))
            there = no_instance.follow(instance, one["instance_token"])
            if not no_sample.follow(sample, one["sample_token"]) or not there or sample is None:
                return None
            named = [attributes.get(token_key(token), -1) for token in one["attribute_tokens"]]
            seen = str(one.get("visibility_token") or "")
            about = (named[0] if named else -1, int(seen) if seen.isdigit() else 0)
            counts = (_whole(one.get("num_lidar_pts", -1)), _whole(one.get("num_radar_pts", -1)))
            x, y, z, *turn = _pose(one)
            width, length, height = map(_number, one["size"])
            chain = (_or_none(one["prev"]), _or_none(one["next"]))
            what = (token_key(one["token"]), sample[0], instance, *about, *counts)
            return *what, x, y, z, width, length, height, *turn, *chain

        self._insert(f"INSERT INTO scratch.box VALUES ({_marks(19)})", self._rows("sample_annotation", box))
        self.database.execute("CREATE INDEX scratch.box_of ON box (token)")
        for column in ("previous", "next"):
            lost = self._references("a neighbour", "annotations", "sample_annotation")
            counted = self.database.execute(
                f"SELECT COUNT(*), MIN(HEX({column})) FROM scratch.box "
                f"WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT token FROM scratch.box)"
            ).fetchone()
            there = self.database.execute(f"SELECT COUNT({column}) FROM scratch.box").fetchone()
            lost.lost, lost.example, lost.total = counted[0], str(counted[1] or "").lower(), there[0]
        self.database.execute(FILL_BOXES)

    def _references(self, what: str, of: str, table: str) -> _References:
        made = _References(what, of, table)
        self.references.append(made)
        return made

    def _rows(self, table: str, row: Callable[[Record], Any]) -> Iterator[tuple[Any, ...]]:
        """What `row` makes of the records, without None. Raises SceneError for one that lacks something."""
        path = self.tables / f"{table}.json"
        every = records(path)
        if path.stat().st_size > LARGE:
            every = self.track(every, f"index of {table}", estimated_records(path))
        for number, one in enumerate(every):
            with self._reported(table, number):
                made = row(one)
            if made is not None:
                yield made

    def _reported(self, table: str, number: int) -> _Reported:
        return _Reported(self.tables / f"{table}.json", number)

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        iterator = iter(rows)
        while chunk := list(islice(iterator, AT_ONCE)):
            try:
                self.database.executemany(statement, chunk)
            except UnicodeEncodeError as error:
                raise SceneError(f"{self.tables} holds text that is no text: {error}", fix=AGAIN) from error


@dataclass(frozen=True)
class _Reported:
    """Turns what is wrong with a record into a message."""

    path: Path
    number: int

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, KeyError | TypeError | ValueError | OverflowError):
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SceneError(
                f"record {self.number} of {self.path} cannot be used: {why}", fix=AGAIN
            ) from error


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _pose(one: Record) -> tuple[float, ...]:
    """Translation and quaternion (w, x, y, z); SQLite stores not-a-number as NULL."""
    x, y, z = map(_number, one["translation"])
    qw, qx, qy, qz = map(_number, one["rotation"])
    return x, y, z, qw, qx, qy, qz


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"expected a number, got {value!r}"[:80])
    return math.nan if value is None else float(value)


def _whole(value: Any) -> int:
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or value != int(value)
        or abs(value) >= 2**63
    ):
        raise TypeError(f"expected a whole number, got {value!r}"[:80])
    return int(value)


def _or_none(token: Any) -> bytes | str | None:
    return token_key(token) or None


def build(
    tables: Path, target: Path, track: Track = untracked, fill: Callable[[Build], None] = Build.run
) -> None:
    """The index of the tables in a folder, written whole or not at all; of other sources by another `fill`.

    Raises SceneError for tables that cannot be used, OutputError where it cannot be written.
    """
    with replacement(target, fix="set PONDER_CACHE to a folder with free space") as path:
        scratch = temporary_path(target.with_suffix(".scratch"))
        database = sqlite3.connect(path)
        try:
            database.executescript(
                "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -65536;"
            )
            database.execute("ATTACH DATABASE ? AS scratch", (str(scratch),))
            database.executescript("PRAGMA scratch.journal_mode = OFF; PRAGMA scratch.synchronous = OFF;")
            database.executescript(SCHEMA + SCRATCH)
            made = Build(tables, database, track=track)
            fill(made)
            meta = {"format": FORMAT, "version": tables.name, "problems": json.dumps(made.problems)}
            database.executemany("INSERT INTO meta VALUES (?, ?)", meta.items())
            database.commit()
        except sqlite3.Error as error:
            raise OSError(None, f"SQLite: {error}") from error
        finally:
            database.close()
            scratch.unlink(missing_ok=True)
