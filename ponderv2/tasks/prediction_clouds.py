"""Predictions as coloured point clouds (PLY) to look at: classes, true classes, instances."""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, UInt8
from torch import Tensor

from ponderv2.data.datasets import LabelledDataset
from ponderv2.io.files import write_bytes
from ponderv2.io.ply import encode_ply
from ponderv2.tasks.instances.predictions import LABELS

UNLABELLED = (40, 40, 40)
"""Colour of points without a class or an instance."""
GOLDEN_TURN = 0.6180339887498949
"""Hues this share of a turn apart never come close to each other soon."""


@dataclass(frozen=True)
class SceneExport:
    """What is known of every point of a scene, as it was prepared."""

    segment: Int[Tensor, " point"]
    member: Int[Tensor, " point"] | None = None
    """Predicted instance, -1 = none; None for models that find none."""
    ignored: tuple[int, ...] = ()
    """Classes without instances."""


def export_scene(folder: Path, data: LabelledDataset, index: int, predicted: SceneExport) -> tuple[Path, ...]:
    """Writes `<scene>_prediction.ply`, `_truth.ply` where classes are known, `_instances.ply` where instances
    are.

    Slashes in the name of the scene become underscores. In `_instances.ply` colours go by size, the largest
    instance first, so that they do not depend on the order of small ones. Raises OutputError.
    """
    cloud, name = data.scene(index).cloud, data.names[index].replace("/", "_")
    classes = class_palette(data)
    colors = {"prediction": classes[predicted.segment.clamp(max=len(classes) - 2).numpy()]}
    truth = cloud.labels.get(data.label_field)
    if truth is not None:
        colors["truth"] = classes[truth.long().clamp(min=-1, max=len(classes) - 2).numpy()]
    if predicted.member is not None:
        colors["instances"] = instance_colors(predicted.member)
        if truth is not None and LABELS in cloud.labels:
            left_out = torch.isin(truth.long(), torch.tensor((-1, *predicted.ignored)))
            true = torch.where(left_out, -1, cloud.labels[LABELS].long())
            colors["true_instances"] = instance_colors(true)
    coord = cloud.coord.numpy()
    if any(cloud.origin):  # the scene lay far from zero, and so do its predictions
        coord = coord.astype(np.float64) + cloud.origin
    normal = None if cloud.normal is None else cloud.normal.numpy()
    paths = []
    for what, color in colors.items():
        data_ply = encode_ply(coord, normal, colors=color)
        paths.append(folder / f"{name}_{what}.ply")
        write_bytes(paths[-1], data_ply)
    return tuple(paths)


def class_palette(data: LabelledDataset) -> UInt8[np.ndarray, "color 3"]:
    """Colours of the classes of the dataset, and behind them (index -1) that of points without a class."""
    known = data.store.info.label_set(data.label_field)
    colors = known.class_colors or tuple(distinct_color(i) for i in range(max(1, len(known.class_names))))
    return np.array([*colors, UNLABELLED], dtype=np.uint8)


def instance_colors(member: Int[Tensor, " point"]) -> UInt8[np.ndarray, "point 3"]:
    """Colour of every point by its instance, the largest instance first; grey where it is in none."""
    values, number, count = torch.unique(member, return_inverse=True, return_counts=True)
    rank = torch.empty_like(values)
    rank[torch.argsort(count, descending=True, stable=True)] = torch.arange(len(values))
    colors = [UNLABELLED if value < 0 else distinct_color(int(rank[i])) for i, value in enumerate(values)]
    return np.array(colors, dtype=np.uint8).reshape(-1, 3)[number.numpy()]


def distinct_color(number: int) -> tuple[int, int, int]:
    """RGB 0..255 of a number, always the same, far from those of its neighbours."""
    lightness = (0.62, 0.48, 0.74)[number // 8 % 3]
    red, green, blue = colorsys.hls_to_rgb(number * GOLDEN_TURN % 1.0, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)
