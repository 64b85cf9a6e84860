"""Files of torch (zip archives and the older stream) and of pickle, opened for single arrays. Nothing is run.

Arrays stay in the file until they are asked for: of an image with its camera, the camera costs little.
"""

from __future__ import annotations

import hashlib
import math
import mmap
import struct
import zipfile
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ponderv2.errors import SceneError
from ponderv2.io.pickle_machine import (
    LARGEST_COUNT,
    LARGEST_DEPTH,
    ArrayValue,
    Blob,
    DtypeValue,
    Forbidden,
    Global,
    Machine,
    ScalarValue,
    StorageValue,
    TensorValue,
)

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First number of torch's older files."""
SMALL_ARRAY = 1024
"""Numbers of an array that counts whole in `outline`: cameras and poses do."""
GROWTH = 4
"""Arrays may take N times the size of their file: views may share bytes."""
_ERRORS = (ValueError, TypeError, IndexError, KeyError, OverflowError, MemoryError, EOFError)
_ZIP_ERRORS = (zipfile.BadZipFile, NotImplementedError, RuntimeError, struct.error)


def read_pickled(path: Path, keys: Collection[str] | None = None) -> dict[str, Any]:
    """The dict in a file: numbers, text, lists, NumPy arrays (tensors too come as arrays).

    `keys` restricts it to those that are there of these.

    Raises:
        SceneError: missing, damaged, no dict, or it names anything that plain arrays have no need of.
    """
    with PickledFile.open(path) as file:
        return {key: file.read(key) for key in file.keys if keys is None or key in keys}


RECORDS = 60_000_000
"""Instructions of a file of records: those of nuScenes have some 25 million."""


