"""What the columns of a table of points mean: position, colour, normal, labels. By names or values.

PLY, PCD, structured arrays and text with a header name their columns; plain arrays and text do not.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Integer, Real
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.scenes.colors import ReadColors, colors_of_harmonics, read_colors

POSITION = (
    ("x", "y", "z"),
    ("points_0", "points_1", "points_2"),  # ParaView
    ("point_x", "point_y", "point_z"),
    ("pos_x", "pos_y", "pos_z"),
    ("position_x", "position_y", "position_z"),
    ("coord_x", "coord_y", "coord_z"),
    ("x_coord", "y_coord", "z_coord"),
    ("x_coordinate", "y_coordinate", "z_coordinate"),
    ("easting", "northing", "elevation"),
    ("easting", "northing", "height"),
    ("easting", "northing", "altitude"),
    ("easting", "northing", "z"),
    ("east", "north", "up"),
    ("e", "n", "h"),
)
COLOR = (
    ("red", "green", "blue"),
    ("r", "g", "b"),
    ("diffuse_red", "diffuse_green", "diffuse_blue"),
    ("rf", "gf", "bf"),  # CloudCompare's float colours
    ("color_r", "color_g", "color_b"),
    ("colour_r", "colour_g", "colour_b"),
    ("red_255", "green_255", "blue_255"),
    ("rgb_0", "rgb_1", "rgb_2"),
    ("color_0", "color_1", "color_2"),
    ("colors_0", "colors_1", "colors_2"),
    ("ambient_red", "ambient_green", "ambient_blue"),
)
HARMONICS = ("f_dc_0", "f_dc_1", "f_dc_2")
"""Constant term of the colours of Gaussian splats."""
GREY = ("grey", "gray", "luminance")
NORMAL = (
    ("nx", "ny", "nz"),
    ("normal_x", "normal_y", "normal_z"),
    ("normalx", "normaly", "normalz"),
    ("normals_0", "normals_1", "normals_2"),
    ("normal_0", "normal_1", "normal_2"),
    ("x_normal", "y_normal", "z_normal"),
    ("n_x", "n_y", "n_z"),
)
SEGMENT = (
    "label", "labels", "class", "classification", "segment", "semantic", "semantic_label", "sem_label",
    "class_id", "category", "category_id", "original_class", "semantic_gt",
)  # fmt: skip
INSTANCE = ("instance", "instance_id", "instance_label", "object_id", "objectid", "instance_gt")
PACKED = ("rgb", "rgba")
"""Colours in one number, 0xRRGGBB."""
_UNIT_TOLERANCE = 0.02
"""Numbers of two decimals make unit vectors of 0.99 to 1.01."""
_MOST_UNNAMED = 12


@dataclass(frozen=True)
class PointColumns:
    """A table of points whose columns are known. Units and axes are those of the file."""

    coord: Real[ndarray, "point 3"]
    """In the type of the file, which tells how exact it is."""
    color: ReadColors | None = None
    normal: Float64[ndarray, "point 3"] | None = None
    """As in the file, of any length; None where it has none."""
    labels: Mapping[str, Int[ndarray, " point"]] = field(default_factory=dict)
    """`segment` and `instance`, negative where a point has none."""
    faces: Integer[ndarray, "face 3"] | None = None
    notes: tuple[str, ...] = ()
    """What was decided by values, and what was left out. One sentence each. Those of colours are theirs."""


def plain_name(name: str) -> str:
    """A column's name as the tables above have it: lower case, without units, quotes and comment marks."""
    text = name.strip().strip("\"'").lstrip("/#%;").strip().lower()
    text = re.sub(r"\s*[\[(].*[\])]$", "", text)  # x [m], x (m)
    text = re.sub(r"[\s:.-]+", "_", text).strip("_")
    return re.sub(r"^scalar_(?=.)", "", text)  # scalar fields of CloudCompare


def has_position(names: Sequence[str]) -> bool:
    """Whether three of the names are those of a position."""
    known = {plain_name(name) for name in names}
    return any(known.issuperset(choice) for choice in POSITION)


