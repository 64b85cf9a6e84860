"""Own vehicles as a source of scenes, prepared or read in place: a scene per scan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int64
from numpy import ndarray

from ponderv2.datasets.drives import (
    DriveSource,
    KeyFrame,
    camera_fault,
    inverse,
    no_scenes,
    present_sweeps,
    required,
    stored_bytes,
    usable_boxes,
)
from ponderv2.datasets.lidar_files import FloatRows, usable, usable_of_key
from ponderv2.datasets.reader import fingerprint
from ponderv2.datasets.vehicle import dgp
from ponderv2.datasets.vehicle.config import FILE, VehicleConfig, dgp_files, drive_files
from ponderv2.datasets.vehicle.drive import Drive, DriveBox, Image, Scan, read_drive
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.io.arrays import map_array, read_arrays
from ponderv2.io.images import image_size
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

READER_VERSION = 2
"""Raised whenever the same files and settings give other scenes, so that stored ones are regenerated."""
EXPECTED = f"expected {FILE}, which docs/driving.md describes, or scene_dataset_*.json of DGP"
SPLITS = ("train", "val", "test")
POINTS, IMAGE_BYTES = 100_000, 500_000
"""Of a scan and an image, for the estimate of disk space."""


@dataclass(frozen=True)
class ScanFiles:
    """Reads scans of all known files: .bin of float32 rows, .npy of rows, .npz of rows named `data`."""

    columns: tuple[str, ...]
    intensity_scale: float

    def points(self, path: Path) -> PointCloud:
        """The points in the frame of the sensor, without those of `usable`. Raises SceneError."""
        rows = self.rows(path)
        return self._floats.cloud(rows[usable(rows, path)])

    def rows(self, path: Path) -> Float32[ndarray, "point column"]:
        """All rows as they are stored. Raises SceneError."""
        if path.suffix.lower() not in (".npy", ".npz"):
            return self._floats.rows(path)
        try:
            if path.suffix.lower() == ".npy":
                values = np.array(map_array(path))
            else:
                arrays = read_arrays(path)
                values = arrays.get("data", next(iter(arrays.values())))
            values = values.astype(np.float32)
        except (OSError, ValueError, TypeError, StopIteration) as error:
            raise SceneError(
                f"the scan {path} cannot be read ({error})", fix="copy the file again"
            ) from error
        if values.ndim != 2 or values.shape[1] != 3 + len(self.columns):
            raise SceneError(
                f"the scan {path} has shape {values.shape}, expected x, y, z and {', '.join(self.columns)}"
            )
        return values

    def cloud(self, rows: Float32[ndarray, "point column"]) -> PointCloud:
        """Rows as points with their fields."""
        return self._floats.cloud(rows)

    @property
    def _floats(self) -> FloatRows:
        return FloatRows(self.columns, self.intensity_scale)


@dataclass(frozen=True)
class VehicleDrives:
    """The scans of all drives. Names are DRIVE/000000."""

    root: Path
    files: tuple[tuple[str, Path], ...]
    """Split and file of each drive."""
    config: VehicleConfig

    def names(self, split: str) -> tuple[str, ...]:
        """Of the scans of a split, drive by drive in the order of time."""
        found: list[str] = []
        for one, path in self.files:
            if one == split:
                drive = self._drive(path, split)
                found += [f"{drive.name}/{number:06d}" for number in range(len(self._scans(drive)))]
        return tuple(found)

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a scan in the split."""
        return self._find(split, name) is not None

    @property
    def has_frames(self) -> bool:
        """Whether the first drive has images."""
        return bool(self._drive(self.files[0][1], self.files[0][0]).images)

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """A scan with earlier ones and the images of the same time. Raises SceneError."""
        drive, scan = self._found(split, name)
        if not np.isfinite(scan.sensor_to_world).all():
            raise SceneError(f"{name}: the pose of {scan.sensor} is not finite")
        notes: list[str] = []
        cloud = _cloud(scan, len(drive.classes), labels, notes)
        to_scene = np.linalg.inv(scan.sensor_to_world)
        sweeps = [_sweep(one, scan, to_scene) for one in self._beside(drive, scan)]
        frames = [_frame(image, scan, to_scene, notes) for image in self._images(drive, scan)]
        there = tuple(one for one in frames if one is not None)
        boxes = _boxes(drive, scan, to_scene, notes) if labels else None
        return KeyFrame(Scene(name, cloud, there, present_sweeps(sweeps, notes), boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, what the file of the drive says, and contents of the files of the scan."""
        drive, scan = self._found(split, name)
        files = [one.path for one in self._beside(drive, scan)] + [scan.path]
        files += [image.path for image in self._images(drive, scan)]
        files += [one for one in (scan.labels, scan.boxes_path) if one is not None]
        settings = self.config.model_dump_json(exclude={"path"})
        return fingerprint(self.root, files, f"vehicle {READER_VERSION}", settings, drive.source)

    def problems(self) -> tuple[str, ...]:
        """Boxes of no scan, and scans of one time."""
        return tuple(one for drive in self.drives() for one in drive.problems)

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        drive = self._drive(self.files[0][1], self.files[0][0])
        return stored_bytes(
            POINTS, self.config.sweeps, IMAGE_BYTES * len({one.sensor for one in drive.images})
        )

    def drives(self) -> list[Drive]:
        """Every drive. Raises SceneError."""
        return [self._drive(path, split) for split, path in self.files]

    def _drive(self, path: Path, split: str) -> Drive:
        return read_drive(path, split) if path.name == FILE else dgp.read_scene(path, split)

    def _scans(self, drive: Drive) -> tuple[Scan, ...]:
        name = self.config.lidar or next((one.sensor for one in drive.scans), "")
        return tuple(one for one in drive.scans if one.sensor == name)

    def _beside(self, drive: Drive, scan: Scan) -> list[Scan]:
        """The scan and those before it, the latest first."""
        earlier = [one for one in self._scans(drive) if one.time <= scan.time]
        return earlier[::-1][: self.config.sweeps]

    def _images(self, drive: Drive, scan: Scan) -> list[Image]:
        """Of each camera the one nearest in time."""
        nearest: dict[str, Image] = {}
        for one in drive.images:
            chosen = not self.config.cameras or one.sensor in self.config.cameras
            if chosen and abs(one.time - scan.time) <= self.config.gap:
                known = nearest.get(one.sensor)
                if known is None or abs(one.time - scan.time) < abs(known.time - scan.time):
                    nearest[one.sensor] = one
        return [nearest[name] for name in sorted(nearest)]

    def _found(self, split: str, name: str) -> tuple[Drive, Scan]:
        return required(self._find(split, name), name, split, self.root)

    def _find(self, split: str, name: str) -> tuple[Drive, Scan] | None:
        folder, _, number = name.rpartition("/")
        for one, path in self.files:
            if one == split and path.parent.name == folder and number.isdecimal():
                drive = self._drive(path, split)
                scans = self._scans(drive)
                if int(number) < len(scans) and name == f"{folder}/{int(number):06d}":
                    return drive, scans[int(number)]
        return None


def _files_of(scan: Scan) -> ScanFiles:
    return ScanFiles(scan.columns, scan.intensity_scale)


def _cloud(scan: Scan, n_classes: int, labels: bool, notes: list[str]) -> PointCloud:
    rows = _files_of(scan).rows(scan.path)
    good = usable_of_key(rows, scan.path, notes)
    cloud = _files_of(scan).cloud(rows[good])
    if not labels or scan.labels is None:
        return cloud
    stored = _labels(scan.labels, len(rows), n_classes)
    return PointCloud(cloud.coord, labels={"segment": torch.from_numpy(stored[good])}, fields=cloud.fields)


def _labels(path: Path, n_points: int, n_classes: int) -> Int64[ndarray, " point"]:
    """A class per point, negative ones ignored. Raises SceneError."""
    try:
        stored = np.array(map_array(path))
        with np.errstate(invalid="ignore"):
            whole = stored.astype(np.int64)
    except (OSError, ValueError, TypeError) as error:
        raise SceneError(f"the labels {path} cannot be read ({error})") from error
    if whole.shape != (n_points,):
        raise SceneError(f"{path} has shape {whole.shape}, its scan {n_points} points")
    if not (whole == stored).all():
        raise SceneError(f"the labels {path} are no whole numbers")
    if n_classes and whole.max(initial=-1) >= n_classes:
        raise SceneError(
            f"{path} holds class {whole.max()}, drive.json lists {n_classes} classes",
            fix="list all classes; negative ones are ignored",
        )
    return whole


def _sweep(one: Scan, scan: Scan, to_scene: Float64[ndarray, "4 4"]) -> Sweep:
    with np.errstate(all="ignore"):  # one that is not finite is left out later
        to_world = to_scene @ one.sensor_to_world
    return Sweep(
        id=f"{one.sensor}_{one.path.stem}",
        sensor=one.sensor,
        world_to_sensor=inverse(to_world),
        path=one.path,
        time=one.time - scan.time,
        files=_files_of(one),
    )


def _frame(one: Image, scan: Scan, to_scene: Float64[ndarray, "4 4"], notes: list[str]) -> Frame | None:
    try:
        if not one.path.is_file():
            raise SceneError(f"there is no file {one.path.name}")
        width, height = image_size(one.path)
        why = "its images are distorted: undistort them" if one.distorted else ""
        why = why or camera_fault(one.intrinsics, width, height)
        if why or not np.isfinite(one.sensor_to_world).all():
            raise SceneError(why or "its pose is not finite")
    except SceneError as error:
        notes.append(f"{one.sensor} is left out: {error.message}")
        return None
    camera = Camera(
        torch.from_numpy(one.intrinsics.copy()).float(),
        inverse(to_scene @ one.sensor_to_world),
        width,
        height,
    )
    return Frame(
        id=f"{one.sensor}_{one.path.stem}",
        camera=camera,
        color_path=one.path,
        time=one.time - scan.time,
        sensor=one.sensor,
    )


def _boxes(drive: Drive, scan: Scan, to_scene: Float64[ndarray, "4 4"], notes: list[str]) -> Boxes | None:
    found = scan.boxes
    if scan.boxes_path is not None and scan.boxes_path.exists():
        found = dgp.read_boxes(scan, drive.class_ids)
    if found is None:
        notes.extend([f"no boxes: there is no file {scan.boxes_path}"] if scan.boxes_path else [])
        return None
    made = [_row(one, to_scene) for one in found]
    rows = np.array(made, np.float64).reshape(-1, 7)
    good = usable_boxes(rows, rows[:, 3:6], notes)
    found, rows = tuple(one for one, is_good in zip(found, good, strict=True) if is_good), rows[good]
    names = {name: number for number, name in enumerate(drive.box_classes)}
    unknown = [one.category for one in found if one.category not in names]
    if unknown:
        listed = f"'{unknown[0][:40]}'" if unknown[0] else "a number without a name"
        notes.append(f"{len(unknown)} of {len(found)} boxes are of no class that is listed ({listed})")
    velocity = np.array([one.velocity for one in found], np.float64).reshape(-1, 3) @ to_scene[:3, :3].T
    return Boxes(
        center=torch.from_numpy(rows[:, :3]).float(),
        size=torch.from_numpy(rows[:, 3:6]).float(),
        yaw=torch.from_numpy(rows[:, 6]).float(),
        velocity=torch.from_numpy(velocity).float(),
        category=torch.tensor([names.get(one.category, -1) for one in found], dtype=torch.long),
        instance=torch.tensor([one.instance for one in found], dtype=torch.long),
        fields={"n_lidar": torch.tensor([one.n_points for one in found], dtype=torch.long)},
    )


def _row(box: DriveBox, to_scene: Float64[ndarray, "4 4"]) -> Float64[ndarray, "7"]:
    """Centre, size and yaw in the frame of the scene."""
    pose = to_scene @ box.pose
    return np.array([*pose[:3, 3], *box.size, np.arctan2(pose[1, 0], pose[0, 0])])


def source(config: VehicleConfig) -> DriveSource:
    """All scans. Raises SceneError when there are none."""
    drives = _drives(config)
    about = (f"of {len(drives.files)} drives, each in the frame of its LiDAR",)
    return DriveSource(_info(drives), drives, about)


def _drives(config: VehicleConfig) -> VehicleDrives:
    root = Path(config.path)
    files = [(_split_of(path, root), path) for path in drive_files(root)]
    files += [one for listed in dgp_files(root) for one in dgp.scene_files(listed)]
    if not files:
        raise no_scenes("drives", root, EXPECTED)
    twice = [
        one for one, count in Counter((split, path.parent.name) for split, path in files).items() if count > 1
    ]
    if twice:
        raise SceneError(f"two drives are called '{twice[0][1]}'", fix="rename one of their folders")
    return VehicleDrives(root, tuple(files), config)


def _split_of(path: Path, root: Path) -> str:
    """The folder above the drive where it is train, val or test; else train."""
    parts = path.relative_to(root).parts
    return next((one for one in parts if one in SPLITS), "train")


def _info(drives: VehicleDrives) -> DatasetInfo:
    every = drives.drives()
    there = {image.sensor for one in every for image in one.images}
    unknown = [one for one in drives.config.cameras if one not in there]
    if unknown:
        listed = ", ".join(sorted(there)) or "none"
        raise SceneError(f"no images of a camera '{unknown[0]}' in {drives.root}", fix=f"there: {listed}")
    lidars = {scan.sensor for one in every for scan in one.scans}
    if drives.config.lidar and drives.config.lidar not in lidars:
        listed = ", ".join(sorted(lidars)) or "none"
        why = f"no scans of a LiDAR '{drives.config.lidar}' in {drives.root}"
        raise SceneError(why, fix=f"there: {listed}")
    sets = {(one.box_classes, one.classes) for one in every}
    if len(sets) > 1:
        raise SceneError(
            f"the drives in {drives.root} differ in their classes", fix="give all the same lists"
        )
    box_classes, classes = next(iter(sets))
    splits = tuple(split for split in SPLITS if any(one.split == split for one in every))
    return DatasetInfo(drives.root.absolute().name, classes, splits=splits, box_classes=box_classes)
