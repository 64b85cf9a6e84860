"""Point clouds from files of other programs: PLY, PCD, NPY and text. Units and axes become metres, z up."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.array_files import map_array
from ponderv2.scenes.normals import estimate_normals
from ponderv2.scenes.pcd import read_pcd
from ponderv2.scenes.ply import read_ply
from ponderv2.scenes.scene import PointCloud

POINT_FILES = (".ply", ".pcd", ".npy", ".xyz", ".txt", ".csv", ".pts")
"""Endings that are read. Arrays and text have columns x y z [r g b [nx ny nz]]."""
NO_COLOR = 127.5
"""Colour of points that have none: the middle of 0..255, which encoders see as 0."""
UP_AXES = ("z", "y", "x", "-z", "-y", "-x")

_COLUMNS = (3, 6, 9)


@dataclass(frozen=True)
class ReadCloud:
    """A cloud with a colour and a normal for every point, and what was made up for it."""

    cloud: PointCloud
    """Points of finite position only."""
    finite: Bool[ndarray, " stored"]
    """Which points of the file these are."""
    notes: tuple[str, ...]
    """What was missing and what stands in its place, one sentence each."""


@dataclass(frozen=True)
class _Columns:
    coord: ndarray
    color: ndarray | None = None
    normal: ndarray | None = None
    faces: Integer[ndarray, "face 3"] | None = None


def read_cloud(path: Path, scale: float = 1.0, up: str = "z") -> PointCloud:
    """The points of a PLY, PCD, NPY or text file; missing normals are estimated, missing colours grey.

    Args:
        path: `x y z [r g b [nx ny nz]]` in arrays and text; PLY and PCD name their fields.
        scale: Metres per unit of the file, 0.001 for millimetres.
        up: The axis of the file that points up: z, y, x, -z, -y or -x.

    Raises:
        SceneError: not such a file, damaged, without points, or with points that are not finite.
    """
    read = read_cloud_with_notes(Path(path), scale, up)
    if not read.finite.all():
        raise SceneError(
            f"{path}: {int((~read.finite).sum())} of {len(read.finite)} points have no finite position",
            fix="ponder features gives them no features and says so; or remove them",
        )
    return read.cloud


def read_cloud_with_notes(path: Path, scale: float = 1.0, up: str = "z") -> ReadCloud:
    """As `read_cloud`, but points without a finite position are left out and everything is said."""
    if scale <= 0 or not np.isfinite(scale):
        raise SceneError(f"a scale of {scale} makes no cloud", fix="--scale 0.001 for millimetres")
    columns = _read(path)
    turn = _turn_to_z(up)
    coord = columns.coord.astype(np.float64) * scale @ turn.T
    # Clouds are stored in single precision: what is infinite there is infinite here.
    with np.errstate(over="ignore"):
        finite = np.asarray(np.isfinite(coord.astype(np.float32)).all(axis=1))
    if not finite.any():
        raise SceneError(f"{path} holds no points of finite position", fix="give another file")
    notes = [] if finite.all() else [f"{int((~finite).sum())} points have no finite position"]
    color, said = _color(columns.color, len(coord))
    notes += said
    normal, said = _normal(columns, coord, finite, turn)
    notes += said
    cloud = PointCloud(
        torch.from_numpy(coord[finite].astype(np.float32)),
        torch.from_numpy(color[finite]),
        torch.from_numpy(normal[finite].astype(np.float32)),
    )
    return ReadCloud(cloud, finite, tuple(notes))


def _read(path: Path) -> _Columns:
    ending = path.suffix.lower()
    if not path.is_file():
        raise SceneError(f"no file {path}", fix="give a file of points")
    if ending == ".ply":
        file = read_ply(path)
        return _named(file.vertex, file.faces)
    if ending == ".pcd":
        fields = read_pcd(path)
        if not all(axis in fields for axis in "xyz"):
            raise SceneError(f"{path} has no fields x, y, z", fix="give another file")
        return _named({**_unpacked_color(fields), **fields}, None)
    if ending == ".npy":
        return _columns(path, _array(path))
    if ending in POINT_FILES:
        return _columns(path, _text(path))
    known = ", ".join(POINT_FILES)
    raise SceneError(f"{path} is none of the kinds of file that are read ({known})", fix="convert it to PLY")


def _named(fields: dict[str, ndarray], faces: Integer[ndarray, "face 3"] | None) -> _Columns:
    def side_by_side(*choices: tuple[str, str, str]) -> ndarray | None:
        for names in choices:
            if all(name in fields for name in names):
                return np.stack([fields[name] for name in names], axis=1)
        return None

    coord = side_by_side(("x", "y", "z"))
    assert coord is not None
    color = side_by_side(
        ("red", "green", "blue"), ("diffuse_red", "diffuse_green", "diffuse_blue"), ("r", "g", "b")
    )
    normal = side_by_side(("nx", "ny", "nz"), ("normal_x", "normal_y", "normal_z"))
    return _Columns(coord, color, normal, faces if faces is not None and len(faces) else None)


def _unpacked_color(fields: dict[str, ndarray]) -> dict[str, ndarray]:
    """PCD packs a colour into 32 bits, as a whole number or as a float of the same bits: 0x00RRGGBB."""
    packed = fields.get("rgb", fields.get("rgba"))
    if packed is None or packed.dtype.itemsize != 4:
        return {}
    bits = packed.view(np.uint32)
    shifts = {"red": 16, "green": 8, "blue": 0}
    return {name: ((bits >> shift) & 255).astype(np.uint8) for name, shift in shifts.items()}


def _array(path: Path) -> ndarray:
    try:
        values = map_array(path)
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} is not a readable array ({error})", fix="np.save of [N, 3..9]") from error
    if values.dtype.kind not in "fiu":
        raise SceneError(f"{path} does not hold numbers", fix="np.save of [N, 3..9]")
    return values


def _text(path: Path) -> ndarray:
    """Numbers separated by blanks, commas or semicolons; leading lines of words or one number are skipped."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    rows: list[list[str]] = []
    for line in lines:
        words = line.split("#")[0].replace(",", " ").replace(";", " ").split()
        if words and (rows or (len(words) >= 3 and _is_number(words[0]))):
            rows.append(words)
    try:
        return np.array(rows, dtype=np.float64)
    except ValueError as error:
        raise SceneError(
            f"{path} is no table of numbers ({str(error)[:80]})", fix="one point per line: x y z [r g b]"
        ) from error


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _columns(path: Path, values: ndarray) -> _Columns:
    if values.ndim != 2 or values.shape[1] not in _COLUMNS or len(values) == 0:
        raise SceneError(
            f"{path} has shape {values.shape}; expected points of 3, 6 or 9 columns",
            fix="columns x y z [r g b [nx ny nz]]",
        )
    color = values[:, 3:6] if values.shape[1] >= 6 else None
    return _Columns(values[:, :3], color, values[:, 6:9] if values.shape[1] == 9 else None)


