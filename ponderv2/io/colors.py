"""The one rule for colours of any origin: 8 and 16 bit, 0..1, -1..1, grey, alpha. They become 0..255.

Which of these a file means is decided by its numbers, and by nothing but them: `ushort` and `float` say how
numbers are stored, not what they span. The decision is returned, so that a reader can report it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, UInt8
from numpy import ndarray

from ponderv2.errors import SceneError

NO_COLOR = 127.5
"""Colour of points that have none: the middle of 0..255, which encoders see as 0."""
NO_COLOR_NOTE = f"no colours in the file: {NO_COLOR} of 255 stands for them, which the encoder sees as 0"

ColorRange = Literal["0..255", "0..65535", "0..65280", "0..1", "-1..1"]
"""What the numbers of a file span. 0..65280 are 8 bits times 256, as several LAS writers store them."""
_TO_BYTES: dict[ColorRange, tuple[float, float]] = {
    "0..255": (1.0, 0.0),
    "0..65535": (1.0 / 257.0, 0.0),
    "0..65280": (1.0 / 256.0, 0.0),
    "0..1": (255.0, 0.0),
    "-1..1": (127.5, 127.5),
}
"""Factor and summand that lead to 0..255."""
_RARE = 0.01
"""Share of numbers that may lie outside of a range and be cut off: highlights, interpolation, damage."""
_SLACK = 0.05
"""How far below 0 a colour of 0..1 may lie (of 0..255: that times 255)."""
_DARK = 4096
"""16-bit colours of which none is that large are reported: 10 or 12 bits would explain them too."""
_SH_DEGREE_0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""


@dataclass(frozen=True)
class ReadColors:
    """Colours as all of the program uses them, and how the file's numbers were understood."""

    color: Float32[ndarray, "*row 3"]
    """0..255, not rounded; NO_COLOR where the file has none for a row."""
    range: ColorRange
    """What the numbers of the file span."""
    notes: tuple[str, ...] = ()
    """What was chosen where another reading is possible, scaled, cut off or missing. One sentence each."""

    def as_bytes(self) -> UInt8[ndarray, "*row 3"]:
        """Rounded to 8 bits."""
        return np.rint(self.color).astype(np.uint8)


def read_colors(
    values: ndarray, source: object, declared: Literal["0..255", "0..65535"] | None = None
) -> ReadColors:
    """Colours 0..255 of numbers of any usual range.

    Args:
        values: `[..., channel]` of any number type; 1 channel is grey, 2 grey and alpha, 3 RGB, 4 RGBA. Alpha
            is left out.
        source: What the numbers are from, for the error: a path.
        declared: The range where the format fixes it, as that of images does. A dark frame of a video then
            stays dark. None: decided by the numbers.

    Raises:
        SceneError: the numbers are no colours in any of the ranges.
    """
    n_channels = values.shape[-1] if values.ndim else 0
    if not 1 <= n_channels <= 4 or values.dtype.kind not in "fiub":
        raise SceneError(
            f"{source}: colours of type {values.dtype} and shape {values.shape}, expected 1 to 4 numbers each"
        )
    if values.dtype == np.int8:  # bytes above 127 that a writer called `char`
        values = values.view(np.uint8)
    n_colors = 3 if n_channels >= 3 else 1
    plain = values[..., :n_colors]
    known = np.isfinite(plain).all(axis=-1) if plain.dtype.kind == "f" else None
    if known is None or known.all():
        known = None
    notes: list[str] = []
    chosen: ColorRange = declared or "0..255"
    if declared is None:
        chosen, notes = _choose(plain if known is None else plain[known], source)
        missing = _without_color(plain, chosen)
        known = missing if known is None else known if missing is None else known & missing
    color, cut_off = _scaled(plain, chosen)
    if cut_off:
        notes.append("colours outside of that range were cut off")
    if known is not None and not known.all():
        color[~known] = NO_COLOR
        notes.append(f"{int((~known).sum())} points have no colour: {NO_COLOR} of 255 stands for it")
    if n_colors == 1:
        color = np.repeat(color, 3, axis=-1)
    return ReadColors(color, chosen, tuple(notes))


def colors_of_harmonics(constant: Float[ndarray, "point 3"]) -> ReadColors:
    """Colours of Gaussian splats: 0.5 + 0.2821 f_dc, clipped. What depends on the view is left out."""
    color = np.clip(0.5 + _SH_DEGREE_0 * constant.astype(np.float64), 0.0, 1.0) * 255.0
    note = "colours of Gaussian splats: 0.5 + 0.2821 f_dc, without what depends on the direction of view"
    notes = [note]
    known = np.isfinite(color).all(axis=-1)
    if not known.all():
        color[~known] = NO_COLOR
        notes.append(f"{int((~known).sum())} points have no colour: {NO_COLOR} of 255 stands for it")
    return ReadColors(color.astype(np.float32), "0..1", tuple(notes))