def read_records(path: Path) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The records in a file: a list of dicts, or the first such list in a dict, and what else that holds.

    Numbers, text, arrays; all is in memory. Raises SceneError as `read_pickled` does.
    """
    with _mapped(path) as content:
        machine = _reported(path, lambda: Machine(content, most=RECORDS))
        value = _reported(path, machine.load)
        lists = [value] if isinstance(value, list) else []
        lists += [one for one in value.values() if isinstance(one, list)] if isinstance(value, dict) else []
        chosen = next((one for one in lists if one and all(isinstance(row, dict) for row in one)), None)
        if chosen is None:
            raise SceneError(f"{path} holds no list of records")
        budget = GROWTH * len(content) + (1 << 20)
        rest = (
            {} if isinstance(value, list) else {key: one for key, one in value.items() if one is not chosen}
        )
        file = PickledFile(path, {"records": chosen, "rest": rest}, content, {}, budget, most=RECORDS)
        return file.read("records"), file.read("rest")


@dataclass
class PickledFile:
    """A file whose contents are known and whose arrays are read one by one."""

    path: Path
    values: dict[str, Any]
    pickle: memoryview
    storages: dict[str, memoryview]
    budget: int
    """Bytes that may still be made of it."""
    checksums: tuple[int, ...] = ()
    """CRC-32 of the members of an archive, as its directory says."""
    count: int = field(default=0)
    most: int = LARGEST_COUNT
    """Values that may be made of it."""

    @staticmethod
    @contextmanager
    def open(path: Path) -> Iterator[PickledFile]:
        """The file, until the end of the block. Raises SceneError."""
        with _mapped(path) as content:
            yield _described(path, content)

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of what is there."""
        return tuple(key for key in self.values if isinstance(key, str))

    def shape(self, key: str) -> tuple[int, ...] | None:
        """Of an array, without reading it; None where there is none."""
        value = self.values.get(key)
        return value.shape if isinstance(value, ArrayValue | TensorValue) else None

    def outline(self) -> str:
        """Digest of all numbers and small arrays, and of names, shapes and types of large ones.

        The numbers of large arrays are not read; those of an archive count by its checksums.
        """
        parts = [str(self.checksums)]
        for key, value in self.values.items():
            if isinstance(value, ArrayValue | TensorValue) and math.prod(value.shape) > SMALL_ARRAY:
                kind = value.dtype if isinstance(value, ArrayValue) else value.storage.dtype
                parts.append(f"{key!r} {value.shape} {kind}")
            elif isinstance(key, str):
                made = self.read(key)
                if isinstance(made, np.ndarray):
                    made = f"{made.shape} {made.dtype} {made.tobytes().hex()}"
                parts.append(f"{key!r} {made!r}")
        return hashlib.sha256("\n".join(parts).encode("utf-8", "backslashreplace")).hexdigest()

    def read(self, key: str) -> Any:
        """One value. Raises SceneError when it is missing or damaged."""
        if key not in self.values:
            raise SceneError(f"{self.path} has no '{key}', only: {', '.join(self.keys)[:200]}")
        try:
            return self._made(self.values[key], 0)
        except _ERRORS as error:
            raise _damaged(self.path, error) from error

    def _made(self, value: Any, depth: int) -> Any:
        self.count += 1
        if depth > LARGEST_DEPTH or self.count > self.most:
            raise ValueError("lists within lists without end")
        if isinstance(value, ArrayValue):
            return self._array(value)
        if isinstance(value, ScalarValue):
            return self._array(value.array)[()]
        if isinstance(value, TensorValue):
            return self._tensor(value)
        if isinstance(value, Blob):
            data = self._bytes(value)
            return data.decode("utf-8") if value.encoding == "text" else data
        if isinstance(value, dict):
            return {key: self._made(one, depth + 1) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return type(value)(self._made(one, depth + 1) for one in value)
        if isinstance(value, DtypeValue | Global | StorageValue):
            raise ValueError("something that is neither a number, text nor an array")
        return value

    def _spend(self, n_bytes: int) -> None:
        self.budget -= n_bytes
        if self.budget < 0:
            raise ValueError("its arrays are much larger than the file")

    def _bytes(self, blob: Blob) -> bytes:
        self._spend(blob.stop - blob.start)
        content = self.pickle[blob.start : blob.stop]
        return str(content, "utf-8").encode("latin-1") if blob.encoding == "latin1" else bytes(content)

    def _array(self, value: ArrayValue) -> np.ndarray:
        expected = math.prod(value.shape) * value.dtype.itemsize
        length = len(value.data) if isinstance(value.data, bytes) else value.data.stop - value.data.start
        if expected > length:
            raise ValueError(f"an array of {expected} bytes, of which {length} are there")
        data = value.data if isinstance(value.data, bytes) else self._bytes(value.data)
        if len(data) != expected:
            raise ValueError(f"an array of {expected} bytes, of which {len(data)} are there")
        if value.dtype.kind == "U" and expected:
            _check_text(data, value.dtype)
        return np.frombuffer(bytearray(data), value.dtype).reshape(
            value.shape, order="F" if value.order == "F" else "C"
        )

    def _tensor(self, value: TensorValue) -> np.ndarray:
        storage = value.storage
        content = self.storages.get(storage.key)
        size = storage.dtype.itemsize
        if content is None or len(content) < storage.n_elements * size:
            raise ValueError("the bytes of a tensor are missing")
        n_elements = math.prod(value.shape)
        self._spend(n_elements * size)
        if n_elements == 0:
            return np.zeros(value.shape, storage.dtype)
        last = value.offset + sum((n - 1) * step for n, step in zip(value.shape, value.stride, strict=True))
        if last >= storage.n_elements:
            raise ValueError("a tensor reaches beyond its bytes")
        flat = np.frombuffer(content[value.offset * size : (last + 1) * size], storage.dtype)
        strides = tuple(step * size for step in value.stride)
        return np.lib.stride_tricks.as_strided(flat, value.shape, strides).copy()


def _check_text(data: bytes, dtype: np.dtype) -> None:
    """Numbers that are no characters would crash whoever prints them."""
    order = ">" if dtype.byteorder == ">" else "<"
    if int(np.frombuffer(data, f"{order}u4").max()) > 0x10FFFF:
        raise ValueError("text of characters that do not exist")


@contextmanager
def _mapped(path: Path) -> Iterator[memoryview]:
    try:
        with path.open("rb") as stream:
            # Closed when the last view of it is gone: views may outlive an exception.
            content = memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise SceneError(f"cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:  # of mmap: the file is empty
        raise _damaged(path, error) from error
    yield content


def _reported(path: Path, make: Callable[[], Any]) -> Any:
    """What `make` gives. Raises SceneError for a file that is damaged or not safe."""
    try:
        return make()
    except Forbidden as error:
        raise SceneError(
            f"{path} asks for '{error}', which plain arrays have no need of, and was not opened",
            fix="nothing in it was run; get the file again from its source, or save its arrays with np.save",
        ) from error
    except (*_ERRORS, *_ZIP_ERRORS) as error:
        raise _damaged(path, error) from error


def _described(path: Path, content: memoryview) -> PickledFile:
    is_zip = bytes(content[:4]) == b"PK\x03\x04"
    pickle, value, storages, checksums = _reported(
        path, lambda: _from_zip(path, content) if is_zip else (*_from_stream(content), ())
    )
    if not isinstance(value, dict):
        kind = type(value).__name__.removesuffix("Value").lower()
        raise SceneError(f"{path} holds no named arrays but a {kind}")
    return PickledFile(path, value, pickle, storages, GROWTH * len(content) + (1 << 20), checksums)


def _from_zip(
    path: Path, content: memoryview
) -> tuple[memoryview, Any, dict[str, memoryview], tuple[int, ...]]:
    """A torch archive: NAME/data.pkl and the bytes of tensors as NAME/data/KEY."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
    (name,) = [one for one in entries if one.count("/") == 1 and one.endswith("/data.pkl")] or [""]
    if not name:
        raise ValueError("an archive without data.pkl is not torch's")
    folder = name.removesuffix("data.pkl") + "data/"
    pickle = _stored(content, entries[name])
    value = Machine(pickle).load()
    inside = {key.removeprefix(folder): entry for key, entry in entries.items() if key.startswith(folder)}
    checksums = tuple(entry.CRC for entry in entries.values())
    return pickle, value, {key: _stored(content, entry) for key, entry in inside.items()}, checksums


def _stored(content: memoryview, entry: zipfile.ZipInfo) -> memoryview:
    """The bytes of an entry, where they are: torch does not compress."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size:
        raise ValueError("its entries are compressed")
    header = bytes(content[entry.header_offset : entry.header_offset + 30])
    if len(header) < 30 or header[:4] != b"PK\x03\x04":
        raise ValueError("an entry of the archive is not where it should be")
    start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:30]))
    if start + entry.file_size > len(content):
        raise ValueError("an entry of the archive is cut off")
    return content[start : start + entry.file_size]


