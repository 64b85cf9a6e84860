"""Scenes of one array per file, memory-mapped: prepared here, or by Pointcept in its folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.cameras import Camera
from ponderv2.io.arrays import map_array, read_arrays
from ponderv2.scenes.origin import near_pose
from ponderv2.scenes.point_arrays import (
    MAPPED_FROM,
    cached_normals,
    color_rows,
    label_rows,
    near_rows,
    unit_normals,
)
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Frame, PointCloud, Scene, Sweep

AGAIN = "prepare the scene again"
SWEEPS_FILE = "sweeps.npz"
BOXES = {"center": (3,), "size": (3,), "yaw": (), "velocity": (3,), "category": (), "instance": ()}
"""Arrays of boxes.npz, and the shape of a row."""


SIGNS = ("coord.npy", "prepared.json")
"""Files of a scene, of which one is enough: a scene that lost its points is there and is refused by name."""


class PreparedScenes:
    """Our own layout: a folder per scene."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Folders with points, or with the record of a scene that had them, at most two levels down."""
        patterns = [f"{depth}{name}" for name in SIGNS for depth in ("*/", "*/*/")]
        found = [path.parent for pattern in patterns for path in folder.glob(pattern)]
        names = [path.relative_to(folder).as_posix() for path in found]
        hidden = {name for name in names if any(part.startswith(".") for part in name.split("/"))}
        return tuple(sorted(set(names) - hidden))

    def is_scene(self, location: Path) -> bool:
        """Whether there are points, or a record of them."""
        return any((location / name).is_file() for name in SIGNS)

    def has_frames(self, location: Path) -> bool:
        """Whether there are frames."""
        return (location / "frames" / "cameras.npz").is_file()

    def read(self, location: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene with all its frames. Raises SceneError."""
        return read_scene(location, name, labels)

    def notes(self, location: Path) -> tuple[str, ...]:
        """Nothing: what is noted stands in the record of the scene."""
        return ()


PREPARED = PreparedScenes()


def read_scene(folder: Path, name: str, with_labels: bool = True) -> Scene:
    """Large arrays memory-mapped (copy on write), cameras read; images and sweeps stay on disk.

    Without labels no file of labels or boxes is opened, and frames have no `semantic_path`.
    """
    return read_scene_with_notes(folder, name, with_labels)[0]


def read_scene_with_notes(folder: Path, name: str, with_labels: bool = True) -> tuple[Scene, tuple[str, ...]]:
    """As `read_scene`; also how colours and positions were understood, and what was made up."""
    record = _record(folder)
    cloud, notes = _read_cloud(folder, with_labels, _declared_fields(record))
    origin = np.array(cloud.origin)
    frames = _read_frames(folder / "frames", origin)
    sweeps = _read_sweeps(folder / "sweeps", origin)
    if len(cloud) == 0 and not sweeps and not (frames and not any(one.has_depth for one in frames)):
        raise SceneError(f"{folder / 'coord.npy'} holds no points", fix=AGAIN)
    boxes = _read_boxes(folder / "boxes.npz", origin) if with_labels else None
    stored = _stored_origin(record)
    if stored.any():  # subtracted when the scene was prepared
        x, y, z = (stored + cloud.origin).tolist()
        cloud = replace(cloud, origin=(x, y, z))
    if not with_labels:
        frames = tuple(replace(frame, semantic_path=None) for frame in frames)
    return Scene(name=name, cloud=cloud, frames=frames, sweeps=sweeps, boxes=boxes), notes


def _record(folder: Path) -> dict[str, Any]:
    """What was noted when the scene was written; empty where nothing was. Raises SceneError for damage."""
    path = folder / "prepared.json"
    try:
        values = json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise SceneError(f"{path} is damaged ({error})", fix=AGAIN) from error
    if not isinstance(values, dict):
        raise SceneError(f"{path} is damaged: it is no object", fix=AGAIN)
    return values


def _stored_origin(record: Mapping[str, Any]) -> ndarray:
    try:
        origin = np.array(record.get("origin", (0.0, 0.0, 0.0)), np.float64)
    except (ValueError, TypeError):
        return np.zeros(3)
    return origin if origin.shape == (3,) and np.isfinite(origin).all() else np.zeros(3)


def _declared_fields(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the further arrays of the points; other files in the folder are none of ours."""
    names = record.get("fields", ())
    listed = names if isinstance(names, list) else ()
    return tuple(one for one in listed if isinstance(one, str) and one.isidentifier())


def _read_cloud(
    folder: Path, with_labels: bool, further: tuple[str, ...] = ()
) -> tuple[PointCloud, tuple[str, ...]]:
    coord, origin, notes = near_rows(_rows(folder / "coord.npy", 3), folder / "coord.npy", AGAIN)
    n_points = len(coord)
    color = torch.full((1, 3), 127.5).expand(n_points, 3)
    if (folder / "color.npy").exists():
        color, more = color_rows(_rows(folder / "color.npy"), folder / "color.npy", AGAIN)
        notes += more
    if (folder / "normal.npy").exists():
        path = folder / "normal.npy"
        normal, more = unit_normals(_rows(path, 3), coord, path, AGAIN)
        notes += more
    else:
        normal = cached_normals(coord) if n_points else torch.zeros(0, 3)
    labels = _labels(folder) if with_labels else {}
    fields = {name: _field(folder / f"{name}.npy") for name in further}
    for name, values in {"color": color, "normal": normal, **labels, **fields}.items():
        if len(values) != n_points:
            path = folder / f"{name}.npy"
            raise SceneError(f"{path} has {len(values)} rows, coord.npy {n_points}", fix=AGAIN)
    return PointCloud(coord, color, normal, labels, origin, fields), notes


def _labels(folder: Path) -> dict[str, Tensor]:
    paths = [*sorted(folder.glob("segment*.npy")), *folder.glob("instance.npy")]
    return {path.stem: label_rows(_array(path), path, AGAIN) for path in paths}


def _field(path: Path) -> Tensor:
    """A further array of the points, in its type."""
    values = _array(path)
    if values.dtype.kind not in "fiub" or values.dtype in (np.uint32, np.uint64) or values.ndim == 0:
        raise SceneError(
            f"{path} is {values.dtype} {values.shape}, expected numbers for each point", fix=AGAIN
        )
    return torch.from_numpy(values if values.nbytes >= MAPPED_FROM else np.array(values))


def _array(path: Path) -> ndarray:
    try:
        return map_array(path, mode="c")
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} is not a readable array ({error})", fix=AGAIN) from error


