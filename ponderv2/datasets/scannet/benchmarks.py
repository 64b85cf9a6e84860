"""Which public benchmark a list of classes belongs to: ids on disk and in submissions, groups of classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ponderv2.datasets.scannet import scannet20, scannet200


@dataclass(frozen=True)
class Benchmark:
    """A benchmark that takes one id per vertex."""

    name: str
    label_ids: tuple[int, ...]
    """Id of each class."""
    groups: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Classes over which a mean of their own is stated."""


SCANNET = Benchmark("ScanNet", scannet20.NYU40_IDS)
SCANNET200 = Benchmark(
    "ScanNet200",
    scannet200.LABEL_IDS,
    {"head": scannet200.HEAD, "common": scannet200.COMMON, "tail": scannet200.TAIL},
)


def benchmark_of(class_names: Sequence[str]) -> Benchmark | None:
    """The benchmark of a model with these classes, in this order; None where there is none."""
    match tuple(class_names):
        case scannet20.CLASS_NAMES:
            return SCANNET
        case scannet200.CLASS_NAMES:
            return SCANNET200
    return None
