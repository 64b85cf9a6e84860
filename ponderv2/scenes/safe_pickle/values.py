"""What a pickled file may hold, as descriptions: numbers, text, lists, dicts, plain arrays and tensors.

The names that a file asks for are looked up in a table of our own functions. None of them calls what has that
name; they note shape, type and place of the bytes of an array, which is made when somebody asks for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LARGEST_DEPTH = 20
"""Lists in lists in lists."""
LARGEST_COUNT = 2_000_000
"""Instructions of one pickle, and values that are made of it."""


class Forbidden(ValueError):
    """A name that data has no need of."""


@dataclass(frozen=True)
class Blob:
    """A long run of bytes or text that stays in the file."""

    start: int
    stop: int
    encoding: str
    """bytes; text: UTF-8; latin1: bytes that were written as UTF-8 text."""


@dataclass(frozen=True)
class Global:
    """A name of the table below."""

    name: str


@dataclass
class DtypeValue:
    """The type of the elements of an array."""

    dtype: np.dtype

    def build(self, state: Any) -> None:
        """The state that NumPy writes: version, byte order, then nothing for plain types."""
        if not isinstance(state, tuple) or len(state) < 5 or any(part is not None for part in state[2:5]):
            raise ValueError("an array of records or of other arrays")
        order = state[1]
        if order not in ("<", ">", "|", "="):
            raise ValueError(f"the byte order {order!r}")
        if order in "<>":
            self.dtype = self.dtype.newbyteorder(order)


@dataclass
class ArrayValue:
    """An array whose numbers are still in the file."""

    shape: tuple[int, ...] = (0,)
    dtype: np.dtype = field(default_factory=lambda: np.dtype("u1"))
    order: str = "C"
    data: Blob | bytes = b""

    def build(self, state: Any) -> None:
        """The state that NumPy writes: version, shape, type, whether columns come first, the bytes."""
        if not isinstance(state, tuple) or len(state) != 5:
            raise ValueError("the state of an array is not what NumPy writes")
        _, shape, dtype, columns_first, data = state
        self.fill(shape, dtype, "F" if columns_first is True else "C", data)

    def fill(self, shape: Any, dtype: Any, order: str, data: Any) -> None:
        """Shape, type and bytes, checked."""
        if not isinstance(dtype, DtypeValue):
            raise ValueError("an array without a type")
        if not isinstance(shape, tuple) or len(shape) > 8 or not all(map(_is_size, shape)):
            raise ValueError(f"an array of shape {str(shape)[:60]}")
        self.shape, self.dtype, self.order, self.data = shape, dtype.dtype, order, _as_bytes(data)


@dataclass(frozen=True)
class ScalarValue:
    """One NumPy number."""

    array: ArrayValue


@dataclass(frozen=True)
class StorageValue:
    """The bytes of one or more tensors, outside of the pickle."""

    dtype: np.dtype
    key: str
    n_elements: int


@dataclass(frozen=True)
class TensorValue:
    """A view of a storage."""

    storage: StorageValue
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


def call(function: Any, arguments: Any) -> Any:
    """The description of what a file wants to be made. Raises Forbidden for everything but data."""
    if not isinstance(function, Global) or not isinstance(arguments, tuple):
        raise ValueError("a call of something that has no name")
    builder = _CALLS.get(function.name)
    if builder is None:
        raise Forbidden(function.name)
    return builder(*arguments)


def find_global(module: Any, name: Any) -> Global:
    """A name of the table. Raises Forbidden for any other."""
    full = f"{module}.{name}"
    if not isinstance(module, str) or not isinstance(name, str) or full not in _KNOWN:
        raise Forbidden(full[:200])
    return Global(full)


def find_storage(identity: Any) -> StorageValue:
    """Where torch put the bytes of a tensor."""
    if not isinstance(identity, tuple) or len(identity) < 5 or identity[0] != "storage":
        raise ValueError("a reference to something outside of the file")
    _, kind, key, _, n_elements = identity[:5]
    dtype = _STORAGES.get(kind.name) if isinstance(kind, Global) else None
    if dtype is None or not isinstance(key, str) or not _is_size(n_elements):
        raise ValueError("tensors of a type that is not read")
    return StorageValue(np.dtype(dtype), key, n_elements)


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**48


def _as_bytes(data: Any) -> Blob | bytes:
    if isinstance(data, Blob) and data.encoding == "text":
        return Blob(data.start, data.stop, "latin1")
    if isinstance(data, str):
        return data.encode("latin-1")
    if not isinstance(data, Blob | bytes):
        raise ValueError("an array of Python objects")
    return data


def _reconstruct(kind: Any, shape: Any = (0,), code: Any = b"b") -> ArrayValue:
    if kind != Global("numpy.ndarray") or shape != (0,):
        raise ValueError("an array of a class or shape that NumPy does not write")
    return ArrayValue()


def _frombuffer(data: Any, dtype: Any, shape: Any, order: Any) -> ArrayValue:
    array = ArrayValue()
    array.fill(shape, dtype, "F" if order == "F" else "C", data)
    return array


def _dtype(code: Any, *_: Any) -> DtypeValue:
    if isinstance(code, str) and code.startswith("O"):
        raise ValueError("an array of Python objects")
    if not isinstance(code, str) or not re.fullmatch(
        r"[|<>=]?(b1|[iu][1248]|f[248]|c(8|16)|[SU]\d{1,4})", code
    ):
        raise ValueError(f"an array of type {str(code)[:40]!r}")
    return DtypeValue(np.dtype(code))


def _scalar(dtype: Any, data: Any) -> ScalarValue:
    array = ArrayValue()
    array.fill((), dtype, "C", data)
    return ScalarValue(array)


def _encode(text: Any, encoding: Any = "latin1") -> Blob | bytes:
    if encoding not in ("latin1", "latin-1"):
        raise ValueError(f"bytes written as {str(encoding)[:20]!r}")
    return _as_bytes(text)


def _bytes(*arguments: Any) -> Blob | bytes:
    return _encode(*arguments) if arguments else b""


def _ordered_dict(*arguments: Any) -> dict[Any, Any]:
    if arguments:
        raise ValueError("an ordered dict that is made from something")
    return {}


def _size(shape: Any = ()) -> Any:
    return shape


def _tensor(storage: Any, offset: Any, shape: Any, stride: Any, *_: Any) -> TensorValue:
    sizes = (shape, stride)
    if not isinstance(storage, StorageValue) or not _is_size(offset):
        raise ValueError("a tensor without its bytes")
    if not all(isinstance(one, tuple) and all(map(_is_size, one)) for one in sizes) or len(shape) != len(
        stride
    ):
        raise ValueError("a tensor of a shape that is not one")
    return TensorValue(storage, offset, shape, stride)


_CALLS: dict[str, Callable[..., Any]] = {
    "numpy.dtype": _dtype,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "__builtin__.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "__builtin__.bytearray": _bytes,
    "collections.OrderedDict": _ordered_dict,
    "torch.Size": _size,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor": _tensor,
}
for _core in ("numpy.core", "numpy._core"):
    _CALLS[f"{_core}.multiarray._reconstruct"] = _reconstruct
    _CALLS[f"{_core}.multiarray.scalar"] = _scalar
    _CALLS[f"{_core}.numeric._frombuffer"] = _frombuffer

_STORAGES = {
    "torch.DoubleStorage": "<f8",
    "torch.FloatStorage": "<f4",
    "torch.HalfStorage": "<f2",
    "torch.LongStorage": "<i8",
    "torch.IntStorage": "<i4",
    "torch.ShortStorage": "<i2",
    "torch.CharStorage": "<i1",
    "torch.ByteStorage": "<u1",
    "torch.BoolStorage": "?",
}

_KNOWN = {*_CALLS, *_STORAGES, "numpy.ndarray"}
