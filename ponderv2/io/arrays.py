"""NumPy's files from outside: nothing is unpickled, and no more memory is taken than the file can fill."""

from __future__ import annotations

import io
import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Literal

import numpy as np
from numpy import ndarray

LARGEST_RATIO = 100
"""An archive that unpacks to more than N times its size, and a good deal, is not one of arrays."""
ALWAYS_ALLOWED = 64 * 2**20
"""Bytes that an archive may unpack to whatever its size."""
_HEADER_ERRORS = (
    SyntaxError, TypeError, KeyError, IndexError, OverflowError, RecursionError, MemoryError, EOFError,
    tokenize.TokenError, AttributeError,
)  # fmt: skip
"""What NumPy raises, beside ValueError and OSError, for headers that it did not write."""


def map_array(path: Path, mode: Literal["r", "c"] = "r") -> ndarray:
    """The array of a .npy file, memory-mapped. Raises OSError, or ValueError saying what is wrong with it."""
    try:
        return np.lib.format.open_memmap(path, mode=mode)
    except _HEADER_ERRORS as error:
        raise ValueError(f"its header is damaged: {_reason(error)}") from error


def read_arrays(path: Path) -> dict[str, ndarray]:
    """All arrays of a .npz file. Raises OSError, or ValueError saying what is wrong with it."""
    size = path.stat().st_size
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            unpacked = sum(member.file_size for member in members)
            if unpacked > LARGEST_RATIO * size + ALWAYS_ALLOWED:
                raise ValueError(f"it claims to unpack to {unpacked} bytes from {size}")
            return {
                member.filename.removesuffix(".npy"): _array(archive.open(member).read(member.file_size + 1))
                for member in members
            }
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError, *_HEADER_ERRORS) as error:
        raise ValueError(_reason(error)) from error


def _array(data: bytes) -> ndarray:
    """An array whose header was compared with the bytes behind it before it is made."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"version {version} of NumPy's format")
    shape, columns_first, dtype = read[version](stream)
    n_bytes = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or min(shape, default=0) < 0 or n_bytes != len(data) - stream.tell():
        raise ValueError(f"{shape} of {dtype} are not the {len(data) - stream.tell()} bytes that are there")
    flat = (
        np.frombuffer(bytearray(data[stream.tell() :]), dtype)
        if n_bytes
        else np.zeros(math.prod(shape), dtype)
    )
    return flat.reshape(shape, order="F" if columns_first else "C")


def _reason(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
