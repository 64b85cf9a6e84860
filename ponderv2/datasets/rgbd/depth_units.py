"""What the numbers of a recording's depth images mean: bits, sign and unit, decided for all frames together.

A sample of its images decides. What is declared (by the user, by a file of the recording) wins, unless the
resulting depths are implausible for a real scene; the choice is reported in notes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64, Num, UInt16
from numpy import ndarray

from ponderv2.datasets.recordings import ImageSource, RawFrame, Recording
from ponderv2.errors import SceneError
from ponderv2.io.depth_images import FEWEST_STEPS
from ponderv2.io.images import ColorImage

N_SAMPLED = 8
"""Images, spread over the recording."""
PIXELS_OF_EACH = 20_000
NEAREST, FARTHEST = 0.15, 12.0
"""Metres between which the median depth of a recording plausibly lies."""
LARGEST = 65534
"""65535 marks no measurement in 16 bits."""
UNITS = {
    1.0: "metres",
    0.01: "centimetres",
    0.001: "millimetres",
    0.0001: "0.1 mm",
    1 / 5000: "1/5000 m, as of TUM RGB-D",
    1 / 4000: "1/4000 m, as of 2D-3D-S",
    1 / 6553.5: "1/6553.5 m, as of Replica",
    1 / 256: "1/256 m",
}
"""Metres per unit of whole numbers."""
SUGGESTED_ONLY = (1.0, 1 / 256)
"""Units that are only suggested; the others are tried where the frames can decide."""


@dataclass(frozen=True)
class DepthEncoding:
    """How the numbers of an image become depths."""

    scale: float
    """Metres per unit of whole numbers, after bits and sign are corrected."""
    float_scale: float = 1.0
    """Metres per unit of floats."""
    rotated_bits: bool = False
    """16-bit numbers rotated to the left by three bits (SUN3D, SUN RGB-D)."""
    negative: bool = False
    """Depths are z of OpenGL's cameras, which look along -z."""
    stored_scale: float | None = None
    """Metres per unit of the 16-bit numbers that are stored in place of the file's; None = the same."""

    def stored(self, values: Num[ndarray, "row column"]) -> UInt16[ndarray, "row column"]:
        """16-bit numbers in units of `stored_scale`; 0 = no measurement, or one that is too far for them."""
        if self.rotated_bits and values.dtype == np.uint16:
            values = (values >> 3) | (values << 13)
        if self.stored_scale is None and values.dtype == np.uint16:
            return values
        numbers = -values.astype(np.float64) if self.negative else values.astype(np.float64)
        if values.dtype == np.uint16:
            numbers[values == 65535] = 0.0
        scale = self.float_scale if values.dtype.kind == "f" else self.scale
        numbers = np.rint(numbers * (scale / (self.stored_scale or scale)))
        return np.where((numbers > 0) & (numbers <= LARGEST), numbers, 0).astype(np.uint16)


@dataclass(frozen=True)
class ConvertedDepth:
    """A depth image converted to the encoding of the whole recording."""

    source: ImageSource
    numbers: DepthEncoding

    @property
    def name(self) -> str:
        """For error messages."""
        return self.source.name

    def color(self) -> ColorImage:
        """The colours of the image itself."""
        return self.source.color()

    def depth(self) -> UInt16[ndarray, "row column"]:
        """In units of the recording."""
        return self.numbers.stored(self.source.depth())

    def jpeg(self) -> bytes | None:
        """None: depth is never a JPEG."""
        return None


def with_unified_depth_unit(recording: Recording, depth_max: float, given: float | None) -> Recording:
    """The recording with depth images of 16 bits in one unit; what was chosen is noted.

    Args:
        recording: As its layout describes it.
        depth_max: Metres; what is farther need not be stored.
        given: Metres per unit, by the user; wins over everything.

    Raises:
        SceneError: the unit of floats is neither declared nor clear.
    """
    sampled = _sampled(recording.frames)
    if not sampled:  # each frame says what is wrong with it when its turn comes
        return replace(recording, depth_scale=given or recording.depth_scale)
    wide = any(one.dtype != np.uint16 for one in sampled)
    given_scale = given or recording.depth_scale
    numbers, notes = DepthEncoding(given_scale, given_scale), []
    whole = _measured([one for one in sampled if one.dtype.kind != "f"])
    floats = _measured([one for one in sampled if one.dtype.kind == "f"])
    both = np.concatenate([whole, floats])
    if len(both) and float((both < 0).mean()) > 0.99:
        numbers, whole, floats = replace(numbers, negative=True), -whole, -floats
        notes.append("depths are negative (OpenGL cameras look along -z): their sign was changed")
    whole, floats = whole[whole > 0], floats[floats > 0]
    if not wide and _multiples_of_8(sampled):
        numbers, whole, note = _bits(numbers, whole)
        notes.append(note)
    declared = given is not None or recording.unit_declared
    doubt = ""
    if len(floats) and given is None:
        unit, note = _float_unit(floats, recording.depth_scale if declared else None)
        numbers = replace(numbers, float_scale=unit)
        notes.append(note)
    elif len(floats):
        doubt = _doubt(float(np.median(floats)), given_scale, declared)
    if len(whole):
        doubt = doubt or _doubt(float(np.median(whole)), given_scale, declared)
    notes += [doubt] if doubt else []
    if not wide and not numbers.negative and not numbers.rotated_bits:
        return replace(recording, depth_scale=numbers.scale, unit_doubt=doubt).noted(*notes)
    if wide:
        # The finest round unit in which 16 bits reach as far as depths are kept.
        stored = max(math.ceil(depth_max / LARGEST * 1e4) / 1e4, 1e-4)
        numbers = replace(numbers, stored_scale=stored)
        notes.append(f"depths are stored in 16 bits of {1000 * stored:g} mm")
    frames = tuple(replace(one, depth=ConvertedDepth(one.depth, numbers)) for one in recording.frames)
    scale = numbers.stored_scale or numbers.scale
    return replace(recording, frames=frames, depth_scale=scale, unit_doubt=doubt).noted(*notes)


