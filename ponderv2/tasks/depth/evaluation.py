"""Depth of the images of a split: errors over the measured pixels, and pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ponderv2.data.config import LabelledDataConfig
from ponderv2.errors import SceneError
from ponderv2.evaluation.depth import DepthSums
from ponderv2.reconstruction.images import RgbImage, color_bytes, write_rgb
from ponderv2.scenes.batch import ImageBatch
from ponderv2.scenes.scene import evenly_spread
from ponderv2.tasks.depth.data import DepthDataset
from ponderv2.tasks.depth.model import DepthModel
from ponderv2.tasks.images import color_map
from ponderv2.tasks.task import EvaluationRequest, EvaluationResult
from ponderv2.training.report import Reporter
from ponderv2.training.run_logger import RunLogger

MOST_PICTURES = 8
"""Of a split, one of a scene, evenly spread."""


class DepthValidation:
    """Errors of whole scenes without augmentation, over all measured pixels together."""

    def __init__(self, model: DepthModel, data: DepthDataset) -> None:
        self._model, self._data = model, data

    def __len__(self) -> int:
        return len(self._data)

    def measure(self, number: int, step: int, logger: RunLogger | None) -> DepthSums:
        """Sums over the measured pixels of a scene."""
        return DepthSums.total(errors_of_views(self._model, self._data, number)[0])

    def metrics(self, results: Sequence[DepthSums]) -> dict[str, float]:
        """abs_rel, rmse (metres) and delta1."""
        return DepthSums.total(results).metrics()


@torch.no_grad()
def errors_of_views(
    model: DepthModel, data: DepthDataset, index: int
) -> tuple[list[DepthSums], ImageBatch, Float[Tensor, "view row column"]]:
    """Of each image of a scene: the sums over its measured pixels; the images; the expected depths."""
    batch = data.images_of(index).to(next(model.parameters()).device)
    assert batch.images is not None
    depth, measured = model.depth(batch), model.measured(batch.images)
    found = depth[measured.view, measured.row, measured.column].cpu()
    truth, view = measured.depth.cpu(), measured.view.cpu()
    sums = [DepthSums.of(found[view == one], truth[view == one]) for one in range(len(depth))]
    return sums, batch.images, depth.cpu()


def run(request: EvaluationRequest, model: DepthModel, report: Reporter) -> EvaluationResult:
    """Predicts the depth of the images of every scene of the split.

    Raises SceneError where nothing is measured, or where files are asked for that there are none of.
    """
    for option, path in (("--submission", request.submission), ("--export", request.export)):
        if path is not None:
            raise SceneError(f"a model of depth predicts no labels for {option}", fix=f"leave {option} out")
    if request.tta != "none":
        report.warn("depth is predicted once: --tta is for semantic segmentation")
    data = DepthDataset(request.store, request.split, request.settings(LabelledDataConfig, budget={}))
    pictured = evenly_spread(range(len(data)), MOST_PICTURES)
    every: list[DepthSums] = []
    rows: list[dict[str, Any]] = []
    images: list[Path] = []
    for index in report.track(range(len(data)), f"depth of {request.split}", len(data)):
        sums, seen, depth = errors_of_views(model, data, index)
        every += sums
        name = data.names[index]
        for view, one in enumerate(sums):
            rows.append({"scene": name, "view": view, "pixels": one.n_pixels, **one.metrics()})
        if index in pictured:
            best = max(range(len(sums)), key=lambda view: sums[view].n_pixels)
            target = request.folder / f"{name.replace('/', '_')}-{best}.png"
            assert seen.depth is not None
            shown = (seen.image[best].cpu(), seen.depth[best].cpu(), depth[best])
            images.append(write_rgb(target, picture(*shown, model.config.intervals.farthest)))
    total = DepthSums.total(every)
    if not total.n_pixels:
        raise SceneError(
            f"no pixel of the images of '{request.split}' has a measured depth within model.intervals",
            fix="prepare the scenes with depth images, or take scenes with a LiDAR",
        )
    return EvaluationResult(
        kind="depth",
        checkpoint=request.stored.path,
        split=request.split,
        n_scenes=len(data),
        metrics=total.metrics(),
        views=rows,
        images=images,
    )


def picture(
    image: Float[Tensor, "3 height width"],
    truth: Float[Tensor, "height width"],
    depth: Float[Tensor, "height width"],
    farthest: float,
) -> RgbImage:
    """An image, its measured depths as dots in it, and the predicted ones."""
    color = color_bytes(image.movedim(0, -1))
    limit = min(farthest, float(truth.max()) or farthest)
    dots = color_map(torch.where(truth > 0, truth, torch.nan), 0.0, limit)
    known = (truth > 0).numpy()[..., None]
    return np.concatenate([color, np.where(known, dots, color), color_map(depth, 0.0, limit)], axis=1)
