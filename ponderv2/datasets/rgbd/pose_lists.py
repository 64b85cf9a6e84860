"""Lists of poses in text: 7, 8, 12 or 16 numbers a line, matrices over several lines, one file each, arrays.

What the numbers are follows from their count, from the names of columns, and from what only a rotation can be
(rows of length one). Order of a quaternion, direction and axes are left open where nothing says them.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from ponderv2.datasets.frame_names import by_number
from ponderv2.datasets.rgbd.config import QuaternionOrder
from ponderv2.errors import SceneError
from ponderv2.geometry.poses import rotation_of_quaternion
from ponderv2.io.arrays import map_array
from ponderv2.io.text import content_lines, parse_json, read_text, words

POSE_FILES = (".txt", ".csv", ".tsv", ".log", ".traj", ".tum", ".dat", ".pose", ".npy", ".json")
UNIT = 0.02
"""Deviation from length one of a quaternion or of the rows of a rotation, rounded in a file."""
MOSTLY = 0.9
"""Share of the poses that must fit the assumed form; the others count as damaged."""
FORMS = "7 numbers (t q), 8 (time or number, t q), 12 (3x4) or 16 (4x4) a line, or 4x4 over four lines"
_NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf|infinity)", re.IGNORECASE)
_DECIMAL_POINT = re.compile(r"\d\.(?![A-Za-z])|\.\d")
"""Not the point before the ending of a file."""
_QUATERNION_COLUMN = re.compile(r"(?:q|quat|rot|orient).*?_?([wxyz])$|^r?([wxyz])_?(?:q|quat|rot)$")
_PLACE_COLUMN = re.compile(r"(?:^|^t|^p|^pos\w*?|^trans\w*?|^cam\w*?|^loc\w*?|.*_)_?([xyz])$")
_MATRIX_KEYS = ("transform_matrix", "camera_to_world", "cam_to_world", "c2w", "pose", "matrix", "extrinsic")
"""Of a JSON file that holds one pose."""
_MATRIX_ENTRIES = tuple(f"t_{row}{column}" for row in range(3) for column in range(4))
_WANTED = ("tx", "ty", "tz", "qx", "qy", "qz", "qw")
_KEY_COLUMNS = (
    ("image", "filename", "file", "name", "frame", "frame_id", "frame_index", "frame_number", "index"),
    ("idx", "id", "timestamp", "timestamps", "time", "stamp", "ts", "sec", "seconds"),
)


@dataclass(frozen=True)
class PoseList:
    """Poses as stored in a file, whatever their direction, axes and unit."""

    translation: Float[ndarray, "pose 3"]
    rotation: Float[ndarray, "pose 3 3"] | None
    """None: there are quaternions."""
    quaternion: Float[ndarray, "pose 4"] | None
    """Four numbers in the order of the file."""
    order: QuaternionOrder | None
    """Of the quaternion, where columns are named."""
    names: tuple[str, ...] | None
    """Number, time or file of each row; None: only the order of the rows is known."""
    form: str
    """Description for the report."""
    by_rows_or_columns: bool = False
    """Whether it is ambiguous if rotations are row-major or column-major."""

    def matrices(self, order: QuaternionOrder, by_columns: bool = False) -> Float[ndarray, "pose 4 4"]:
        """4 x 4 each; not-a-number where a pose is damaged.

        `order` matters for quaternions alone; with `by_columns` rotations are written column by column.
        """
        found = np.tile(np.eye(4), (len(self.translation), 1, 1))
        found[:, :3, 3] = self.translation
        if self.rotation is not None:
            found[:, :3, :3] = self.rotation.transpose(0, 2, 1) if by_columns else self.rotation
        else:
            assert self.quaternion is not None
            columns = [0, 1, 2, 3] if order == "xyzw" else [1, 2, 3, 0]
            found[:, :3, :3] = [rotation_of_quaternion(one) for one in self.quaternion[:, columns]]
        found[~np.isfinite(found).all(axis=(1, 2))] = np.nan
        return found


@dataclass(frozen=True)
class _Table:
    """Rows of words, all of one length."""

    rows: list[list[str]]
    header: list[str] | None
    """Names of the columns."""
    path: Path


def read_poses(path: Path) -> PoseList:
    """The poses of a text file, of an array (.npy, .json), or of a folder with one file for each frame.

    Raises SceneError naming the file, the line and the forms that are read.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.suffix.lower() == ".npy":
        return _of_array(path)
    if path.suffix.lower() == ".json":
        return _of_json(path)
    text = read_text(path)
    rows = _rows(text)
    if not rows:
        raise SceneError(f"{path} holds no poses", fix=f"write {FORMS}")
    header = _header(text, rows)
    if header is not None and not _is_numeric(rows[0]):
        rows = rows[1:]
    if not rows:
        raise SceneError(f"{path} holds names of columns and no poses", fix=f"write {FORMS}")
    if len(rows) > 2 and len(rows[0]) == 1 and rows[0][0] == str(len(rows) - 1):
        rows = rows[1:]  # how many there are
    counts = [len(row) for row in rows]
    usual = max(set(counts), key=counts.count)
    if usual <= 4 or counts.count(usual) < MOSTLY * len(rows) - 1:
        return _of_blocks(rows, path)
    header = header if header is not None and len(header) == usual else None
    found = _of_table(_Table([row if len(row) == usual else _lost(row, usual) for row in rows], header, path))
    n_lost = len(rows) - counts.count(usual)
    return replace(found, form=f"{found.form}; {n_lost} damaged lines") if n_lost else found


