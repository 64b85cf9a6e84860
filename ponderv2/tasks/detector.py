"""What `ponder detect` asks of a task that finds boxes, and boxes as plain values."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ponderv2.geometry.detections import Detections
from ponderv2.scenes.folders import SceneFolders
from ponderv2.scenes.scene import PointCloud


@runtime_checkable
class Detector(Protocol):
    """A trained model that finds boxes."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names."""
        ...

    @property
    def shown_score(self) -> float:
        """Boxes that are at least so sure are shown, unless the user wants others."""
        ...

    def in_scene(self, store: SceneFolders, split: str, name: str) -> Detections:
        """What is found in a scene, in its frame. Raises SceneError."""
        ...

    def in_cloud(self, cloud: PointCloud) -> tuple[Detections, tuple[str, ...]]:
        """What is found in a cloud of no data set, in its frame, and what was made up for it.

        Raises CheckpointError for an encoder of images, SceneError for a cloud that it cannot read.
        """
        ...


def box_values(
    found: Detections, classes: tuple[str, ...], origin: tuple[float, float, float] = (0.0, 0.0, 0.0)
) -> list[dict[str, Any]]:
    """Boxes as plain values, the surest first; `origin` is added to positions in double precision."""
    found = found.best(len(found))
    away = torch.tensor(origin, dtype=torch.float64)
    rows = []
    for number in range(len(found)):
        boxes = found.boxes.take(torch.tensor([number]))
        row: dict[str, Any] = {
            "class": classes[int(boxes.category[0])],
            "score": round(float(found.score[number]), 4),
            "center": _rounded(boxes.center[0].double() + away),
            "size": _rounded(boxes.size[0]),
            "yaw": round(float(boxes.yaw[0]), 4),
            "corners": [_rounded(one) for one in boxes.corners()[0].double() + away],
        }
        if bool(torch.isfinite(boxes.velocity[0]).all()):
            row["velocity"] = _rounded(boxes.velocity[0])
        rows.append(row)
    return rows


def _rounded(values: Tensor) -> list[float]:
    return [round(float(one), 4) for one in values]
