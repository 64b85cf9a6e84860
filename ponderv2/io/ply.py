"""PLY files as NumPy arrays: ASCII and binary, by what the header declares and refused where it lies."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.suggestions import actual_file_type
from ponderv2.io.text import float_words

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8", "int64": "i8", "uint64": "u8", "long": "i8", "ulong": "u8",
}  # fmt: skip
_FORMATS = {"ascii": "", "binary_little_endian": "<", "binary_big_endian": ">"}
_HEADER_LIMIT = 2**20
_CORNERS = ("vertex_indices", "vertex_index", "vertex_indexes")
_END = re.compile(rb"(?:^|[\r\n])[ \t]*end_header[ \t]*(\r\n|\n|\r|$)", re.IGNORECASE)


@dataclass(frozen=True)
class PlyFile:
    """Properties of the vertices by name, and the triangles (polygons are cut into fans)."""

    vertex: dict[str, ndarray]
    """Names are in lower case; lists are left out."""
    faces: Integer[ndarray, "face 3"]

    def columns(self, *names: str) -> ndarray | None:
        """Some properties side by side, None when one of them is missing."""
        if not all(name in self.vertex for name in names):
            return None
        return np.stack([self.vertex[name] for name in names], axis=1)


@dataclass(frozen=True)
class _Property:
    name: str
    kind: str
    """NumPy type without byte order."""
    length: str = ""
    """Type of the number before a list; "" = no list."""


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[_Property, ...]

    @property
    def has_lists(self) -> bool:
        return any(one.length for one in self.properties)


@dataclass(frozen=True)
class _Lists:
    """A list property of all rows: its numbers one after the other, and how many each row has."""

    values: ndarray
    counts: Integer[ndarray, " row"]


_Table = Mapping[str, ndarray | _Lists]


class _Unreadable(ValueError):
    """What is in the file although a whole copy would have it, too."""


def read_ply(path: Path) -> PlyFile:
    """Vertices and faces. Raises SceneError naming the file for anything that is not a whole PLY file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        form, elements, start = _header(data.removeprefix(codecs.BOM_UTF8))
        body = memoryview(data.removeprefix(codecs.BOM_UTF8))[start:]
        tables = _ascii_tables(body, elements) if form == "ascii" else _binary_tables(body, elements, form)
        return _file(tables)
    except _Unreadable as error:
        raise SceneError(f"{path}: {error}", fix="export it again, as PLY with vertices x, y, z") from error
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        what = actual_file_type(data)
        if what is not None:
            raise SceneError(f"{path} is no PLY file: it is {what[0]}", fix=what[1]) from error
        raise SceneError(f"{path} is not a whole PLY file ({error})", fix="copy the file again") from error


def _file(tables: Mapping[str, _Table]) -> PlyFile:
    vertex = {name: values for name, values in tables["vertex"].items() if isinstance(values, ndarray)}
    if not all(axis in vertex for axis in "xyz"):
        raise _Unreadable(f"the vertices have no x, y, z but: {', '.join(vertex)[:200]}")
    faces = [_triangles(tables.get("face", {})), _strips(tables.get("tristrips", {}))]
    joined = np.concatenate(faces)
    if len(joined) and (joined.min() < 0 or joined.max() >= len(vertex["x"])):
        raise ValueError("a face names a vertex that does not exist")
    return PlyFile(vertex, joined)


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    """Format, elements, and where the body begins: behind a line that holds nothing but `end_header`."""
    end = _END.search(data[:_HEADER_LIMIT])
    if data[:3].lower() != b"ply" or end is None:
        raise ValueError("no PLY header")
    start = end.end()
    if end.group(1) == b"\r\n" and b"\r\n" not in data[: end.start() + 1]:
        start -= 1  # lines end with CR alone: the LF is the first byte of the body
    form = ""
    elements: list[_Element] = []
    for line in data[: end.start() + 1].decode("ascii", errors="replace").splitlines():
        words = line.split()
        keyword = words[0].lower() if words else ""
        if keyword == "format":
            form = words[1].lower()
        elif keyword == "element":
            elements.append(_Element(words[1].lower(), int(words[2]), ()))
        elif keyword == "property" and elements:
            last = elements[-1]
            elements[-1] = _Element(last.name, last.count, (*last.properties, _property(words)))
    if form not in _FORMATS:
        raise _Unreadable(f"unknown format '{form[:40]}'")
    _check_elements(elements)
    return form, elements, start


