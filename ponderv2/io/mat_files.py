"""MATLAB's files of versions 5 to 7, as arrays, text, cells and records. Nothing in them is run.

Read here and not by SciPy, whose reader crashes the process on damaged files. Numbers are arrays in MATLAB's
order, text is `str`, a cell array is a list, a structure array a list of dicts, both column by column.
MAT-File Format, The MathWorks, chapter 1.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.errors import SceneError

LARGEST_FILE = 512 * 2**20
"""Bytes. All of SUN RGB-D's labels have some 50 million."""
LARGEST_RATIO, ALWAYS_ALLOWED = 100, 64 * 2**20
"""A variable that unpacks to more than N times the file, and a good deal, is not one of labels."""
DEEPEST = 32
"""Records within cells within records."""
NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
"""NumPy's type of a data element, by its number in the file."""
MATRIX, COMPRESSED = 14, 15
_TAG = {order: struct.Struct(f"{order}II") for order in "<>"}
_DTYPE = {order: {kind: np.dtype(order + one) for kind, one in NUMBERS.items()} for order in "<>"}
CELL, STRUCTURE, CHARACTERS = 1, 2, 4
NUMERIC = range(6, 16)
COMPLEX = 0x0800
AGAIN = "copy the file again, or delete it"


def read_mat(path: Path, names: Collection[str], fields: Collection[str] | None = None) -> dict[str, Any]:
    """The named variables. `fields`: of records at any depth; the values of all others are None.

    Raises SceneError: the file is damaged, of another version, or lacks one of the variables.
    """
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise SceneError(f"{path} is too large to be read")
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    if data[:4] == b"\x89HDF" or data.startswith(b"MATLAB 7.3"):
        raise SceneError(
            f"{path} is a MATLAB file of version 7.3, which is not read",
            fix="save it in MATLAB with save(NAME, '-v7')",
        )
    order = {b"IM": "<", b"MI": ">"}.get(data[126:128])
    if order is None or not data.startswith(b"MATLAB 5.0"):
        raise SceneError(f"{path} is no MATLAB file", fix=AGAIN)
    try:
        found = dict(_variables(memoryview(data), order, names, None if fields is None else set(fields)))
    except (ValueError, struct.error, zlib.error, OverflowError, MemoryError) as error:
        raise SceneError(f"{path} cannot be read: {str(error)[:200]}", fix=AGAIN) from error
    missing = [name for name in names if found.get(name) is None]
    if missing:
        there = ", ".join(found)[:200] or "none at all"
        raise SceneError(f"{path} has no variable '{missing[0]}', only: {there}", fix=AGAIN)
    return {name: found[name] for name in names}


def _variables(data: memoryview, order: str, names: Collection[str], fields: set[str] | None) -> list[Any]:
    """Pairs of name and value, which is None for those that are not wanted."""
    most = max(ALWAYS_ALLOWED, LARGEST_RATIO * len(data))
    outer, at, found = _Elements(data, order, fields), 128, []
    while at < len(data):
        kind, start, stop, at = outer.tag(at, len(data))
        inner = outer
        if kind == COMPRESSED:
            unpacking = zlib.decompressobj()
            unpacked = unpacking.decompress(data[start:stop], most)
            if not unpacking.eof:
                raise ValueError("a variable is cut off, or unpacks to much more than the file")
            at, inner = stop, _Elements(memoryview(unpacked), order, fields)
            kind, start, stop, _ = inner.tag(0, len(unpacked))
        if kind != MATRIX:
            raise ValueError(f"a variable of the unknown kind {kind}")
        name = inner.name(start, stop)
        found.append((name, inner.matrix(start, stop, 0) if name in names else None))
    return found


