"""KITTI object detection as a source of scenes, prepared or read in place: a scene per frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import DriveSource, KeyFrame, no_scenes, stored_bytes, usable_boxes
from ponderv2.datasets.kitti.config import KittiConfig
from ponderv2.datasets.kitti_calibration import KittiCalibration, camera_frame, image_file, read_calibration
from ponderv2.datasets.lidar_files import FloatRows, frame_file, scan_names, usable_of_key
from ponderv2.datasets.reader import fingerprint
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.io.text import read_text
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Frame, Scene, Sweep

READER_VERSION = 1
"""Raised whenever the same files and settings give other scenes, so that stored ones are regenerated."""
SCANS = FloatRows(("intensity",))
BOX_CLASSES = ("Car", "Pedestrian", "Cyclist")
"""Of the benchmark."""
TYPES = ("Car", "Van", "Truck", "Pedestrian", "Person_sitting", "Cyclist", "Tram", "Misc")
"""All that is annotated, but for regions that do not count (DontCare), which have no box in space."""
FOLDER = {"train": "training", "val": "training", "test": "testing"}
PROJECTION = {"image_2": "P2", "image_3": "P3"}
EXPECTED = "expected training/velodyne/000000.bin and training/calib/000000.txt"
POINTS, IMAGE_BYTES = 120_000, 900_000
"""Of a scan and an image, for the estimate of disk space."""


@dataclass(frozen=True)
class KittiDrives:
    """The frames of the benchmark. Names are 000000."""

    root: Path
    config: KittiConfig

    def names(self, split: str) -> tuple[str, ...]:
        """Of the frames of a split: those of its list, else all of training/ as `train`."""
        if split not in FOLDER:
            return ()
        there = scan_names(self.root / FOLDER[split] / "velodyne")
        listed = _listed(self.root, split)
        if listed is not None:
            return tuple(one for one in there if one in listed)
        return () if split == "val" or (split == "train" and _has_list(self.root)) else tuple(there)

    def has(self, split: str, name: str) -> bool:
        """Whether there is such a frame in the split."""
        return name.isdecimal() and name in self.names(split)

    @property
    def has_frames(self) -> bool:
        """Whether there are images."""
        return any((self.root / "training" / camera).is_dir() for camera in self.config.cameras)

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One frame. Raises SceneError: scan, calibration or labels are missing or damaged."""
        folder = self.root / FOLDER[split]
        notes: list[str] = []
        path = frame_file(folder / "velodyne", name, "bin")
        rows = SCANS.rows(path)
        good = usable_of_key(rows, path, notes)
        calibration = read_calibration(frame_file(folder / "calib", name, "txt"))
        frames: list[Frame] = []
        for camera in self.config.cameras:
            try:
                image = image_file(folder / camera, name)
                frames.append(camera_frame(image, PROJECTION[camera], calibration, camera))
            except SceneError as error:
                notes.append(f"{camera} is left out: {error.message}")
        text = frame_file(folder / "label_2", name, "txt")
        boxes = read_boxes(text, calibration, notes) if labels and text.exists() else None
        if labels and boxes is None and text.parent.is_dir():
            notes.append(f"no boxes: there is no file label_2/{text.name}")
        sweep = Sweep(name, "velodyne", torch.eye(4), path, 0.0, files=SCANS)
        return KeyFrame(Scene(name, SCANS.cloud(rows[good]), tuple(frames), (sweep,), boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, and contents of the files."""
        folder = self.root / FOLDER[split]
        files = [frame_file(folder / "velodyne", name, "bin")]
        files += [frame_file(folder / kind, name, "txt") for kind in ("calib", "label_2")]
        files += [image_file(folder / camera, name) for camera in self.config.cameras]
        settings = self.config.model_dump_json(exclude={"path"})
        return fingerprint(self.root, files, f"KITTI {READER_VERSION}", settings)

    def problems(self) -> tuple[str, ...]:
        """Nothing that concerns all frames."""
        return ()

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        return stored_bytes(POINTS, 1, IMAGE_BYTES * len(self.config.cameras) if self.has_frames else 0)


def read_boxes(path: Path, calibration: KittiCalibration, notes: list[str]) -> Boxes:
    """Boxes of a label file in the frame of the LiDAR.

    A line holds type, truncation, occlusion, angle, four sides in the image, height, width, length, the
    middle of the lower face in the rectified camera, and the turn about its y axis, which points down.
    Raises SceneError for a line that is not such.
    """
    rows: list[list[float]] = []
    types: list[str] = []
    try:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            words = line.split()
            if words and words[0] != "DontCare":
                if len(words) < 15:
                    raise ValueError(f"line {number} has {len(words) - 1} numbers, expected 14")
                rows.append([float(word) for word in words[1:15]])
                types.append(words[0])
        numbers = np.array(rows, np.float64).reshape(len(rows), 14)
    except (OSError, ValueError) as error:
        raise SceneError(f"the labels {path} are damaged ({error})", fix="copy the file again") from error
    good = usable_boxes(numbers, numbers[:, 7:10], notes)
    numbers, types = numbers[good], [one for one, is_good in zip(types, good, strict=True) if is_good]
    height, width, length = numbers[:, 7], numbers[:, 8], numbers[:, 9]
    to_lidar = np.linalg.inv(calibration.lidar_to_rectified)
    middle = numbers[:, 10:13] - np.stack([0 * height, height / 2, 0 * height], axis=1)
    center = middle @ to_lidar[:3, :3].T + to_lidar[:3, 3]
    heading = _headings(numbers[:, 13]) @ to_lidar[:3, :3].T
    further = {
        "truncated": torch.from_numpy(numbers[:, 0]).float(),
        "occluded": torch.from_numpy(numbers[:, 1]).long(),
        "source_category": torch.tensor([_place(one, TYPES) for one in types], dtype=torch.long),
    }
    return Boxes(
        center=torch.from_numpy(center).float(),
        size=torch.from_numpy(np.stack([length, width, height], axis=1)).float(),
        yaw=torch.from_numpy(np.arctan2(heading[:, 1], heading[:, 0])).float(),
        velocity=torch.full((len(types), 3), torch.nan),
        category=torch.tensor([_place(one, BOX_CLASSES) for one in types], dtype=torch.long),
        instance=torch.full((len(types),), -1, dtype=torch.long),
        fields=further,
    )


def _headings(turns: Float64[ndarray, " box"]) -> Float64[ndarray, "box 3"]:
    """In the rectified camera: along x for no turn, towards -z, which is backwards, for a quarter."""
    return np.stack([np.cos(turns), np.zeros_like(turns), -np.sin(turns)], axis=1)


def _place(name: str, names: tuple[str, ...]) -> int:
    return names.index(name) if name in names else -1


def _has_list(root: Path) -> bool:
    return any((root / "ImageSets" / f"{split}.txt").is_file() for split in ("train", "val"))


def source(config: KittiConfig) -> DriveSource:
    """All frames. Raises SceneError when there are none."""
    drives = KittiDrives(Path(config.path), config)
    splits = tuple(split for split in FOLDER if drives.names(split))
    if not splits:
        raise no_scenes("frames of KITTI", config.path, EXPECTED)
    about = ("each in the frame of its LiDAR: x forward, y left, z up",)
    if not _has_list(drives.root):
        about += ("no ImageSets/train.txt and val.txt: all frames of training/ are `train`",)
    info = DatasetInfo("KITTI", splits=splits, box_classes=BOX_CLASSES)
    return DriveSource(info, drives, about, lambda names: _listed_in_vain(drives.root, splits))


def _listed_in_vain(root: Path, splits: tuple[str, ...]) -> tuple[str, ...]:
    """Frames that a list names and that are not there."""
    found = []
    for split in splits:
        listed = _listed(root, split)
        lost = sorted((listed or set()) - set(scan_names(root / FOLDER[split] / "velodyne")))
        if lost and listed:
            found.append(
                f"{len(lost)} of {len(listed)} frames of ImageSets/{split}.txt have no scan ({lost[0][:40]})"
            )
    return tuple(found)


def _listed(root: Path, split: str) -> set[str] | None:
    """Names in the list of a split; None where there is no list. Raises SceneError."""
    path = root / "ImageSets" / f"{split}.txt"
    if not path.exists():
        return None
    return {line.strip() for line in read_text(path).splitlines() if line.strip()}
