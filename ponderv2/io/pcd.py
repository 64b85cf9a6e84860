"""PCD files of the Point Cloud Library as NumPy arrays: ascii, binary and binary_compressed.

Not read by Open3D, which takes packed colours that were written as whole numbers for the bits of floats (its
colours are then wrong by up to 233 of 255), and which only some commands need. No maintained package unpacks
LZF, which is thirty lines.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy import ndarray

from ponderv2.errors import SceneError
from ponderv2.io.point_columns import PACKED
from ponderv2.io.suggestions import actual_file_type
from ponderv2.io.text import float_words

_KINDS = {"F": "f", "I": "i", "U": "u"}
_HEADER_LIMIT = 65536
_MOST_BYTES_PER_POINT = 4096


@dataclass(frozen=True)
class _Header:
    names: tuple[str, ...]
    kinds: tuple[str, ...]
    """NumPy types, little-endian."""
    counts: tuple[int, ...]
    """Values per field."""
    n_points: int
    form: str
    start: int
    """First byte after the header."""

    def dtype(self) -> np.dtype:
        """One point as it lies in a binary file; padding fields get names of their own."""
        fields = [
            (f"{name}#{i}" if name == "_" else name, kind, (count,))
            for i, (name, kind, count) in enumerate(zip(self.names, self.kinds, self.counts, strict=True))
        ]
        return np.dtype(fields)


def read_pcd(path: Path) -> dict[str, ndarray]:
    """The fields of all points by name, those of several values left out; `rgb` and `rgba` stay packed.

    Raises SceneError naming the file for anything that is not a whole PCD file.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    try:
        header = _header(data)
        body = data[header.start :]
        table = _ascii(body, header) if header.form == "ascii" else _binary(body, header)
    except (ValueError, IndexError, KeyError, TypeError, UnicodeDecodeError, OverflowError) as error:
        what = actual_file_type(data)
        if what is not None:
            raise SceneError(f"{path} is no PCD file: it is {what[0]}", fix=what[1]) from error
        raise SceneError(f"{path} is not a whole PCD file ({error})", fix="copy the file again") from error
    return table


def _header(data: bytes) -> _Header:
    words: dict[str, list[str]] = {}
    start = 0
    while "DATA" not in words:
        end = data.find(b"\n", start, _HEADER_LIMIT)
        if end < 0:
            raise ValueError("no PCD header")
        line = data[start:end].decode("ascii", errors="replace").split("#")[0].split()
        start = end + 1
        if line:
            words[line[0].upper()] = line[1:]
    names = tuple(word.lower() for word in words.get("FIELDS", words.get("COLUMNS", ())))  # .5: COLUMNS
    sizes = [int(word) for word in words.get("SIZE", ["4"] * len(names))]
    types = [word.upper() for word in words.get("TYPE", ["F"] * len(names))]
    counts = tuple(int(word) for word in words.get("COUNT", ["1"] * len(names)))
    kinds = tuple(f"<{_KINDS[kind]}{size}" for kind, size in zip(types, sizes, strict=True))
    n_points = int(words["POINTS"][0]) if "POINTS" in words else _product(words["WIDTH"] + words["HEIGHT"])
    form = words["DATA"][0].lower()
    if form not in ("ascii", "binary", "binary_compressed"):
        raise ValueError(f"unknown kind of data '{form}'")
    if not names or not len(names) == len(kinds) == len(counts) or min(counts) < 1 or n_points < 0:
        raise ValueError("the header contradicts itself")
    return _Header(names, kinds, counts, n_points, form, start)


def _product(words: list[str]) -> int:
    return int(words[0]) * int(words[1])


