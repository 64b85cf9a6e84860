"""Voxels, features and classes of published models: they follow from what the files hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from ponderv2.datasets.s3dis import classes as s3dis
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.structured3d import classes as structured3d
from ponderv2.tasks.published import OfficialVariant

LABEL_SETS: dict[int, tuple[str, ModuleType]] = {
    13: ("S3DIS", s3dis),
    20: ("ScanNet", scannet20),
    25: ("Structured3D", structured3d),
    200: ("ScanNet200", scannet200),
}
"""The published benchmarks by their number of classes, which no two share."""
LABEL_FIELDS = {200: "segment200"}
"""Label array that a published model of N classes was trained on, where it is not the usual one."""
USUAL = {"voxel": {"size": 0.02}, "features": ["color", "normal"]}
"""Of all published indoor configurations with six input channels but one."""
OUTDOOR = {
    "voxel": {"size": 0.1, "order": "ravel"},
    "features": ["coord"],
    "fields": ["intensity"],
    "centred": False,
    "range": {"lower": [-53.9, -53.9, -4.9], "upper": [53.9, 53.9, 2.9]},
}
"""Of the published pre-training on nuScenes."""
S3DIS = {"voxel": {"size": 0.05}, "features": ["coord", "color"]}
"""Of the plain segmentor of S3DIS (semseg-spunet-v1m1-0-base)."""


@dataclass(frozen=True)
class PublishedPoints:
    """Voxels, features and label array of a published model."""

    data: Mapping[str, Any]
    """As in the settings of a run."""
    note: str | None = None
    """One sentence where more than one configuration is possible; None where only one was published."""


def points_of(variant: OfficialVariant) -> PublishedPoints | None:
    """By number of input channels and classes; None where the file leaves too much open to choose."""
    if variant.task == "outdoor" and variant.in_channels == 4:
        return PublishedPoints(OUTDOOR)
    if variant.in_channels != 6 or variant.task == "outdoor":
        return None
    plain = variant.head == "final" and not variant.prompted
    if plain and variant.n_classes == len(s3dis.CLASS_NAMES):
        return PublishedPoints(
            S3DIS, f"13 classes and 6 input channels: read as published for S3DIS, {_in_words(S3DIS)}"
        )
    field = LABEL_FIELDS.get(variant.n_classes)
    data = {**USUAL, "label_field": field} if field is not None else dict(USUAL)
    benchmark = variant.n_classes in LABEL_SETS and variant.n_classes != len(s3dis.CLASS_NAMES)
    if variant.task == "pretext" or variant.prompted or benchmark:
        return PublishedPoints(data)
    what = "an encoder alone" if variant.task == "encoder" else f"{variant.n_classes} classes"
    return PublishedPoints(
        data,
        f"{what}: the file does not say what its 6 input channels are; assuming {_in_words(USUAL)}",
    )


def published_data_of(model: Mapping[str, Any]) -> dict[str, Any]:
    """Voxels and features of the published configuration that settings of a model are nearest to."""
    head, encoder = dict(model.get("head") or {}), dict(model.get("encoder") or {})
    if dict(model.get("frame") or {}).get("kind") == "range":
        return dict(OUTDOOR)
    from_scratch = encoder.get("kind") == "sparse_unet" and head.get("kind") in ("final", "linear")
    return dict(S3DIS if from_scratch and head.get("n_classes") == len(s3dis.CLASS_NAMES) else USUAL)


def label_set_of(n_classes: Any) -> dict[str, Any]:
    """Names and colours of the benchmark with N classes; empty where there is none."""
    if not isinstance(n_classes, int) or n_classes not in LABEL_SETS:
        return {}
    labels = LABEL_SETS[n_classes][1]
    return {"names": list(labels.CLASS_NAMES), "colors": [list(color) for color in labels.COLORS]}


def _in_words(data: Mapping[str, Any]) -> str:
    return f"{' and '.join(data['features'])}, voxels of {100 * data['voxel']['size']:g} cm"
