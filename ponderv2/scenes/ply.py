"""PLY files as NumPy arrays: ASCII and binary, refused when the header promises more than the file holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError

_TYPES = {
    "char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2", "ushort": "u2",
    "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4", "float": "f4", "float32": "f4",
    "double": "f8", "float64": "f8",
}  # fmt: skip
_HEADER_LIMIT = 65536


@dataclass(frozen=True)
class PlyFile:
    """Properties of the vertices by name, and the triangles (polygons are cut into fans)."""

    vertex: dict[str, ndarray]
    faces: Integer[ndarray, "face 3"]

    def columns(self, *names: str) -> ndarray | None:
        """Some properties side by side, None when one of them is missing."""
        if not all(name in self.vertex for name in names):
            return None
        return np.stack([self.vertex[name] for name in names], axis=1)


@dataclass(frozen=True)
class _Element:
    name: str
    count: int
    properties: tuple[tuple[str, str, str], ...]
    """Name, type, type of the list's length ("" = no list)."""


def read_ply(path: Path) -> PlyFile:
    """Vertices and faces. Raises SceneError naming the file for anything that is not a whole PLY file."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        form, elements, start = _header(data)
        body = _ascii_body(data[start:]) if form == "ascii" else memoryview(data)[start:]
        return _read_elements(body, form, elements)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError, OverflowError) as error:
        raise SceneError(f"{path} is not a whole PLY file ({error})", fix="copy the file again") from error


def _header(data: bytes) -> tuple[str, list[_Element], int]:
    end = data.find(b"end_header", 0, _HEADER_LIMIT)
    if not data.startswith(b"ply") or end < 0:
        raise ValueError("no PLY header")
    start = data.index(b"\n", end) + 1
    form = ""
    elements: list[_Element] = []
    for line in data[:end].decode("ascii", errors="replace").splitlines():
        words = line.split()
        if words[:1] == ["format"]:
            form = words[1]
        elif words[:1] == ["element"]:
            elements.append(_Element(words[1], int(words[2]), ()))
        elif words[:1] == ["property"] and elements:
            last = elements[-1]
            one = (words[4], words[3], words[2]) if words[1] == "list" else (words[2], words[1], "")
            elements[-1] = _Element(last.name, last.count, (*last.properties, one))
    if form not in ("ascii", "binary_little_endian", "binary_big_endian"):
        raise ValueError(f"unknown format '{form}'")
    return form, elements, start


def _ascii_body(data: bytes) -> list[bytes]:
    return [line for line in data.splitlines() if line.strip()]


def _read_elements(body: memoryview | list[bytes], form: str, elements: list[_Element]) -> PlyFile:
    vertex: dict[str, ndarray] = {}
    faces = np.zeros((0, 3), np.int64)
    for element in elements:
        if element.count < 0 or element.count > len(body):
            raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
        has_lists = any(length for _, _, length in element.properties)
        if isinstance(body, list):
            rows, body = body[: element.count], body[element.count :]
            table = _ascii_lists(rows) if has_lists else _ascii_table(rows, element)
        else:
            order = "<" if form == "binary_little_endian" else ">"
            table, used = (_binary_lists if has_lists else _binary_table)(body, element, order)
            body = body[used:]
        if element.name == "vertex" and isinstance(table, dict):
            vertex = table
        elif element.name == "face" and not isinstance(table, dict):
            faces = table
    if not all(axis in vertex for axis in "xyz"):
        raise ValueError("no vertices with x, y, z")
    if len(faces) and (faces.min() < 0 or faces.max() >= len(vertex["x"])):
        raise ValueError("a face names a vertex that does not exist")
    return PlyFile(vertex, faces)


def _ascii_table(rows: list[bytes], element: _Element) -> dict[str, ndarray]:
    values = np.array([row.split()[: len(element.properties)] for row in rows], dtype=np.float64)
    values = values.reshape(len(rows), len(element.properties))
    return {
        name: values[:, index].astype(_TYPES[kind])
        for index, (name, kind, _) in enumerate(element.properties)
    }


def _ascii_lists(rows: list[bytes]) -> Integer[ndarray, "face 3"]:
    polygons = [[int(word) for word in row.split()] for row in rows]
    return _fans([words[1 : 1 + words[0]] for words in polygons])


def _binary_table(body: memoryview, element: _Element, order: str) -> tuple[dict[str, ndarray], int]:
    kind = np.dtype([(name, order + _TYPES[kind]) for name, kind, _ in element.properties])
    size = kind.itemsize * element.count
    if size > len(body):
        raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
    table = np.frombuffer(body[:size], dtype=kind)
    return {
        name: table[name].astype(table[name].dtype.newbyteorder("=")) for name, _, _ in element.properties
    }, size


def _binary_lists(body: memoryview, element: _Element, order: str) -> tuple[Integer[ndarray, "face 3"], int]:
    """The usual case, triangles only, in one step; otherwise face by face."""
    fields: list[tuple] = []
    for name, kind, length in element.properties:
        plain = order + _TYPES[kind]
        fields += [(f"n_{name}", order + _TYPES[length]), (name, plain, (3,))] if length else [(name, plain)]
    kind = np.dtype(fields)
    lists = [name for name, _, length in element.properties if length]
    corners = next((name for name in lists if name in ("vertex_indices", "vertex_index")), lists[0])
    size = kind.itemsize * element.count
    if size <= len(body):
        table = np.frombuffer(body[:size], dtype=kind)
        if all((table[f"n_{name}"] == 3).all() for name in lists):
            return table[corners].astype(np.int64), size
    return _walk_lists(body, element, order, corners)


def _walk_lists(
    body: memoryview, element: _Element, order: str, corners: str
) -> tuple[Integer[ndarray, "face 3"], int]:
    position = 0
    polygons: list[list[int]] = []
    for _ in range(element.count):
        for name, kind, length in element.properties:
            count = 1
            if length:
                width = np.dtype(_TYPES[length])
                count = int(np.frombuffer(body, order + _TYPES[length], 1, position)[0])
                position += width.itemsize
            if count < 0 or position + count * np.dtype(_TYPES[kind]).itemsize > len(body):
                raise ValueError(f"{element.count} {element.name} elements promised, the file is shorter")
            values = np.frombuffer(body, order + _TYPES[kind], count, position)
            position += values.nbytes
            if name == corners:
                polygons.append(values.tolist())
    return _fans(polygons), position


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
    """A binary little-endian PLY file."""
    columns: list[tuple[str, str, ndarray]] = [
        ("float " + a, "<f4", vertices[:, i]) for i, a in enumerate("xyz")
    ]
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