def named_columns(
    fields: Mapping[str, ndarray], source: Path, faces: Integer[ndarray, "face 3"] | None = None
) -> PointColumns:
    """The columns of a file that names them.

    Raises:
        SceneError: no position among the names, or colours that are none.
    """
    table: dict[str, ndarray] = {}
    for name, values in fields.items():
        table.setdefault(plain_name(name), values)
    coord = _side_by_side(table, POSITION)
    if coord is None:
        listed = ", ".join(fields)[:200]
        raise SceneError(f"{source} names no columns x, y, z but: {listed}", fix="name them x, y, z")
    labels = {
        target: column
        for target, names in (("segment", SEGMENT), ("instance", INSTANCE))
        if (column := _first_labels(table, names)) is not None
    }
    normal = _side_by_side(table, NORMAL)
    return PointColumns(
        coord,
        _named_color(table, source),
        None if normal is None else normal.astype(np.float64),
        labels,
        faces if faces is not None and len(faces) else None,
    )


def _side_by_side(table: Mapping[str, ndarray], choices: Sequence[tuple[str, str, str]]) -> ndarray | None:
    """The first triple of which all columns are there."""
    for names in choices:
        if all(name in table for name in names):
            return np.stack([table[name] for name in names], axis=1)
    return None


def _named_color(table: Mapping[str, ndarray], source: Path) -> ReadColors | None:
    color = _side_by_side(table, COLOR)
    if color is not None:
        return read_colors(color, source)
    harmonics = _side_by_side(table, [HARMONICS])
    if harmonics is not None:
        return colors_of_harmonics(harmonics.astype(np.float64))
    for name in PACKED:
        if name in table:
            return _packed_color(table[name], source)
    grey = next((table[name] for name in GREY if name in table), None)
    return None if grey is None else read_colors(grey[:, None], source)


