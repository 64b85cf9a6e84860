"""What a detector found in a scene: boxes, each with a class and a confidence."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.geometry.boxes import Boxes


@dataclass(frozen=True)
class Detections:
    """Boxes of one scene, in its frame; `boxes.category` is the predicted class, never -1."""

    boxes: Boxes
    score: Float[Tensor, " box"]
    """0..1, higher is surer."""

    def __len__(self) -> int:
        return len(self.score)

    @staticmethod
    def empty() -> Detections:
        """Nothing was found."""
        return Detections(Boxes.empty(), torch.zeros(0))

    def take(self, index: Tensor) -> Detections:
        """The chosen ones (indices or a mask)."""
        return Detections(self.boxes.take(index), self.score[index])

    def cpu(self) -> Detections:
        """The same on the CPU."""
        boxes = self.boxes
        return Detections(
            Boxes(
                center=boxes.center.cpu(),
                size=boxes.size.cpu(),
                yaw=boxes.yaw.cpu(),
                velocity=boxes.velocity.cpu(),
                category=boxes.category.cpu(),
                instance=boxes.instance.cpu(),
                fields={name: values.cpu() for name, values in boxes.fields.items()},
            ),
            self.score.cpu(),
        )

    def best(self, n: int) -> Detections:
        """At most `n`, the surest first; those of equal score stay in order."""
        return self.take(torch.argsort(self.score, descending=True, stable=True)[:n])
