"""Writes scenes so that a crash leaves the old scene, the new one, or a temporary folder that is ignored."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float64
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.boxes import Boxes
from ponderv2.io.files import (
    ASIDE,
    has_ended,
    remove_leftovers,
    replace_folder,
    reported,
    sync_folder,
    temporary_path,
    write_through,
)
from ponderv2.io.images import encode_jpeg, encode_mask, encode_png16
from ponderv2.io.ply import encode_ply
from ponderv2.scenes.array_folders import SWEEPS_FILE
from ponderv2.scenes.origin import far_outliers, near_pose, origin_note, origin_of, outlier_note
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream, label_dtype
from ponderv2.scenes.scene import Sweep
from ponderv2.version import __version__

ENDINGS = {"color": "jpg", "depth": "png", "mask": "png", "semantic": "png"}
"""Of the images of a frame, by kind, which is the name of their folder too."""
RESERVED = ("coord", "color", "normal", "instance", "boxes")
"""Names of files that no further field of the points may have."""


def write_scene(
    folder: Path, contents: SceneStream, fingerprint: str, box_classes: tuple[str, ...] = ()
) -> None:
    """Write frames one by one, then the rest, then move the whole into place.

    Raises SceneError for a scene that could not be read again, OutputError where it cannot be written.
    """
    temporary = temporary_path(folder)
    try:
        with reported(folder):
            remove_leftovers(folder.parent)
            temporary.mkdir(parents=True)
            cameras = _write_frames(temporary / "frames", contents.frames)
            scene, shift = near_zero(contents.finish(), [one.camera_to_world[:3, 3] for one in cameras])
            if cameras:
                _write_cameras(temporary / "frames" / "cameras.npz", cameras, shift)
            if scene.sweeps:
                _write_sweeps(temporary / "sweeps", scene.sweeps, shift)
            if scene.boxes is not None:
                _write_boxes(temporary / "boxes.npz", scene.boxes, box_classes)
            _write_surface(temporary, scene, may_lack_points(scene, cameras))
            _write_new(temporary / "prepared.json", _record(scene, len(cameras), fingerprint))
            for directory in [path for path in temporary.rglob("*") if path.is_dir()] + [temporary]:
                sync_folder(directory)
            replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _record(scene: PreparedScene, n_frames: int, fingerprint: str) -> bytes:
    record = {
        "fingerprint": fingerprint,
        "version": __version__,
        "frames": n_frames,
        "points": len(scene.cloud.coord),
        "notes": list(scene.notes),
        "repairs": list(scene.repairs),
    }
    if scene.cloud.fields:
        record["fields"] = sorted(scene.cloud.fields)
    if scene.sweeps:
        record["sweeps"] = len(scene.sweeps)
    if any(scene.origin):
        record["origin"] = list(scene.origin)
    if scene.recording_to_scene is not None:
        record["recording_to_scene"] = scene.recording_to_scene.tolist()
    return json.dumps(record, indent=1).encode()


def may_lack_points(scene: PreparedScene, cameras: Sequence[_Camera]) -> bool:
    """Whether a scene without points makes sense: sweeps measure them, and images alone have none."""
    return bool(scene.sweeps) or (len(cameras) > 0 and not any(one.has_depth for one in cameras))


def near_zero(
    scene: PreparedScene, positions: Sequence[Float[ndarray, "3"]] = ()
) -> tuple[PreparedScene, Float64[ndarray, "3"]]:
    """The scene with an origin subtracted where it is far from zero, and what was subtracted.

    `positions`: of the cameras, which decide where there are no points.
    """
    cloud = scene.cloud
    finite = bool(np.isfinite(cloud.coord).all())  # else it is refused when it is written
    sensors = [torch.linalg.inv(one.world_to_sensor.double())[:3, 3].numpy() for one in scene.sweeps]
    shift = origin_of(cloud.coord, np.array([*positions, *sensors]).reshape(-1, 3)) if finite else np.zeros(3)
    notes = scene.notes
    far = far_outliers(cloud.coord)
    if far.any():
        notes = (*notes, outlier_note(cloud.coord, far))
    x, y, z = (shift + scene.origin).tolist()
    scene = replace(scene, notes=notes, origin=(x, y, z))
    return (_shifted(scene, shift) if shift.any() else scene), shift


def _shifted(scene: PreparedScene, shift: Float64[ndarray, "3"]) -> PreparedScene:
    mesh, boxes = scene.mesh, scene.boxes
    if mesh is not None:
        mesh = replace(mesh, vertices=mesh.vertices.double() - torch.from_numpy(shift))
    if boxes is not None:
        center = boxes.center.double() - torch.from_numpy(shift)
        boxes = replace(boxes, center=center.to(boxes.center.dtype))
    cloud = replace(scene.cloud, coord=scene.cloud.coord.astype(np.float64) - shift)
    return replace(scene, cloud=cloud, mesh=mesh, boxes=boxes, notes=(*scene.notes, origin_note(shift)))


def restore_interrupted(folder: Path) -> None:
    """The scene as it was before a replacement that was killed between its two renames."""
    if folder.exists() or not folder.parent.is_dir():
        return
    start = f".{folder.name}."
    for path in sorted(folder.parent.iterdir()):
        aside = path.name.startswith(start) and (path.name == f"{start}old" or has_ended(path.name, ASIDE))
        if aside and path.is_dir():
            with contextlib.suppress(OSError):
                path.rename(folder)
                return


def _write_frames(folder: Path, frames: Iterable[DecodedFrame]) -> list[_Camera]:
    """The cameras of all frames; their images are written one by one."""
    cameras: list[_Camera] = []
    known: set[str] = set()
    for frame in frames:
        check_frame(frame, known)
        known.add(frame.id)
        for kind, data in _encoded(frame).items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            _write_new(folder / kind / f"{frame.id}.{ENDINGS[kind]}", data)
        cameras.append(_Camera.of(frame))
    return cameras


def _encoded(frame: DecodedFrame) -> dict[str, bytes]:
    """The files of a frame by kind; a kind that the frame lacks is absent. Hidden pixels have no depth."""
    files: dict[str, bytes] = {}
    if frame.depth is not None:
        depth = frame.depth if frame.visible is None else np.where(frame.visible, frame.depth, 0)
        files["depth"] = encode_png16(depth.astype(np.uint16))
    if frame.color is not None:
        files["color"] = frame.color_file if frame.color_file is not None else encode_jpeg(frame.color)
    if frame.visible is not None:
        files["mask"] = encode_mask(frame.visible)
    if frame.semantic is not None:
        stored = np.asarray(frame.semantic).astype(np.int64) + 1
        files["semantic"] = encode_png16(stored.astype(np.uint16))
    return files


def check_frame(frame: DecodedFrame, known: set[str]) -> None:
    """Refuse what would be written but could not be read again."""
    _check_id("frame", frame.id, known)
    images = {"colour": frame.color, "mask": frame.visible, "depth": frame.depth, "classes": frame.semantic}
    shapes = {kind: image.shape[:2] for kind, image in images.items() if image is not None}
    if not shapes.keys() - {"mask"}:
        raise SceneError(f"frame {frame.id} has no image")
    if len(set(shapes.values())) > 1:
        sizes = " and ".join(f"{kind} {shape}" for kind, shape in shapes.items())
        raise SceneError(f"frame {frame.id}: {sizes} (rows, columns) differ")
    if not (np.isfinite(frame.intrinsics).all() and np.isfinite(frame.camera_to_world).all()):
        raise SceneError(f"frame {frame.id}: intrinsics or pose are not finite")


def _check_id(what: str, name: str, known: set[str]) -> None:
    if name in known or not name or "/" in name or name.startswith("."):
        raise SceneError(f"{what} id '{name}' is empty, used twice or not a file name")


@dataclass(frozen=True)
class _Camera:
    """What is stored of a frame beside its images."""

    id: str
    intrinsics: Float64[ndarray, "3 3"]
    camera_to_world: Float64[ndarray, "4 4"]
    depth_scale: float
    size: tuple[int, int]
    """Width and height."""
    held_out: bool
    has_color: bool
    has_depth: bool
    has_mask: bool
    time: float | None
    sensor: str

    @staticmethod
    def of(frame: DecodedFrame) -> _Camera:
        return _Camera(
            frame.id,
            np.asarray(frame.intrinsics, np.float64),
            np.asarray(frame.camera_to_world, np.float64),
            frame.depth_scale,
            frame.size,
            frame.held_out,
            frame.color is not None,
            frame.depth is not None,
            frame.visible is not None,
            frame.time,
            frame.sensor,
        )


def _write_cameras(path: Path, cameras: list[_Camera], shift: Float64[ndarray, "3"]) -> None:
    """Arrays with a row per frame; times, sensors and missing depth only where there are any."""
    arrays = {
        "ids": np.array([one.id for one in cameras]),
        "K": np.stack([one.intrinsics for one in cameras]),
        "camera_to_world": np.stack([near_pose(one.camera_to_world, shift) for one in cameras]),
        "depth_scale": np.array([one.depth_scale for one in cameras], np.float64),
        "size": np.array([one.size for one in cameras], np.int64),
        "held_out": np.array([one.held_out for one in cameras], np.bool_),
        "has_color": np.array([one.has_color for one in cameras], np.bool_),
        "has_mask": np.array([one.has_mask for one in cameras], np.bool_),
    }
    if not all(one.has_depth for one in cameras):
        arrays["has_depth"] = np.array([one.has_depth for one in cameras], np.bool_)
    if any(one.time is not None for one in cameras):
        arrays["time"] = _times([one.time for one in cameras])
    if any(one.sensor for one in cameras):
        arrays["sensor"] = np.array([one.sensor for one in cameras])
    _write_arrays(path, arrays)


def _times(times: list[float | None]) -> Float64[ndarray, " moment"]:
    """Seconds; nan = unknown."""
    return np.array([np.nan if one is None else one for one in times], np.float64)


def _write_sweeps(folder: Path, sweeps: Sequence[Sweep], shift: Float64[ndarray, "3"]) -> None:
    """An archive of arrays per sweep, and one of ids, sensors, poses and times of all."""
    folder.mkdir(parents=True)
    known: set[str] = set()
    for sweep in sweeps:
        _check_id("sweep", sweep.id, known)
        known.add(sweep.id)
        if not bool(torch.isfinite(sweep.world_to_sensor).all()):
            raise SceneError(f"sweep {sweep.id}: its pose is not finite")
        arrays = {name: values.numpy() for name, values in sweep.read().arrays.items()}
        _write_arrays(folder / f"{sweep.id}.npz", arrays)
    poses = [np.linalg.inv(sweep.world_to_sensor.double().numpy()) for sweep in sweeps]
    _write_arrays(
        folder / SWEEPS_FILE,
        {
            "ids": np.array([sweep.id for sweep in sweeps]),
            "sensor": np.array([sweep.sensor for sweep in sweeps]),
            "sensor_to_world": np.stack([near_pose(pose, shift) for pose in poses]),
            "time": _times([sweep.time for sweep in sweeps]),
            "held_out": np.array([sweep.held_out for sweep in sweeps], np.bool_),
        },
    )


def _write_boxes(path: Path, boxes: Boxes, class_names: tuple[str, ...]) -> None:
    arrays = {name: values.numpy() for name, values in boxes.arrays.items()}
    for name in ("center", "size", "yaw"):
        if not np.isfinite(arrays[name]).all():
            raise SceneError(f"'{name}' of the boxes holds values that are not finite")
    _write_arrays(path, {**arrays, "class_names": np.array(class_names, np.str_)})


def _write_arrays(path: Path, arrays: Mapping[str, ndarray]) -> None:
    target = io.BytesIO()
    np.savez(target, **arrays)  # pyright: ignore[reportArgumentType]
    _write_new(path, target.getvalue())


def _write_surface(folder: Path, scene: PreparedScene, may_be_empty: bool) -> None:
    for name, values in _cloud_arrays(scene.cloud, may_be_empty).items():
        target = io.BytesIO()
        np.save(target, np.ascontiguousarray(values), allow_pickle=False)
        _write_new(folder / f"{name}.npy", target.getvalue())
    if scene.mesh is not None:
        mesh = scene.mesh
        _write_new(
            folder / "mesh.ply",
            encode_ply(mesh.vertices.float().numpy(), faces=mesh.faces.numpy(), colors=mesh.color_bytes()),
        )


def _cloud_arrays(cloud: PreparedCloud, may_be_empty: bool) -> dict[str, ndarray]:
    n_points = len(cloud.coord)
    arrays: dict[str, ndarray] = {
        "coord": cloud.coord.astype(np.float32),
        "normal": cloud.normal.astype(np.float32),
    }
    if cloud.color is not None:
        arrays["color"] = cloud.color.astype(np.uint8)
    for name, values in cloud.labels.items():
        arrays[name] = values.astype(label_dtype(values))
    for name, values in cloud.fields.items():
        if name in RESERVED or name.startswith("segment") or not name.isidentifier():
            raise SceneError(f"'{name}' is not a name for a field of the points")
        arrays[name] = values
    for name, values in arrays.items():
        if len(values) != n_points:
            raise SceneError(f"{len(values)} values of '{name}' for {n_points} points")
        if name not in cloud.fields and values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SceneError(f"'{name}' of the point cloud holds values that are not finite")
    if n_points == 0 and not may_be_empty:
        raise SceneError(
            "the scene has no points", fix="check the depth images, their scale and depth limits"
        )
    return arrays


def _write_new(path: Path, data: bytes) -> None:
    with reported(path, n_bytes=len(data)):
        write_through(path, data)