def _check_elements(elements: list[_Element]) -> None:
    """Raises `_Unreadable` or ValueError for what cannot be read without a guess."""
    names = [element.name for element in elements]
    if "vertex" not in names:
        raise _Unreadable(f"no element 'vertex' but: {', '.join(names)[:200]}")
    if min(element.count for element in elements) < 0:
        raise ValueError("a negative number of elements")
    for element in elements:
        called = [one.name for one in element.properties]
        if twice := [name for name in called if called.count(name) > 1]:
            raise _Unreadable(f"the element '{element.name}' has several properties called '{twice[0][:40]}'")


def _property(words: list[str]) -> _Property:
    is_list = words[1].lower() == "list"
    kinds = [word.lower() for word in (words[2:4] if is_list else words[1:2])]
    for kind in kinds:
        if kind not in _TYPES:
            raise _Unreadable(f"property '{words[-1][:40]}' has the unknown type '{kind[:40]}'")
    name = words[4 if is_list else 2].lower()
    return _Property(name, _TYPES[kinds[-1]], _TYPES[kinds[0]] if is_list else "")


def _ascii_tables(body: memoryview, elements: list[_Element]) -> dict[str, _Table]:
    """Number after number, wherever lines end; line by line where lines hold more than is declared."""
    text = bytes(body).rstrip(b"\0\x1a")  # what DOS and crashes leave at the end
    numbers = float_words(text.split())
    n_least = sum(element.count * len(element.properties) for element in elements)
    if n_least > len(numbers):
        promised = ", ".join(f"{element.count} {element.name}" for element in elements)
        raise ValueError(f"{promised} elements promised, the file is shorter")
    try:
        tables, used = _walk(numbers, elements)
        if used == len(numbers):
            return tables
    except ValueError:
        pass
    return _ascii_lines(text, elements)


def _walk(numbers: Float[ndarray, " number"], elements: list[_Element]) -> tuple[dict[str, _Table], int]:
    """All elements from one row of numbers, and how many of them were used."""
    tables: dict[str, _Table] = {}
    position = 0
    for element in elements:
        tables[element.name], used = _walk_element(numbers[position:], element)
        position += used
    return tables, position


def _walk_element(numbers: Float[ndarray, " number"], element: _Element) -> tuple[_Table, int]:
    """Rows of one length in one step, others one by one."""
    if element.count == 0:
        return _columns_of(np.zeros((0, len(element.properties))), element, []), 0
    counts = _first_counts(numbers, element)
    width = len(element.properties) + sum(counts)
    if element.count * width <= len(numbers):
        rows = numbers[: element.count * width].reshape(element.count, width)
        at, regular = 0, True
        for one, count in zip(element.properties, counts, strict=True):
            regular &= not one.length or bool((rows[:, at] == count).all())
            at += 1 + count
        if regular:
            return _columns_of(rows, element, counts), rows.size
    return _walk_rows(numbers, element)


def _first_counts(numbers: Float[ndarray, " number"], element: _Element) -> list[int]:
    """How long the lists of the first row are, 0 for properties that are none."""
    counts: list[int] = []
    at = 0
    for one in element.properties:
        counts.append(_count(numbers, at) if one.length else 0)
        at += 1 + counts[-1]
    return counts


def _count(numbers: Float[ndarray, " number"], at: int) -> int:
    if at >= len(numbers):
        raise ValueError("more elements promised, the file is shorter")
    count = float(numbers[at])
    if not count.is_integer() or not 0 <= count <= len(numbers):
        raise ValueError(f"a list of {count:g} numbers")
    return int(count)


def _columns_of(rows: Float[ndarray, "row number"], element: _Element, counts: list[int]) -> _Table:
    table: dict[str, ndarray | _Lists] = {}
    at = 0
    for index, one in enumerate(element.properties):
        count = counts[index] if counts else 0
        if one.length:
            values = rows[:, at + 1 : at + 1 + count].astype(one.kind)
            table[one.name] = _Lists(values.reshape(-1), np.full(len(rows), count))
        else:
            table[one.name] = _cast(rows[:, at], one)
        at += 1 + count
    return table


