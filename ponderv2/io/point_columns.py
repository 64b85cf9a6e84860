"""What the columns of a table of points mean: position, colour, normal, labels. By names or values.

PLY, PCD, structured arrays and text with a header name their columns; plain arrays and text do not.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int, Integer, Real
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.colors import ReadColors, colors_of_harmonics, read_colors
from ponderv2.io.labels import NOT_A_NUMBER, whole_numbers

POSITION = (
    ("x", "y", "z"),
    ("points_0", "points_1", "points_2"),  # ParaView; fields of three numbers in structured arrays
    ("point_0", "point_1", "point_2"),
    ("xyz_0", "xyz_1", "xyz_2"),
    ("position_0", "position_1", "position_2"),
    ("pos_0", "pos_1", "pos_2"),
    ("coord_0", "coord_1", "coord_2"),
    ("coords_0", "coords_1", "coords_2"),
    ("vertex_0", "vertex_1", "vertex_2"),
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
    ("rgba_0", "rgba_1", "rgba_2"),
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
_LEAST_NUMBERED = 10
"""Points from which on a column 1, 2, 3, ... is a numbering and no coordinate."""
_LEAST_COMPARED = 30
"""Points that tell channels of one colour, which go together, from another column beside them."""
_CLEARER = 0.2
"""By how much the mean correlation of one choice of channels must exceed that of the other."""
_MOST_NAMED = 6
"""Names of columns that are listed in a note."""


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
        _unknown_names(table),
    )


def _unknown_names(table: Mapping[str, ndarray]) -> tuple[str, ...]:
    """One sentence about the columns whose names are not known."""
    known = {*SEGMENT, *INSTANCE, *PACKED, *GREY, *HARMONICS, "a", "alpha", "diffuse_alpha"}
    known.update(name for choice in (*POSITION, *COLOR, *NORMAL) for name in choice)
    unknown = [name for name in table if name and name not in known]
    if not unknown:
        return ()
    more = f" and {len(unknown) - _MOST_NAMED} more" if len(unknown) > _MOST_NAMED else ""
    return (f"columns of other names were left out: {', '.join(unknown[:_MOST_NAMED])}{more}",)


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
        else:  # in this machine's order of bytes
            number = np.ascontiguousarray(values, np.float32).view(np.uint32).astype(np.int64)
    channels = np.stack([(number >> shift) & 255 for shift in (16, 8, 0)], axis=1).astype(np.uint8)
    read = read_colors(channels, source)
    return ReadColors(read.color, read.range, (*notes, *read.notes))


def _first_labels(table: Mapping[str, ndarray], names: Sequence[str]) -> Int[ndarray, " point"] | None:
    for name in names:
        if name in table:
            return _labels(table[name])
    return None


def _labels(values: ndarray) -> Int[ndarray, " point"] | None:
    """-1 where there is no number; None where some are no labels."""
    found = whole_numbers(values)
    return None if found is None else np.where(found == NOT_A_NUMBER, -1, found)


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
    with np.errstate(all="ignore"):  # damaged files hold numbers of every kind
        n_before = _columns_before(values)
        notes_of_position = _before_notes(n_before)
        coord, values = values[:, n_before : n_before + 3], values[:, n_before:].astype(np.float64)
        found = _by_values(coord, values, source, intensity_first)
    return replace(found, notes=(*notes_of_position, *found.notes))


def _columns_before(values: ndarray) -> int:
    """How many columns before the position number the points: 1, 2, 3, ..., or row and column of a scan.

    Programs for surveying and tables put a number before each point, those of laser scanners two.
    """
    if len(values) < _LEAST_NUMBERED or values.shape[1] < 4:
        return 0
    first, second = values[:, 0].astype(np.float64), values[:, 1]
    if (np.diff(first) == 1.0).all() and first[0] == np.rint(first[0]) and len(np.unique(second)) > 1:
        return 1
    if values.shape[1] in (5, 6, 8) and _is_raster(values[:, :2]) and not _is_whole(values[:, 2:5]).any():
        looks_like_color = values.shape[1] >= 6 and 0 <= values[:, 3:6].min() <= values[:, 3:6].max() <= 1
        return 0 if looks_like_color or _normals_at(values) == 3 else 2
    return 0


def _is_whole(values: ndarray) -> ndarray:
    """Of each column, whether it holds whole numbers alone."""
    return (values == np.rint(values)).all(axis=0)


def _is_raster(pair: ndarray) -> bool:
    """Whether two columns are places in a raster: whole, not negative, no place twice."""
    whole = bool(_is_whole(pair).all()) and float(pair.min()) >= 0
    return whole and (np.ptp(pair, axis=0) > 0).all() and len(np.unique(pair, axis=0)) == len(pair)


def _before_notes(n_before: int) -> tuple[str, ...]:
    if not n_before:
        return ()
    what = (
        "column 1 numbers the points and was left out"
        if n_before == 1
        else "columns 1 and 2 are row and column of a scan and were left out"
    )
    return (f"{what}: columns are counted without them; a header that names x, y, z decides",)


def _by_values(
    coord: ndarray, values: Float64[ndarray, "point column"], source: Path, intensity_first: bool
) -> PointColumns:
    notes: list[str] = []
    normal_at = _normals_at(values)
    if normal_at is not None:
        notes += _normal_notes(values, normal_at)
    color_at, color, others = _colors_at(values, source, normal_at, intensity_first)
    if color_at is None and normal_at is None and values.shape[1] >= 6:
        raise SceneError(
            f"{source}: none of the columns 4 to {values.shape[1]} can be colours or normals",
            fix="a header that names the columns (x y z intensity ...), or columns x y z [r g b [nx ny nz]]",
        )
    if color_at is not None and values.shape[1] >= 7 and normal_at is None:
        notes.append(f"columns {color_at + 1} to {color_at + 3} were read as colours")
        notes += [
            f"columns {one + 1} to {one + 3} could be the colours, too: a header decides" for one in others
        ]
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
    """Reported where something else is likely: other columns than the last, or colours 0..1."""
    triple = values[:, start : start + 3]
    place = f"columns {start + 1} to {start + 3}"
    if not (triple < 0).any():
        return [
            f"{place} are of unit length: read as normals; name them r g b in a header if they are colours"
        ]
    return [f"{place} are of unit length: read as normals"] if start == 3 else []


def _colors_at(
    values: ndarray, source: Path, normal_at: int | None, intensity_first: bool
) -> tuple[int | None, ReadColors | None, list[int]]:
    """First of three neighbouring columns that can be colours, beside the normals; other such places.

    Where a column before or behind them fits as well, as a class of 0..20 does, those three are taken whose
    values rise and fall alike, as channels of one colour do. If that is not clear, the others are returned.
    """
    taken = set() if normal_at is None else {normal_at, normal_at + 1, normal_at + 2}
    starts = [start for start in range(3, values.shape[1] - 2) if not taken & {start, start + 1, start + 2}]
    if intensity_first and len(starts) > 1:
        starts = [starts[1], starts[0], *starts[2:]]
    found: dict[int, ReadColors] = {}
    for start in starts:
        triple = values[:, start : start + 3]
        if _are_alike(triple) and not (found and min(abs(start - one) for one in found) > 1):
            with contextlib.suppress(SceneError):
                found[start] = read_colors(triple, source)
    if not found:
        return None, None, []
    first = next(iter(found))
    together = {start: _togetherness(values[:, start : start + 3]) for start in found}
    best = max(together, key=lambda start: (together[start], start == first))
    others = [start for start in found if start != best]
    if all(together[best] - together[start] > _CLEARER for start in others):
        return best, found[best], []
    whole = bool(_is_whole(values[:, [*{first + i for i in range(3)}, *others]]).all())
    return first, found[first], [start for start in found if start != first] if whole else []


def _togetherness(triple: Float64[ndarray, "point 3"]) -> float:
    """Mean correlation of three columns; 0 where there are too few points, or one column is constant."""
    known = triple[np.isfinite(triple).all(axis=1)]
    if len(known) < _LEAST_COMPARED or (np.ptp(known, axis=0) == 0).any():
        return 0.0
    matrix = np.corrcoef(known.T)
    return float(matrix[0, 1] + matrix[0, 2] + matrix[1, 2]) / 3.0


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
            labels = _labels(values[:, column])
            if labels is not None and labels.min() >= -1000 and len(np.unique(labels)) > 1:
                return (column, labels), [one for one in rest if one != column]
            break
    return None, rest
