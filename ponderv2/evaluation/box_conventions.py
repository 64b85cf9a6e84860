"""Whether another convention of boxes would explain the errors of those that were found.

Width and length exchanged, headings turned by a quarter or mirrored, centres of bottom faces: a detector with
one of these finds objects well, and only sizes, orientations or heights are wrong. Such an error appears as
mASE near 0.7 or mAOE near 1.57 beside a good mAP.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from jaxtyping import Float64
from numpy import ndarray

from ponderv2.evaluation.nuscenes_matching import BoxTable

LEAST_MATCHES = 10
"""Below this nothing is concluded."""
LEAST_SIZE_ERROR, LEAST_YAW_ERROR = 0.3, 0.2
"""Mean errors that are not questioned: 1 - IoU, and radians."""
EXPLAINED = 0.5
"""Share of an error that another convention has to take away."""
BOTTOM = (0.35, 0.65)
"""Heights that the centres are too low by, where they are those of bottom faces: the middle half of them."""


def size_errors(
    found: Float64[ndarray, "box 3"], true: Float64[ndarray, "box 3"]
) -> Float64[ndarray, " box"]:
    """1 - IoU of boxes with one centre and one heading."""
    common = np.minimum(found, true).prod(axis=1)
    return 1.0 - common / (found.prod(axis=1) + true.prod(axis=1) - common)


def yaw_errors(
    found: Float64[ndarray, " box"], true: Float64[ndarray, " box"], period: float
) -> Float64[ndarray, " box"]:
    """Smallest angle between headings that are the same after `period`, radians."""
    return np.abs((found - true + period / 2) % period - period / 2)


def convention_warnings(
    matched: Mapping[str, tuple[BoxTable, BoxTable]],
    heading: Float64[ndarray, " sample"],
    half_turn: Collection[str],
) -> tuple[str, ...]:
    """A sentence for each convention that the predictions seem to have.

    Args:
        matched: Predictions and their true boxes, by class.
        heading: Of the vehicle in each sample, radians: mirrored headings are mirrored in its frame.
        half_turn: Classes without front and back.
    """
    matched = {name: pair for name, pair in matched.items() if len(pair[0])}
    if sum(len(found) for found, _ in matched.values()) < LEAST_MATCHES:
        return ()
    warnings = (_of_sizes(matched), _of_yaws(matched, heading, half_turn), _of_heights(matched))
    return tuple(one for one in warnings if one)


def _of_sizes(matched: Mapping[str, tuple[BoxTable, BoxTable]]) -> str:
    now = np.mean([size_errors(found.size, true.size).mean() for found, true in matched.values()])
    exchanged = np.mean(
        [size_errors(found.size[:, [1, 0, 2]], true.size).mean() for found, true in matched.values()]
    )
    if now < LEAST_SIZE_ERROR or exchanged > EXPLAINED * now:
        return ""
    return (
        f"width and length of the predictions seem to be exchanged: the mean size error is {now:.2f}, and "
        f"{exchanged:.2f} with length as width"
    )


def _of_yaws(
    matched: Mapping[str, tuple[BoxTable, BoxTable]],
    heading: Float64[ndarray, " sample"],
    half_turn: Collection[str],
) -> str:
    def error(sign: int, quarters: int) -> float:
        means = []
        for name, (found, true) in matched.items():
            forward = heading[found.sample]
            yaw = forward + sign * (found.yaw - forward) + quarters * np.pi / 2
            means.append(yaw_errors(yaw, true.yaw, np.pi if name in half_turn else 2 * np.pi).mean())
        return float(np.mean(means))

    now = error(1, 0)
    others = {(sign, quarters): error(sign, quarters) for sign in (1, -1) for quarters in (0, 1, 2, 3)}
    sign, quarters = min(others, key=lambda one: others[one])
    if now < LEAST_YAW_ERROR or others[sign, quarters] > EXPLAINED * now:
        return ""
    what = "mirrored (of the opposite sign)" if sign < 0 else f"turned by {-90 * quarters % 360} degrees"
    return (
        f"headings of the predictions seem to be {what}: the mean error of orientation is {now:.2f} rad, and "
        f"{others[sign, quarters]:.2f} rad without that"
    )


def _of_heights(matched: Mapping[str, tuple[BoxTable, BoxTable]]) -> str:
    low = np.concatenate(
        [(true.center[:, 2] - found.center[:, 2]) / found.size[:, 2] for found, true in matched.values()]
    )
    quartiles = np.quantile(low, (0.25, 0.75))
    if quartiles[0] < BOTTOM[0] or quartiles[1] > BOTTOM[1]:
        return ""
    return (
        "centres of the predictions seem to be those of bottom faces: they are "
        f"{np.median(low):.2f} of their heights too low"
    )