@dataclass(frozen=True)
class _Elements:
    """The data elements in a piece of memory."""

    data: memoryview
    order: str
    fields: set[str] | None

    def tag(self, at: int, end: int) -> tuple[int, int, int, int]:
        """Kind, first and last byte of the element at a place, and where the next one begins."""
        if at + 8 > end:
            raise ValueError("it is cut off")
        kind, n_bytes = _TAG[self.order].unpack_from(self.data, at)
        if kind >> 16:  # up to four bytes stand in the tag itself
            start, stop, after = at + 4, at + 4 + (kind >> 16), at + 8
            kind &= 0xFFFF
        else:
            start, stop = at + 8, at + 8 + n_bytes
            after = stop + -n_bytes % 8
        if stop > end or (kind != COMPRESSED and stop > after):
            raise ValueError("it is cut off")
        return kind, start, stop, after

    def numbers(self, at: int, end: int) -> tuple[ndarray, int]:
        """The flat array at a place, and where the next element begins."""
        kind, start, stop, after = self.tag(at, end)
        dtype = _DTYPE[self.order].get(kind)
        if dtype is None:
            raise ValueError(f"numbers of the unknown kind {kind}")
        if (stop - start) % dtype.itemsize:
            raise ValueError("numbers are cut off")
        return np.frombuffer(self.data[start:stop], dtype), after

    def name(self, start: int, stop: int) -> str:
        """Of the variable."""
        at = self.tag(self.tag(start, stop)[3], stop)[3]
        return self.numbers(at, stop)[0].tobytes().decode("latin-1")

    def matrix(self, start: int, stop: int, depth: int) -> Any:
        """A value of any class."""
        if start == stop:
            return np.zeros((0, 0))
        if depth > DEEPEST:
            raise ValueError("records within records without end")
        _, first, last, at = self.tag(start, stop)
        flags = bytes(self.data[first : min(last, first + 4)])
        sizes, at = self.numbers(at, stop)
        shape = tuple(sizes.tolist())
        if len(flags) < 4 or not shape or min(shape) < 0:
            raise ValueError("an array without a size")
        number = int.from_bytes(flags, "little" if self.order == "<" else "big")
        at = self.tag(at, stop)[3]  # its name
        match number & 0xFF:
            case value if value in NUMERIC:
                return self._numeric(shape, at, stop, bool(number & COMPLEX))
            case value if value == CHARACTERS:
                return self._text(shape, at, stop)
            case value if value == CELL:
                return self._row((None,), math.prod(shape), at, stop, depth)[0]
            case value if value == STRUCTURE:
                return self._records(math.prod(shape), at, stop, depth)
            case value:
                raise ValueError(f"a value of class {value}, which holds neither numbers nor text")

    def _numeric(self, shape: tuple[int, ...], at: int, stop: int, is_complex: bool) -> ndarray:
        values, _ = self.numbers(at, stop)
        if is_complex or len(values) != math.prod(shape):
            raise ValueError(f"{len(values)} real numbers for an array of {shape}")
        native = values.astype(values.dtype.newbyteorder("="), copy=False)
        return native.reshape(shape, order="F")

    def _text(self, shape: tuple[int, ...], at: int, stop: int) -> str:
        kind, start, end, _ = self.tag(at, stop)
        little = "le" if self.order == "<" else "be"
        encodings = {1: "latin-1", 2: "latin-1", 16: "utf-8", 17: f"utf-16-{little}", 18: f"utf-32-{little}"}
        encoding = encodings.get(kind, f"utf-16-{little}" if kind == 4 else "")
        if not encoding or len(shape) != 2 or (shape[0] > 1 and shape[1] > 0):
            raise ValueError("text of several lines, or of an unknown kind")
        return str(self.data[start:end], encoding)

    def _records(self, count: int, at: int, stop: int, depth: int) -> list[dict[str, Any]]:
        length, at = self.numbers(at, stop)
        letters, at = self.numbers(at, stop)
        if len(length) != 1 or int(length[0]) <= 0 or len(letters) % int(length[0]):
            raise ValueError("records without names of their fields")
        width, raw = int(length[0]), letters.tobytes()
        names = [
            raw[one : one + width].split(b"\0")[0].decode("latin-1") for one in range(0, len(raw), width)
        ]
        columns = self._row(tuple(names), count, at, stop, depth)
        return [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]

    def _wanted(self, name: str | None) -> bool:
        return name is None or self.fields is None or name in self.fields

    def _row(
        self, names: tuple[str | None, ...], count: int, at: int, stop: int, depth: int
    ) -> list[list[Any]]:
        """Values of each field (None: of a cell), element by element."""
        if count * len(names) > (stop - at) // 8:
            raise ValueError("it is cut off")
        columns: list[list[Any]] = [[] for _ in names]
        wanted = [self._wanted(name) for name in names]
        for _ in range(count):
            for column, is_wanted in zip(columns, wanted, strict=True):
                kind, start, end, at = self.tag(at, stop)
                if kind != MATRIX:
                    raise ValueError(f"a value of the unknown kind {kind}")
                column.append(self.matrix(start, end, depth + 1) if is_wanted else None)
        return columns


def records(value: Any, *fields: str) -> list[dict[str, Any]]:
    """The elements of a structure array that has these fields. Raises ValueError for another value."""
    if isinstance(value, ndarray) and value.size == 0:
        return []
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise ValueError(f"records with a field '{fields[0]}' are expected")
    missing = [name for name in fields if value and name not in value[0]]
    if missing:
        raise ValueError(f"its records have no field '{missing[0]}'")
    return value


def cells(value: Any) -> list[Any]:
    """The elements of a cell array. Raises ValueError for another value."""
    if not isinstance(value, list):
        raise ValueError("a list is expected")
    return value


def text_of(value: Any) -> str:
    """Text, or a cell with one. Raises ValueError for anything else."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, ndarray) and value.size == 0:
        return ""
    if not isinstance(value, str):
        raise ValueError("text is expected")
    return value.strip()


def numbers_of(value: Any, *shape: int) -> Float64[ndarray, "..."]:
    """Numbers in double precision. Raises ValueError where there are not as many as `shape` says."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, ndarray) or value.size != math.prod(shape):
        raise ValueError(f"{' x '.join(map(str, shape))} numbers are expected")
    return value.astype(np.float64).reshape(shape)
