"""Which public benchmark a list of classes belongs to: ids in submissions, groups of classes, formats."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ponderv2.datasets.nuscenes import classes as nuscenes
from ponderv2.datasets.scannet import scannet20, scannet200
from ponderv2.datasets.semantickitti import classes as semantickitti


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that takes one id per point."""

    name: str
    label_ids: tuple[int, ...]
    """Id of each class in submissions."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Classes over which a mean of their own is stated."""
    files: Literal["text", "nuscenes", "semantickitti"] = "text"
    """What a submission holds: a line per vertex, or a file of numbers per scan."""
    counts_predicted: bool = False
    """Whether the mean counts classes that are predicted and occur nowhere, with 0, but leaves out those that
    are neither."""


SCANNET = Benchmark("ScanNet", scannet20.NYU40_IDS)
SCANNET200 = Benchmark(
    "ScanNet200",
    scannet200.LABEL_IDS,
    {"head": scannet200.HEAD, "common": scannet200.COMMON, "tail": scannet200.TAIL},
)
NUSCENES = Benchmark(
    "nuScenes lidarseg",
    tuple(range(1, len(nuscenes.CLASS_NAMES) + 1)),
    files="nuscenes",
    counts_predicted=True,
)
SEMANTICKITTI = Benchmark(
    "SemanticKITTI", tuple(ids[0] for ids in semantickitti.STORED), files="semantickitti"
)


def benchmark_of(class_names: Sequence[str]) -> Benchmark | None:
    """The benchmark of a model with these classes, in this order; None where there is none."""
    match tuple(class_names):
        case scannet20.CLASS_NAMES:
            return SCANNET
        case scannet200.CLASS_NAMES:
            return SCANNET200
        case nuscenes.CLASS_NAMES:
            return NUSCENES
        case semantickitti.CLASS_NAMES:
            return SEMANTICKITTI
    return None
