"""KITTI object detection as a source of scenes, prepared or read in place: a scene per frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ponderv2.datasets.drives import DriveSource, KeyFrame, no_scenes, stored_bytes
from ponderv2.datasets.kitti.config import KittiConfig
from ponderv2.datasets.kitti.labels import BOX_CLASSES, read_boxes
from ponderv2.datasets.kitti_calibration import camera_frame, image_file, read_calibration
from ponderv2.datasets.lidar_files import FloatRows, frame_file, scan_names, usable_of_key
from ponderv2.datasets.reader import fingerprint
from ponderv2.errors import SceneError
from ponderv2.io.text import read_text
from ponderv2.scenes.reader import DatasetInfo
from ponderv2.scenes.scene import Frame, Scene, Sweep

READER_VERSION = 2
"""Raised whenever the same files and settings give other scenes, so that stored ones are regenerated."""
SCANS = FloatRows(("intensity",))
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