def named_places(path: Path) -> tuple[int, ...] | None:
    """Columns of key, tx, ty, tz, qx, qy, qz, qw in a text file whose header names them; None without one."""
    text = read_text(path)
    rows = _rows(text)
    header = _header(text, rows) if rows else None
    if header is None:
        return None
    places, keys = _places(header)
    return (
        (min(keys)[1], *(places[name] for name in _WANTED)) if keys and set(_WANTED) <= set(places) else None
    )


def _rows(text: str) -> list[list[str]]:
    lines = content_lines(text)
    plain = "\n".join(lines)
    comma = "," in plain and not _DECIMAL_POINT.search(plain) and " " in lines[-1]
    rows = [words(line, decimal_comma=comma) for line in lines]
    return [row for row in rows if row]


def _header(text: str, rows: list[list[str]]) -> list[str] | None:
    """Names of columns: the first row where it has no numbers, or the last comment before the numbers."""
    if not _is_numeric(rows[0]):
        first = content_lines(text)[0]
        return _column_names(first, len(rows[-1]))
    comment = None
    for line in text.split("\n"):
        if not line.strip():
            continue
        if content_lines(line):
            break
        comment = line
    return None if comment is None else _column_names(comment.strip().lstrip("#%/ "), len(rows[0]))


def _column_names(line: str, count: int) -> list[str] | None:
    """Lower case without units in brackets; None where there are not as many as columns."""
    plain = re.sub(r"\[[^\]]*\]|\([^)]*\)", " ", line)
    for separator in (r"\s*[,;\t]\s*", r"[\s,;]+"):
        names = [one.strip().lower().replace(" ", "_") for one in re.split(separator, plain.strip())]
        if len([one for one in names if one]) == count:
            return [one for one in names if one]
    return None


def _lost(row: list[str], count: int) -> list[str]:
    """A line that was cut off: its number or time, and no pose."""
    return [row[0], *["nan"] * (count - 1)]


def _is_numeric(row: list[str]) -> bool:
    """A row with a pose: numbers but for one name."""
    return sum(_NUMBER.fullmatch(word) is not None for word in row) >= max(len(row) - 1, 1)


