"""Pickles that other programs made of the tables of nuScenes, as a source of the same index.

Four flavours: PonderV2; Pointcept and OpenPCDet; mmdetection3d 0.x (also UniPAD, UVTR, BEVDet) and 1.x. They
hold no splits, no attributes and no visibility; sweeps are those that they name. Nothing in them is run.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.spatial.transform import Rotation

from ponderv2.datasets.nuscenes.build import Build
from ponderv2.datasets.nuscenes.classes import CATEGORIES, DETECTION_NAMES, detection_class
from ponderv2.datasets.nuscenes.values import inside, token_key
from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import read_records

Pose = Float64[ndarray, "4 4"]
LIDAR = "LIDAR_TOP"
APART = 2_000_000
"""Microseconds between two key frames, from which on they are of different drives."""
MMDET_NAMES = (
    "car", "truck", "trailer", "bus", "construction_vehicle", "bicycle", "motorcycle", "pedestrian",
    "traffic_cone", "barrier",
)  # fmt: skip
"""By their number in mmdetection3d, where the file does not say."""
STAMP = re.compile(r"__(\d{16})\.")
REMADE = "make the file again from the tables, or put v1.0-trainval beside it, which is read instead"


@dataclass(frozen=True)
class _Measured:
    channel: str
    token: str
    file: str
    timestamp: int
    sensor_to_ego: Pose
    ego_to_global: Pose
    intrinsics: Float64[ndarray, "3 3"] | None
    is_key: bool


@dataclass
class _Info:
    """One key frame, whatever the flavour."""

    token: str
    drive: str
    measured: list[_Measured]
    """The scan of the key frame first."""
    boxes: Float64[ndarray, "box 9"] = field(default_factory=lambda: np.zeros((0, 9)))
    """Centre, length, width, height, yaw, velocity in the frame of the LiDAR."""
    names: tuple[str, ...] = ()
    counts: tuple[tuple[int, int], ...] = ()
    labels: str = ""

    @property
    def timestamp(self) -> int:
        """Of the scan."""
        return self.measured[0].timestamp


def fill(made: Build) -> None:
    """The index of a file of infos. Raises SceneError: it is damaged, unsafe, or none of the flavours."""
    path = made.tables
    records, rest = read_records(path)
    total = len(records)
    wide = _sizes_begin_with_width(records)
    infos: list[_Info] = []
    for number, one in enumerate(made.track(records, "index of infos", total)):
        try:
            infos.append(_info(one, rest, wide))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError, np.linalg.LinAlgError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SceneError(f"info {number} of {path} cannot be used: {why[:200]}", fix=REMADE) from error
    try:
        _Writer(made).write(sorted(infos, key=lambda one: (one.drive, one.timestamp)))
    except (ValueError, OverflowError) as error:
        raise SceneError(f"{path} cannot be used: {str(error)[:200]}", fix=REMADE) from error


def _info(one: Mapping[str, Any], rest: Mapping[str, Any], wide: bool) -> _Info:
    if "lidar_points" in one:
        return _of_mmdet_1(one, rest)
    if "ref_from_car" in one:
        to_ego, to_global = (
            np.linalg.inv(_matrix(one["ref_from_car"])),
            np.linalg.inv(_matrix(one["car_from_global"])),
        )
    elif "ego2lidar" in one:
        to_ego, to_global = (
            np.linalg.inv(_matrix(one["ego2lidar"])),
            np.linalg.inv(_matrix(one["global2ego"])),
        )
    elif "lidar2ego_translation" in one:
        to_ego, to_global = _pose(one, "lidar2ego"), _pose(one, "ego2global")
    else:
        raise ValueError(f"of none of the known flavours, with {', '.join(map(str, one))[:120]}")
    file = _file(one["lidar_path"])
    token = str(one["token"])
    key = _scan(str(one.get("lidar_token") or token), file, one["timestamp"], to_ego, to_global)
    measured = [key]
    for name, camera in dict(one.get("cams") or {}).items():
        intrinsics = camera.get("cam_intrinsic", camera.get("camera_intrinsics"))
        measured.append(_beside(camera, str(name), key, np.array(intrinsics, np.float64), True))
    measured += [_beside(sweep, LIDAR, key, None, False) for sweep in one.get("sweeps") or ()]
    found = _Info(token, str(one.get("scene_token") or ""), measured, labels=_labels(one))
    rows = np.array(one.get("gt_boxes", ()), np.float64)
    if len(rows):
        velocity = one.get("gt_velocity", one.get("gt_boxes_velocity"))
        speed = rows[:, 7:9] if velocity is None else np.array(velocity, np.float64)[:, :2]
        boxes = rows[:, :7].copy()
        if wide:
            boxes[:, 3], boxes[:, 4], boxes[:, 6] = rows[:, 4], rows[:, 3], -rows[:, 6] - np.pi / 2
        found.boxes = np.concatenate(
            [boxes, speed if speed.shape[1] == 2 else np.full((len(rows), 2), np.nan)], axis=1
        )
        found.names = tuple(str(name) for name in one["gt_names"])
        n_lidar = one.get("num_lidar_pts", [-1] * len(rows))
        n_radar = one.get("num_radar_pts", [-1] * len(rows))
        found.counts = tuple((int(a), int(b)) for a, b in zip(n_lidar, n_radar, strict=True))
    return found


def _of_mmdet_1(one: Mapping[str, Any], rest: Mapping[str, Any]) -> _Info:
    scan = one["lidar_points"]
    file = _file(scan["lidar_path"], f"samples/{LIDAR}")
    token = str(one["token"])
    to_ego, to_global = _matrix(scan["lidar2ego"]), _matrix(one["ego2global"])
    key = _scan(str(scan.get("sample_data_token") or token), file, one["timestamp"], to_ego, to_global)
    measured = [key]
    for name, camera in dict(one.get("images") or {}).items():
        image = _file(camera["img_path"], f"samples/{name}")
        moved = to_ego @ np.linalg.inv(_matrix(camera["lidar2cam"]))
        intrinsics = np.array(camera["cam2img"], np.float64)[:3, :3]
        measured.append(
            _Measured(
                str(name),
                str(camera.get("sample_data_token") or f"{token}{name}"),
                image,
                _time(image, camera.get("timestamp", one["timestamp"])),
                moved,
                to_global,
                intrinsics,
                True,
            )
        )
    for sweep in one.get("lidar_sweeps") or ():
        scan = sweep["lidar_points"]
        name = _file(scan["lidar_path"], f"sweeps/{LIDAR}")
        poses = _matrix(scan["lidar2ego"]), _matrix(sweep["ego2global"])
        lidar_token = str(sweep.get("sample_data_token") or name)
        measured.append(_scan(lidar_token, name, sweep["timestamp"], *poses, is_key=False))
    found = _Info(token, "", measured, labels=_labels(one))
    known = dict(dict(rest.get("metainfo") or {}).get("categories") or {})
    names = {int(number): str(name) for name, number in known.items()} or dict(enumerate(MMDET_NAMES))
    objects = one.get("instances") or ()
    if objects:
        rows = [[*box["bbox_3d"][:7], *(box.get("velocity") or (np.nan, np.nan))[:2]] for box in objects]
        found.boxes = np.array(rows, np.float64).reshape(-1, 9)
        found.names = tuple(
            names.get(int(box.get("bbox_label_3d", box["bbox_label"])), "") for box in objects
        )
        found.counts = tuple(
            (int(box.get("num_lidar_pts", -1)), int(box.get("num_radar_pts", -1))) for box in objects
        )
    return found


def _scan(
    token: str, file: str, stored_time: Any, to_ego: Pose, to_global: Pose, is_key: bool = True
) -> _Measured:
    return _Measured(LIDAR, token, file, _time(file, stored_time), to_ego, to_global, None, is_key)


def _beside(
    one: Mapping[str, Any], channel: str, key: _Measured, intrinsics: ndarray | None, is_key: bool
) -> _Measured:
    """A camera, or an earlier scan, with its own pose of the vehicle or with its pose against the scan."""
    file = _file(one.get("data_path", one.get("lidar_path")))
    if "sensor2ego_translation" in one or "sensor2ego" in one:
        to_ego, to_global = _pose(one, "sensor2ego"), _pose(one, "ego2global")
    elif "car_from_current" in one and one["car_from_current"] is not None:
        to_ego, to_global = _matrix(one["car_from_current"]), _matrix(one["global_from_car"])
    elif one.get("transform_matrix", 0) is None:  # of the key frame itself, which fills the list
        to_ego, to_global = key.sensor_to_ego, key.ego_to_global
    else:
        to_lidar = (
            _matrix(one["transform_matrix"]) if "transform_matrix" in one else _pose(one, "sensor2lidar")
        )
        to_ego, to_global = key.sensor_to_ego @ to_lidar, key.ego_to_global
    lag = 1e6 * float(one.get("time_lag") or 0.0)
    timestamp = _time(file, one.get("timestamp", key.timestamp - lag))
    token = str(one.get("sample_data_token") or file)
    return _Measured(channel, token, file, timestamp, to_ego, to_global, intrinsics, is_key)


def _sizes_begin_with_width(records: list[dict[str, Any]]) -> bool:
    """Whether boxes are those of mmdetection3d before 1.0: width, length and -yaw - 90 degrees.

    The file does not say; cars are longer than wide.
    """
    cars = [
        row[3:5]
        for one in records[:2000]
        if "lidar2ego_translation" in one
        for row, name in zip(one.get("gt_boxes", ()), one.get("gt_names", ()), strict=False)
        if name == "car" and len(row) >= 7
    ]
    if not cars:
        return False
    first, second = np.median(np.array(cars, np.float64), axis=0)
    return bool(first < second)


def _labels(one: Mapping[str, Any]) -> str:
    named = one.get("gt_segment_path") or one.get("pts_semantic_mask_path") or ""
    text = str(named).replace("\\", "/")
    return text[text.rfind("lidarseg/") :] if "lidarseg/" in text else ""


def _file(named: Any, folder: str = "") -> str:
    """Below the folder of the data; a bare name lies in `folder`."""
    if not isinstance(named, str) or not named:
        raise TypeError(f"no name of a file: {named!r}"[:80])
    text = named.replace("\\", "/")
    below = next((text[text.rfind(one) :] for one in ("samples/", "sweeps/") if one in text), "")
    if not below and folder:
        below = f"{folder}/{PurePosixPath(text).name}"
    if not inside(below):
        raise ValueError(f"'{named[:80]!r}' is neither in samples/ nor in sweeps/")
    return below


def _time(file: str, stored: Any) -> int:
    """Microseconds: those in the name of the file, else those of the record, which may be seconds."""
    found = STAMP.search(file)
    if found:
        return int(found.group(1))
    value = float(stored)
    return round(value * 1e6) if value < 1e12 else round(value)


def _matrix(value: Any) -> Pose:
    made = np.array(value, np.float64)
    if made.shape != (4, 4):
        raise ValueError(f"a pose of shape {made.shape}, expected 4 x 4")
    if not np.allclose(made[3], (0.0, 0.0, 0.0, 1.0)):
        raise ValueError(f"the last row of a pose is 0 0 0 1, not {made[3]}"[:120])
    return made


def _pose(one: Mapping[str, Any], name: str) -> Pose:
    """4 x 4, or a translation and a rotation as quaternion (w, x, y, z) or matrix."""
    if name in one:
        return _matrix(one[name])
    turn = np.array(one[f"{name}_rotation"], np.float64)
    pose = np.eye(4)
    pose[:3, :3] = Rotation.from_quat(turn[[1, 2, 3, 0]]).as_matrix() if turn.shape == (4,) else turn
    pose[:3, 3] = np.array(one[f"{name}_translation"], np.float64)
    return pose


def _quaternion(turn: Float64[ndarray, "3 3"]) -> tuple[float, float, float, float]:
    x, y, z, w = Rotation.from_matrix(turn).as_quat().tolist()
    return w, x, y, z


@dataclass
class _Writer:
    """Rows of the index."""

    made: Build
    channels: dict[str, int] = field(default_factory=dict)
    calibrations: dict[bytes, int] = field(default_factory=dict)
    categories: dict[str, int] = field(default_factory=dict)

    def write(self, infos: list[_Info]) -> None:
        """All key frames, drive by drive in the order of time."""
        run = self.made.database.execute
        for number, name in enumerate(CATEGORIES):
            run("INSERT INTO category VALUES (?, ?, ?)", (number, name, number))
            self.categories[name] = number
        sample = 0
        for scene, (name, chosen) in enumerate(_drives(infos)):
            run("INSERT INTO scene VALUES (?, ?, ?, ?)", (scene, name, name, ""))
            known: set[tuple[str, int]] = set()
            for number, one in enumerate(chosen):
                run(
                    "INSERT INTO sample VALUES (?, ?, ?, ?, ?)",
                    (sample, token_key(one.token), scene, number, one.timestamp),
                )
                self._measured([each for each in one.measured if each.is_key], scene, sample, known)
                self._boxes(one, sample)
                if one.labels:
                    run(
                        "INSERT OR IGNORE INTO lidarseg VALUES (?, ?)",
                        (token_key(one.measured[0].token), one.labels),
                    )
                sample += 1
            for number, one in enumerate(chosen):
                others = [each for each in one.measured if not each.is_key]
                self._measured(others, scene, sample - len(chosen) + number, known)
        run("CREATE INDEX sample_of_scene ON sample (scene, number)")
        run("CREATE INDEX key_data ON data (sample) WHERE is_key")

    def _measured(self, found: list[_Measured], scene: int, sample: int, known: set[tuple[str, int]]) -> None:
        for one in found:
            if (one.channel, one.timestamp) in known:
                continue
            known.add((one.channel, one.timestamp))
            pose = *one.ego_to_global[:3, 3].tolist(), *_quaternion(one.ego_to_global[:3, :3])
            values = (
                scene,
                self._channel(one.channel),
                one.timestamp,
                token_key(one.token),
                sample,
                one.is_key,
                self._calibration(one),
                one.file,
                0,
                0,
                *pose,
            )
            marks = ", ".join("?" * len(values))
            self.made.database.execute(f"INSERT OR REPLACE INTO data VALUES ({marks})", values)

    def _channel(self, name: str) -> int:
        if name not in self.channels:
            self.channels[name] = len(self.channels)
            kind = "lidar" if name == LIDAR else "camera"
            self.made.database.execute(
                "INSERT INTO channel VALUES (?, ?, ?)", (self.channels[name], name, kind)
            )
        return self.channels[name]

    def _calibration(self, one: _Measured) -> int:
        intrinsics = None if one.intrinsics is None else json.dumps(one.intrinsics.tolist())
        key = one.sensor_to_ego.round(9).tobytes() + str(intrinsics).encode()
        if key not in self.calibrations:
            self.calibrations[key] = len(self.calibrations)
            pose = *one.sensor_to_ego[:3, 3].tolist(), *_quaternion(one.sensor_to_ego[:3, :3])
            self.made.database.execute(
                "INSERT INTO calibration VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (self.calibrations[key], *pose, intrinsics),
            )
        return self.calibrations[key]

    def _boxes(self, one: _Info, sample: int) -> None:
        to_global = one.measured[0].ego_to_global @ one.measured[0].sensor_to_ego
        turn = to_global[:3, :3]
        for number, (row, name, counts) in enumerate(zip(one.boxes, one.names, one.counts, strict=True)):
            center = turn @ row[:3] + to_global[:3, 3]
            heading = _quaternion(turn @ Rotation.from_euler("z", row[6]).as_matrix())
            speed = turn @ np.array([row[7], row[8], 0.0])
            values = (
                sample,
                number,
                f"{one.token}/{number}",
                -1,
                self._category(name),
                -1,
                0,
                *counts,
                *center.tolist(),
                row[4],
                row[3],
                row[5],
                *heading,
                *speed.tolist(),
            )
            marks = ", ".join("?" * len(values))
            self.made.database.execute(f"INSERT INTO box VALUES ({marks})", values)

    def _category(self, name: str) -> int:
        """Of a class of the detection benchmark: the first category of the data set that belongs to it."""
        chosen = next(
            (
                one
                for one in CATEGORIES
                if name in DETECTION_NAMES and detection_class(one) == DETECTION_NAMES.index(name)
            ),
            name,
        )
        if chosen not in self.categories:
            self.categories[chosen] = len(self.categories)
            self.made.database.execute(
                "INSERT INTO category VALUES (?, ?, NULL)", (self.categories[chosen], chosen)
            )
        return self.categories[chosen]


def _drives(infos: list[_Info]) -> Iterator[tuple[str, list[_Info]]]:
    """Key frames by drive: that they name, else the recording in the names of their files, without gaps."""
    groups: dict[str, list[_Info]] = {}
    for one in infos:
        recording = PurePosixPath(one.measured[0].file).name.partition("__")[0]
        groups.setdefault(one.drive or recording, []).append(one)
    for name, found in sorted(groups.items()):
        found.sort(key=lambda one: one.timestamp)
        parts: list[list[_Info]] = [[]]
        for one in found:
            if parts[-1] and not one.drive and one.timestamp - parts[-1][-1].timestamp > APART:
                parts.append([])
            parts[-1].append(one)
        for number, part in enumerate(parts):
            yield (name if len(parts) == 1 else f"{name}_{number:02d}"), part
