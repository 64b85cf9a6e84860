"""Settings of the VoteNet head. Never imports torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig
from ponderv2.datasets.scannet import detection as scannet
from ponderv2.datasets.sunrgbd import classes as sunrgbd

Size = tuple[PositiveFloat, PositiveFloat, PositiveFloat]

PUBLISHED: Mapping[str, Mapping[str, Size]] = {
    "scannet": dict(zip(scannet.BOX_CLASSES, scannet.MEAN_SIZES, strict=True)),
    "sunrgbd": dict(zip(sunrgbd.BOX_CLASSES, sunrgbd.MEAN_SIZES, strict=True)),
}
"""Mean sizes that VoteNet ships, by data set and class."""


class VoteNetLossConfig(StrictConfig):
    """Weights of the terms, as published (ten times those of the paper)."""

    vote: NonNegativeFloat = 10.0
    """Of the distance |x| + |y| + |z| between vote and centre, metres, over the seeds in boxes."""
    objectness: NonNegativeFloat = 5.0
    """Of the cross-entropy over proposals near to a centre and far from all."""
    center: NonNegativeFloat = 10.0
    """Of the squared distance between centres, square metres; from proposals to boxes and back."""
    heading_class: NonNegativeFloat = 1.0
    heading_residual: NonNegativeFloat = 10.0
    size_class: NonNegativeFloat = 1.0
    size_residual: NonNegativeFloat = 10.0 / 3.0
    """Of the sum over the three axes."""
    classification: NonNegativeFloat = 1.0
    iou: NonNegativeFloat = 0.0
    """Of 1 - IoU over positive proposals; 10/3 in the improved recipe for ScanNet."""


class VoteNetHeadConfig(StrictConfig):
    """Seeds, votes, clusters of votes, boxes. Defaults are as published for SUN RGB-D.

    What is not as published: seeds are farthest points of the voxels of any encoder of points; unused boxes
    of the published padding do not count (see `published_zero_slots`); votes are for the boxes that a point
    lies in, not for its instance.
    """

    kind: Literal["votenet"] = "votenet"
    reads: ClassVar[Literal["points"]] = "points"
    shown_score: ClassVar[float] = 0.3
    """Boxes that are at least so sure are drawn, exported and given by `ponder detect`."""
    mean_sizes: Literal["scannet", "sunrgbd"] | Mapping[str, Size]
    """Length, width, height of each class in metres, by its name; or a published table."""
    n_headings: PositiveInt = 12
    """Classes of the heading, evenly spaced from +x. 1: boxes are axis-aligned hulls of annotated ones."""
    n_seeds: PositiveInt = 1024
    n_proposals: PositiveInt = 256
    radius: PositiveFloat = 0.3
    """Of a cluster of votes, metres."""
    n_neighbours: PositiveInt = 16
    """Votes of a cluster."""
    channels: PositiveInt = 128
    """Of the features of a proposal."""
    most_votes: PositiveInt = 3
    """Boxes that a seed may vote for, where it lies in several."""
    near: PositiveFloat = 0.3
    """A proposal nearer to a centre than this is an object, metres."""
    far: PositiveFloat = 0.6
    """A proposal farther from all centres than this is none."""
    losses: VoteNetLossConfig = VoteNetLossConfig()
    min_points: NonNegativeInt = 5
    """Boxes with fewer points of the encoder inside are dropped."""
    min_objectness: NonNegativeFloat = 0.05
    """Proposals of less are dropped."""
    nms_iou: PositiveFloat = 0.25
    """Proposals of one class whose axis-aligned hulls overlap more than this are one object."""
    published_zero_slots: bool = False
    """As published, scenes of fewer than 64 boxes have another one at the origin, of class 0 and its mean
    size: proposals near to it are objects."""

    def sizes(self, classes: tuple[str, ...]) -> tuple[Size, ...]:
        """Of each class. Raises ValueError for a class without one."""
        known = PUBLISHED[self.mean_sizes] if isinstance(self.mean_sizes, str) else self.mean_sizes
        missing = [name for name in classes if name not in known]
        if missing:
            raise ValueError(f"mean_sizes lacks the class '{missing[0]}': it has {', '.join(known)}")
        return tuple(known[name] for name in classes)

    @model_validator(mode="after")
    def _near_is_nearer(self) -> VoteNetHeadConfig:
        if self.near > self.far:
            raise ValueError(f"near = {self.near:g} m lies beyond far = {self.far:g} m")
        return self
