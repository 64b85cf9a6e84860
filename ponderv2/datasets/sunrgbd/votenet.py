"""SUN RGB-D as VoteNet processed it: a folder of texts (sunrgbd_trainval/), or arrays of points and boxes.

depth/000001.mat image/000001.jpg calib/000001.txt label/000001.txt (v2) label_v1/000001.txt
sunrgbd_pc_bbox_votes_50k_v1_train/000001_pc.npz 000001_bbox.npy
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import KeyFrame
from ponderv2.datasets.reader import fingerprint
from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
from ponderv2.datasets.sunrgbd.image import ImageBoxes, at_most, cloud_of_rows, color_frame, label_boxes
from ponderv2.errors import SceneError
from ponderv2.io.arrays import map_array, read_arrays
from ponderv2.io.mat_files import read_mat
from ponderv2.io.text import numbers, read_text
from ponderv2.scenes.scene import Frame, Scene

LIST = {"train": "train_data_idx.txt", "val": "val_data_idx.txt"}
LABELS = {"v1": "label_v1", "v2": "label"}
POINT_BYTES = 32
AGAIN = "make the file again with VoteNet's scripts"
_ARRAYS = re.compile(r"sunrgbd_pc_bbox_votes_\w+_(train|val)")


@dataclass(frozen=True)
class TextImages:
    """The folder that VoteNet's MATLAB scripts write."""

    root: Path
    config: SunRgbdConfig

    @property
    def has_frames(self) -> bool:
        """Whether there are images."""
        return (self.root / "image").is_dir()

    def names(self, split: str) -> tuple[str, ...]:
        """Numbers of six digits: those of the list of a split; without lists all are `train`."""
        there = {path.stem for path in (self.root / "depth").glob("*.mat")}
        listed = listed_names(self.root, split)
        if listed is not None:
            return tuple(name for name in listed if name in there)
        lists = any((self.root / name).is_file() for name in LIST.values())
        return tuple(sorted(there)) if split == "train" and not lists else ()

    def has(self, split: str, name: str) -> bool:
        """Whether there is such an image."""
        return name.isdecimal() and (self.root / "depth" / f"{name}.mat").is_file()

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One image. Raises SceneError: points, calibration or labels are missing or damaged."""
        notes: list[str] = []
        points = self.root / "depth" / f"{name}.mat"
        cloud = cloud_of_rows(read_mat(points, ("instance",))["instance"], points, notes)
        cloud = at_most(cloud, self.config.max_points, int(name))
        frames: tuple[Frame, ...] = ()
        image, text = self.root / "image" / f"{name}.jpg", self.root / "calib" / f"{name}.txt"
        if image.is_file():
            frames = (color_frame(name, image, *read_calibration(text), str(text)),)
        else:
            notes.append(f"there is no image {image.name}")
        path = self.root / LABELS[self.config.labels] / f"{name}.txt"
        boxes = None
        if labels and path.is_file():
            boxes = read_labels(path).boxes(notes)
        elif labels:
            notes.append(f"no boxes: there is no file {path.parent.name}/{path.name}")
        return KeyFrame(Scene(name, cloud, frames, boxes=boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, and contents of the files."""
        kinds = (("depth", "mat"), ("image", "jpg"), ("calib", "txt"), (LABELS[self.config.labels], "txt"))
        files = [self.root / kind / f"{name}.{ending}" for kind, ending in kinds]
        settings = self.config.model_dump_json(exclude={"path"})
        there = [path for path in files if path.is_file()]
        return fingerprint(self.root, there, "SUN RGB-D text 1", settings)

    def problems(self) -> tuple[str, ...]:
        """Names of the lists that are not there."""
        found = []
        for split, name in LIST.items():
            listed = listed_names(self.root, split)
            lost = [one for one in listed or () if not self.has(split, one)]
            if lost:
                found.append(f"{len(lost)} of {len(listed or ())} images of {name} are not there ({lost[0]})")
        return tuple(found)

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        return POINT_BYTES * (self.config.max_points or 300_000) + 200_000


def listed_names(root: Path, split: str) -> tuple[str, ...] | None:
    """Numbers of the list of a split as names; None where there is no list. Raises SceneError."""
    path = root / LIST.get(split, "")
    if split not in LIST or not path.exists():
        return None
    words = read_text(path).split()
    if not all(word.isdecimal() and len(word) < 10 for word in words):
        raise SceneError(f"{path} is no list of numbers", fix=AGAIN)
    return tuple(f"{int(word):06d}" for word in words)


