"""SUN RGB-D as mmdetection3d 1.x processed it: sunrgbd_infos_{train,val}.pkl, points/000001.bin, images.

Boxes in them are length, width, height and a yaw counter-clockwise from x, as here. No pickle is run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray
from scipy.linalg import rq

from ponderv2.datasets.drives import KeyFrame
from ponderv2.datasets.reader import fingerprint
from ponderv2.datasets.sunrgbd.classes import BOX_CLASSES
from ponderv2.datasets.sunrgbd.config import SunRgbdConfig
from ponderv2.datasets.sunrgbd.image import CAMERA_TO_TILTED, ImageBoxes, at_most, cloud_of_rows, color_frame
from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import read_records
from ponderv2.scenes.scene import Frame, Scene

INFO_FILE = {"train": "sunrgbd_infos_train.pkl", "val": "sunrgbd_infos_val.pkl"}
IMAGE_FOLDERS = ("sunrgbd_trainval/image", "image", ".")
AGAIN = "make the file again with mmdetection3d 1.x"


@dataclass(frozen=True)
class Info:
    """One image of a file of infos."""

    points: str
    n_columns: int
    image: str
    depth_to_image: Float64[ndarray, "3 3"] | None
    labels: ImageBoxes


@dataclass(frozen=True)
class InfoImages:
    """The images of the files of infos. Names are those of the files of points."""

    root: Path
    config: SunRgbdConfig
    infos: Mapping[str, Mapping[str, Info]]
    """By split and name."""

    @property
    def has_frames(self) -> bool:
        """Whether an image has a camera."""
        first = next((one for infos in self.infos.values() for one in infos.values()), None)
        return first is not None and self._image(first) is not None

    def names(self, split: str) -> tuple[str, ...]:
        """Of the images of a split, in the order of the file."""
        return tuple(self.infos.get(split, ()))

    def has(self, split: str, name: str) -> bool:
        """Whether there is such an image."""
        return name in self.infos.get(split, {})

    def _image(self, info: Info) -> Path | None:
        if info.depth_to_image is None or not info.image:
            return None
        places = [self.root / folder / info.image for folder in IMAGE_FOLDERS]
        return next((path for path in places if path.is_file()), None)

    def _points(self, info: Info) -> Path:
        return self.root / info.points if "/" in info.points else self.root / "points" / info.points

    def read(self, split: str, name: str, labels: bool) -> KeyFrame:
        """One image. Raises SceneError: its points are missing or damaged."""
        info, notes = self.infos[split][name], list[str]()
        path = self._points(info)
        try:
            rows = np.fromfile(path, "<f4")
        except OSError as error:
            raise SceneError(f"cannot read {path}: {error.strerror or error}", fix=AGAIN) from error
        if len(rows) % info.n_columns:
            raise SceneError(f"{path} is cut off: {info.n_columns} numbers a point", fix=AGAIN)
        cloud = cloud_of_rows(rows.reshape(-1, info.n_columns), path, notes)
        cloud = at_most(cloud, self.config.max_points, int(name) if name.isdecimal() else 0)
        image, frames = self._image(info), tuple[Frame, ...]()
        if image is None or info.depth_to_image is None:
            notes.append(f"there is no image {info.image or 'in the infos'}")
        else:
            tilt, intrinsics = camera_parts(info.depth_to_image)
            frames = (color_frame(name, image, tilt, intrinsics, f"depth2img of image {name}"),)
        boxes = info.labels.boxes(notes) if labels else None
        return KeyFrame(Scene(name, cloud, frames, boxes=boxes), tuple(notes))

    def fingerprint(self, split: str, name: str) -> str:
        """Settings, infos, and contents of the files."""
        info = self.infos[split][name]
        made = (info.labels.center, info.labels.size, info.labels.yaw, info.depth_to_image)
        numbers = " ".join(np.asarray(one, np.float64).tobytes().hex() for one in made if one is not None)
        files = [
            path for path in (self._points(info), self._image(info)) if path is not None and path.is_file()
        ]
        settings = self.config.model_dump_json(exclude={"path"})
        names = " ".join(info.labels.names)
        return fingerprint(self.root, files, "SUN RGB-D infos 1", settings, numbers, names)

    def problems(self) -> tuple[str, ...]:
        """Nothing that concerns all images."""
        return ()

    def estimated_bytes(self) -> int:
        """Of a prepared scene."""
        return 32 * 50_000 + 200_000


def find_infos(root: Path, config: SunRgbdConfig) -> InfoImages:
    """All images. Raises SceneError: a file is damaged, unsafe, or of mmdetection3d 0.x."""
    infos: dict[str, dict[str, Info]] = {}
    for split, name in INFO_FILE.items():
        path = root / name
        if path.is_file():
            infos[split] = _infos(path)
    return InfoImages(root, config, infos)


def _infos(path: Path) -> dict[str, Info]:
    found, rest = read_records(path)
    names = class_names(rest)
    made: dict[str, Info] = {}
    for number, one in enumerate(found):
        if "annos" in one or "point_cloud" in one:
            raise SceneError(
                f"{path} is of mmdetection3d 0.x, whose boxes have other sizes and headings", fix=AGAIN
            )
        try:
            info = _info(one, names)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
            why = f"it lacks {error}" if isinstance(error, KeyError) else str(error)
            raise SceneError(f"info {number} of {path} cannot be used: {why[:200]}", fix=AGAIN) from error
        made[PurePosixPath(info.points).stem] = info
    return made


def class_names(rest: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the class numbers: those that the file states, else in the usual order."""
    about = rest.get("metainfo")
    stated = about.get("categories") if isinstance(about, Mapping) else None
    if not isinstance(stated, Mapping):
        return BOX_CLASSES
    by_number = {int(number): str(name) for name, number in stated.items()}
    return tuple(by_number.get(number, f"class {number}") for number in range(max(by_number, default=-1) + 1))


