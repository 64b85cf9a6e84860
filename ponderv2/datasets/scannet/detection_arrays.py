"""ScanNet's detection arrays, read in place: those of VoteNet, and mmdetection3d's scannet_instance_data/.

<scene>_vert.npy [N, 6]   <scene>_sem_label.npy (NYU40 id)   <scene>_ins_label.npy (from 1, 0 = none)
<scene>_bbox.npy [K, 7] = centre, full size, NYU40 id: VoteNet, whose points are aligned already
<scene>_aligned_bbox.npy, <scene>_axis_align_matrix.npy: mmdetection3d, whose points are aligned here
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray

from ponderv2.datasets.drives import LARGEST, usable_boxes
from ponderv2.datasets.scannet import detection, scannet20
from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.io.arrays import map_array
from ponderv2.io.text import read_text
from ponderv2.scenes.point_arrays import cached_normals
from ponderv2.scenes.reader import DatasetInfo, FrameChoice
from ponderv2.scenes.scene import PointCloud, Scene

SPLITS = ("train", "val", "test")
FOLDERS = (".", "scannet_instance_data", "scannet_train_detection_data")
LISTS = (".", "meta_data", "../meta_data", "..")
AGAIN = "make the arrays again with VoteNet's or mmdetection3d's script"
_SCENE = re.compile(r"scene\d{4}_\d{2}")
_CLASS = np.full(256, -1, np.int64)
_CLASS[list(scannet20.CLASS_OF_NYU40)] = list(scannet20.CLASS_OF_NYU40.values())


@dataclass(frozen=True)
class DetectionArrays:
    """Scenes of one folder of arrays. A location is ROOT/SPLIT/SCENE; no file is there."""

    folder: Path
    split_of: dict[str, str]

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Those of a split, sorted."""
        return tuple(sorted(name for name, split in self.split_of.items() if split == folder.name))

    def is_scene(self, location: Path) -> bool:
        """Whether there are its points."""
        return self.split_of.get(location.name) == location.parent.name

    def has_frames(self, location: Path) -> bool:
        """Never: images of mmdetection3d have poses of other files."""
        return False

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene with its walls along x and y. Raises SceneError."""
        return self._read(location.name, name, labels, [])

    def notes(self, location: Path) -> tuple[str, ...]:
        """Objects that are left out, and what was computed."""
        notes: list[str] = []
        self._read(location.name, location.name, True, notes)
        return tuple(notes)

    def _read(self, scene: str, name: str, labels: bool, notes: list[str]) -> Scene:
        vertices = self._array(scene, "vert", 6).astype(np.float64)
        with np.errstate(invalid="ignore"):
            usable = len(vertices) > 0 and bool((np.abs(vertices) < LARGEST).all())
        if not usable:
            raise SceneError(f"{self._path(scene, 'vert')} holds no points, or some not finite", fix=AGAIN)
        coord = torch.from_numpy(_aligned(vertices[:, :3], self._alignment(scene))).float()
        color = torch.from_numpy(np.clip(vertices[:, 3:6], 0, 255)).float()
        known: dict[str, torch.Tensor] = {}
        boxes = None
        if labels:
            segment, instance = (self._labels(scene, kind, len(coord)) for kind in ("sem_label", "ins_label"))
            known["segment20"] = torch.from_numpy(
                _CLASS[np.where((segment < 0) | (segment > 255), 0, segment)]
            )
            known["instance"] = torch.from_numpy(np.where(instance > 0, instance - 1, -1))
            boxes = self._boxes(scene, notes)
        return Scene(name, PointCloud(coord, color, cached_normals(coord), known), boxes=boxes)

    def _path(self, scene: str, kind: str) -> Path:
        return self.folder / f"{scene}_{kind}.npy"

    def _array(self, scene: str, kind: str, width: int | None) -> ndarray:
        path = self._path(scene, kind)
        try:
            values = np.array(map_array(path))
        except (OSError, ValueError) as error:
            raise SceneError(f"{path} is not a readable array ({error})", fix=AGAIN) from error
        shaped = values.ndim == 1 if width is None else values.ndim == 2 and values.shape[1] == width
        if values.dtype.kind not in "fiu" or not shaped:
            expected = "a row of numbers" if width is None else f"{width} numbers a row"
            raise SceneError(f"{path} is {values.dtype} {values.shape}, expected {expected}", fix=AGAIN)
        return values

    def _labels(self, scene: str, kind: str, n_points: int) -> ndarray:
        values = self._array(scene, kind, None)
        if len(values) != n_points:
            raise SceneError(
                f"{self._path(scene, kind)} has {len(values)} labels for {n_points} points", fix=AGAIN
            )
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SceneError(f"{self._path(scene, kind)} holds labels that are not finite", fix=AGAIN)
        return values.astype(np.int64)

    def _alignment(self, scene: str) -> ndarray:
        if not self._path(scene, "axis_align_matrix").is_file():
            return np.eye(4)
        matrix = self._array(scene, "axis_align_matrix", 4)
        large = matrix.shape != (4, 4) or not bool((np.abs(matrix) < LARGEST).all())
        if large or np.abs(matrix[:3, :3] @ matrix[:3, :3].T - np.eye(3)).max() > 1e-3:
            raise SceneError(f"{self._path(scene, 'axis_align_matrix')} is not a rigid motion", fix=AGAIN)
        return matrix.astype(np.float64)

    def _boxes(self, scene: str, notes: list[str]) -> Boxes | None:
        """Those of the 18 classes; what is left out is noted."""
        kind = next((one for one in ("aligned_bbox", "bbox") if self._path(scene, one).is_file()), None)
        if kind is None:
            notes.append("there is no file of boxes")
            return None
        path = self._path(scene, kind)
        try:
            empty = map_array(path).size == 0
        except (OSError, ValueError) as error:
            raise SceneError(f"{path} is not a readable array ({error})", fix=AGAIN) from error
        rows = np.zeros((0, 7)) if empty else self._array(scene, kind, 7).astype(np.float64)
        known = np.isin(rows[:, 6], detection.NYU40_IDS)
        if not known.all():
            # Objects without a vertex have a box of zeros and class 0.
            notes.append(f"{int((~known).sum())} of {len(known)} boxes are of none of the 18 classes")
        rows = rows[known]
        rows = rows[usable_boxes(rows, rows[:, 3:6], notes)]
        category = [detection.NYU40_IDS.index(int(one)) for one in rows[:, 6]]
        return Boxes(
            center=torch.from_numpy(rows[:, :3]).float(),
            size=torch.from_numpy(rows[:, 3:6]).float(),
            yaw=torch.zeros(len(rows)),
            velocity=torch.zeros(len(rows), 3),
            category=torch.tensor(category, dtype=torch.long),
            instance=torch.full((len(rows),), -1, dtype=torch.long),
        )


def _aligned(coord: ndarray, matrix: ndarray) -> ndarray:
    return coord @ matrix[:3, :3].T + matrix[:3, 3]


def find_arrays(root: Path) -> tuple[DatasetInfo, DetectionArrays] | None:
    """The arrays in a folder, or in the folder of them in it; None where there are none."""
    folder = next((root / one for one in FOLDERS if any((root / one).glob("scene*_vert.npy"))), None)
    if folder is None:
        return None
    names = [path.name.removesuffix("_vert.npy") for path in folder.glob("scene*_vert.npy")]
    listed: dict[str, str] = {}
    for split in SPLITS:
        paths = [base / one / f"scannetv2_{split}.txt" for base in (folder, root) for one in LISTS]
        path = next((path for path in paths if path.is_file()), None)
        listed.update(dict.fromkeys(read_text(path).split() if path is not None else (), split))
    split_of = {name: listed.get(name, "train") for name in names if _SCENE.fullmatch(name)}
    info = DatasetInfo(
        "ScanNet",
        scannet20.CLASS_NAMES,
        scannet20.COLORS,
        "segment20",
        splits=tuple(split for split in SPLITS if split in split_of.values()),
        version="",
        box_classes=detection.BOX_CLASSES,
    )
    return info, DetectionArrays(folder, split_of)
