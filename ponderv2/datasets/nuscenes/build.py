"""Builds the index of nuScenes: its tables as one SQLite file, joined, in the order in which they are read.

Records are streamed, and the joins of the large tables happen on disk: memory stays below some 200 MB for the
2.6 million records of the whole data set. Radars are left out. What leads nowhere is counted, left out and
reported; where most of a table does, the tables are of different versions, and nothing is built.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES
from ponderv2.datasets.nuscenes.schema import FILL_BOXES, FILL_DATA, FORMAT, SCHEMA, SCRATCH
from ponderv2.datasets.nuscenes.tables import AGAIN, Record, estimated_records, records
from ponderv2.datasets.nuscenes.values import (
    References,
    Reported,
    flag_of,
    inside,
    number_of,
    pose_of,
    text_of,
    token_key,
    token_or_none,
    whole_of,
)
from ponderv2.errors import SceneError
from ponderv2.io.files import replacement, temporary_path

AT_ONCE = 20_000
"""Records of one call."""
LARGE = 32 * 2**20
"""Bytes of a table whose progress is shown."""
MODALITIES = ("camera", "lidar", "radar")
STREAMED = ("ego_pose", "sample_data", "sample_annotation", "lidarseg")
"""Tables whose tokens are not kept in memory: what is there twice is found when they are joined."""


@runtime_checkable
class Track(Protocol):
    """Shows progress: the same records, of which there are about `total`."""

    def __call__(self, iterable: Iterable[Record], label: str, total: int | None) -> Iterable[Record]:
        """The records, one by one."""
        ...


def untracked(iterable: Iterable[Record], label: str, total: int | None) -> Iterable[Record]:
    """Shows nothing."""
    return iterable


@dataclass
class Build:
    """One index in the making."""

    tables: Path
    database: sqlite3.Connection
    problems: list[str] = field(default_factory=list)
    references: list[References] = field(default_factory=list)
    samples: dict[bytes | str, tuple[int, int, int]] = field(default_factory=dict)
    """Number in the index, scene and time of each."""
    repeated: Counter[str] = field(default_factory=Counter)
    """Records by table that have the token of an earlier one."""
    track: Track = untracked
    """Shows the progress of large tables."""

    def run(self) -> None:
        """Every table. Raises SceneError."""
        self._samples(self._scenes())
        self._data()
        self._boxes()
        lost = [one.problem() for one in self.references]
        self.problems += [one for one in lost if one is not None]
        self.problems += [
            f"{number} records of {table}.json have the token of an earlier one; they are left out"
            for table, number in self.repeated.items()
            if number
        ]

    def _scenes(self) -> dict[bytes | str, int]:
        """Numbers of the scenes."""
        logs: dict[str, str] = {}
        if (self.tables / "log.json").is_file():
            for number, one in enumerate(records(self.tables / "log.json")):
                with self._reported("log", number):
                    token = str(one.get("token"))
                    self.repeated["log"] += token in logs
                    logs.setdefault(token, str(one.get("location", "")))
        found: dict[bytes | str, int] = {}

        def row(one: Record) -> tuple[Any, ...]:
            key = token_key(one["token"])
            found[key] = len(found)
            return found[key], key, text_of(one["name"]), logs.get(str(one.get("log_token")), "")

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
                    (scene, whole_of(one["timestamp"]), token_key(one["token"]), token_key(one["next"]))
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
        at_once = sum(one[:2] == other[:2] for one, other in pairwise(rows))
        if at_once:
            self.problems.append(f"{at_once} of {len(rows)} samples have the timestamp of the one before")
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
            made = (len(channels), text_of(one["channel"]), text_of(one["modality"]))
            if made[2] not in MODALITIES:
                raise ValueError(f"the modality of a sensor is {', '.join(MODALITIES)}, not {made[2][:40]!r}")
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
            return len(found) - 1, *pose_of(one), intrinsics

        rows = self._rows("calibrated_sensor", calibration)
        self._insert(f"INSERT INTO calibration VALUES ({_marks(9)})", rows)
        return found

    def _data(self) -> None:
        """Measurements of cameras and LiDARs with the pose of the vehicle at their time."""
        sensors = self._sensors()

        def placed(one: Record) -> tuple[Any, ...]:
            return token_key(one["token"]), *pose_of(one)

        self._insert(f"INSERT INTO scratch.pose VALUES ({_marks(8)})", self._rows("ego_pose", placed))
        self.database.execute("CREATE INDEX scratch.pose_of ON pose (token)")
        self._leave_out_repeated("ego_pose", "pose")
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
            when, token, file = whole_of(one["timestamp"]), token_key(one["token"]), str(one["filename"])
            size, is_key = (whole_of(one["width"]), whole_of(one["height"])), flag_of(one["is_key_frame"])
            what = (sample[1], sensor[1], when, token, sample[0], is_key, sensor[0], file)
            return *what, *size, token_key(one["ego_pose_token"])

        self._insert(f"INSERT INTO scratch.data VALUES ({_marks(11)})", self._rows("sample_data", measured))
        self.database.execute("CREATE INDEX scratch.data_of ON data (token)")
        self._leave_out_repeated("sample_data", "data")
        no_pose = self._references("an ego pose", "measurements", "ego_pose")
        lost = self._one(
            "SELECT COUNT(*), MIN(HEX(pose)) FROM scratch.data "
            "WHERE pose NOT IN (SELECT token FROM scratch.pose)"
        )
        (total,) = self._one("SELECT COUNT(*) FROM scratch.data")
        no_pose.count(lost, total)
        self.database.execute(FILL_DATA)
        (filled,) = self._one("SELECT COUNT(*) FROM data")
        (times,) = self._one("SELECT COUNT(*) FROM (SELECT 1 FROM data GROUP BY scene, channel, timestamp)")
        if times < filled:
            self.problems.append(
                f"{filled - times} of {filled} measurements in sample_data.json have the time of another "
                "of their sensor, and are no earlier sweeps of it"
            )
        self.database.execute("CREATE INDEX key_data ON data (sample) WHERE is_key")
        self._labels()

    def _labels(self) -> None:
        """Files of lidar segmentation."""
        if (self.tables / "lidarseg.json").exists():
            outside = self._references("a file", "labels", "")
            rows = self._rows(
                "lidarseg",
                lambda one: (
                    (token_key(one["sample_data_token"]), one["filename"])
                    if outside.follow(inside(one["filename"]), one["filename"])
                    else None
                ),
            )
            before = self.database.total_changes
            seen = count()
            self._insert(
                "INSERT OR IGNORE INTO lidarseg VALUES (?, ?)",
                (row for row, _ in zip(rows, seen, strict=False)),
            )
            self.repeated["lidarseg"] += next(seen) - (self.database.total_changes - before)
            lost = self._one(
                "SELECT COUNT(*), MIN(HEX(token)) FROM lidarseg "
                "WHERE token NOT IN (SELECT token FROM data WHERE is_key)"
            )
            (total,) = self._one("SELECT COUNT(*) FROM lidarseg")
            self._references("a key frame", "labels of lidarseg.json", "sample_data").count(lost, total)

    def _objects(self) -> dict[bytes | str, int]:
        """Category and number of each instance in one whole number: category * 2^32 + number."""
        categories: dict[bytes | str, int] = {}

        def category(one: Record) -> tuple[Any, ...]:
            number = categories.setdefault(token_key(one["token"]), len(categories))
            label = one.get("index")
            return number, text_of(one["name"]), None if label is None else whole_of(label)

        self._insert("INSERT INTO category VALUES (?, ?, ?)", self._rows("category", category))
        lost = self._references("a category", "instances", "category")
        found: dict[bytes | str, int] = {}
        numbers = count()

        def instance(one: Record) -> None:
            of, number = categories.get(token_key(one["category_token"])), next(numbers)
            if lost.follow(of, one["category_token"]) and of is not None:
                found[token_key(one["token"])] = of * 2**32 + number

        for _ in self._rows("instance", instance):
            pass
        return found

    def _attributes(self) -> dict[bytes | str, int]:
        names = {name: number for number, name in enumerate(ATTRIBUTES)}
        found: dict[bytes | str, int] = {}

        def attribute(one: Record) -> None:
            found[token_key(one["token"])] = names.get(text_of(one["name"]), -1)

        for _ in self._rows("attribute", attribute):
            pass
        return found

    def _boxes(self) -> None:
        instances, attributes = self._objects(), self._attributes()
        no_sample = self._references("a sample", "annotations", "sample")
        no_instance = self._references("an instance", "annotations", "instance")
        no_attribute = self._references("an attribute", "annotations", "attribute")

        def box(one: Record) -> tuple[Any, ...] | None:
            sample = self.samples.get(token_key(one["sample_token"]))
            instance = instances.get(token_key(one["instance_token"]))
            there = no_instance.follow(instance, one["instance_token"])
            if not no_sample.follow(sample, one["sample_token"]) or not there or sample is None:
                return None
            named = _attributes_of(one, attributes, no_attribute)
            seen = str(one.get("visibility_token") or "")
            about = (named[0] if named else -1, int(seen) if seen.isdigit() else 0)
            counts = (whole_of(one.get("num_lidar_pts", -1)), whole_of(one.get("num_radar_pts", -1)))
            x, y, z, *turn = pose_of(one)
            width, length, height = map(number_of, one["size"])
            chain = (token_or_none(one["prev"]), token_or_none(one["next"]))
            what = (token_key(one["token"]), sample[0], instance, *about, *counts)
            return *what, x, y, z, width, length, height, *turn, *chain

        self._insert(f"INSERT INTO scratch.box VALUES ({_marks(19)})", self._rows("sample_annotation", box))
        self.database.execute("CREATE INDEX scratch.box_of ON box (token)")
        self._leave_out_repeated("sample_annotation", "box")
        for column in ("previous", "next"):
            lost = self._references("a neighbour", "annotations", "sample_annotation")
            counted = self._one(
                f"SELECT COUNT(*), MIN(HEX({column})) FROM scratch.box "
                f"WHERE {column} IS NOT NULL AND {column} NOT IN (SELECT token FROM scratch.box)"
            )
            lost.count(counted, *self._one(f"SELECT COUNT({column}) FROM scratch.box"))
        self.database.execute(FILL_BOXES)

    def _references(self, what: str, of: str, table: str) -> References:
        made = References(what, of, table)
        self.references.append(made)
        return made

    def _rows(self, table: str, row: Callable[[Record], Any]) -> Iterator[tuple[Any, ...]]:
        """What `row` makes of the records, without None. Raises SceneError for one that lacks something.

        Outside of STREAMED tables a record with the token of an earlier one is left out and counted.
        """
        path = self.tables / f"{table}.json"
        known: set[bytes | str] | None = None if table in STREAMED else set()
        every = records(path)
        if path.stat().st_size > LARGE:
            every = self.track(every, f"index of {table}", estimated_records(path))
        for number, one in enumerate(every):
            with self._reported(table, number):
                if known is not None:
                    token = token_key(one["token"])
                    if token in known:
                        self.repeated[table] += 1
                        continue
                    known.add(token)
                made = row(one)
            if made is not None:
                yield made

    def _leave_out_repeated(self, table: str, scratch: str) -> None:
        """Of records with one token the first counts. There is an index of tokens."""
        twice = f"SELECT token FROM scratch.{scratch} GROUP BY token HAVING COUNT(*) > 1"
        if self.database.execute(f"{twice} LIMIT 1").fetchone() is not None:
            first = f"SELECT MIN(rowid) FROM scratch.{scratch} GROUP BY token"
            deleted = self.database.execute(f"DELETE FROM scratch.{scratch} WHERE rowid NOT IN ({first})")
            self.repeated[table] += deleted.rowcount

    def _one(self, statement: str) -> Any:
        return self.database.execute(statement).fetchone()

    def _reported(self, table: str, number: int) -> Reported:
        return Reported(self.tables / f"{table}.json", number)

    def _insert(self, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
        iterator = iter(rows)
        while chunk := list(islice(iterator, AT_ONCE)):
            try:
                self.database.executemany(statement, chunk)
            except UnicodeEncodeError as error:
                raise SceneError(f"{self.tables} holds text that is no text: {error}", fix=AGAIN) from error


def _attributes_of(one: Record, known: dict[bytes | str, int], lost: References) -> list[int]:
    """Numbers of the attributes of an annotation, -1 = of no name that is known."""
    tokens = one["attribute_tokens"]
    if not isinstance(tokens, list):
        raise TypeError(f"attribute_tokens are a list, not {tokens!r}"[:80])
    found = [known.get(token_key(token)) for token in tokens]
    for token, number in zip(tokens, found, strict=True):
        lost.follow(number, token)
    return [-1 if number is None else number for number in found]


def _marks(count: int) -> str:
    return ", ".join("?" * count)


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
