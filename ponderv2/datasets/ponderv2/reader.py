"""PonderV2's folders (Pointcept up to 1.5.1): SPLIT/SCENE.pth or SPLIT/SCENE/ROOM.pth, pickled dicts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ponderv2.datasets.ponderv2.images import SceneImages
from ponderv2.errors import SceneError
from ponderv2.io.safe_pickle import read_pickled
from ponderv2.scenes.point_arrays import (
    ESTIMATED_NORMALS,
    cached_normals,
    color_rows,
    label_rows,
    near_rows,
    unit_normals,
)
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import PointCloud, Scene

ENDING = ".pth"
VIEWS_ENDING = "_rgbd"
POINT_KEYS = ("coord", "color", "normal")
LABEL_KEYS = {
    "semantic_gt": "segment",
    "semantic_gt20": "segment20",
    "semantic_gt200": "segment200",
    "instance_gt": "instance",
    "segment": "segment",
    "segment20": "segment20",
    "segment200": "segment200",
    "instance": "instance",
}
"""Name in a file -> name in a scene."""
_AGAIN = "process the scene again, or delete the file"


@dataclass(frozen=True)
class PickledScenes:
    """Points in pickled files, images beside them."""

    images: SceneImages
    label_fields: tuple[str, ...] = ()
    """Label arrays that every scene of the benchmark has: -1 where a file lacks one."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Files in a split and one folder further down; images are not scenes."""
        names: list[str] = []
        for entry in _entries(folder):
            if entry.is_dir() and not entry.name.endswith(VIEWS_ENDING):
                names += [f"{entry.name}/{one.name}" for one in _entries(Path(entry.path)) if _is_file(one)]
            elif _is_file(entry):
                names.append(entry.name)
        return tuple(sorted(name.removesuffix(ENDING) for name in names))

    def is_scene(self, location: Path) -> bool:
        """Whether the file is there."""
        return _file(location).is_file()

    def has_frames(self, location: Path) -> bool:
        """Whether there are images."""
        return self.images.are_there(location)

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene; without `labels` their bytes are not read. Raises SceneError."""
        cloud, _ = self._cloud(location, labels)
        return Scene(name, cloud, self.images.read(location, labels, frames, cloud.origin)[0])

    def notes(self, location: Path) -> tuple[str, ...]:
        """What was guessed, computed or left out."""
        return self._cloud(location, labels=False)[1] + self.images.read(location, False, "all")[1]

    def _cloud(self, location: Path, labels: bool) -> tuple[PointCloud, tuple[str, ...]]:
        path = _file(location)
        arrays = read_pickled(path, (*POINT_KEYS, *(LABEL_KEYS if labels else ())))
        coord, origin, notes = near_rows(_rows(path, arrays, "coord"), path, _AGAIN)
        n_points = len(coord)
        color, more = _colors(path, arrays, n_points)
        notes += more
        if "normal" in arrays:
            normal, more = unit_normals(_rows(path, arrays, "normal"), coord, path, _AGAIN)
            notes += more
        else:
            normal, notes = cached_normals(coord), (*notes, ESTIMATED_NORMALS)
        fields = dict.fromkeys(self.label_fields, torch.full((n_points,), -1)) if labels else {}
        fields |= {
            self._field(key): _labels(path, arrays[key], key) for key in arrays.keys() & LABEL_KEYS.keys()
        }
        for what, values in {"color": color, "normal": normal, **fields}.items():
            if len(values) != n_points:
                raise SceneError(f"{path}: {len(values)} rows of '{what}' for {n_points} points", fix=_AGAIN)
        return PointCloud(coord, color, normal, fields, origin), notes

    def _field(self, key: str) -> str:
        """A benchmark of several label arrays means its first where a file says no more than `segment`."""
        name = LABEL_KEYS[key]
        main = self.label_fields[0] if self.label_fields else name
        return main if name == "segment" else name


def label_fields_in(keys: tuple[str, ...]) -> tuple[str, ...]:
    """Label arrays of a file with these keys, without those of objects."""
    return tuple(sorted({LABEL_KEYS[key] for key in keys if key in LABEL_KEYS} - {"instance"}))


def _file(location: Path) -> Path:
    return location.with_name(location.name + ENDING)


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError:
        return []


def _is_file(entry: os.DirEntry[str]) -> bool:
    return entry.name.endswith(ENDING) and entry.is_file()


def _rows(path: Path, arrays: dict[str, Any], key: str, widths: tuple[int, ...] = (3,)) -> np.ndarray:
    values = arrays.get(key)
    if not isinstance(values, np.ndarray) or values.dtype.kind not in "fiu":
        raise SceneError(f"{path} has no array '{key}' of numbers: it is not a scene", fix=_AGAIN)
    if values.ndim != 2 or values.shape[1] not in widths or (key == "coord" and not len(values)):
        raise SceneError(f"{path}: '{key}' has the shape {values.shape}, expected (N, 3)", fix=_AGAIN)
    if values.dtype.kind == "f" and not bool(np.isfinite(values).all()):
        raise SceneError(f"{path}: '{key}' holds numbers that are not finite", fix=_AGAIN)
    return values


def _colors(path: Path, arrays: dict[str, Any], n_points: int) -> tuple[Tensor, tuple[str, ...]]:
    if "color" not in arrays:
        return torch.full((1, 3), 127.5).expand(n_points, 3), (
            "the scene has no colours: all points are grey",
        )
    return color_rows(_rows(path, arrays, "color", widths=(1, 3, 4)), path, _AGAIN)


def _labels(path: Path, values: Any, key: str) -> Tensor:
    """Any type of number, (N,), (N, 1) or (N, k), of which the first column counts."""
    if not isinstance(values, np.ndarray):
        raise SceneError(f"{path}: '{key}' is not an array of whole numbers (N,)", fix=_AGAIN)
    return label_rows(values, f"'{key}' in {path}", _AGAIN)