def _ascii(body: bytes, header: _Header) -> dict[str, ndarray]:
    n_columns = sum(header.counts)
    words = body.split()
    if len(words) < header.n_points * n_columns:
        raise ValueError(f"{header.n_points} points promised, the file is shorter")
    if len(words) > header.n_points * n_columns:  # what lines hold beyond the declared fields is passed over
        rows = [line.split() for line in body.splitlines() if line.strip()][: header.n_points]
        words = [word for row in rows for word in row[:n_columns]]
    if len(words) < header.n_points * n_columns:
        raise ValueError(f"{header.n_points} points promised, the file is shorter")
    text = np.array(words[: header.n_points * n_columns]).reshape(-1, n_columns)
    table: dict[str, ndarray] = {}
    column = 0
    for name, kind, count in zip(header.names, header.kinds, header.counts, strict=True):
        if count == 1 and name != "_":
            values = _numbers(text[:, column])
            # A packed colour as a whole number does not fit into the float that is declared for it.
            table[name] = values if name in PACKED and kind[1] == "f" else _cast(values, kind)
        column += count
    return table


def _numbers(words: ndarray) -> ndarray:
    try:
        return words.astype(np.float64)
    except ValueError:
        plain = [str(int(word, 16)) if word.lower().startswith(b"0x") else word for word in words.tolist()]
        return float_words(plain)


def _cast(values: ndarray, kind: str) -> ndarray:
    """In the declared type, where its numbers are of that type."""
    if kind[1] == "f":
        with np.errstate(over="ignore"):
            return values.astype(kind)
    limits = np.iinfo(kind)
    inside = bool(((values == np.rint(values)) & (values >= limits.min) & (values <= limits.max)).all())
    return values.astype(kind) if inside else values


def _binary(body: bytes, header: _Header) -> dict[str, ndarray]:
    point = header.dtype()
    if point.itemsize > _MOST_BYTES_PER_POINT:
        raise ValueError(f"{point.itemsize} bytes per point")
    size = point.itemsize * header.n_points
    if header.form == "binary":
        if size > len(body):
            raise ValueError(f"{header.n_points} points promised, the file is shorter")
        table = np.frombuffer(body[:size], dtype=point)
        return {name: np.array(table[name][:, 0]) for name in _plain_names(header)}
    packed, unpacked = (int(value) for value in np.frombuffer(body[:8], "<u4"))
    if packed > len(body) - 8 or unpacked != size:
        raise ValueError(f"{header.n_points} points promised, {unpacked} bytes stored")
    return _by_field(lzf_unpacked(body[8 : 8 + packed], unpacked), header)


def _by_field(body: bytes, header: _Header) -> dict[str, ndarray]:
    """Compressed files hold one field after the other."""
    table: dict[str, ndarray] = {}
    plain, position = _plain_names(header), 0
    for name, kind, count in zip(header.names, header.kinds, header.counts, strict=True):
        n_values = count * header.n_points
        if name in plain:
            table[name] = np.frombuffer(body, kind, n_values, position).copy()
        position += n_values * np.dtype(kind).itemsize
    return table


def _plain_names(header: _Header) -> list[str]:
    return [
        name for name, count in zip(header.names, header.counts, strict=True) if count == 1 and name != "_"
    ]


def lzf_unpacked(packed: bytes, size: int) -> bytes:
    """LZF: runs of literal bytes, and copies of what was written up to 8192 bytes before.

    Raises ValueError when the result is not of the promised size.
    """
    out = bytearray()
    position = 0
    while position < len(packed):
        control = packed[position]
        position += 1
        if control < 32:
            out += packed[position : position + control + 1]
            position += control + 1
            continue
        length = control >> 5
        if length == 7:
            length += packed[position]
            position += 1
        back = len(out) - ((control & 31) << 8) - packed[position] - 1
        position += 1
        length += 2
        if back < 0 or len(out) + length > size:
            raise ValueError("the compressed data is damaged")
        while length > 0:  # a copy may overlap what it writes
            piece = out[back : back + length]
            out += piece
            back += len(piece)
            length -= len(piece)
    if len(out) != size:
        raise ValueError("the compressed data is damaged")
    return bytes(out)
