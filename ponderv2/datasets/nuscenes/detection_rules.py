"""Rules of the nuScenes detection benchmark: ranges, attributes, limits."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.datasets.nuscenes.classes import ATTRIBUTES, CATEGORIES, DETECTION_NAMES

RANGE: Mapping[str, float] = {
    "car": 50.0, "truck": 50.0, "bus": 50.0, "trailer": 50.0, "construction_vehicle": 50.0,
    "pedestrian": 40.0, "motorcycle": 40.0, "bicycle": 40.0, "traffic_cone": 30.0, "barrier": 30.0,
}  # fmt: skip
"""Metres from the vehicle, seen from above; objects there or farther away do not count."""
MOST_BOXES = 500
"""In a sample of a submission."""
CYCLES = ("motorcycle", "bicycle")
"""Do not count inside a bicycle rack, where single ones are not annotated."""
RACK = CATEGORIES.index("static_object.bicycle_rack")
MOVING = 0.2
"""Metres per second that an object is faster than which is taken for moving."""
_VEHICLE = ("vehicle.moving", "vehicle.parked", "vehicle.stopped")
_CYCLE = ("cycle.with_rider", "cycle.without_rider")
CLASS_ATTRIBUTES: Mapping[str, tuple[str, ...]] = {
    "car": _VEHICLE, "truck": _VEHICLE, "bus": _VEHICLE, "trailer": _VEHICLE,
    "construction_vehicle": _VEHICLE,
    "pedestrian": ("pedestrian.moving", "pedestrian.sitting_lying_down", "pedestrian.standing"),
    "motorcycle": _CYCLE, "bicycle": _CYCLE, "traffic_cone": (), "barrier": (),
}  # fmt: skip
"""Attributes that objects of a class may have."""
_FAST: Mapping[str, str] = {
    **dict.fromkeys(("car", "truck", "bus", "trailer", "construction_vehicle"), "vehicle.moving"),
    **dict.fromkeys(CYCLES, "cycle.with_rider"),
    "pedestrian": "pedestrian.moving",
}
_SLOW: Mapping[str, str] = {
    **dict.fromkeys(("car", "truck", "trailer", "construction_vehicle"), "vehicle.parked"),
    **dict.fromkeys(CYCLES, "cycle.without_rider"),
    "bus": "vehicle.stopped",
    "pedestrian": "pedestrian.standing",
}


def default_attributes(
    category: Int[Tensor, " box"], velocity: Float[Tensor, "box axis"]
) -> Int[Tensor, " box"]:
    """Attributes of predicted boxes by class and speed (x, y; m/s), the rule of mmdet3d; -1 = none.

    Classes are counted by DETECTION_NAMES, attributes by ATTRIBUTES. An unknown speed (nan) counts as slow.
    """
    tables = [
        [ATTRIBUTES.index(rule[name]) if name in rule else -1 for name in DETECTION_NAMES]
        for rule in (_SLOW, _FAST)
    ]
    table = torch.tensor(tables, device=category.device)
    fast = velocity[:, :2].norm(dim=1) > MOVING
    return table[fast.long(), category]
