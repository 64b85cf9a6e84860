"""Clouds without colours, normals or intensities: what an encoder gets instead, as its training knew it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from ponderv2.geometry.normals import estimate_normals, standing_eye
from ponderv2.io.colors import NO_COLOR
from ponderv2.scenes.origin import far_outliers
from ponderv2.scenes.scene import PointCloud

HideableInput = Literal["color", "normal", "intensity"]
HIDEABLE: tuple[HideableInput, ...] = ("color", "normal", "intensity")
DROPS: dict[HideableInput, str] = {
    "color": "color_drop",
    "normal": "normal_drop",
    "intensity": "intensity_drop",
}
"""Kind of the augmentation that hides an input in training."""


@dataclass(frozen=True)
class HiddenInputs:
    """How training hid inputs from an encoder."""

    color: float = NO_COLOR
    """0..255. The colour that stands for 'hidden'. Hidden normals and intensities are zero."""
    trained: frozenset[str] | None = None
    """Inputs that training hid at times; None where nothing tells."""

    @staticmethod
    def of_augmentation(steps: Sequence[Mapping[str, Any]] | None) -> HiddenInputs:
        """From `data.augment` of a run, as plain values; None where it is not known."""
        if steps is None:
            return HiddenInputs()
        drops = {
            name: [step for step in steps if step.get("kind") == kind and _drops(step)]
            for name, kind in DROPS.items()
        }
        color = float(drops["color"][0].get("value", NO_COLOR)) if drops["color"] else NO_COLOR
        return HiddenInputs(color, frozenset(name for name, found in drops.items() if found))

    def notes(self, hidden: Collection[str]) -> list[str]:
        """One sentence on hidden inputs that training never hid."""
        new = [name for name in HIDEABLE if name in hidden and name not in (self.trained or ())]
        if self.trained is None or not new:
            return []
        return [f"the encoder was trained with every {' and '.join(new)} known: expect worse features"]


def _drops(step: Mapping[str, Any]) -> bool:
    """Whether the augmentation ever does anything; its probabilities may be left at their defaults."""
    chances = [step[name] for name in ("probability", "point_probability") if name in step]
    return not chances or any(chances)


def with_all_inputs(
    cloud: PointCloud,
    inputs: Collection[str],
    hidden: HiddenInputs = HiddenInputs(),
    hide: Collection[HideableInput] = (),
) -> tuple[PointCloud, tuple[str, ...]]:
    """The cloud with what the encoder takes of every point, and what has to be said about that.

    Missing colours (`hidden.color`) and intensities are hidden, missing normals estimated; what `hide` names
    is hidden although it is there, or could be estimated. The cloud that was given is not changed.
    """
    unknown = set(hide) if "color" not in inputs else {*hide, *_without_color(cloud)}
    unknown &= set(inputs)
    color, normal = cloud.color, cloud.normal
    if "color" in unknown:
        color = torch.full((len(cloud), 3), hidden.color)
    if "normal" in unknown:
        normal = torch.zeros(len(cloud), 3)
    elif "normal" in inputs and normal is None:
        normal = _estimated(cloud)
    fields = cloud.fields
    if "intensity" in inputs and "intensity" not in fields:
        unknown.add("intensity")
    if "intensity" in unknown:
        fields = {**fields, "intensity": torch.zeros(len(cloud))}
    return replace(cloud, color=color, normal=normal, fields=fields), tuple(hidden.notes(unknown))


def _without_color(cloud: PointCloud) -> set[str]:
    """Readers fill in `NO_COLOR` where a file has no colours."""
    missing = len(cloud) > 0 and (cloud.color is None or bool((cloud.color == NO_COLOR).all()))
    return {"color"} if missing else set()


def _estimated(cloud: PointCloud) -> torch.Tensor:
    """From neighbours, turned to where somebody would stand in the middle."""
    points = cloud.coord.numpy().astype(np.float64)
    if len(points) == 0:
        return torch.zeros(0, 3)
    eye = standing_eye(points[~far_outliers(points)])
    return torch.from_numpy(estimate_normals(points, towards=eye[None]))
