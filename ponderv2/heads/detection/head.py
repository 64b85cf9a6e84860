"""The contract of a detection head: features of scenes to boxes, and the loss against annotated ones."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Generic, TypeVar

from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.geometry.boxes import Boxes
from ponderv2.geometry.detections import Detections
from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.volumes import FeatureVolume

Outputs = TypeVar("Outputs")


class DetectionHead(nn.Module, ABC, Generic[Outputs]):
    """Reads features of points or a volume, as `reads` of its settings says; metres, the frame of the scenes.

    What `forward` gives is the head's own affair: `losses` and `decode` understand it.
    """

    def __call__(self, features: PointFeatures | FeatureVolume) -> Outputs:
        """Raises ValueError for features of the other kind."""
        return super().__call__(features)

    @abstractmethod
    def losses(self, outputs: Outputs, boxes: Sequence[Boxes]) -> Mapping[str, Float[Tensor, ""]]:
        """Terms of the loss by name, weighted: their sum is trained. Means over all processes.

        `boxes` are those of each scene; of category -1 are ignored. A scene may have none, and each term
        then still has a gradient (0), so that processes with unequal work agree.
        """

    @abstractmethod
    def decode(self, outputs: Outputs) -> list[Detections]:
        """What was found in each scene, after non-maximum suppression, the surest first. On any device."""


AnyHead = DetectionHead[Any]
