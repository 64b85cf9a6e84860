"""Which benchmark a folder of processed scenes is of: by the names of its splits, scenes and label arrays."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Literal

from ponderv2.io.text import read_text
from ponderv2.scenes.reader import LabelSet

DatasetName = Literal["ScanNet", "S3DIS", "Structured3D", "ScanNet++", ""]
"""Name of the condition in published models; empty where a folder is none of them."""

MAIN_FIELD: dict[str, str] = {"ScanNet": "segment20"}
"""Label array of the main benchmark, where it is not `segment`."""
DEPTH_SCALE: dict[str, float] = {"S3DIS": 1.0 / 4000.0}
"""Metres per unit of depth pictures, where it is not a millimetre."""
_TOP_CLASSES = ("metadata/semantic_benchmark/top100.txt", "semantic_benchmark/top100.txt", "top100.txt")


def dataset_of(splits: Collection[str], scenes: Collection[str], fields: Collection[str]) -> DatasetName:
    """`scenes`: names of a few scenes, `fields`: label arrays of one of them."""
    if splits and all(re.fullmatch(r"Area_[1-6](_.*)?", split) for split in splits):
        return "S3DIS"
    if any(re.fullmatch(r"scene\d{4}_\d\d(_\d+)?", name) for name in scenes) or "segment200" in fields:
        return "ScanNet"
    if any(re.fullmatch(r"scene_\d{5}/room_\w+", name) for name in scenes):
        return "Structured3D"
    if any(re.fullmatch(r"[0-9a-f]{10}(_\d+)?", name) for name in scenes):
        return "ScanNet++"
    return ""


def label_sets_of(benchmark: str, root: Path) -> Mapping[str, LabelSet]:
    """Classes per label array of a benchmark; empty where they are not known."""
    if benchmark == "ScanNet":
        from ponderv2.scenes.labels import scannet20, scannet200

        return {
            "segment20": LabelSet(scannet20.CLASS_NAMES, scannet20.COLORS),
            "segment200": LabelSet(scannet200.CLASS_NAMES, scannet200.COLORS),
        }
    if benchmark == "S3DIS":
        from ponderv2.scenes.labels import s3dis

        return {"segment": LabelSet(s3dis.CLASS_NAMES, s3dis.COLORS)}
    if benchmark == "Structured3D":
        from ponderv2.scenes.labels import structured3d

        return {"segment": LabelSet(structured3d.CLASS_NAMES, structured3d.COLORS)}
    if benchmark == "ScanNet++":
        return _scannetpp(root)
    return {}


def _scannetpp(root: Path) -> Mapping[str, LabelSet]:
    """The classes stand in a list of the dataset, which may have been copied beside the scenes."""
    from ponderv2.scenes.labels import scannetpp

    for path in [base / name for base in (root, root.parent) for name in _TOP_CLASSES]:
        if not path.is_file():
            continue
        names = tuple(line.strip() for line in read_text(path).split("\n") if line.strip())
        return {"segment": LabelSet(names, scannetpp.class_colors(len(names)))}
    return {}
