"""SemanticKITTI as a source of scenes, prepared or read in place: a scene per scan."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import (
    DriveSource,
    KeyFrame,
    chosen,
    inverse,
    no_scenes,
    present_sweeps,
    stored_bytes,
)
from ponderv2.datasets.kitti_calibration import KittiCalibration, camera_frame, image_file, read_calibration
from ponderv2.datasets.lidar_files import (
    AGAIN,
    FloatRows,
    frame_file,
    lookup,
    read_labels,
    scan_names,
    usable_of_key,
)
from ponderv2.datasets.reader import fingerprint
from ponderv2.datasets.semantickitti.classes import CLASS_NAMES, CLASS_OF, COLORS, SPLITS
from ponderv2.datasets.semantickitti.config import SemanticKittiConfig, folder_of_sequences
from ponderv2.errors import SceneError
from ponderv2.io.files import digest_of_file
from ponderv2.io.text import read_text
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

READER_VERSION = 1
"""Raised whenever the same files and settings give other scenes, so that stored ones are regenerated."""
SCANS = FloatRows(("intensity",))
CLASSES = lookup(CLASS_OF, 2**16)
EXPECTED = "expected sequences/00/velodyne/000000.bin"
POINTS, IMAGE_BYTES = 122_000, 900_000
"""Of a scan and an image, for the estimate of disk space."""
FARTHEST_POSE = 1e7
"""Metres from the start of a sequence."""
PROJECTION = {"image_2": "P2", "image_3": "P3"}


@dataclass(frozen=True)
class SemanticKittiDrives:
    """The scans of all sequences. Names are 00/000000."""

    root: Path
    sequences: Path
    """Folder of 00/, 01/, ..."""
    config: SemanticKittiConfig

    def names(self, split: str) -> tuple[str, ...]:
        """Of the scans of a split, in the order of time."""
        found: list[str] = []
        for sequence in SPLITS.get(split, ()):
            if chosen(sequence, self.config.scenes):
                found += [f"{sequence}/{one}" for one in scan_names(self.sequences / sequence / "velodyne")]
        return tuple(found)

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a scan in the split."""
        sequence, _, scan = name.partition("/")
        in_split = sequence in SPLITS.get(split, ()) and chosen(sequence, self.config.scenes)
        return in_split and scan.isdecimal() and self._file(name, "velodyne", "bin").is_file()

    @property
    def has_frames(self) -> bool:
        """Whether there are colour images."""
        return any(
            (self.sequences / sequence / camera).is_dir()
            for split in SPLITS.values()
            for sequence in split
            for camera in self.config.cameras
        )

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """A scan. Raises SceneError: damaged, without points, or with labels of another length."""
        notes: list[str] = []
        cloud = self._cloud(name, labels, notes)
        frames = self._frames(name, notes)
        return KeyFrame(Scene(name, cloud, frames, self._sweeps(name, notes)), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, and contents of the files."""
        folder = self.sequences / name.partition("/")[0]
        files = [self._file(name, "velodyne", "bin"), self._file(name, "labels", "label")]
        files += [self._image(name, camera) for camera in self.config.cameras]
        files += [folder / one for one in ("calib.txt", "poses.txt", "times.txt")]
        files += [sweep.path for sweep in self._sweeps(name, [])[1:]]
        settings = self.config.model_dump_json(exclude={"path", "scenes"})
        return fingerprint(self.sequences, files, f"SemanticKITTI {READER_VERSION}", settings)

    def problems(self) -> tuple[str, ...]:
        """Nothing that concerns all sequences."""
        return ()

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        images = IMAGE_BYTES * len(self.config.cameras) if self.has_frames else 0
        return stored_bytes(POINTS, self.config.sweeps, images)

    def _file(self, name: str, kind: str, ending: str) -> Path:
        sequence, _, scan = name.partition("/")
        return frame_file(self.sequences / sequence / kind, scan, ending)

    def _image(self, name: str, camera: str) -> Path:
        sequence, _, scan = name.partition("/")
        return image_file(self.sequences / sequence / camera, scan)

    def _cloud(self, name: str, labels: bool, notes: list[str]) -> PointCloud:
        path = self._file(name, "velodyne", "bin")
        rows = SCANS.rows(path)
        good = usable_of_key(rows, path, notes)
        cloud = SCANS.cloud(rows[good])
        file = self._file(name, "labels", "label")
        if not labels or not file.exists():
            return cloud
        stored = read_labels(file, "<u4", len(rows))[good]
        kind, number = stored & 0xFFFF, stored >> 16
        # Numbers of instances are unique within a class only.
        instance = np.where(number > 0, (kind.astype(np.int64) << 16) + number, -1)
        found = {"segment": torch.from_numpy(CLASSES[kind]), "instance": torch.from_numpy(instance)}
        return PointCloud(cloud.coord, labels=found, fields=cloud.fields)

    def _frames(self, name: str, notes: list[str]) -> tuple[Frame, ...]:
        frames: list[Frame] = []
        folder = self.sequences / name.partition("/")[0]
        there = [camera for camera in self.config.cameras if (folder / camera).is_dir()]
        if not there:
            return ()
        calibration = read_calibration(folder / "calib.txt")
        for camera in there:
            path = self._image(name, camera)
            try:
                frames.append(camera_frame(path, PROJECTION[camera], calibration, camera))
            except SceneError as error:
                notes.append(f"{camera} is left out: {error.message}")
        return tuple(frames)

    def _sweeps(self, name: str, notes: list[str]) -> tuple[Sweep, ...]:
        if self.config.sweeps == 0:
            return ()
        sequence, _, scan = name.partition("/")
        folder, number = self.sequences / sequence, int(scan)
        key = Sweep(
            f"{number:06d}", "velodyne", torch.eye(4), self._file(name, "velodyne", "bin"), 0.0, files=SCANS
        )
        if self.config.sweeps == 1:
            return (key,)
        if not (folder / "poses.txt").is_file() or not (folder / "calib.txt").is_file():
            notes.append("one scan only: poses.txt or calib.txt is missing")
            return (key,)
        poses = lidar_poses(folder / "poses.txt", read_calibration(folder / "calib.txt"))
        times = self._times(folder / "times.txt", number, notes)
        if number >= len(poses):
            notes.append(f"one scan only: poses.txt has {len(poses)} poses")
            return (key,)
        sweeps = [key]
        for other in range(number - 1, max(number - self.config.sweeps, -1), -1):
            path = self._file(f"{sequence}/{other:06d}", "velodyne", "bin")
            pose = np.linalg.inv(poses[number]) @ poses[other]
            time = None if times is None else float(times[other] - times[number])
            sweeps.append(Sweep(f"{other:06d}", "velodyne", inverse(pose), path, time, files=SCANS))
        return present_sweeps(sweeps, notes)

    def _times(self, path: Path, number: int, notes: list[str]) -> Float64[ndarray, " scan"] | None:
        """Seconds of the scans up to this one; None where they are unknown."""
        if not path.exists():
            return None
        times = _numbers(path)
        first = max(number - self.config.sweeps + 1, 0)
        if number >= len(times):
            notes.append(f"times.txt has {len(times)} times: those of the sweeps are unknown")
            return None
        if not (np.diff(times[first : number + 1]) > 0.0).all():
            notes.append("times.txt is damaged or not in order: the times of the sweeps are unknown")
            return None
        return times


def lidar_poses(path: Path, calibration: KittiCalibration) -> Float64[ndarray, "scan 4 4"]:
    """Of the LiDAR, from those of camera 0 in a file with 12 numbers a line; nan where they are no pose.

    Raises SceneError.
    """
    values = _numbers(path)
    if values.size % 12 or not values.size:
        raise SceneError(f"{path} holds no poses of 12 numbers", fix=AGAIN)
    poses = np.tile(np.eye(4), (values.size // 12, 1, 1))
    poses[:, :3] = values.reshape(-1, 3, 4)
    poses[~(np.abs(poses) < FARTHEST_POSE).all(axis=(1, 2))] = np.nan
    with np.errstate(invalid="ignore"):
        poses[np.abs(np.linalg.det(poses)) < 1e-6] = np.nan
    to_camera = calibration.lidar_to_rectified
    return np.linalg.inv(to_camera) @ poses @ to_camera


def _numbers(path: Path) -> Float64[ndarray, " number"]:
    try:
        digest = digest_of_file(path)
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}", fix=AGAIN) from error
    return _read_numbers(path, digest)


@functools.lru_cache(maxsize=64)
def _read_numbers(path: Path, digest: str) -> Float64[ndarray, " number"]:
    try:
        return np.array(read_text(path).split(), np.float64)
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} cannot be read: {error}", fix=AGAIN) from error


def source(config: SemanticKittiConfig) -> DriveSource:
    """All scans. Raises SceneError when there are none."""
    root = Path(config.path)
    folder = folder_of_sequences(root)
    if folder is None:
        raise no_scenes("sequences of SemanticKITTI", root, EXPECTED)
    drives = SemanticKittiDrives(root, folder, config)
    splits = tuple(split for split in SPLITS if drives.names(split))
    if not splits:
        raise no_scenes("scans of SemanticKITTI", root, EXPECTED)
    info = DatasetInfo("SemanticKITTI", CLASS_NAMES, COLORS, "segment", splits)
    about = ("each in the frame of its LiDAR: x forward, y left, z up",)
    return DriveSource(info, drives, about, lambda names: _missing_labels(drives, splits))


def _missing_labels(drives: SemanticKittiDrives, splits: tuple[str, ...]) -> tuple[str, ...]:
    """Sequences whose labels are missing or incomplete; those of the test are not public."""
    found = []
    for sequence in (one for split in splits if split != "test" for one in SPLITS[split]):
        folder = drives.sequences / sequence
        scans = scan_names(folder / "velodyne")
        try:
            there = set(os.listdir(folder / "labels"))
        except OSError:
            there = set()
        lost = [one for one in scans if not {f"{one}.label", f"{one}.LABEL"} & there]
        if lost and chosen(sequence, drives.config.scenes):
            found.append(
                f"{len(lost)} of {len(scans)} scans of sequence {sequence} have no labels ({lost[0]})"
            )
    return tuple(found)