def _turn_to_z(up: str) -> Float64[ndarray, "3 3"]:
    """A proper rotation that makes the axis `up` the third one; y up as in most graphics programs."""
    turns = {
        "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        "y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        "-y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        "x": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        "-x": [[0, 1, 0], [0, 0, -1], [-1, 0, 0]],
    }
    if up not in turns:
        raise SceneError(f"'{up}' is no axis", fix=f"--up {UP_AXES[1]}, or another of {', '.join(UP_AXES)}")
    return np.array(turns[up], dtype=np.float64)


def _color(color: ndarray | None, n_points: int) -> tuple[ndarray, list[str]]:
    """0..255, whatever range the file has."""
    if color is None:
        note = f"no colours in the file: {NO_COLOR} of 255 stands for them, which the encoder sees as 0"
        return np.full((n_points, 3), NO_COLOR, np.float32), [note]
    values = np.asarray(color)
    if values.dtype.kind in "iu":
        factor = 1.0 / 257.0 if values.dtype.itemsize > 1 and values.max(initial=0) > 255 else 1.0
    else:
        factor = 255.0 if np.nanmax(values, initial=0.0) <= 1.0 else 1.0
    scaled = np.nan_to_num(values.astype(np.float64) * factor, nan=NO_COLOR)
    notes = [] if factor == 1.0 else [f"colours were multiplied by {factor:.4g} to span 0..255"]
    if scaled.min(initial=0.0) < 0 or scaled.max(initial=0.0) > 255:
        notes.append("colours outside 0..255 were cut off")
    return np.clip(scaled, 0, 255).astype(np.float32), notes


def _normal(columns: _Columns, coord: ndarray, finite: ndarray, turn: ndarray) -> tuple[ndarray, list[str]]:
    """Unit normals: of the file, of its faces, or of the neighbourhood, turned to the middle of the cloud."""
    if columns.normal is not None:
        normal = columns.normal.astype(np.float64) @ turn.T
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        known = np.isfinite(length[:, 0]) & (length[:, 0] > 1e-6)
        if known[finite].all():
            return normal / np.where(known[:, None], length, 1.0), []
        note = f"{int((~known & finite).sum())} points have no normal in the file: all were estimated"
    elif columns.faces is not None:
        normal = face_normals(coord, columns.faces)
        lost = np.linalg.norm(normal, axis=1) < 0.5
        normal[lost] = (0.0, 0.0, 1.0)
        said = "normals were computed from the faces"
        return normal, [said + (f"; {int(lost.sum())} points in no face look up" if lost.any() else "")]
    else:
        note = "no normals in the file: estimated from neighbours"
    points = coord[finite]
    result = np.zeros_like(coord)
    result[finite] = estimate_normals(points, towards=points.mean(axis=0)[None])
    return result, [f"{note}, turned to the middle of the cloud"]


def face_normals(
    coord: Float64[ndarray, "point 3"], faces: Integer[ndarray, "face 3"]
) -> Float64[ndarray, "point 3"]:
    """Unit normals of the vertices, faces weighted by their area; 0 where there is no face."""
    corner = coord[faces]
    across = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    across = np.nan_to_num(across)
    normal = np.zeros(coord.shape, np.float64)
    for column in range(3):
        for axis in range(3):
            normal[:, axis] += np.bincount(faces[:, column], across[:, axis], minlength=len(coord))
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