def no_colors(n_points: int) -> ReadColors:
    """What stands in for the colours of a file that has none."""
    return ReadColors(np.full((n_points, 3), NO_COLOR, np.float32), "0..255", (NO_COLOR_NOTE,))


def _choose(values: ndarray, source: object) -> tuple[ColorRange, list[str]]:
    """The range that the numbers span, and what to report about it. All of them are finite."""
    if values.size == 0:
        return "0..255", []
    if values.dtype == np.bool_:
        return "0..1", ["colours are true and false: 255 and 0"]
    low, high = float(values.min()), float(values.max())
    stored_as_integers = values.dtype.kind in "iu"
    if stored_as_integers and low >= 0 and high <= 255:
        return "0..255", _integer_notes(values, high)
    whole = stored_as_integers or bool((values == np.rint(values)).all())
    lowest = -1.0 if whole else -_SLACK * 255
    if low < lowest or high > 65536.0 or (low < -1.0 - _SLACK and not _rare(values < -_SLACK, values.size)):
        raise SceneError(
            f"{source}: colours from {low:g} to {high:g} are none of 0..255, 0..65535, 0..1, -1..1",
            fix="remove these columns, or say in a header what they are",
        )
    n_lit = int((values > 0).sum())
    if high <= 1.0 if whole else (high <= 2.0 or _rare(values > 1.0 + _SLACK, n_lit)):
        return _choose_unit(values, high, whole)
    if high > 2 * 255 and not _rare(values > 255.5, n_lit):
        return _choose_16_bit(values, high, whole)
    return "0..255", []


def _rare(outside: Bool[ndarray, "*any"], n_values: int) -> bool:
    """Whether so few numbers are outside of a range that they do not speak against it."""
    return int(outside.sum()) <= _RARE * n_values


def _integer_notes(values: ndarray, high: float) -> list[str]:
    """Integers up to 255 are 8 bits, whatever they are stored as."""
    if high == 1.0:
        return ["colours are integers and do not exceed 1: read as 0..255, they are almost black"]
    if values.dtype == np.uint16 and high > 0:
        return ["colours are stored in 16 bits and do not exceed 255: read as 0..255"]
    return []


def _choose_unit(values: ndarray, high: float, whole: bool) -> tuple[ColorRange, list[str]]:
    if not _rare(values < -_SLACK, values.size):
        return "-1..1", ["colours were numbers from -1 to 1 and were moved to 0..255"]
    if whole and high > 0:
        return "0..1", [
            "colours are nothing but 0 and 1: they were multiplied by 255, as 0..255 they are black"
        ]
    return "0..1", ["colours were numbers from 0 to 1 and were multiplied by 255"] if high > 0 else []


def _choose_16_bit(values: ndarray, high: float, whole: bool) -> tuple[ColorRange, list[str]]:
    dark = f"; none exceeds {high:g}, with less than 16 bits they come out too dark" if high < _DARK else ""
    if whole and not bool((values.astype(np.int64) & 255).any()):
        return "0..65280", ["colours were 8 bits times 256 and were divided by 256" + dark]
    return "0..65535", ["colours were numbers of 16 bits and were divided by 257" + dark]


def _without_color(values: ndarray, chosen: ColorRange) -> Bool[ndarray, "*row"] | None:
    """Rows that have a colour, where -1 marks those that have none; None: all have one."""
    if chosen == "-1..1" or values.dtype.kind not in "fi" or values.min(initial=0) != -1.0:
        return None
    return ~(values == -1.0).all(axis=-1)


def _scaled(values: ndarray, chosen: ColorRange) -> tuple[Float32[ndarray, "*row channel"], bool]:
    """0..255, and whether anything visible was cut off."""
    factor, summand = _TO_BYTES[chosen]
    if chosen == "0..255" and values.min(initial=0) >= 0 and values.max(initial=0) <= 255:
        return values.astype(np.float32), False
    scaled = values.astype(np.float64) * factor + summand
    cut_off = bool(((scaled < -0.5) & (values != -1.0)).any() or (scaled > 255.5).any())
    with np.errstate(invalid="ignore"):
        return np.clip(scaled, 0.0, 255.0).astype(np.float32), cut_off
