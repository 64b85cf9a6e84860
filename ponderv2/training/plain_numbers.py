"""NumPy numbers in foreign checkpoints (an epoch, a best value) as Python numbers, without running NumPy.

Torch's restricted reader knows no NumPy types. These stand-ins are all that it is allowed to call instead.
"""

from __future__ import annotations

import re
import struct
from typing import Any

_FORMATS = {
    "f2": "e", "f4": "f", "f8": "d", "i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H",
    "u4": "I", "u8": "Q", "b1": "?",
}  # fmt: skip
_CODE = re.compile(r"[<>|=]?([fiub][1248])")


class StoredType:
    """In place of `numpy.dtype`: a number type by its code, nothing else."""

    def __init__(self, code: str, align: bool = False, copy: bool = True) -> None:
        match = _CODE.fullmatch(code) if isinstance(code, str) else None
        if match is None or match[1] not in _FORMATS:
            raise ValueError(f"{code!r} is not the type of a number")
        self.format = _FORMATS[match[1]]
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        """Only the order of the bytes is taken."""
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else "<"
        self.order = ">" if order == ">" else "<"


def stored_number(kind: StoredType, data: bytes) -> float | int | bool:
    """In place of `numpy.core.multiarray.scalar`."""
    if not isinstance(kind, StoredType) or not isinstance(data, bytes):
        raise ValueError("a number is stored as its type and its bytes")
    return struct.unpack(kind.order + kind.format, data)[0]


STAND_INS: list[Any] = [
    (StoredType, "numpy.dtype"),
    (stored_number, "numpy.core.multiarray.scalar"),
    (stored_number, "numpy._core.multiarray.scalar"),
]
"""For `torch.serialization.safe_globals`."""