def _packed_color(values: ndarray, source: Path) -> ReadColors:
    """0xRRGGBB (and alpha above) as a whole number, as a float of that value, or as a float of the same bits.

    Floats of the same bits are tiny, negative or not numbers; those of that value lie from 1 to 2^24.
    """
    notes: tuple[str, ...] = ()
    if values.dtype.kind in "iu":
        number = values.astype(np.int64)
    else:
        known = values[np.isfinite(values)]
        as_value = (
            len(known) > 0 and bool(((known == np.rint(known)) & (known >= 0)).all()) and known.max() >= 1
        )
        if as_value:
            number = np.nan_to_num(values.astype(np.float64), nan=0.0).astype(np.int64)
            notes = ("packed colours were written as numbers, not as the bits of a float",)
        elif values.dtype.itemsize == 4:
            number = values.view(np.uint32).astype(np.int64)
        else:
            number = values.astype(np.float32).view(np.uint32).astype(np.int64)
    channels = np.stack([(number >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
    read = read_colors(channels, source)
    return ReadColors(read.color, read.range, None, (*notes, *read.notes))


def _first_labels(table: Mapping[str, ndarray], names: Sequence[str]) -> Int[ndarray, " point"] | None:
    for name in names:
        if name in table:
            return whole_labels(table[name])
    return None


def whole_labels(values: ndarray) -> Int[ndarray, " point"] | None:
    """Whole numbers of any type as integers, None where some are not whole. Not a number = no label."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    known = np.isfinite(values)
    if not (values[known] == np.rint(values[known])).all() or (np.abs(values[known]) >= 2**31).any():
        return None
    return np.where(known, values, -1).astype(np.int64)


def unnamed_columns(values: ndarray, source: Path, intensity_first: bool = False) -> PointColumns:
    """x y z first; three columns of unit length are normals, three that can be colours are colours.

    Args:
        values: Numbers of any type in 3 to 12 columns, [point, column].
        source: For messages.
        intensity_first: Where both readings are possible, one number stands before the colours (.pts).

    Raises:
        SceneError: another number of columns, or none that can be colours among six.
    """
    if values.ndim != 2 or not 3 <= values.shape[1] <= _MOST_UNNAMED or len(values) == 0:
        turned = values.ndim == 2 and values.shape[0] in (3, 4, 6, 7, 9) and values.shape[1] > _MOST_UNNAMED
        fix = (
            "store its transpose"
            if turned
            else "columns x y z [r g b [nx ny nz]], or a header that names them"
        )
        raise SceneError(f"{source} has shape {values.shape}; expected points of 3 to 12 columns", fix=fix)
    coord = values[:, :3]
    with np.errstate(all="ignore"):  # damaged files hold numbers of every kind
        values = values.astype(np.float64)
        return _by_values(coord, values, source, intensity_first)


def _by_values(
    coord: ndarray, values: Float64[ndarray, "point column"], source: Path, intensity_first: bool
) -> PointColumns:
    notes: list[str] = []
    normal_at = _normals_at(values)
    if normal_at is not None:
        notes += _normal_notes(values, normal_at)
    color_at, color = _colors_at(values, source, normal_at, intensity_first)
    if color_at is None and normal_at is None and values.shape[1] >= 6:
        raise SceneError(
            f"{source}: none of the columns 4 to {values.shape[1]} can be colours or normals",
            fix="a header that names the columns (x y z intensity ...), or columns x y z [r g b [nx ny nz]]",
        )
    if color_at is not None and values.shape[1] >= 7 and normal_at is None:
        notes.append(f"columns {color_at + 1} to {color_at + 3} were read as colours")
    used = {*range(3)}
    for start in (normal_at, color_at):
        used |= set() if start is None else {start, start + 1, start + 2}
    labels, left_out = _trailing_labels(values, used)
    notes += [f"column {labels[0] + 1} was read as labels"] if labels else []
    notes += [f"columns left out: {', '.join(str(one + 1) for one in left_out)}"] if left_out else []
    return PointColumns(
        coord,
        color,
        None if normal_at is None else values[:, normal_at : normal_at + 3],
        {"segment": labels[1]} if labels else {},
        None,
        tuple(notes),
    )


def _normals_at(values: ndarray) -> int | None:
    """First of three columns that hold vectors of one length, most of them of length 1."""
    for start in range(3, values.shape[1] - 2):
        length = np.linalg.norm(values[:, start : start + 3], axis=1)
        length = length[np.isfinite(length) & (length > 0)]
        if not len(length):
            continue
        typical = float(np.median(length))
        alike = np.abs(length / typical - 1.0) < _UNIT_TOLERANCE
        negative = bool((values[:, start : start + 3] < 0).any())
        if alike.mean() > 0.99 and (abs(typical - 1.0) < _UNIT_TOLERANCE or (negative and len(length) > 9)):
            return start
    return None


def _normal_notes(values: ndarray, start: int) -> list[str]:
    """To be said where something else comes to mind: another place than the last, or colours 0..1."""
    triple = values[:, start : start + 3]
    place = f"columns {start + 1} to {start + 3}"
    if not (triple < 0).any():
        return [
            f"{place} are of unit length: read as normals; name them r g b in a header if they are colours"
        ]
    return [f"{place} are of unit length: read as normals"] if start == 3 else []


def _colors_at(
    values: ndarray, source: Path, normal_at: int | None, intensity_first: bool
) -> tuple[int | None, ReadColors | None]:
    """First of three neighbouring columns that can be colours, beside the normals."""
    taken = set() if normal_at is None else {normal_at, normal_at + 1, normal_at + 2}
    starts = [start for start in range(3, values.shape[1] - 2) if not taken & {start, start + 1, start + 2}]
    if intensity_first and len(starts) > 1:
        starts = [starts[1], starts[0], *starts[2:]]
    for start in starts:
        triple = values[:, start : start + 3]
        if _are_alike(triple):
            try:
                return start, read_colors(triple, source)
            except SceneError:
                continue
    return None, None


def _are_alike(triple: ndarray) -> bool:
    """Whether three columns can be channels of one colour: all whole or none, all above 255 or none."""
    known = triple[np.isfinite(triple).all(axis=1)]
    if not len(known):
        return False
    high = known.max(axis=0)
    if (known.min(axis=0) < -1.0).any():
        return False
    whole = (known == np.rint(known)).all(axis=0) & (high > 1.0)
    broken = (known != np.rint(known)).any(axis=0)
    large = (known > 255.5).mean(axis=0) > 0.01
    return not (whole.any() and broken.any()) and bool(large[high > 0].all() or not large.any())


def _trailing_labels(values: ndarray, used: set[int]) -> tuple[tuple[int, ndarray] | None, list[int]]:
    """The first column behind all that is used, where it holds different whole numbers; and the others."""
    rest = [column for column in range(values.shape[1]) if column not in used]
    for column in rest:
        if len(used) > 3 and column > max(used):
            labels = whole_labels(values[:, column])
            if labels is not None and labels.min() >= -1000 and len(np.unique(labels)) > 1:
                return (column, labels), [one for one in rest if one != column]
            break
    return None, rest
