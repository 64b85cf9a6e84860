"""SUN RGB-D as it is downloaded: the toolbox's tables of images and boxes, read without MATLAB.

SUNRGBD/kv1/..., SUNRGBDtoolbox/Metadata/SUNRGBDMeta.mat (labels v1), traintestSUNRGBD/allsplit.mat,
SUNRGBDMeta3DBB_v2.mat and SUNRGBDMeta2DBB_v2.mat (labels v2)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.datasets.drives import KeyFrame
from ponderv2.datasets.reader import fingerprint
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
from ponderv2.datasets.sunrgbd.image import (
    BIT_ROTATED,
    ImageBoxes,
    at_most,
    camera_of,
    label_boxes,
    points_of_depth,
    read_millimetres,
)
from ponderv2.errors import SceneError
from ponderv2.io.images import read_color
from ponderv2.io.mat_files import cells, numbers_of, read_mat, records, text_of
from ponderv2.scenes.scene import Frame, Scene

TABLE = {"v1": "SUNRGBDMeta.mat", "v2": "SUNRGBDMeta3DBB_v2.mat"}
SPLIT_FILE = "allsplit.mat"
IMAGE_BOXES_FILE = "SUNRGBDMeta2DBB_v2.mat"
BESIDE = (".", "SUNRGBDtoolbox", "SUNRGBDtoolbox/Metadata", "SUNRGBDtoolbox/traintestSUNRGBD")
IMAGES = "SUNRGBD/"
"""Paths in the tables begin with a folder of their authors, up to this one."""
OBJECT_FIELDS = ("classname", "centroid", "coeffs", "orientation")
AGAIN = "download the labels again: https://rgbd.cs.princeton.edu"


@dataclass(frozen=True)
class ImageRecord:
    """One image in a table."""

    split: str
    color: Path
    depth: Path
    tilt: Float64[ndarray, "3 3"]
    intrinsics: Float64[ndarray, "3 3"]
    labels: ImageBoxes


@dataclass(frozen=True)
class OfficialImages:
    """The images of both splits. Names are their numbers in the table, from 1, of six digits."""

    root: Path
    config: SunRgbdConfig
    records: Mapping[str, ImageRecord]
    found: tuple[str, ...] = ()
    names_of: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """By split, in the order of the table."""

    @property
    def has_frames(self) -> bool:
        """Always."""
        return True

    def names(self, split: str) -> tuple[str, ...]:
        """Of the images of a split, train or val."""
        return self.names_of.get(split, ())

    def has(self, split: str, name: str) -> bool:
        """Whether there is such an image."""
        return name in self.records and self.records[name].split == split

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One image. Raises SceneError: its depth or colours are missing or damaged."""
        one, notes = self.records[name], list[str]()
        depth = read_millimetres(one.depth)
        color = read_color(one.color)
        if color.shape[:2] != depth.shape:
            raise SceneError(
                f"{one.color} has {color.shape[1]} x {color.shape[0]} pixels, "
                f"{one.depth} {depth.shape[1]} x {depth.shape[0]}",
                fix="copy the images again",
            )
        height, width = depth.shape
        camera = camera_of(one.tilt, one.intrinsics, width, height, f"image {name} of the labels")
        cloud = at_most(points_of_depth(depth, color, camera), self.config.max_points, int(name))
        if not len(cloud):
            raise SceneError(f"{one.depth} measures nothing", fix="copy the depth image again")
        frame = Frame(id=name, camera=camera, color_path=one.color, depth_path=one.depth, images=BIT_ROTATED)
        boxes = one.labels.boxes(notes) if labels else None
        return KeyFrame(Scene(name, cloud, (frame,), boxes=boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, labels of the image, and contents of its files."""
        one = self.records[name]
        made = (one.tilt, one.intrinsics, one.labels.center, one.labels.size, one.labels.yaw)
        numbers = " ".join(values.tobytes().hex() for values in made)
        settings = self.config.model_dump_json(exclude={"path"})
        files = [path for path in (one.color, one.depth) if path.is_file()]
        return fingerprint(self.root, files, "SUN RGB-D 1", settings, numbers, " ".join(one.labels.names))

    def problems(self) -> tuple[str, ...]:
        """What the labels skip."""
        return self.found

    def estimated_bytes(self) -> int:
        """Of a prepared scene: its points, its colours and depth."""
        return 32 * (self.config.max_points or 300_000) + 900_000


def find_images(root: Path, config: SunRgbdConfig) -> OfficialImages:
    """All images of the chosen labels. Raises SceneError for tables that are missing or damaged."""
    table, split_file = _table_file(root, config.labels), _beside(root, SPLIT_FILE)
    if split_file is None:
        raise SceneError(
            f"no {SPLIT_FILE} in {root}",
            fix="unpack SUNRGBDtoolbox.zip beside SUNRGBD/, or copy its file there",
        )
    split_of = _splits(split_file)
    rows, doubts = _rows(table, config.labels)
    images = root if (root / "SUNRGBD").is_dir() or root.name != "SUNRGBD" else root.parent
    kept: dict[str, ImageRecord] = {}
    skipped: list[str] = []
    unlisted = 0
    for number, row in enumerate(rows):
        name = f"{number + 1:06d}"
        try:
            folder = _inside(text_of(row["depthpath"])).parent.parent.as_posix()
            if folder not in split_of:
                unlisted += 1
                continue
            kept[name] = _record(row, images, split_of[folder])
        except ValueError as error:
            skipped.append(f"{name} ({error})")
    if not kept:
        raise SceneError(f"no image of {table} is in a split of {split_file}", fix=AGAIN)
    names = {
        split: tuple(name for name, one in kept.items() if one.split == split) for split in ("train", "val")
    }
    found = doubts + _problems(table, skipped, unlisted, len(rows), kept, split_of)
    found += _disagreements(root, config.labels, rows, table)
    return OfficialImages(root, config, kept, tuple(found), names)


def _table_file(root: Path, version: str) -> Path:
    """The table of a version of the labels. Raises SceneError; another version is never taken for it."""
    table = _beside(root, TABLE[version])
    if table is not None:
        return table
    other = "v2" if version == "v1" else "v1"
    fix = f"download {TABLE[version]}"
    if _beside(root, TABLE[other]) is not None:
        fix += f", or --set source.labels={other}, whose results are not comparable with those of {version}"
    raise SceneError(f"no labels {version} in {root}: there is no {TABLE[version]}", fix=fix)


def _beside(root: Path, name: str) -> Path | None:
    places = [base / folder / name for base in (root, root.parent) for folder in BESIDE]
    return next((path for path in places if path.is_file()), None)


def _inside(path: str) -> PurePosixPath:
    """What follows the authors' folder: SUNRGBD/kv1/... Raises ValueError for a path that leads elsewhere."""
    plain = path.replace("\\", "/")
    start = plain.find(IMAGES)
    inside = PurePosixPath(plain[start:])
    if start < 0 or ".." in inside.parts:
        raise ValueError(f"'{path[:80]}' is no path below SUNRGBD/")
    return inside


def _splits(path: Path) -> dict[str, str]:
    """Split by the folder of an image."""
    found = read_mat(path, ("alltrain", "alltest"))
    try:
        return {
            _inside(text_of(one)).as_posix(): split
            for variable, split in (("alltrain", "train"), ("alltest", "val"))
            for one in cells(found[variable])
        }
    except ValueError as error:
        raise SceneError(f"{path} is no list of folders: {error}", fix=AGAIN) from error


def _rows(path: Path, version: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The records, and what to say of a file that has the name of another version."""
    fields = ("depthpath", "rgbpath", "Rtilt", "K", "groundtruth3DBB")
    table = read_mat(path, ("SUNRGBDMeta",), (*fields, *OBJECT_FIELDS))["SUNRGBDMeta"]
    try:
        rows = records(table, *fields)
    except ValueError as error:
        raise SceneError(f"{path} is no table of images: {error}", fix=AGAIN) from error
    if not rows:
        raise SceneError(f"{path} is a table without images", fix=AGAIN)
    in_images = "groundtruth2DBB" in rows[0]
    if in_images == (version == "v1"):
        return rows, []
    other = "v2" if version == "v1" else "v1"
    has = "boxes in the images" if in_images else "no boxes in the images"
    return rows, [f"{path} has {has}, as labels {other} have: results on the two are not comparable"]


def _record(row: Mapping[str, Any], root: Path, split: str) -> ImageRecord:
    """Raises ValueError for a record that cannot be used."""
    objects = records(row["groundtruth3DBB"], *OBJECT_FIELDS)
    labels = label_boxes(
        tuple(text_of(one["classname"]) for one in objects),
        _stacked([numbers_of(one["centroid"], 3) for one in objects]),
        _stacked([numbers_of(one["coeffs"], 3) for one in objects]),
        _stacked([numbers_of(one["orientation"], 3) for one in objects])[:, :2],
    )
    return ImageRecord(
        split,
        root / _inside(text_of(row["rgbpath"])),
        root / _inside(text_of(row["depthpath"])),
        numbers_of(row["Rtilt"], 3, 3),
        numbers_of(row["K"], 3, 3),
        labels,
    )


def _stacked(rows: Sequence[ndarray]) -> Float64[ndarray, "box 3"]:
    return np.array(rows, np.float64).reshape(len(rows), 3)


def _problems(
    table: Path,
    skipped: Sequence[str],
    unlisted: int,
    total: int,
    kept: Mapping[str, ImageRecord],
    split_of: Mapping[str, str],
) -> list[str]:
    """What of the images and splits is left out."""
    found: list[str] = []
    if skipped:
        found.append(f"{len(skipped)} of {total} images of {table.name} cannot be used: {skipped[0][:200]}")
    if unlisted:
        found.append(f"{unlisted} of {total} images of {table.name} are in no split")
    if len(kept) + len(skipped) < len(split_of):
        found.append(f"{len(split_of) - len(kept)} of {len(split_of)} images of the splits have no labels")
    bare = [name for name, one in kept.items() if not len(one.labels.names)]
    if bare:
        found.append(f"{len(bare)} of {len(kept)} images have no boxes ({bare[0]})")
    return found


def _disagreements(root: Path, version: str, rows: Sequence[Mapping[str, Any]], table: Path) -> list[str]:
    """Images whose objects have other names in the images than in space: VoteNet's script skips them."""
    path = _beside(root, IMAGE_BOXES_FILE)
    if version != "v2" or path is None:
        return []
    name = "SUNRGBDMeta2DBB"
    try:
        flat = records(read_mat(path, (name,), ("groundtruth2DBB", "classname"))[name], "groundtruth2DBB")
        pairs = [
            (_class_names(space["groundtruth3DBB"]), _class_names(image["groundtruth2DBB"]))
            for space, image in zip(rows, flat, strict=True)
        ]
    except (ValueError, SceneError) as error:
        why = error.message if isinstance(error, SceneError) else str(error)
        return [f"{path.name} cannot be compared with {table.name}: {why[:200]}"]
    other = [number + 1 for number, (space, image) in enumerate(pairs) if space != image]
    if not other:
        return []
    return [
        f"objects of {len(other)} images ({other[0]:06d}) have other names in {path.name}: their boxes "
        "are read here, and are missing in what VoteNet's script makes"
    ]


def _class_names(value: Any) -> tuple[str, ...]:
    return tuple(text_of(one["classname"]) for one in records(value, "classname"))