def _rows(path: Path, width: int | None = None) -> ndarray:
    values = _array(path)
    right = values.ndim == 2 and (width is None or values.shape[1] == width)
    if not right or values.dtype.kind not in "fiu":
        raise SceneError(
            f"{path} is {values.dtype} {values.shape}, expected numbers of shape (N, {width or 3})", fix=AGAIN
        )
    return values


def _read_frames(folder: Path, origin: ndarray = np.zeros(3)) -> tuple[Frame, ...]:
    path = folder / "cameras.npz"
    if not path.exists():
        return ()
    try:
        cameras = read_arrays(path)
        _check_ids(path, cameras["ids"])
        ids = [str(one) for one in cameras["ids"]]
        _check_cameras(path, cameras, len(ids))
        return tuple(_frame(folder, one, cameras, index, origin) for index, one in enumerate(ids))
    except (OSError, ValueError, KeyError, TypeError, OverflowError) as error:
        raise SceneError(f"{path} is damaged ({error})", fix=AGAIN) from error


def _check_ids(path: Path, ids: ndarray) -> None:
    """NumPy takes any four bytes for a letter; Python breaks on those that are none."""
    wrong = ids.dtype.kind != "U" or ids.ndim != 1
    if wrong or (np.frombuffer(ids.tobytes(), np.uint32) > 0x10FFFF).any():
        raise SceneError(f"'ids' in {path} are not texts, one for each frame", fix=AGAIN)


def _check_cameras(path: Path, cameras: dict[str, ndarray], n_frames: int) -> None:
    expected = {"K": (n_frames, 3, 3), "camera_to_world": (n_frames, 4, 4), "size": (n_frames, 2)}
    for name, shape in expected.items():
        if cameras[name].shape != shape:
            raise SceneError(
                f"'{name}' in {path} has shape {cameras[name].shape}, expected {shape}", fix=AGAIN
            )
    _check_poses(path, "camera_to_world", cameras["camera_to_world"], n_frames)


