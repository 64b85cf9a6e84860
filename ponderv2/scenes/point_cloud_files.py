"""Point clouds from files: PLY, PCD, NPY and text. Units and axes become metres, z up."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Integer
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.geometry.normals import estimate_normals, standing_eye, vertex_normals
from ponderv2.io.arrays import map_array
from ponderv2.io.colors import no_colors
from ponderv2.io.pcd import read_pcd
from ponderv2.io.ply import read_ply
from ponderv2.io.point_columns import PointColumns, has_position, named_columns, unnamed_columns
from ponderv2.io.text_clouds import TEXT_FILES, read_point_text
from ponderv2.scenes.origin import (
    coarse_note,
    far_outliers,
    middle_of,
    origin_note,
    origin_of,
    outlier_note,
    size_note,
)
from ponderv2.scenes.scene import PointCloud

POINT_FILES = (".ply", ".pcd", ".npy", *TEXT_FILES)
"""Endings that are read. Columns go by their names, where there are any, else x y z [r g b [nx ny nz]]."""
UP_AXES = ("z", "y", "x", "-z", "-y", "-x")


@dataclass(frozen=True)
class ReadCloud:
    """A cloud with a colour and a normal for every point, and what was made up for it."""

    cloud: PointCloud
    """Points of finite position only."""
    finite: Bool[ndarray, " stored"]
    """Which points of the file these are."""
    notes: tuple[str, ...]
    """What was decided, what was missing and what stands in its place, one sentence each."""

    @property
    def origin(self) -> Float64[ndarray, "3"]:
        """Metres. What was subtracted from the points of the file, see `PointCloud.origin`."""
        return np.array(self.cloud.origin)


def read_cloud(path: Path, scale: float = 1.0, up_axis: str = "z") -> PointCloud:
    """The points of a PLY, PCD, NPY or text file; missing normals are estimated, missing colours grey.

    Where the points lie far from zero (UTM), the `origin` of the result was subtracted in double precision.

    Args:
        path: `x y z [r g b [nx ny nz]]` in arrays and text; PLY and PCD name their fields.
        scale: Metres per unit of the file, 0.001 for millimetres.
        up_axis: The axis of the file that points up: z, y, x, -z, -y or -x.

    Raises:
        SceneError: not such a file, damaged, without points, or with points that are not finite.
    """
    read = read_cloud_with_notes(Path(path), scale, up_axis)
    if not read.finite.all():
        raise SceneError(
            f"{path}: {int((~read.finite).sum())} of {len(read.finite)} points have no finite position",
            fix="remove them; ponder features leaves them out",
        )
    return read.cloud


def read_cloud_with_notes(
    path: Path, scale: float = 1.0, up_axis: str = "z", centred: bool = False
) -> ReadCloud:
    """As `read_cloud`, but points without a finite position are left out and everything is reported.

    With `centred` the origin is the middle of the cloud (its lowest point in z) wherever it lies, subtracted
    in double precision: the same cloud elsewhere is then read as the same numbers.
    """
    if scale <= 0 or not np.isfinite(scale):
        raise SceneError(f"a scale of {scale} makes no cloud", fix="--scale 0.001 for millimetres")
    columns = _read(path)
    turn = _turn_to_z(up_axis)
    # Clouds are stored in single precision: what is infinite there is infinite here.
    with np.errstate(over="ignore", invalid="ignore"):
        coord = columns.coord.astype(np.float64) * scale @ turn.T
        finite = np.asarray(np.isfinite(coord.astype(np.float32)).all(axis=1))
    if not finite.any():
        raise SceneError(f"{path} holds no points of finite position", fix="give another file")
    notes = [*columns.notes, *coarse_note(columns.coord, scale)]
    notes += [] if finite.all() else [f"{int((~finite).sum())} points have no finite position"]
    far = far_outliers(np.where(finite[:, None], coord, np.nan))
    notes += [outlier_note(coord, far)] if far.any() else []
    notes += [f"{note} Then --scale 0.001" for note in size_note(coord[finite])]
    origin = origin_of(coord[finite])
    notes += [origin_note(origin)] if origin.any() else []
    origin = middle_of(coord[finite]) if centred else origin
    coord = coord - origin
    color = no_colors(len(coord)) if columns.color is None else columns.color
    notes += color.notes
    normal, more = _normal(columns, coord, finite, turn)
    notes += more
    cloud = PointCloud(
        torch.from_numpy(coord[finite].astype(np.float32)),
        torch.from_numpy(color.color[finite]),
        torch.from_numpy(normal[finite].astype(np.float32)),
        {name: torch.from_numpy(values[finite]) for name, values in columns.labels.items()},
        (float(origin[0]), float(origin[1]), float(origin[2])),
    )
    return ReadCloud(cloud, finite, tuple(notes))


def _read(path: Path) -> PointColumns:
    ending = path.suffix.lower()
    if not path.is_file():
        raise SceneError(f"no file {path}", fix="give a file of points")
    if ending == ".ply":
        file = read_ply(path)
        return named_columns(file.vertex, path, file.faces)
    if ending == ".pcd":
        return named_columns(read_pcd(path), path)
    if ending == ".npy":
        return _array(path)
    if ending in TEXT_FILES:
        return _text(path)
    known = ", ".join(POINT_FILES)
    raise SceneError(f"{path} is none of the kinds of file that are read ({known})", fix="convert it to PLY")


def _text(path: Path) -> PointColumns:
    table = read_point_text(path)
    n_columns = table.values.shape[1]
    only_position = len(table.names) == 3 < n_columns and has_position(table.names)
    if table.names and not only_position:
        fields: dict[str, ndarray] = {}
        for name, values in zip(table.names, table.values.T, strict=False):
            fields.setdefault(name, values)
        columns = named_columns(fields, path)
    else:  # a header of the first three columns alone leaves the others to their values
        columns = unnamed_columns(table.values, path, intensity_first=path.suffix.lower() == ".pts")
    return replace(columns, notes=(*table.notes, *columns.notes))


def _array(path: Path) -> PointColumns:
    """Columns of numbers, or a structured array that names them."""
    try:
        values = map_array(path)
    except (OSError, ValueError) as error:
        raise SceneError(f"{path} is not a readable array ({error})", fix="np.save of [N, 3..9]") from error
    if values.dtype.names:
        return named_columns(_fields(values), path)
    if values.dtype.kind not in "fiu":
        raise SceneError(f"{path} does not hold numbers", fix="np.save of [N, 3..9]")
    if values.ndim == 3 and values.shape[0] == 1:  # a batch of one cloud
        values = values[0]
    return unnamed_columns(values, path)


def _fields(values: ndarray) -> dict[str, ndarray]:
    """Fields of numbers by name; one of three numbers, `xyz`, becomes `xyz_0`, `xyz_1` and `xyz_2`."""
    fields: dict[str, ndarray] = {}
    for name in values.dtype.names or ():
        kind = values.dtype[name]
        if kind.base.kind not in "fiu" or len(kind.shape) > 1:
            continue
        column = np.ascontiguousarray(values[name]).reshape(values.size, -1)
        if column.shape[1] == 1:
            fields[name] = column[:, 0]
        else:
            fields |= {f"{name}_{index}": column[:, index] for index in range(column.shape[1])}
    return fields


def _turn_to_z(up_axis: str) -> Float64[ndarray, "3 3"]:
    """A proper rotation that makes the axis that points up the third one; y in most graphics programs."""
    turns = {
        "z": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
        "-z": [[1, 0, 0], [0, -1, 0], [0, 0, -1]],
        "y": [[1, 0, 0], [0, 0, -1], [0, 1, 0]],
        "-y": [[1, 0, 0], [0, 0, 1], [0, -1, 0]],
        "x": [[0, 1, 0], [0, 0, 1], [1, 0, 0]],
        "-x": [[0, 1, 0], [0, 0, -1], [-1, 0, 0]],
    }
    if up_axis not in turns:
        raise SceneError(
            f"'{up_axis}' is no axis", fix=f"--up-axis {UP_AXES[1]}, or another of {', '.join(UP_AXES)}"
        )
    return np.array(turns[up_axis], dtype=np.float64)


def _normal(
    columns: PointColumns, coord: ndarray, finite: ndarray, turn: ndarray
) -> tuple[ndarray, list[str]]:
    """Unit normals: of the file, of its faces, or of the neighbourhood, turned to `standing_eye`."""
    if columns.normal is not None:
        normal = columns.normal.astype(np.float64) @ turn.T
        length = np.linalg.norm(normal, axis=1, keepdims=True)
        known = np.isfinite(length[:, 0]) & (length[:, 0] > 1e-6)
        if known[finite].all():
            return normal / np.where(known[:, None], length, 1.0), []
        note = f"{int((~known & finite).sum())} points have no normal in the file: all were estimated"
    elif columns.faces is not None:
        normal = unit_vertex_normals(coord, columns.faces)
        lost = np.linalg.norm(normal, axis=1) < 0.5
        normal[lost] = (0.0, 0.0, 1.0)
        note = "normals were computed from the faces"
        return normal, [note + (f"; {int(lost.sum())} points in no face look up" if lost.any() else "")]
    else:
        note = "no normals in the file: estimated from neighbours"
    points = coord[finite]
    result = np.zeros_like(coord)
    eye = standing_eye(points[~far_outliers(points)])
    result[finite] = estimate_normals(points, towards=eye[None])
    return result, [f"{note}, turned to the middle of the cloud at eye level"]


def unit_vertex_normals(
    coord: Float64[ndarray, "point 3"], faces: Integer[ndarray, "face 3"]
) -> Float64[ndarray, "point 3"]:
    """Unit normals of the vertices, faces weighted by their area; 0 where there is no face."""
    normal = vertex_normals(coord, faces)
    return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-30)
