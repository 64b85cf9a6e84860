"""By which factor do depth and the translations of the poses differ, and what is known to cause it?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ponderv2.scenes.check_agreement import Samples
from ponderv2.scenes.check_readings import Reading

NEAR = 0.025
"""Of the median depth: what counts as agreement, 5 cm at 2 m. A length of the recording itself, as its unit
is in doubt."""
LARGEST = 8000.0
"""Factor that is tried, and its inverse."""
STEP = 1.12
"""Between two factors of the search. A factor that is 6 % off raises the agreement already."""
SNAP = 0.1
"""Natural logarithm between a fitted factor and known ones that are tried in its place."""
UNITS = {
    0.001: "millimetres", 0.01: "centimetres", 0.1: "decimetres", 0.3048: "feet", 0.0254: "inches",
    0.0001: "0.1 mm",
}  # fmt: skip
"""Metres per unit."""
DEPTH_RANGE = (0.15, 15.0)
"""Metres: where the median of the depth of a room or a table top lies."""
EXTENT_RANGE = (0.003, 60.0)
"""Metres between the outermost cameras of a recording."""
PGM_LARGEST = (1023, 2047, 4095, 5000, 8000, 10000, 12000, 16383, 20000, 40000)
"""Largest values that headers of 16-bit PGM files give; readers that stretch them to 65535 multiply the
depth."""


def known_factors() -> dict[float, str]:
    """What multiplying depth by a factor puts right: why it was wrong. The first of equal ones is the
    likeliest."""
    found = {
        0.125: "the bits of the depth are rotated by 3 places, as in files of SUN3D and SUN RGB-D, or "
        "a PGM file whose header gives 8191 was stretched to 65535",
        8.0: "the bits of the depth were rotated back by 3 places, though they were not rotated",
        0.2: "the unit is 1/5000 m, as in TUM files, not a millimetre",
        5.0: "the unit is a millimetre, not 1/5000 m",
        0.25: "the unit is 1/4000 m, not a millimetre",
        4.0: "the unit is a millimetre, not 1/4000 m",
        2.0: "the unit is twice as large",
        0.5: "the unit is half as large",
        1000 / 6553.5: "the unit is 1/6553.5 m, as in Replica files, not a millimetre",
        6.5535: "the unit is a millimetre, not 1/6553.5 m",
        1 / 256: "the unit is 1/256 m, bits are shifted by 8 places, or 8 bits were stretched to 16",
        256.0: "bits were shifted by 8 places, or the unit is not 1/256 m",
        1000 / 256: "the unit is 1/256 m, not a millimetre",
        0.256: "the unit is a millimetre, not 1/256 m",
    }
    for metres, unit in UNITS.items():
        found.setdefault(metres, f"the unit is {unit}, not metres")
        found.setdefault(1 / metres, f"the unit is metres, not {unit}")
    found.setdefault(0.0002, "the unit is 1/5000 m, not metres")
    found.setdefault(5000.0, "the unit is metres, not 1/5000 m")
    found[10.0] = "the unit is a millimetre, not 0.1 mm, or a decimetre"
    found[0.1] = "the unit is 0.1 mm, not a millimetre, or a decimetre"
    for largest in PGM_LARGEST:
        words = f"a PGM file whose header gives {largest} as the largest value was stretched to 65535"
        found.setdefault(largest / 65535, words)
    return found


def fit_factor(closeness: Callable[[float], float]) -> float:
    """The factor of the depth under which frames agree best: `closeness` is the agreement, 0 to 1."""
    n_steps = int(np.log(LARGEST) / np.log(STEP))
    factors = STEP ** np.arange(-n_steps, n_steps + 1, dtype=np.float64)
    best = float(factors[int(np.argmax([closeness(float(one)) for one in factors]))])
    width = STEP
    for _ in range(4):
        width = width**0.45
        around = best * width ** np.linspace(-2.0, 2.0, 5)
        best = float(around[int(np.argmax([closeness(float(one)) for one in around]))])
    return best


def known_near(factor: float) -> list[float]:
    """Known factors that a fitted one may be, the likeliest first."""
    return [one for one in known_factors() if abs(np.log(one / factor)) < SNAP]


def scale_reading(factor: float, samples: list[Samples]) -> Reading:
    """A reading whose name says whether depth or translations are likely to be in another unit."""
    depth = f"depth scale is wrong: multiply it by about {factor:.4g}"
    if factor in known_factors():
        depth += f" ({known_factors()[factor]})"
    poses = f"multiply translations by about {1 / factor:.4g}"
    unit = next((unit for metres, unit in UNITS.items() if abs(np.log(metres * factor)) < 1e-3), "")
    if unit:
        poses += f" (they are in {unit})"
    median, extent = median_depth(samples), _extent(samples)
    now = _within(median, DEPTH_RANGE) and not _within(extent, EXTENT_RANGE)
    after = _within(median * factor, DEPTH_RANGE)
    if now or (_within(median, DEPTH_RANGE) and not after):
        return Reading(f"translations of the poses have a wrong scale: {poses}", depth_factor=factor)
    if not _within(median, DEPTH_RANGE) or not _within(extent / factor, EXTENT_RANGE):
        return Reading(depth, depth_factor=factor)
    return Reading(f"{depth}; or the poses are at fault: {poses}", depth_factor=factor)


def median_depth(samples: list[Samples]) -> float:
    """Of the sampled pixels, metres."""
    parts = [one.depth[one.pixel[:, 1].astype(np.int64), one.pixel[:, 0].astype(np.int64)] for one in samples]
    return float(np.median(np.concatenate(parts))) if parts else 0.0


def _extent(samples: list[Samples]) -> float:
    centre = np.stack([one.camera_to_world[:3, 3] for one in samples])
    return float(np.linalg.norm(np.ptp(centre, axis=0)))


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]