def _cast(values: ndarray, one: _Property) -> ndarray:
    """In the declared type, unless the numbers are none of it: colours 0..1 declared as bytes stay 0..1."""
    if np.dtype(one.kind).kind == "f":
        with np.errstate(over="ignore"):
            return values.astype(one.kind)
    limits = np.iinfo(one.kind)
    inside = bool(((values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)).all())
    return values.astype(one.kind) if inside else values


def _walk_rows(numbers: Float[ndarray, " number"], element: _Element) -> tuple[_Table, int]:
    found: list[list[ndarray]] = [[] for _ in element.properties]
    at = 0
    for _ in range(element.count):
        for place, one in zip(found, element.properties, strict=True):
            count = _count(numbers, at) if one.length else 1
            at += bool(one.length)
            if at + count > len(numbers):
                raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
            place.append(numbers[at : at + count])
            at += count
    return _joined(element, found), at


def _joined(element: _Element, found: list[list[ndarray]]) -> _Table:
    table: dict[str, ndarray | _Lists] = {}
    for one, parts in zip(element.properties, found, strict=True):
        values = np.concatenate(parts) if parts else np.zeros(0)
        if one.length:
            table[one.name] = _Lists(values.astype(one.kind), np.array([len(part) for part in parts], int))
        else:
            table[one.name] = _cast(values, one)
    return table


def _ascii_lines(text: bytes, elements: list[_Element]) -> dict[str, _Table]:
    """One row a line; what a line holds beyond the declared properties is passed over."""
    lines = [line for line in text.splitlines() if line.strip()]
    tables: dict[str, _Table] = {}
    for element in elements:
        rows, lines = lines[: element.count], lines[element.count :]
        if len(rows) < element.count:
            raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
        found: list[list[ndarray]] = [[] for _ in element.properties]
        for row in rows:
            single = _Element(element.name, 1, element.properties)
            table, _ = _walk_element(float_words(row.split()), single)
            for place, one in zip(found, element.properties, strict=True):
                values = table[one.name]
                place.append(values.values if isinstance(values, _Lists) else values)
        tables[element.name] = _joined(element, found)
    return tables


def _binary_tables(body: memoryview, elements: list[_Element], form: str) -> dict[str, _Table]:
    tables: dict[str, _Table] = {}
    for element in elements:
        least = sum(np.dtype(one.length or one.kind).itemsize for one in element.properties)
        if element.count * max(least, 1) > len(body):
            raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
        tables[element.name], used = _binary_element(body, element, _FORMATS[form])
        body = body[used:]
    return tables


def _binary_element(body: memoryview, element: _Element, order: str) -> tuple[_Table, int]:
    """Rows of one length in one step, others one by one."""
    fields: list[tuple] = []
    at = 0
    for index, one in enumerate(element.properties):
        count = 1
        if one.length:
            count = _binary_count(body, order + one.length, at) if element.count else 0
            fields.append((f"n{index}", order + one.length))
            at += np.dtype(one.length).itemsize
        fields.append((f"v{index}", order + one.kind, (count,)))
        at += count * np.dtype(one.kind).itemsize
    row = np.dtype(fields)
    size = row.itemsize * element.count
    if size <= len(body):
        rows = np.frombuffer(body[:size], dtype=row, count=element.count if row.itemsize else 0)
        lists = [index for index, one in enumerate(element.properties) if one.length]
        if all((rows[f"n{index}"] == row[f"v{index}"].shape[0]).all() for index in lists):
            table: dict[str, ndarray | _Lists] = {}
            for index, one in enumerate(element.properties):
                values = rows[f"v{index}"].astype(one.kind)
                counts = np.full(len(rows), values.shape[1])
                table[one.name] = _Lists(values.reshape(-1), counts) if one.length else values[:, 0]
            return table, size
    if not element.has_lists:
        raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
    return _binary_rows(body, element, order)


