"""Writes scenes so that a crash leaves the old scene, the new one, or a temporary folder that is ignored."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from ponderv2.errors import SceneError
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
from ponderv2.scenes.origin import far_outliers, near_pose, origin_note, origin_of, outlier_note
from ponderv2.scenes.prepared import DecodedFrame, PreparedCloud, PreparedScene, SceneStream, label_dtype
from ponderv2.version import __version__

ENDINGS = {"color": "jpg", "depth": "png", "mask": "png", "semantic": "png"}
"""Of the images of a frame, by kind, which is the name of their folder too."""


def write_scene(folder: Path, contents: SceneStream, fingerprint: str) -> PreparedScene:
    """Write frames as they come, then the surface, then move the whole into place. Returns the surface."""
    temporary = temporary_path(folder)
    try:
        with reported(folder):
            remove_leftovers(folder.parent)
            temporary.mkdir(parents=True)
            frames, sizes = _write_frames(temporary / "frames", contents)
            surface, shift = near_zero(contents.finish())
            if frames:
                _write_cameras(temporary / "frames" / "cameras.npz", frames, sizes, shift)
            _write_surface(temporary, surface)
            record = {
                "fingerprint": fingerprint,
                "version": __version__,
                "frames": len(frames),
                "points": len(surface.cloud.coord),
                "notes": list(surface.notes),
                "repairs": list(surface.repairs),
                **({"origin": list(surface.origin)} if any(surface.origin) else {}),
            }
            if surface.recording_to_scene is not None:
                record["recording_to_scene"] = surface.recording_to_scene.tolist()
            _write_new(temporary / "prepared.json", json.dumps(record, indent=1).encode())
            for directory in [path for path in temporary.rglob("*") if path.is_dir()] + [temporary]:
                sync_folder(directory)
            replace_folder(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return surface


def near_zero(surface: PreparedScene) -> tuple[PreparedScene, Float64[np.ndarray, "3"]]:
    """The surface with an origin subtracted where it is far from zero, and what was subtracted."""
    cloud, mesh = surface.cloud, surface.mesh
    finite = bool(np.isfinite(cloud.coord).all())  # else it is refused when it is written
    shift = origin_of(cloud.coord) if finite else np.zeros(3)
    notes = surface.notes
    far = far_outliers(cloud.coord)
    if far.any():
        notes = (*notes, outlier_note(cloud.coord, far))
    if shift.any():
        cloud = replace(cloud, coord=cloud.coord.astype(np.float64) - shift)
        mesh = None if mesh is None else replace(mesh, vertices=mesh.vertices.astype(np.float64) - shift)
        notes = (*notes, origin_note(shift))
    x, y, z = (shift + surface.origin).tolist()
    return replace(surface, cloud=cloud, mesh=mesh, notes=notes, origin=(x, y, z)), shift


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


def _write_frames(folder: Path, contents: SceneStream) -> tuple[list[DecodedFrame], list[tuple[int, int]]]:
    """The cameras of all frames and the sizes of their images, which are written one by one."""
    cameras: list[DecodedFrame] = []
    sizes: list[tuple[int, int]] = []
    known: set[str] = set()
    for frame in contents.frames:
        check_frame(frame, known)
        known.add(frame.id)
        for kind, data in _encoded(frame).items():
            (folder / kind).mkdir(parents=True, exist_ok=True)
            _write_new(folder / kind / f"{frame.id}.{ENDINGS[kind]}", data)
        sizes.append((frame.depth.shape[1], frame.depth.shape[0]))
        cameras.append(_camera_only(frame))
    return cameras, sizes


def _encoded(frame: DecodedFrame) -> dict[str, bytes]:
    """The files of a frame by kind; a kind that the frame lacks is absent. Hidden pixels have no depth."""
    depth = frame.depth if frame.visible is None else np.where(frame.visible, frame.depth, 0)
    files = {"depth": encode_png16(depth.astype(np.uint16))}
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
    if frame.id in known or not frame.id or "/" in frame.id or frame.id.startswith("."):
        raise SceneError(f"frame id '{frame.id}' is empty, used twice or not a file name")
    for kind, image in (("colour", frame.color), ("mask", frame.visible)):
        if image is not None and image.shape[:2] != frame.depth.shape:
            sizes = f"{kind} {image.shape[:2]} and depth {frame.depth.shape}"
            raise SceneError(f"frame {frame.id}: {sizes} (rows, columns) differ")
    if not (np.isfinite(frame.intrinsics).all() and np.isfinite(frame.camera_to_world).all()):
        raise SceneError(f"frame {frame.id}: intrinsics or pose are not finite")


def _camera_only(frame: DecodedFrame) -> DecodedFrame:
    """The camera alone, so that pictures do not pile up in memory; empty ones stand for those there are."""
    return DecodedFrame(
        frame.id,
        np.asarray(frame.intrinsics, np.float64),
        np.asarray(frame.camera_to_world, np.float64),
        None if frame.color is None else np.zeros((0, 0, 3), np.uint8),
        np.zeros((0, 0), np.uint16),
        frame.depth_scale,
        held_out=frame.held_out,
        visible=None if frame.visible is None else np.zeros((0, 0), np.bool_),
    )


def _write_cameras(
    path: Path, frames: list[DecodedFrame], sizes: list[tuple[int, int]], shift: Float64[np.ndarray, "3"]
) -> None:
    target = io.BytesIO()
    np.savez(
        target,
        ids=np.array([frame.id for frame in frames]),
        K=np.stack([frame.intrinsics for frame in frames]),
        camera_to_world=np.stack([near_pose(frame.camera_to_world, shift) for frame in frames]),
        depth_scale=np.array([frame.depth_scale for frame in frames], np.float64),
        size=np.array(sizes, np.int64),
        held_out=np.array([frame.held_out for frame in frames], np.bool_),
        has_color=np.array([frame.color is not None for frame in frames], np.bool_),
        has_mask=np.array([frame.visible is not None for frame in frames], np.bool_),
    )
    _write_new(path, target.getvalue())


def _write_surface(folder: Path, surface: PreparedScene) -> None:
    for name, values in _cloud_arrays(surface.cloud).items():
        target = io.BytesIO()
        np.save(target, np.ascontiguousarray(values), allow_pickle=False)
        _write_new(folder / f"{name}.npy", target.getvalue())
    if surface.mesh is not None:
        mesh = surface.mesh
        _write_new(
            folder / "mesh.ply",
            encode_ply(mesh.vertices.astype(np.float32), faces=mesh.faces, colors=mesh.colors),
        )


def _cloud_arrays(cloud: PreparedCloud) -> dict[str, np.ndarray]:
    n_points = len(cloud.coord)
    arrays: dict[str, np.ndarray] = {
        "coord": cloud.coord.astype(np.float32),
        "normal": cloud.normal.astype(np.float32),
    }
    if cloud.color is not None:
        arrays["color"] = cloud.color.astype(np.uint8)
    for name, values in cloud.labels.items():
        arrays[name] = values.astype(label_dtype(values))
    for name, values in arrays.items():
        if len(values) != n_points:
            raise SceneError(f"{len(values)} values of '{name}' for {n_points} points")
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise SceneError(f"'{name}' of the point cloud holds values that are not finite")
    if n_points == 0:
        raise SceneError(
            "the scene has no points", fix="check the depth pictures, their scale and depth limits"
        )
    return arrays


def _write_new(path: Path, data: bytes) -> None:
    with reported(path, n_bytes=len(data)):
        write_through(path, data)