def _of_table(table: _Table) -> PoseList:
    """One pose a line."""
    named = _by_names(table)
    if named is not None:
        return named
    rows, n = table.rows, len(table.rows[0])
    text_places = {place for row in rows for place, word in enumerate(row) if not _NUMBER.fullmatch(word)}
    if len(text_places) > 1 or not text_places <= {0, n - 1}:
        line = next(row for row in rows if any(not _NUMBER.fullmatch(word) for word in row))
        raise SceneError(
            f"{table.path} has a line that is not a pose: '{' '.join(line)[:80]}'", fix=f"write {FORMS}"
        )
    keys = text_places or {0, n - 1}
    if n in (7, 12, 16) and not text_places:
        found = _of_numbers(_floats(rows, list(range(n))))
        if found is not None:
            return found
    if n - 1 in (7, 12, 16):
        for key in sorted(keys):
            found = _of_numbers(_floats(rows, [one for one in range(n) if one != key]))
            if found is not None:
                return _with_names(found, [row[key] for row in rows])
    raise SceneError(f"{table.path} has {n} numbers a line{_why_not(n)}", fix=f"write {FORMS}")


def _why_not(n: int) -> str:
    if n in (7, 8):
        return ", but no four of them in a row are a quaternion of length one"
    if n in (12, 13, 16, 17):
        return ", but they hold no rotation: rows of length one, at right angles"
    return ", which is not a pose"


def _floats(rows: list[list[str]], places: list[int]) -> Float[ndarray, "pose number"]:
    return np.array([[float(row[place]) for place in places] for row in rows], np.float64)


def _by_names(table: _Table) -> PoseList | None:
    """By the names of the columns; None where they name no pose."""
    if table.header is None:
        return None
    places, keys = _places(table.header)
    if not all(name in places for name in _WANTED):
        return None
    try:
        values = _floats(table.rows, [places[name] for name in _WANTED])
    except ValueError as error:
        raise SceneError(
            f"{table.path} has a line that is not a pose ({error})", fix=f"write {FORMS}"
        ) from error
    found = PoseList(values[:, :3], None, values[:, 3:], "xyzw", None, "t and q by the names of the columns")
    return _with_names(found, [row[min(keys)[1]] for row in table.rows]) if keys else found


def _places(header: list[str]) -> tuple[dict[str, int], list[tuple[int, int]]]:
    """Columns by tx .. qw, and those that may hold numbers, times or names, the better ones ranked lower."""
    places: dict[str, int] = {}
    keys: list[tuple[int, int]] = []
    for index, name in enumerate(header):
        rank = next((rank for rank, names in enumerate(_KEY_COLUMNS) if name in names), None)
        quaternion, place = _QUATERNION_COLUMN.search(name), _PLACE_COLUMN.match(name)
        if rank is not None:
            keys.append((rank, index))
        elif quaternion is not None:
            places.setdefault(f"q{quaternion.group(1) or quaternion.group(2)}", index)
        elif place is not None:
            places.setdefault(f"t{place.group(1)}", index)
    return places, keys


def _of_numbers(values: Float[ndarray, "pose number"]) -> PoseList | None:
    """7, 12 or 16 numbers a pose; None where they can be no pose."""
    n = values.shape[1]
    if n == 7:
        for place, form in ((3, "t q"), (0, "q t")):
            quaternion = values[:, place : place + 4]
            if _mostly(np.abs(np.linalg.norm(quaternion, axis=1) - 1) < UNIT, values):
                rest = np.delete(values, np.s_[place : place + 4], axis=1)
                return PoseList(rest, None, quaternion, None, None, f"7 numbers a pose, {form}")
        return None
    for form, matrices in _matrix_forms(values):
        if _mostly(np.array([_is_similarity(one[:3, :3]) for one in matrices]), values):
            found = PoseList(matrices[:, :3, 3], matrices[:, :3, :3], None, None, None, form)
            return replace(found, by_rows_or_columns="rotation" in form)
    return None


