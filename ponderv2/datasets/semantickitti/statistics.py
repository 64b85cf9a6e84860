"""Class weights of SemanticKITTI: minus the logarithm of the share of all points that a class has."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ponderv2.datasets.semantickitti.classes import CLASS_NAMES, CLASS_OF

SHARES = {
    0: 0.018889854628292943, 1: 0.0002937197336781505, 10: 0.040818519255974316,
    11: 0.00016609538710764618, 13: 2.7879693665067774e-05, 15: 0.00039838616015114444, 16: 0.0,
    18: 0.0020633612104619787, 20: 0.0016218197275284021, 30: 0.00017698551338515307,
    31: 1.1065903904919655e-08, 32: 5.532951952459828e-09, 40: 0.1987493871255525,
    44: 0.014717169549888214, 48: 0.14392298360372, 49: 0.0039048553037472045, 50: 0.1326861944777486,
    51: 0.0723592229456223, 52: 0.002395131480328884, 60: 4.7084144280367186e-05,
    70: 0.26681502148037506, 71: 0.006035012012626033, 72: 0.07814222006271769,
    80: 0.002855498193863172, 81: 0.0006155958086189918, 99: 0.009923127583046915,
    252: 0.001789309418528068, 253: 0.00012709999297008662, 254: 0.00016059776092534436,
    255: 3.745553104802113e-05, 256: 0.0, 257: 0.00011351574470342043, 258: 0.00010157861367183268,
    259: 4.3840131989471124e-05,
}  # fmt: skip
"""Share of all points that has a stored number, as the data set states it (semantic-kitti.yaml)."""


def class_weights(
    class_of: Mapping[int, int] = CLASS_OF,
    n_classes: int = len(CLASS_NAMES),
    shares: Mapping[int, float] = SHARES,
) -> tuple[float, ...]:
    """Weight of each class in the cross-entropy, for any map from stored numbers to classes; -1 is ignored.

    Raises ValueError for a class that no point has: its weight would be infinite.
    """
    total = [0.0] * n_classes
    for number, share in shares.items():
        if class_of.get(number, -1) >= 0:
            total[class_of[number]] += share
    empty = [index for index, share in enumerate(total) if share <= 0.0]
    if empty:
        raise ValueError(f"no point has class {empty[0]}, whose weight would be infinite")
    return tuple(-math.log(share) for share in total)