def read_calibration(path: Path) -> tuple[Float64[ndarray, "3 3"], Float64[ndarray, "3 3"]]:
    """The tilt and the intrinsics: nine numbers of each, column by column. Raises SceneError."""
    try:
        values = numbers(read_text(path))
    except ValueError as error:
        raise SceneError(f"{path} holds other things than numbers", fix=AGAIN) from error
    if len(values) != 18:
        raise SceneError(f"{path} holds {len(values)} numbers, expected 18: Rtilt and K", fix=AGAIN)
    tilt, intrinsics = values.reshape(2, 3, 3).transpose(0, 2, 1)
    return tilt, intrinsics


def read_labels(path: Path) -> ImageBoxes:
    """Lines of class, box in the image, centre, half width, length, height, heading. Raises SceneError."""
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            row = [float(word) for word in words[1:]]
        except ValueError as error:
            raise SceneError(f"line {number} of {path} holds words for numbers", fix=AGAIN) from error
        if len(row) != 12:
            raise SceneError(
                f"line {number} of {path} holds {len(row)} numbers after the class, expected 12", fix=AGAIN
            )
        names.append(words[0])
        rows.append(row)
    values = np.array(rows, np.float64).reshape(len(rows), 12)
    return label_boxes(tuple(names), values[:, 4:7], values[:, 7:10], values[:, 10:12])


@dataclass(frozen=True)
class ArrayImages:
    """VoteNet's arrays, which its training reads. They have no images."""

    root: Path
    config: SunRgbdConfig
    has_frames: bool = False

    def _folder(self, split: str) -> Path | None:
        own = _ARRAYS.fullmatch(self.root.absolute().name)
        if own is not None or any(self.root.glob("*[0-9]_bbox.npy")):
            return self.root if split == (own.group(1) if own else "train") else None
        folders = [path for path in sorted(self.root.glob("sunrgbd_pc_bbox_votes_*")) if path.is_dir()]
        version = [path for path in folders if f"_{self.config.labels}_" in path.name]
        found = [path for path in version if _ARRAYS.fullmatch(path.name) and path.name.endswith(f"_{split}")]
        return found[0] if found else None

    def names(self, split: str) -> tuple[str, ...]:
        """Numbers of six digits, in their order."""
        folder = self._folder(split)
        if folder is None:
            return ()
        return tuple(sorted(path.name.removesuffix("_pc.npz") for path in folder.glob("*_pc.npz")))

    def has(self, split: str, name: str) -> bool:
        """Whether there are points of this number."""
        folder = self._folder(split)
        return folder is not None and name.isdecimal() and (folder / f"{name}_pc.npz").is_file()

    def _files(self, split: str, name: str) -> tuple[Path, Path]:
        folder = self._folder(split) or self.root
        return folder / f"{name}_pc.npz", folder / f"{name}_bbox.npy"

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One image. Raises SceneError: points or boxes are missing or damaged."""
        notes: list[str] = []
        points, boxed = self._files(split, name)
        try:
            rows = read_arrays(points)["pc"]
        except (OSError, ValueError, KeyError) as error:
            raise SceneError(f"{points} is no archive with an array 'pc' ({error})", fix=AGAIN) from error
        cloud = at_most(cloud_of_rows(rows, points, notes), self.config.max_points, int(name))
        boxes = read_box_rows(boxed).boxes(notes) if labels else None
        return KeyFrame(Scene(name, cloud, boxes=boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, and contents of the files."""
        there = [path for path in self._files(split, name) if path.is_file()]
        settings = self.config.model_dump_json(exclude={"path"})
        return fingerprint(self.root, there, "SUN RGB-D arrays 1", settings)

    def problems(self) -> tuple[str, ...]:
        """Nothing that concerns all images."""
        return ()

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        return POINT_BYTES * 50_000


def read_box_rows(path: Path) -> ImageBoxes:
    """Rows of centre, half length, width, height, heading from x towards -y, class. Raises SceneError."""
    try:
        rows = np.array(map_array(path), np.float64)
        rows = rows.reshape(0, 8) if rows.size == 0 else rows
    except (OSError, ValueError, TypeError) as error:
        raise SceneError(f"{path} is not a readable array of boxes ({error})", fix=AGAIN) from error
    if rows.ndim != 2 or rows.shape[1] != 8:
        raise SceneError(f"{path} has shape {rows.shape}, expected 8 numbers for each box", fix=AGAIN)
    with np.errstate(invalid="ignore"):
        place = np.where(np.isfinite(rows[:, 7]) & (np.abs(rows[:, 7]) < 1000), rows[:, 7], -1).astype(int)
    names = tuple(
        BOX_CLASSES[one] if 0 <= one < len(BOX_CLASSES) and one == exact else f"class {exact:g}"
        for one, exact in zip(place.tolist(), rows[:, 7].tolist(), strict=True)
    )
    return ImageBoxes(names, rows[:, :3], 2.0 * rows[:, 3:6], -rows[:, 6])