def plausible_units(median: float) -> tuple[float, ...]:
    """Metres per unit of whole numbers under which their median is a plausible depth; millimetres if none."""
    plausible = tuple(
        unit for unit in UNITS if unit not in SUGGESTED_ONLY and NEAREST < median * unit < FARTHEST
    )
    return plausible or (0.001,)


def unit_of_floats(median: float) -> float | None:
    """Metres per unit of floats, by their median: metres or millimetres; None where it is neither."""
    if NEAREST / 3 < median < 3 * FARTHEST:
        return 1.0
    return 0.001 if max(500 * NEAREST, 400.0) < median < 1000 * 3 * FARTHEST else None


def _sampled(frames: tuple[RawFrame, ...]) -> list[Num[ndarray, "_row _column"]]:
    """Some depth images; those that cannot be read are left out."""
    chosen = [frames[i] for i in sorted(set(np.linspace(0, len(frames) - 1, N_SAMPLED).round().astype(int)))]
    found = []
    for frame in chosen:
        try:
            found.append(frame.depth.depth())
        except SceneError:
            continue
    return found


def _measured(images: list[Num[ndarray, "_row _column"]]) -> Float64[ndarray, " pixel"]:
    """Some numbers of each image that are measurements, negative ones among them."""
    parts = [np.zeros(0)]
    for image in images:
        flat = image.ravel()[:: max(image.size // PIXELS_OF_EACH, 1)]
        known = flat != 0
        if image.dtype == np.uint16:
            known &= flat != 65535
        parts.append(flat[known].astype(np.float64))
    return np.concatenate(parts)


def _multiples_of_8(images: list[Num[ndarray, "_row _column"]]) -> bool:
    """Whether the lowest three bits are almost always zero, as after a rotation to the left."""
    known = np.concatenate([image[(image != 0) & (image != 65535)] for image in images])
    if len(known) == 0 or float((known & 7 == 0).mean()) < 0.99:
        return False
    few = known[:: max(len(known) // 200_000, 1)]
    steps = np.unique(few)
    # Some sensors measure in steps; steps that are not powers of two are inconclusive here.
    return len(steps) >= FEWEST_STEPS and int(np.gcd.reduce(steps[steps & 7 == 0])) == 8


def _bits(
    numbers: DepthEncoding, measured: Float64[ndarray, " pixel"]
) -> tuple[DepthEncoding, Float64[ndarray, " pixel"], str]:
    """Rotated bits make depths eight times too large."""
    median = float(np.median(measured)) * numbers.scale
    seen = "all depth numbers are multiples of 8, as where bits are rotated (SUN3D, SUN RGB-D)"
    if not NEAREST < median / 8 < FARTHEST or median < 5.0:
        return numbers, measured, f"{seen}: they were taken as they are, for a median depth of {median:.2f} m"
    whole = measured.astype(np.uint16)
    rotated = ((whole >> 3) | (whole << 13)).astype(np.float64)
    note = f"{seen}: they were rotated back, for a median depth of {median / 8:.2f} m, not {median:.1f} m"
    return replace(numbers, rotated_bits=True), rotated, note


def _float_unit(measured: Float64[ndarray, " pixel"], declared: float | None) -> tuple[float, str]:
    """Metres per unit of depth in floats."""
    median = float(np.median(measured))
    if declared is not None and NEAREST / 3 < median * declared < 5 * FARTHEST:
        return declared, f"depths are floats in units of {declared:g} m, as declared"
    against = "" if declared is None else f", not in the declared {declared:g} m"
    unit = unit_of_floats(median)
    if unit is None:
        raise SceneError(
            f"depth images hold floats with a median of {median:g}, which are neither metres nor millimetres",
            fix="give --depth-scale, metres per unit (0.01 for centimetres)",
        )
    small = ""
    if unit == 1.0 and float(measured.max()) <= 1.0:
        small = "; none exceeds 1: of depths divided by the farthest one, --depth-scale is that distance"
    name = "metres" if unit == 1.0 else "millimetres"
    return unit, f"depths are floats in {name}{against}: their median is {median * unit:.2f} m{small}"


def _doubt(median: float, scale: float, declared: bool) -> str:
    """A clause where the median depth is implausible, with other units that make it plausible."""
    if NEAREST < median * scale < FARTHEST:
        return ""
    others = [
        f"--depth-scale {unit:g} ({name}) makes it {median * unit:.2f} m"
        for unit, name in UNITS.items()
        if 0.5 < median * unit < 6.0 and not math.isclose(unit, scale)
    ]
    source = "declared" if declared else "usual for the layout"
    advice = f": {', or '.join(others[:3])}" if others else ""
    return f"the median depth is {median * scale:.3g} m in units of {scale:g} m, {source}{advice}"
