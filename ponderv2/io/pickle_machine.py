"""What a pickled file may hold, as descriptions: numbers, text, lists, dicts, plain arrays and tensors.

The names that a file asks for are looked up in a table of our own functions. None of them calls what has that
name; they note shape, type and place of the bytes of an array, which is made when somebody asks for it.
"""

from __future__ import annotations

import pickletools
import re
import struct
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


SHORT = 256
"""Bytes. Longer texts and byte strings stay in the file."""
LONGEST_LINE = 4096
_NAMES = {code.code: code.name for code in pickletools.opcodes}


class Machine:
    """Reads one pickle after the other from a block of bytes. Raises ValueError and its children."""

    def __init__(self, data: memoryview, position: int = 0, most: int = LARGEST_COUNT) -> None:
        self.data, self.position, self.most = data, position, most
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle, as values of `values.py`."""
        self.stack, self.marked, self.memo = [], [], {}
        for _ in range(self.most):
            code = chr(self._take(1)[0])
            if code == ".":
                return self._pop()
            if code in _LITERALS:
                self.stack.append(_LITERALS[code]())
            elif code in _LENGTHS:
                self.stack.append(self._payload(*_LENGTHS[code]))
            elif code in _NUMBERS:
                kind = _NUMBERS[code]
                self.stack.append(struct.unpack(kind, self._take(struct.calcsize(kind)))[0])
            elif code in _ACTIONS:
                _ACTIONS[code](self)
            else:
                self._refuse(code)
        raise ValueError(f"more than {self.most} instructions")

    def _take(self, count: int) -> memoryview:
        left = len(self.data) - self.position
        if not 0 <= count <= left:
            raise ValueError(f"it ends too early: {count} bytes are announced, {max(left, 0)} are left")
        self.position += count
        return self.data[self.position - count : self.position]

    def _line_bytes(self, longest: int = LONGEST_LINE) -> bytes:
        start, stop = self.position, self.position
        while stop < len(self.data) and stop - start < longest:
            part = bytes(self.data[stop : min(stop + LONGEST_LINE, start + longest)])
            length = part.find(b"\n")
            if length >= 0:
                self.position = stop + length + 1
                return bytes(self.data[start : stop + length])
            stop += len(part)
        raise ValueError("a line does not end")

    def _line(self) -> str:
        return self._line_bytes().decode("utf-8")

    def _text_line(self) -> str:
        """Text of protocol 0, which may be all bytes of an array."""
        return self._line_bytes(len(self.data)).decode("raw-unicode-escape")

    def _payload(self, kind: str, encoding: str) -> Any:
        (length,) = struct.unpack(kind, self._take(struct.calcsize(kind)))
        content = self._take(length)
        if length > SHORT:
            return Blob(self.position - length, self.position, encoding)
        return (
            bytes(content)
            if encoding == "bytes"
            else str(content, "latin-1" if encoding == "latin1" else "utf-8")
        )

    def _pop(self) -> Any:
        if not self.stack:
            raise ValueError("a value is missing")
        return self.stack.pop()

    def _top(self, kind: type) -> Any:
        if not self.stack or type(self.stack[-1]) is not kind:
            raise ValueError(f"a {kind.__name__} is missing")
        return self.stack[-1]

    def _mark(self) -> None:
        if len(self.marked) > LARGEST_COUNT:
            raise ValueError("too many open lists")
        self.marked.append(self.stack)
        self.stack = []

    def _since_mark(self) -> list[Any]:
        if not self.marked:
            raise ValueError("a list ends that has not begun")
        values = self.stack
        self.stack = self.marked.pop()
        return values

    def _last(self, count: int) -> tuple[Any, ...]:
        return tuple(reversed([self._pop() for _ in range(count)]))

    def _protocol(self) -> None:
        if self._take(1)[0] > 5:
            raise ValueError("it was written by a later protocol than 5")

    def _set_items(self, values: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if isinstance(key, bytes):
                key = key.decode("latin-1")
            if not isinstance(key, str | int | float | bool | None):
                raise ValueError("a key that is neither text nor a number")
            target[key] = value

    def _make_dict(self, values: list[Any]) -> None:
        self.stack.append({})
        self._set_items(values)

    def _remember(self, number: int) -> None:
        if not self.stack:
            raise ValueError("a value is missing")
        self.memo[number] = self.stack[-1]

    def _recall(self, number: int) -> None:
        if number not in self.memo:
            raise ValueError(f"value {number} is not known yet")
        self.stack.append(self.memo[number])

    def _reduce(self) -> None:
        function, arguments = self._last(2)
        self.stack.append(call(function, arguments))

    def _build(self) -> None:
        state = self._pop()
        target = self.stack[-1] if self.stack else None
        if isinstance(target, ArrayValue | DtypeValue):
            target.build(state)
        elif not isinstance(target, dict):  # an ordered dict may carry remarks: nothing needs them
            raise ValueError("an object with a state of its own")

    def _integer_line(self) -> int | bool:
        text = self._line().removesuffix("L")
        if text in ("00", "01"):
            return text == "01"
        return int(text[:40])

    def _long(self, kind: str) -> int:
        (length,) = struct.unpack(kind, self._take(struct.calcsize(kind)))
        if length > 64:
            raise ValueError(f"a number of {length} bytes")
        return int.from_bytes(self._take(length), "little", signed=True)

    def _global_lines(self) -> None:
        module = self._line()
        self.stack.append(find_global(module, self._line()))

    def _refuse(self, code: str) -> None:
        if code == "i":  # INST names a class and makes an object of it
            module = self._line()
            raise Forbidden(f"{module}.{self._line()}"[:200])
        name = _NAMES.get(code)
        raise ValueError(
            f"the instruction {name}, which plain data has no need of" if name else "it is no pickle"
        )


def _byte(machine: Machine) -> int:
    return machine._take(1)[0]


def _four(machine: Machine) -> int:
    return struct.unpack("<I", machine._take(4))[0]


_LITERALS: dict[str, Callable[[], Any]] = {
    "N": lambda: None,
    "\x88": lambda: True,
    "\x89": lambda: False,
    ")": tuple,
    "]": list,
    "}": dict,
}
_LENGTHS = {
    "T": ("<i", "latin1"),
    "U": ("<B", "latin1"),
    "B": ("<I", "bytes"),
    "C": ("<B", "bytes"),
    "\x8e": ("<Q", "bytes"),
    "\x96": ("<Q", "bytes"),
    "X": ("<I", "text"),
    "\x8c": ("<B", "text"),
    "\x8d": ("<Q", "text"),
}
_NUMBERS = {"J": "<i", "K": "<B", "M": "<H", "G": ">d"}
_ACTIONS: dict[str, Callable[[Machine], Any]] = {
    "\x80": Machine._protocol,
    "\x95": lambda m: m._take(8),
    "(": Machine._mark,
    "0": Machine._pop,
    "1": Machine._since_mark,
    "I": lambda m: m.stack.append(m._integer_line()),
    "L": lambda m: m.stack.append(m._integer_line()),
    "F": lambda m: m.stack.append(float(m._line())),
    "V": lambda m: m.stack.append(m._text_line()),
    "\x8a": lambda m: m.stack.append(m._long("<B")),
    "\x8b": lambda m: m.stack.append(m._long("<i")),
    "t": lambda m: (values := m._since_mark(), m.stack.append(tuple(values))),
    "\x85": lambda m: m.stack.append(m._last(1)),
    "\x86": lambda m: m.stack.append(m._last(2)),
    "\x87": lambda m: m.stack.append(m._last(3)),
    "l": lambda m: (values := m._since_mark(), m.stack.append(values)),
    "d": lambda m: m._make_dict(m._since_mark()),
    "e": lambda m: (values := m._since_mark(), m._top(list).extend(values)),
    "a": lambda m: (value := m._pop(), m._top(list).append(value)),
    "u": lambda m: m._set_items(m._since_mark()),
    "s": lambda m: m._set_items(list(m._last(2))),
    "p": lambda m: m._remember(int(m._line()[:20])),
    "q": lambda m: m._remember(_byte(m)),
    "r": lambda m: m._remember(_four(m)),
    "\x94": lambda m: m._remember(len(m.memo)),
    "g": lambda m: m._recall(int(m._line()[:20])),
    "h": lambda m: m._recall(_byte(m)),
    "j": lambda m: m._recall(_four(m)),
    "c": Machine._global_lines,
    "\x93": lambda m: m.stack.append(find_global(*m._last(2))),
    "R": Machine._reduce,
    "b": Machine._build,
    "Q": lambda m: m.stack.append(find_storage(m._pop())),
}