def _check_poses(path: Path, name: str, poses: ndarray, n_poses: int) -> None:
    if poses.shape != (n_poses, 4, 4):
        raise SceneError(f"'{name}' in {path} has shape {poses.shape}, expected {(n_poses, 4, 4)}", fix=AGAIN)
    if not np.isfinite(poses).all() or (np.abs(np.linalg.det(poses[:, :3, :3])) < 1e-9).any():
        raise SceneError(f"{path} holds poses that are not finite or not invertible", fix=AGAIN)


def _frame(folder: Path, name: str, cameras: dict[str, ndarray], index: int, origin: ndarray) -> Frame:
    width, height = (int(value) for value in cameras["size"][index])

    def known(kind: str, default: Any) -> Any:
        """Of this frame; what older stores lack has its default."""
        return cameras[kind][index] if kind in cameras else default

    time = float(known("time", np.nan))
    camera = Camera(
        intrinsics=torch.from_numpy(cameras["K"][index].astype(np.float32)),
        world_to_camera=torch.from_numpy(
            np.linalg.inv(near_pose(cameras["camera_to_world"][index], origin))
        ).float(),
        width=width,
        height=height,
    )
    semantic = folder / "semantic" / f"{name}.png"
    scale = np.broadcast_to(cameras["depth_scale"], (len(cameras["ids"]),))[index]
    return Frame(
        id=name,
        camera=camera,
        depth_scale=float(scale),
        color_path=folder / "color" / f"{name}.jpg" if known("has_color", True) else None,
        depth_path=folder / "depth" / f"{name}.png" if known("has_depth", True) else None,
        semantic_path=semantic if semantic.is_file() else None,
        held_out=bool(known("held_out", False)),
        mask_path=folder / "mask" / f"{name}.png" if known("has_mask", False) else None,
        time=time if np.isfinite(time) else None,
        sensor=str(known("sensor", "")),
    )


def _read_sweeps(folder: Path, origin: ndarray = np.zeros(3)) -> tuple[Sweep, ...]:
    path = folder / SWEEPS_FILE
    if not path.exists():
        return ()
    try:
        stored = read_arrays(path)
        _check_ids(path, stored["ids"])
        _check_poses(path, "sensor_to_world", stored["sensor_to_world"], len(stored["ids"]))
        return tuple(_sweep(folder, stored, index, origin) for index in range(len(stored["ids"])))
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        raise SceneError(f"{path} is damaged ({error})", fix=AGAIN) from error


def _sweep(folder: Path, stored: dict[str, ndarray], index: int, origin: ndarray) -> Sweep:
    name, time = str(stored["ids"][index]), float(stored["time"][index])
    to_world = near_pose(stored["sensor_to_world"][index], origin)
    return Sweep(
        id=name,
        sensor=str(stored["sensor"][index]),
        world_to_sensor=torch.from_numpy(np.linalg.inv(to_world)).float(),
        path=folder / f"{name}.npz",
        time=time if np.isfinite(time) else None,
        held_out=bool(stored["held_out"][index]),
    )


def _read_boxes(path: Path, origin: ndarray = np.zeros(3)) -> Boxes | None:
    if not path.exists():
        return None
    try:
        found = read_arrays(path)
        stored = {name: values for name, values in found.items() if name in BOXES}
        shapes = {name: values.shape for name, values in stored.items()}
        n_boxes = len(stored["center"])
        finite = all(bool(np.isfinite(stored[name]).all()) for name in ("center", "size", "yaw"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SceneError(f"{path} is damaged ({error})", fix=AGAIN) from error
    if shapes != {name: (n_boxes, *width) for name, width in BOXES.items()} or not finite:
        raise SceneError(f"{path} is damaged: its arrays are {shapes}, or not finite", fix=AGAIN)
    center = stored["center"].astype(np.float64) - origin
    numbers = {name: stored[name].astype(np.float32) for name in ("size", "yaw", "velocity")}
    indices = {name: stored[name].astype(np.int64) for name in ("category", "instance")}
    arrays = {"center": center.astype(np.float32), **numbers, **indices}
    further = {
        name: torch.from_numpy(values)
        for name, values in found.items()
        if name not in BOXES and values.ndim and len(values) == n_boxes and values.dtype.kind in "fib"
    }
    return Boxes(**{name: torch.from_numpy(values) for name, values in arrays.items()}, fields=further)
