"""Average precision of objects against the published evaluator."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from ponderv2.evaluation.instances import PredictedInstances, instance_metrics, instance_overlaps
from tests.golden.cases import Case

KIND = "instance_precision"
NAMES = {
    "ap": ("out_all_ap", "out_ap", "out_mAP"),
    "ap50": ("out_all_ap_50%", "out_ap50", "out_AP50"),
    "ap25": ("out_all_ap_25%", "out_ap25", "out_AP25"),
}


def scenes_of(case: Case) -> list[dict[str, Tensor]]:
    """Arrays of each scene, which are numbered behind their names where there are several."""
    fields = ("segment", "instance", "pred_masks", "pred_classes", "pred_scores")
    if "in_pred_masks" in case:
        return [{name: case.tensor(f"in_{name}") for name in fields}]
    found = []
    while f"in_pred_masks_{len(found)}" in case:
        found.append({name: case.tensor(f"in_{name}_{len(found)}") for name in fields})
    return found


def test_average_precision_equals_the_published_one(case: Case) -> None:
    config = case.config
    ignored = tuple(one for one in config.get("segment_ignore_index", (-1, 0, 1)) if one >= 0)
    overlaps = [
        instance_overlaps(
            PredictedInstances.of_masks(
                one["pred_masks"] > 0, one["pred_classes"], one["pred_scores"].double()
            ),
            one["segment"],
            one["instance"],
            ignored,
        )
        for one in scenes_of(case)
    ]
    assert overlaps, f"{case.name} has no arrays in_pred_masks"
    n_classes = int(config.get("num_classes", config.get("semantic_num_classes", 20)))
    metrics = instance_metrics(overlaps, n_classes)
    compared = 0
    for name, candidates in NAMES.items():
        for key in candidates:
            if key in case:
                assert metrics.means()[name] == pytest.approx(case.scalar(key), abs=1e-9)
                compared += 1
    per_class = next((key for key in ("out_class_ap", "out_classes_ap") if key in case), None)
    if per_class is not None:
        own = metrics.ap[[i for i in range(n_classes) if i not in ignored]]
        for value, expected in zip(own.tolist(), case.tensor(per_class).tolist(), strict=True):
            assert (math.isnan(value) and math.isnan(expected)) or abs(value - expected) < 1e-9
    assert compared, f"{case.name} holds no figure that is known here: {sorted(case.arrays)}"
    assert torch.isfinite(torch.tensor(list(metrics.means().values()))).all()