def _matrix_forms(
    values: Float[ndarray, "pose number"],
) -> list[tuple[str, Float[ndarray, "pose row column"]]]:
    """Ways to write a matrix, the usual one first."""
    count, n = values.shape
    if n == 16:
        rows = values.reshape(count, 4, 4)
        columns = rows.transpose(0, 2, 1)
        bottom = np.array([0.0, 0.0, 0.0, 1.0])
        forms = (("4x4", rows), ("4x4 written by columns", columns))
        return [
            (form, one)
            for form, one in forms
            if _mostly(np.abs(one[:, 3] - bottom).max(axis=1) < UNIT, values)
        ]
    split = np.concatenate([values[:, :9].reshape(count, 3, 3), values[:, 9:, None]], axis=2)
    first = np.concatenate([values[:, 3:].reshape(count, 3, 3), values[:, :3, None]], axis=2)
    return [
        ("3x4", values.reshape(count, 3, 4)),
        ("a 3x3 rotation, then t", split),
        ("t, then a 3x3 rotation", first),
    ]


def _is_similarity(rotation: Float[ndarray, "3 3"]) -> bool:
    """A scaled rotation, possibly with a reflection."""
    if not np.isfinite(rotation).all():
        return False
    factor = float(np.cbrt(abs(np.linalg.det(rotation))))
    if not 1e-4 < factor < 1e4:
        return False
    return float(np.abs(rotation.T @ rotation / factor**2 - np.eye(3)).max()) < 2 * UNIT


def _mostly(fine: ndarray, values: Float[ndarray, "pose number"]) -> bool:
    """Of the poses that are finite; lost ones do not count."""
    known = np.isfinite(values).all(axis=1) & values.any(axis=1)
    return bool(known.any()) and float(fine[known].mean()) >= MOSTLY


def _with_names(found: PoseList, names: Sequence[str]) -> PoseList:
    """Numbers, times or files; useless where most are the same."""
    stems = tuple(PurePosixPath(one.replace("\\", "/")).name for one in names)
    plain = tuple(one if _NUMBER.fullmatch(one) else Path(one).stem for one in stems)
    if len(set(plain)) <= len(plain) / 2:
        return replace(found, form=f"{found.form}, after a number that does not vary")
    return replace(found, names=plain, form=f"{found.form}, with a number, time or file each")


def _of_blocks(rows: list[list[str]], path: Path) -> PoseList:
    """Matrices over three or four lines, perhaps with a line of one to three numbers before each."""
    blocks: list[list[list[str]]] = []
    names: list[str] = []
    for index, row in enumerate(rows):
        if len(row) < 4 and index + 1 < len(rows) and len(rows[index + 1]) == 4:
            names.append(row[0])
            blocks.append([])
        elif len(row) == 4:
            if not blocks:
                blocks.append([])
            blocks[-1].append(row)
        else:
            raise SceneError(
                f"{path} has lines of different length, the first odd one is '{' '.join(row)[:80]}'",
                fix=f"write {FORMS}",
            )
    if not names:
        blocks = _cut(blocks[0], path)
    lengths = {len(block) for block in blocks}
    if lengths not in ({3}, {4}) or (names and len(names) != len(blocks)):
        raise SceneError(f"{path} has matrices of {sorted(lengths)} lines", fix=f"write {FORMS}")
    try:
        values = np.array([[float(word) for row in block for word in row] for block in blocks])
    except ValueError as error:
        raise SceneError(f"{path} has a matrix that is not a pose ({error})", fix=f"write {FORMS}") from error
    found = _of_numbers(values)
    if found is None:
        raise SceneError(f"{path} has matrices that hold no rotation", fix=f"write {FORMS}")
    found = replace(found, form=f"{found.form} over {max(lengths)} lines")
    return _with_names(found, names) if names else found


