"""The VoteNet head: features of points to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.suppression import hull_nms
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.detection.boxes import annotated_boxes, boxes_of_rows, detections_of_rows
from ponderv2.heads.detection.head import DetectionHead
from ponderv2.heads.detection.votenet.box_coding import size_of, yaw_of
from ponderv2.heads.detection.votenet.config import VoteNetHeadConfig
from ponderv2.heads.detection.votenet.losses import scene_rows, votenet_losses
from ponderv2.heads.detection.votenet.network import VoteNetNetwork, VoteNetOutputs

BOXES_AT_ONCE = 32
"""Of which the points inside are counted: bounds the table of boxes and points."""


class VoteNetHead(DetectionHead[VoteNetOutputs]):
    """Reads one feature per voxel of the encoder. Headings are counter-clockwise from +x."""

    mean_size: Float[Tensor, "class 3"]

    def __init__(self, config: VoteNetHeadConfig, in_channels: int, classes: tuple[str, ...]) -> None:
        """Raises ValueError where `mean_sizes` lacks a class."""
        super().__init__()
        self.config = config
        self.network = VoteNetNetwork(config, in_channels, len(classes))
        self.register_buffer("mean_size", torch.tensor(config.sizes(classes)))

    def forward(self, features: PointFeatures | FeatureVolume) -> VoteNetOutputs:
        """Raises ValueError for a volume."""
        if not isinstance(features, PointFeatures):
            raise ValueError(f"expected features of points, got {type(features).__name__}")
        return self.network(features)

    def losses(self, outputs: VoteNetOutputs, boxes: Sequence[Boxes]) -> Mapping[str, Float[Tensor, ""]]:
        """Terms: vote, objectness, center, heading_class, heading_residual, size_class, size_residual,
        classification and, where it has a weight, iou."""
        config = self.config
        wanted = annotated_boxes(boxes, len(self.mean_size), config.n_headings > 1, outputs.cluster)
        return votenet_losses(outputs, wanted, self.mean_size, config)

    @torch.no_grad()
    def decode(self, outputs: VoteNetOutputs) -> list[Detections]:
        """Each proposal that is left is an object of every class; its score is that of being an object times
        the probability of the class."""
        rows = self.boxes(outputs)
        objectness = outputs.objectness.softmax(dim=1)[:, 1]
        probability = outputs.logits.softmax(dim=1)
        classes = torch.arange(probability.shape[1], device=rows.device)
        found = []
        for own, points in zip(scene_rows(outputs.offset), scene_rows(outputs.point_offset), strict=True):
            kept = self._kept(
                rows[own], objectness[own], probability[own].argmax(dim=1), outputs.point[points]
            )
            score = (objectness[own, None] * probability[own])[kept].flatten()
            each = rows[own][kept].repeat_interleave(len(classes), dim=0)
            found.append(detections_of_rows(each, classes.repeat(len(kept)), score))
        return found

    def boxes(self, outputs: VoteNetOutputs) -> Float[Tensor, "proposal 7"]:
        """Centre, size and yaw of every proposal."""
        each = torch.arange(len(outputs.center), device=outputs.center.device)
        size_class, number = outputs.size.argmax(dim=1), outputs.heading.argmax(dim=1)
        size = size_of(outputs.size_residual[each, size_class], self.mean_size[size_class])
        yaw = yaw_of(number, outputs.heading_residual[each, number], self.config.n_headings)
        if self.config.n_headings == 1:
            yaw = torch.zeros_like(yaw)
        return torch.cat([outputs.center, size, yaw[:, None]], dim=1)

    def _kept(
        self,
        rows: Float[Tensor, "proposal 7"],
        objectness: Float[Tensor, " proposal"],
        category: Int[Tensor, " proposal"],
        points: Float[Tensor, "point 3"],
    ) -> Int[Tensor, " kept"]:
        """Proposals of one scene that are left."""
        config = self.config
        possible = objectness > config.min_objectness
        if config.min_points:
            possible &= points_inside(rows, points) >= config.min_points
        row = possible.nonzero()[:, 0]
        return row[hull_nms(rows[row], objectness[row], config.nms_iou, category[row])]


def points_inside(rows: Float[Tensor, "box 7"], points: Float[Tensor, "point 3"]) -> Int[Tensor, " box"]:
    """How many points lie in each box."""
    category = torch.zeros(len(rows), dtype=torch.long, device=rows.device)
    parts = boxes_of_rows(rows, category)
    counts = [category[:0]]
    for start in range(0, len(rows), BOXES_AT_ONCE):
        some = torch.arange(start, min(start + BOXES_AT_ONCE, len(rows)), device=rows.device)
        counts.append(parts.take(some).contains(points).sum(dim=1))
    return torch.cat(counts)