def _from_stream(content: memoryview) -> tuple[memoryview, Any, dict[str, memoryview]]:
    """Torch's older stream (magic number, version, system, value, keys, bytes of tensors), or one pickle."""
    machine = Machine(content)
    value = machine.load()
    if value != LEGACY_MAGIC:
        return content, value, {}
    machine.load()
    machine.load()
    value = machine.load()
    keys = machine.load()
    if not isinstance(keys, list) or not all(isinstance(key, str) for key in keys):
        raise ValueError("the list of its tensors is missing")
    return content, value, _legacy_storages(content, machine.position, value, keys)


def _legacy_storages(
    content: memoryview, position: int, value: Any, keys: list[str]
) -> dict[str, memoryview]:
    itemsize = {one.key: one.dtype.itemsize for one in _storages_in(value)}
    found: dict[str, memoryview] = {}
    for key in keys:
        (n_elements,) = struct.unpack_from("<q", content, position)
        length = n_elements * itemsize.get(key, 0)
        if key not in itemsize or not 0 <= length <= len(content) - position - 8:
            raise ValueError("the bytes of a tensor are cut off")
        found[key] = content[position + 8 : position + 8 + length]
        position += 8 + length
    return found


def _storages_in(value: Any) -> Iterator[StorageValue]:
    """Of the tensors in a dict, or in dicts and lists directly within."""
    parts = list(value.values()) if isinstance(value, dict) else []
    for part in parts[:]:
        parts += (
            list(part.values()) if isinstance(part, dict) else part if isinstance(part, list | tuple) else []
        )
    yield from (part.storage for part in parts if isinstance(part, TensorValue))


def _damaged(path: Path, error: BaseException) -> SceneError:
    reason = str(error).strip().splitlines() or [type(error).__name__]
    return SceneError(f"{path} cannot be read: {reason[0][:200]}", fix="copy the file again, or delete it")