def _cut(lines: list[list[str]], path: Path) -> list[list[list[str]]]:
    """Blocks of four lines where every fourth ends a matrix, else of three."""
    for size in (4, 3):
        if len(lines) % size == 0:
            blocks = [lines[start : start + size] for start in range(0, len(lines), size)]
            if size == 3 or _ends_matrices(blocks):
                return blocks
    raise SceneError(
        f"{path} has {len(lines)} lines of four numbers, no whole matrices", fix=f"write {FORMS}"
    )


def _ends_matrices(blocks: list[list[list[str]]]) -> bool:
    """0 0 0 1 as the last row, or as the last column."""
    last = [block[3] for block in blocks], [[row[3] for row in block] for block in blocks]

    def fits(one: list[str]) -> bool:
        numeric = all(_NUMBER.fullmatch(word) for word in one)
        return numeric and ("nan" in one[0].lower() or list(map(float, one)) == [0, 0, 0, 1])

    return any(np.mean([fits(one) for one in kind]) >= MOSTLY for kind in last)


def _of_folder(path: Path) -> PoseList:
    """One file a pose, named by its stem."""
    files = sorted(
        (one for one in path.iterdir() if one.is_file() and one.suffix.lower() in POSE_FILES),
        key=lambda one: by_number(one.stem),
    )
    rows = [_words_of_file(one) for one in files]
    counts = [len(row) for row in rows if row]
    usual = max(set(counts), key=counts.count) if counts else 0
    if usual not in (7, 8, 12, 16):
        raise SceneError(
            f"files of {path} hold {usual} numbers each, which is not a pose", fix=f"write {FORMS}"
        )
    values = np.full((len(files), usual), np.nan)
    for index, row in enumerate(rows):
        if len(row) == usual and all(_NUMBER.fullmatch(word) for word in row):
            values[index] = [float(word) for word in row]
    found = _of_numbers(values[:, 1:] if usual == 8 else values)
    if found is None:
        raise SceneError(f"files of {path} hold {usual} numbers each, but no rotation", fix=f"write {FORMS}")
    return replace(found, names=tuple(one.stem for one in files), form=f"{found.form}, a file each")


def _words_of_file(path: Path) -> list[str]:
    """The numbers of one pose; of a JSON file those of its matrix."""
    text = read_text(path)
    if path.suffix.lower() != ".json":
        return [word for line in content_lines(text) for word in words(line)]
    values = parse_json(text, path)
    if isinstance(values, dict):
        if _MATRIX_ENTRIES[0] in values:  # Polycam: t_00 .. t_23
            values = [values.get(name) for name in _MATRIX_ENTRIES]
        else:
            values = next((values[name] for name in _MATRIX_KEYS if name in values), [])
    try:
        return [repr(float(one)) for one in np.array(values, np.float64).ravel()]
    except (ValueError, TypeError, OverflowError):
        return []


def _of_array(path: Path) -> PoseList:
    try:
        values = np.array(map_array(path), np.float64)
    except (OSError, ValueError, TypeError) as error:
        raise SceneError(f"{path} is not a readable array ({error})") from error
    return _of_values(values, path)


def _of_json(path: Path) -> PoseList:
    """An array, alone or as `poses` (Record3D's metadata.json)."""
    values = parse_json(read_text(path), path)
    try:
        poses = values["poses"] if isinstance(values, dict) else values
        return _of_values(np.array(poses, np.float64), path)
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise SceneError(f"{path} holds no poses ({error})", fix=f"write {FORMS}") from error


def _of_values(values: ndarray, path: Path) -> PoseList:
    flat = values.reshape(len(values), -1) if values.ndim >= 2 else np.zeros((0, 0))
    if flat.shape[1] not in (7, 12, 16) or not len(flat):
        raise SceneError(
            f"{path} has the shape {values.shape}", fix="expected [N, 4, 4], [N, 3, 4] or [N, 7]"
        )
    found = _of_numbers(flat)
    if found is None:
        raise SceneError(f"{path} holds no rotations", fix="expected [N, 4, 4], [N, 3, 4] or [N, 7]")
    return replace(found, form=f"{found.form}, an array")
