"""A drive as a value, and its file drive.json: sensors, what they measured when and where, boxes.

    {"sensors": {"top": {"kind": "lidar", "sensor_to_vehicle": POSE, "columns": ["intensity", "ring"]},
                 "front": {"kind": "camera", "sensor_to_vehicle": POSE, "intrinsics": [[...], [...], [...]]}},
     "measurements": [{"sensor": "top", "time": 0.0, "file": "top/000.bin", "vehicle_to_world": POSE}, ...],
     "boxes": [{"time": 0.0, "center": [x, y, z], "size": [length, width, height], "yaw": 0.0,
                "category": "car", "instance": 3, "velocity": [x, y, z]}, ...],
     "box_classes": ["car", ...], "classes": ["road", ...]}

A POSE is 4 x 4 numbers or {"translation": [x, y, z], "rotation": [w, x, y, z]}. Metres, seconds, radians; the
world and the LiDAR have z up, cameras look along z with y down. Boxes are in the world. A scan may name its
`labels`, a .npy file with a class per point.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64
from numpy import ndarray

from ponderv2.datasets.lidar_files import is_file_name
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import rotation_of_quaternion
from ponderv2.io.files import digest_of_file
from ponderv2.io.text import read_json


@dataclass(frozen=True)
class DriveBox:
    """A box in the world."""

    pose: Float64[ndarray, "4 4"]
    """Box to world: x is its heading."""
    size: tuple[float, float, float]
    """Length, width, height."""
    category: str
    instance: int = -1
    velocity: tuple[float, float, float] = (np.nan, np.nan, np.nan)
    n_points: int = -1


@dataclass(frozen=True)
class Scan:
    """What a LiDAR measured."""

    sensor: str
    time: float
    path: Path
    sensor_to_world: Float64[ndarray, "4 4"]
    columns: tuple[str, ...] = ("intensity",)
    intensity_scale: float = 1.0
    labels: Path | None = None
    boxes: tuple[DriveBox, ...] | None = None
    """None: not annotated, or in a file."""
    boxes_path: Path | None = None
    """File of DGP with boxes in the frame of the LiDAR."""


@dataclass(frozen=True)
class Image:
    """What a camera measured."""

    sensor: str
    time: float
    path: Path
    sensor_to_world: Float64[ndarray, "4 4"]
    intrinsics: Float64[ndarray, "3 3"]
    distorted: bool = False
    """Whether the lens is no pinhole."""


@dataclass(frozen=True)
class Drive:
    """One recording."""

    name: str
    split: str
    scans: tuple[Scan, ...]
    images: tuple[Image, ...]
    box_classes: tuple[str, ...]
    classes: tuple[str, ...]
    source: str
    """What the file says, for the digest."""
    problems: tuple[str, ...] = ()
    """What was left out."""
    class_ids: Mapping[int, str] = field(default_factory=dict)
    """Names of classes by the numbers in files of boxes of DGP."""


def read_drive(path: Path, split: str) -> Drive:
    """A drive.json. Raises SceneError with what is wrong in it."""
    return _read_drive(path, split, digest_of(path))


def digest_of(*paths: Path) -> str:
    """Of the contents of files that are there. Raises SceneError for one that cannot be read."""
    try:
        return " ".join(digest_of_file(path) for path in paths)
    except OSError as error:
        why = f"cannot read {error.filename}: {error.strerror or error}"
        raise SceneError(why, fix="copy the file again") from error


@functools.lru_cache(maxsize=16)
def _read_drive(path: Path, split: str, digest: str) -> Drive:
    values = read_json(path)
    try:
        sensors = {str(name): dict(one) for name, one in values["sensors"].items()}
        boxes = None if "boxes" not in values else TimedBoxes.of([_box(one) for one in values["boxes"]])
        scans: list[Scan] = []
        images: list[Image] = []
        for one in values["measurements"]:
            sensor = sensors[one["sensor"]]
            with np.errstate(all="ignore"):
                place = pose_of(one["vehicle_to_world"]) @ pose_of(sensor["sensor_to_vehicle"])
            where = (
                str(one["sensor"]),
                float(one["time"]),
                file_of(path.parent, one["file"], "file"),
                place,
            )
            if sensor["kind"] == "camera":
                distorted = bool(np.any(np.array(sensor.get("distortion", 0.0), np.float64)))
                images.append(Image(*where, np.array(sensor["intrinsics"], np.float64), distorted))
            elif sensor["kind"] == "lidar":
                scans.append(_scan(where, sensor, one, path.parent, boxes))
            else:
                raise ValueError(f"a sensor is a lidar or a camera, not {sensor['kind']!r}")
        return Drive(
            name=path.parent.name,
            split=split,
            scans=tuple(sorted(scans, key=lambda scan: scan.time)),
            images=tuple(images),
            box_classes=names_of(values.get("box_classes", []), "box_classes"),
            classes=names_of(values.get("classes", []), "classes"),
            source=str(values),
            problems=_problems(path, tuple(scans), boxes),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
        raise SceneError(
            f"{path} is no drive: {why[:200]}", fix="docs/driving.md describes the file"
        ) from error


@dataclass(frozen=True)
class TimedBoxes:
    """The boxes of a drive, found by time without looking at all of them."""

    boxes: tuple[DriveBox, ...]
    """In the order of the file."""
    times: Float64[ndarray, " box"]
    """Seconds, sorted."""
    order: Int64[ndarray, " box"]
    """Place in `boxes` of each of the times."""

    @staticmethod
    def of(timed: Sequence[tuple[float, DriveBox]]) -> TimedBoxes:
        """Of boxes with their times, in any order."""
        times = np.array([time for time, _ in timed], np.float64)
        order = np.argsort(times, kind="stable")
        return TimedBoxes(tuple(box for _, box in timed), times[order], order)

    def at(self, time: float) -> tuple[DriveBox, ...]:
        """Those within SAME_TIME of a time, in the order of the file."""
        return tuple(self.boxes[place] for place in sorted(self._near(time).tolist()))

    def elsewhen(self, times: Iterable[float]) -> list[float]:
        """Times of the boxes, in the order of the file, that are of none of these times."""
        lost = np.ones(len(self.boxes), bool)
        for time in set(times):
            lost[self._near(time)] = False
        stored = np.empty(len(self.boxes))
        stored[self.order] = self.times
        return stored[lost].tolist()

    def _near(self, time: float) -> Int64[ndarray, " box"]:
        """Places of boxes. The bounds of the search are wide: the difference decides at SAME_TIME itself."""
        lower = np.searchsorted(self.times, time - 2 * SAME_TIME, side="left")
        upper = np.searchsorted(self.times, time + 2 * SAME_TIME, side="right")
        with np.errstate(invalid="ignore"):  # infinity - infinity
            near = np.abs(self.times[lower:upper] - time) < SAME_TIME
        return self.order[lower:upper][near]


def _problems(path: Path, scans: tuple[Scan, ...], boxes: TimedBoxes | None) -> tuple[str, ...]:
    lost = [] if boxes is None else boxes.elsewhen(scan.time for scan in scans)
    found = (
        [f"{len(lost)} of {len(boxes.boxes)} boxes in {path} are of the time of no scan ({lost[0]:g} s)"]
        if boxes is not None and lost
        else []
    )
    times = sorted((scan.sensor, scan.time) for scan in scans)
    same = [sensor for (sensor, time), other in pairwise(times) if (sensor, time) == other]
    if same:
        found.append(f"{len(same)} scans of {same[0]} in {path} are of the time of another one")
    return tuple(found)


def names_of(values: Any, what: str) -> tuple[str, ...]:
    """A list of names. Raises TypeError for anything else."""
    if not isinstance(values, list) or not all(isinstance(one, str) for one in values):
        raise TypeError(f"{what} are a list of names, not {values!r}"[:120])
    return tuple(values)


def name_of(value: Any, what: str) -> str:
    """A name. Raises TypeError for anything else."""
    if not isinstance(value, str) or not value:
        raise TypeError(f"{what} is a name, not {value!r}"[:120])
    return value


def whole(value: Any) -> int:
    """A whole number of 64 bits. Raises TypeError or ValueError for anything else."""
    if abs(int(value)) >= 2**63:
        raise ValueError(f"expected a whole number of 64 bits, not {value!r}"[:120])
    return int(value)


def file_of(folder: Path, name: Any, what: str) -> Path:
    """A file by its name in the folder of the drive; names of Windows have backslashes.

    Raises TypeError or ValueError for what is no name.
    """
    if not is_file_name(name_of(name, what)):
        raise ValueError(f"{what} is no name of a file: {name!r}"[:120])
    path = folder / name
    return folder / name.replace("\\", "/") if "\\" in name and not path.exists() else path


def three(values: Any, what: str) -> Float64[ndarray, "3"]:
    """Three numbers. Raises TypeError or ValueError for anything else."""
    made = np.array(values, np.float64)
    if made.shape != (3,):
        raise ValueError(f"{what} are three numbers, not {values!r}"[:120])
    return made


def _scan(
    where: tuple[str, float, Path, ndarray],
    sensor: dict[str, Any],
    one: dict[str, Any],
    folder: Path,
    boxes: TimedBoxes | None,
) -> Scan:
    scale = float(sensor.get("intensity_scale", 1.0))
    if not 0.0 < scale < np.inf:
        raise ValueError(f"intensity_scale is a positive number, not {scale}")
    return Scan(
        *where,
        columns=names_of(sensor.get("columns", ["intensity"]), "columns"),
        intensity_scale=scale,
        labels=file_of(folder, one["labels"], "labels") if one.get("labels") else None,
        boxes=None if boxes is None else boxes.at(where[1]),
    )


def _box(one: dict[str, Any]) -> tuple[float, DriveBox]:
    pose = np.eye(4)
    with np.errstate(invalid="ignore"):
        cosine, sine = np.cos(float(one["yaw"])), np.sin(float(one["yaw"]))
    pose[:2, :2] = [[cosine, -sine], [sine, cosine]]
    pose[:3, 3] = three(one["center"], "center")
    length, width, height = map(float, one["size"])
    vx, vy, vz = map(float, one.get("velocity", (np.nan, np.nan, np.nan)))
    category, instance = name_of(one["category"], "category"), whole(one.get("instance", -1))
    box = DriveBox(pose, (length, width, height), category, instance, (vx, vy, vz))
    return float(one["time"]), box


SAME_TIME = 1e-3
"""Seconds between a scan and its boxes, at most."""
SINGULAR = 1e-9
"""Determinant up to which a matrix is no pose."""


def pose_of(value: Any) -> Float64[ndarray, "4 4"]:
    """4 x 4 numbers, or a translation and a quaternion (w, x, y, z). Raises ValueError, KeyError or TypeError
    for anything else."""
    if isinstance(value, dict):
        w, x, y, z = map(float, value["rotation"])
        pose = np.eye(4)
        pose[:3, :3] = rotation_of_quaternion(np.array([x, y, z, w]))
        pose[:3, 3] = three(value["translation"], "translation")
        return pose
    pose = np.array(value, np.float64)
    if pose.shape != (4, 4):
        raise ValueError(f"a pose is 4 x 4 numbers, not {pose.shape}")
    if not np.allclose(pose[3], (0.0, 0.0, 0.0, 1.0)):
        raise ValueError(f"the last row of a pose is 0 0 0 1, not {pose[3]}: is it transposed?"[:120])
    with np.errstate(all="ignore"):
        if np.isfinite(pose).all() and not abs(np.linalg.det(pose)) > SINGULAR:
            raise ValueError("a pose that cannot be inverted")
    return pose
