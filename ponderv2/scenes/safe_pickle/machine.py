"""The stack machine of pickle, for data only: it moves values, and never imports or calls what a file names.

Opcodes as in Python's `pickletools`, protocols 0 to 5. What could make an object of a class is refused.
"""

from __future__ import annotations

import pickletools
import struct
from collections.abc import Callable
from typing import Any

from ponderv2.scenes.safe_pickle.values import (
    LARGEST_COUNT,
    ArrayValue,
    Blob,
    DtypeValue,
    Forbidden,
    call,
    find_global,
    find_storage,
)

SHORT = 256
"""Bytes. Longer texts and byte strings stay in the file."""
LONGEST_LINE = 4096
_NAMES = {code.code: code.name for code in pickletools.opcodes}


class Machine:
    """Reads one pickle after the other from a block of bytes. Raises ValueError and its children."""

    def __init__(self, data: memoryview, position: int = 0) -> None:
        self.data, self.position = data, position
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def load(self) -> Any:
        """The next pickle, as values of `values.py`."""
        self.stack, self.marked, self.memo = [], [], {}
        for _ in range(LARGEST_COUNT):
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
        raise ValueError(f"more than {LARGEST_COUNT} instructions")

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