def _binary_count(body: memoryview, kind: str, at: int) -> int:
    if at + np.dtype(kind).itemsize > len(body):
        raise ValueError("more elements promised, the file is shorter")
    count = int(np.frombuffer(body, kind, 1, at)[0])
    if not 0 <= count <= len(body):
        raise ValueError(f"a list of {count} numbers")
    return count


def _binary_rows(body: memoryview, element: _Element, order: str) -> tuple[_Table, int]:
    found: list[list[ndarray]] = [[] for _ in element.properties]
    at = 0
    for _ in range(element.count):
        for place, one in zip(found, element.properties, strict=True):
            count = 1
            if one.length:
                count = _binary_count(body, order + one.length, at)
                at += np.dtype(one.length).itemsize
            if at + count * np.dtype(one.kind).itemsize > len(body):
                raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
            values = np.frombuffer(body, order + one.kind, count, at)
            at += values.nbytes
            place.append(values)
    return _joined(element, found), at


def _triangles(table: _Table) -> Integer[ndarray, "face 3"]:
    lists = {name: values for name, values in table.items() if isinstance(values, _Lists)}
    name = next((name for name in _CORNERS if name in lists), None)
    if name is None:
        whole = [one for one, values in lists.items() if values.values.dtype.kind in "iu"]
        name = whole[0] if len(whole) == 1 else None
    if name is None:
        return np.zeros((0, 3), np.int64)
    corners, counts = lists[name].values.astype(np.int64), lists[name].counts
    if (counts == 3).all():
        return corners.reshape(-1, 3)
    ends = np.cumsum(counts).tolist()
    return _fans([corners[end - count : end].tolist() for end, count in zip(ends, counts, strict=True)])


def _strips(table: _Table) -> Integer[ndarray, "face 3"]:
    """Triangles of strips, a negative number between two of them; every other one is turned round."""
    found = [np.zeros((0, 3), np.int64)]
    lists = [table[name] for name in _CORNERS if name in table]
    for values in lists[:1]:
        assert isinstance(values, _Lists)
        corners = values.values.astype(np.int64)
        ends = np.union1d(np.cumsum(values.counts), np.flatnonzero(corners < 0))
        for strip in np.split(corners, ends):
            strip = strip[strip >= 0]
            if len(strip) >= 3:
                triangles = np.stack([strip[:-2], strip[1:-1], strip[2:]], axis=1)
                triangles[1::2] = triangles[1::2, ::-1]
                found.append(triangles)
    return np.concatenate(found)


def _fans(polygons: list[list[int]]) -> Integer[ndarray, "face 3"]:
    triangles = [
        (polygon[0], polygon[corner], polygon[corner + 1])
        for polygon in polygons
        for corner in range(1, len(polygon) - 1)
    ]
    return np.array(triangles, np.int64).reshape(-1, 3)


def encode_ply(
    vertices: Float[ndarray, "vertex 3"],
    normals: Float[ndarray, "vertex 3"] | None = None,
    faces: Integer[ndarray, "face 3"] | None = None,
    colors: UInt8[ndarray, "vertex 3"] | None = None,
) -> bytes:
    """A binary little-endian PLY file; positions in double precision where they are given in it."""
    kind, form = ("double ", "<f8") if vertices.dtype == np.float64 else ("float ", "<f4")
    columns: list[tuple[str, str, ndarray]] = [(kind + a, form, vertices[:, i]) for i, a in enumerate("xyz")]
    if normals is not None:
        columns += [("float n" + a, "<f4", normals[:, i]) for i, a in enumerate("xyz")]
    if colors is not None:
        columns += [("uchar " + a, "u1", colors[:, i]) for i, a in enumerate(("red", "green", "blue"))]
    table = np.empty(len(vertices), dtype=[(name, kind) for name, kind, _ in columns])
    for name, _, values in columns:
        table[name] = values
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {name}" for name, _, _ in columns]
    body = table.tobytes()
    if faces is not None:
        header += [f"element face {len(faces)}", "property list uchar int vertex_indices"]
        rows = np.empty(len(faces), dtype=[("n", "u1"), ("corner", "<i4", (3,))])
        rows["n"], rows["corner"] = 3, faces
        body += rows.tobytes()
    return ("\n".join([*header, "end_header"]) + "\n").encode() + body
