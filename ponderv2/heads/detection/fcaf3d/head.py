"""The FCAF3D head: features of points to boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.suppression import box_nms
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.detection.boxes import annotated_boxes, detections_of_rows
from ponderv2.heads.detection.fcaf3d.box_coding import boxes_of
from ponderv2.heads.detection.fcaf3d.config import FCAF3DHeadConfig
from ponderv2.heads.detection.fcaf3d.losses import fcaf3d_losses
from ponderv2.heads.detection.fcaf3d.network import FCAF3DNetwork, FCAF3DOutputs, best_of_groups
from ponderv2.heads.detection.head import DetectionHead


class FCAF3DHead(DetectionHead[FCAF3DOutputs]):
    """Reads one feature per voxel of the encoder. Boxes have no heading: length is the longer side."""

    def __init__(self, config: FCAF3DHeadConfig, in_channels: int, classes: tuple[str, ...]) -> None:
        """Raises ValueError where `level_of_class` lacks a class."""
        super().__init__()
        self.config = config
        self.n_classes, self.levels = len(classes), config.levels(classes)
        self.network = FCAF3DNetwork(config, in_channels, len(classes))

    def forward(self, features: PointFeatures | FeatureVolume) -> FCAF3DOutputs:
        """Raises ValueError for a volume."""
        if not isinstance(features, PointFeatures):
            raise ValueError(f"expected features of points, got {type(features).__name__}")
        return self.network(features)

    def losses(self, outputs: FCAF3DOutputs, boxes: Sequence[Boxes]) -> Mapping[str, Float[Tensor, ""]]:
        """Terms: classification, centerness, box."""
        config = self.config
        wanted = annotated_boxes(boxes, self.n_classes, config.yaw, outputs.location)
        return fcaf3d_losses(outputs, wanted, config, self.levels)

    @torch.no_grad()
    def decode(self, outputs: FCAF3DOutputs) -> list[Detections]:
        """The score is the probability of the class times the centreness; a location may be of several
        classes."""
        config = self.config
        score = outputs.logits.sigmoid() * outputs.centerness.sigmoid()[:, None]
        group = outputs.scene * len(config.widths) + outputs.level
        candidate = best_of_groups(score.amax(dim=1), group, config.most_candidates)
        row, category = ((score > config.min_score) & candidate[:, None]).nonzero().unbind(dim=1)
        boxes = boxes_of(outputs.location[row], outputs.code[row])
        sure, scene = score[row, category], outputs.scene[row]
        kept = box_nms(boxes, sure, config.nms_iou, scene * self.n_classes + category)
        found = []
        for number in range(outputs.n_scenes):
            own = kept[scene[kept] == number]
            found.append(detections_of_rows(boxes[own], category[own], sure[own]))
        return found