def _info(one: Mapping[str, Any], names: tuple[str, ...]) -> Info:
    """Raises KeyError, TypeError or ValueError for a record that cannot be used."""
    scan = one["lidar_points"]
    points, n_columns = str(scan["lidar_path"]), int(scan.get("num_pts_feats", 6))
    if ".." in PurePosixPath(points).parts or points.startswith("/") or not 3 <= n_columns <= 64:
        raise ValueError(f"'{points[:80]}' of {n_columns} columns is no file of points")
    image: Mapping[str, Any] = (one.get("images") or {}).get("CAM0") or {}
    file = str(image.get("img_path", ""))
    if ".." in PurePosixPath(file).parts or file.startswith("/"):
        raise ValueError(f"'{file[:80]}' is no path of an image")
    matrix = None if image.get("depth2img") is None else np.array(image["depth2img"], np.float64)[:3, :3]
    if matrix is not None and matrix.shape != (3, 3):
        raise ValueError(f"depth2img of shape {matrix.shape}")
    objects = [row for row in one.get("instances") or () if "bbox_3d" in row]
    numbers = np.array([row["bbox_3d"] for row in objects], np.float64).reshape(len(objects), 7)
    classes = [int(row["bbox_label_3d"]) for row in objects]
    labels = tuple(names[one] if 0 <= one < len(names) else f"class {one}" for one in classes)
    return Info(
        points, n_columns, file, matrix, ImageBoxes(labels, numbers[:, :3], numbers[:, 3:6], numbers[:, 6])
    )


def camera_parts(
    depth_to_image: Float64[ndarray, "3 3"],
) -> tuple[Float64[ndarray, "3 3"], Float64[ndarray, "3 3"]]:
    """Tilt and intrinsics, pixels from 1, of a projection of upright points. Raises SceneError for none."""
    if not np.isfinite(depth_to_image).all() or abs(np.linalg.det(depth_to_image)) < 1e-9:
        raise SceneError("depth2img is no projection", fix=AGAIN)
    intrinsics, to_camera = (np.asarray(one) for one in rq(depth_to_image)[:2])
    signs = np.diag(np.sign(np.diag(intrinsics)))
    intrinsics, to_camera = intrinsics @ signs, signs @ to_camera
    return (CAMERA_TO_TILTED @ to_camera).T, intrinsics / intrinsics[2, 2]
