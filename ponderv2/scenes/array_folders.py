"""Reads one prepared scene, or one of Pointcept's folders, and says what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.geometry.cameras import Camera
from ponderv2.io.arrays import map_array, read_arrays
from ponderv2.scenes.origin import near_pose
from ponderv2.scenes.point_cloud_files import color_rows, near_rows
from ponderv2.scenes.point_labels import whole_numbers
from ponderv2.scenes.point_normals import cached_normals, unit_normals
from ponderv2.scenes.reader import FrameChoice
from ponderv2.scenes.scene import Frame, PointCloud, Scene

AGAIN = "prepare the scene again"


class PreparedScenes:
    """Our own layout: a folder per scene."""

    def scene_names(self, folder: Path) -> tuple[str, ...]:
        """Folders with coord.npy at most two levels down."""
        found = [path.parent for pattern in ("*/coord.npy", "*/*/coord.npy") for path in folder.glob(pattern)]
        names = [path.relative_to(folder).as_posix() for path in found]
        hidden = {name for name in names if any(part.startswith(".") for part in name.split("/"))}
        return tuple(sorted(set(names) - hidden))

    def is_scene(self, place: Path) -> bool:
        """Whether there are points."""
        return (place / "coord.npy").is_file()

    def has_frames(self, place: Path) -> bool:
        """Whether there are photographs."""
        return (place / "frames" / "cameras.npz").is_file()

    def read(self, place: Path, name: str, labels: bool, frames: FrameChoice) -> Scene:
        """A scene with all its photographs. Raises SceneError."""
        return read_scene(place, name, labels)

    def notes(self, place: Path) -> tuple[str, ...]:
        """Nothing: what is noted stands in the record of the scene."""
        return ()


PREPARED = PreparedScenes()


def read_scene(folder: Path, name: str, with_labels: bool = True) -> Scene:
    """Large arrays memory-mapped (copy on write), cameras read, pictures left on disk.

    Without labels no file of them is touched, and frames have no `semantic_path`.
    """
    return read_scene_with_notes(folder, name, with_labels)[0]


def read_scene_with_notes(folder: Path, name: str, with_labels: bool = True) -> tuple[Scene, tuple[str, ...]]:
    """As `read_scene`; also how colours and positions were understood, and what was made up."""
    cloud, notes = _read_cloud(folder, with_labels)
    frames = _read_frames(folder / "frames", np.array(cloud.origin))
    stored = _stored_origin(folder)
    if stored.any():  # subtracted when the scene was prepared
        x, y, z = (stored + cloud.origin).tolist()
        cloud = replace(cloud, origin=(x, y, z))
    if not with_labels:
        frames = tuple(replace(frame, semantic_path=None) for frame in frames)
    return Scene(name=name, cloud=cloud, frames=frames), notes


def _stored_origin(folder: Path) -> ndarray:
    try:
        values = json.loads((folder / "prepared.json").read_bytes()).get("origin", (0.0, 0.0, 0.0))
        origin = np.array(values, np.float64)
    except (OSError, ValueError, AttributeError, TypeError, RecursionError):
        return np.zeros(3)
    return origin if origin.shape == (3,) and np.isfinite(origin).all() else np.zeros(3)


def _read_cloud(folder: Path, with_labels: bool) -> tuple[PointCloud, tuple[str, ...]]:
    coord, origin, notes = near_rows(_rows(folder / "coord.npy", 3), folder / "coord.npy", AGAIN)
    n_points = len(coord)
    if n_points == 0:
        raise SceneError(f"{folder / 'coord.npy'} holds no points", fix=AGAIN)
    color = torch.full((1, 3), 127.5).expand(n_points, 3)
    if (folder / "color.npy").is_file():
        color, more = color_rows(_rows(folder / "color.npy"), folder / "color.npy", AGAIN)
        notes += more
    if (folder / "normal.npy").is_file():
        path = folder / "normal.npy"
        normal, more = unit_normals(_rows(path, 3), coord, path, AGAIN)
        notes += more
    else:
        normal = cached_normals(coord)
    labels = _labels(folder) if with_labels else {}
    for field, values in {"color": color, "normal": normal, **labels}.items():
        if len(values) != n_points:
            path = folder / f"{field}.npy"
            raise SceneError(f"{path} has {len(values)} rows, coord.npy {n_points}", fix=AGAIN)
    return PointCloud(coord, color, normal, labels, origin), notes


def _labels(folder: Path) -> dict[str, Tensor]:
    paths = [*sorted(folder.glob("segment*.npy")), *folder.glob("instance.npy")]
    return {path.stem: torch.from_numpy(whole_numbers(_array(path), path, AGAIN)) for path in paths}


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
    if not path.is_file():
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
    poses = cameras["camera_to_world"]
    if not np.isfinite(poses).all() or (np.abs(np.linalg.det(poses[:, :3, :3])) < 1e-9).any():
        raise SceneError(f"{path} holds poses that are not finite or not invertible", fix=AGAIN)


def _frame(folder: Path, name: str, cameras: dict[str, ndarray], index: int, origin: ndarray) -> Frame:
    width, height = (int(value) for value in cameras["size"][index])
    camera = Camera(
        intrinsics=torch.from_numpy(cameras["K"][index].astype(np.float32)),
        world_to_camera=torch.from_numpy(
            np.linalg.inv(near_pose(cameras["camera_to_world"][index], origin))
        ).float(),
        width=width,
        height=height,
    )
    semantic = folder / "semantic" / f"{name}.png"
    has_color = bool(cameras["has_color"][index]) if "has_color" in cameras else True
    has_mask = bool(cameras["has_mask"][index]) if "has_mask" in cameras else False
    scale = np.broadcast_to(cameras["depth_scale"], (len(cameras["ids"]),))[index]
    held_out = bool(cameras["held_out"][index]) if "held_out" in cameras else False
    return Frame(
        id=name,
        camera=camera,
        depth_scale=float(scale),
        color_path=folder / "color" / f"{name}.jpg" if has_color else None,
        depth_path=folder / "depth" / f"{name}.png",
        semantic_path=semantic if semantic.is_file() else None,
        held_out=held_out,
        mask_path=folder / "mask" / f"{name}.png" if has_mask else None,
    )
