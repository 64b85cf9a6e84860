"""The head of depth as a converged linear probe: logistic regression on the intervals of measured pixels."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Int
from torch import Tensor

from ponderv2.errors import SceneError
from ponderv2.evaluation.probes import (
    MOST_COMPARED,
    PENALTIES,
    LabelledRows,
    Linear,
    every_nth,
    fit_linear,
    folds_of,
    sample_rows,
)
from ponderv2.lift.config import DepthIntervalsConfig
from ponderv2.randomness import make_generator
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.tasks.depth.data import DepthDataset
from ponderv2.tasks.depth.model import DepthModel, expected_depth, features_at, middles
from ponderv2.tasks.head_start import (
    LEAST_ROWS,
    SceneRows,
    joined_rows,
    rows_of_scenes,
    take_statistics,
    warn_of_convergence,
)
from ponderv2.training.report import Reporter

MOST_ROWS = 16_000
"""Pixels of all scenes together that the head is fitted to."""
TOLERANCE = 1.0e-3
"""Largest derivative of the mean loss at convergence, of fits that are compared."""
LAST_TOLERANCE = 3.0e-4
"""Of the last fit."""


def fit_head(model: DepthModel, trainings: Sequence[DepthDataset], seed: int, report: Reporter) -> None:
    """Logistic regression on pixels of the training scenes becomes the head; all processes call it together.

    The penalty is that with the smallest relative error of the expected depth when each third of the scenes
    is held out once. A scene that cannot be read is left out, with a warning.

    Raises SceneError where no pixel has a depth.
    """
    rows = _rows(model, trainings, seed, report)
    intervals, head = model.config.intervals, model.head
    device = next(model.parameters()).device
    compared = rows.take(every_nth(len(rows), MOST_COMPARED))
    fold = folds_of(compared)
    scores: dict[float, float] = {}
    if len(torch.unique(fold)) > 1:
        scores = {one: _held_out_error(compared, fold, intervals, one) for one in PENALTIES}
    penalty = min(scores, key=lambda one: scores[one], default=1.0)
    linear = _fit(rows, intervals, penalty, LAST_TOLERANCE)
    assert isinstance(head.norm, BatchNorm)
    take_statistics(head.norm, rows)
    head.start_as(linear.weight.to(device), linear.bias.to(device))
    score = f", relative error {scores[penalty]:.3f} on held-out pixels" if scores else ""
    report.note(
        f"head fitted to {len(rows)} pixels of {len(torch.unique(rows.scene))} scenes: penalty {penalty:g}"
        f"{score}"
    )
    warn_of_convergence(linear.minimum, "head", report)


def _rows(model: DepthModel, trainings: Sequence[DepthDataset], seed: int, report: Reporter) -> LabelledRows:
    """Features of pixels of all training scenes; the label is the interval of the depth."""
    jobs = [(data, index) for data in trainings for index in range(len(data))]
    most = max(LEAST_ROWS, MOST_ROWS // len(jobs))

    def sample(number: int) -> SceneRows:
        return _of_scene(model, *jobs[number], most, seed, number)

    root = trainings[0].store.root
    nothing = SceneError(
        f"no pixel of a training scene of {root} has a measured depth within the intervals of the model",
        fix="prepare the scenes with depth images or a LiDAR, or set model.intervals",
    )
    found = rows_of_scenes(model, jobs, sample, "encoding measured pixels for the head", report)
    return joined_rows(found, root, nothing)


@torch.no_grad()
def _of_scene(
    model: DepthModel, data: DepthDataset, index: int, most: int, seed: int, number: int
) -> SceneRows:
    """The sample of one scene. Raises SceneError, OSError."""
    batch = data.images_of(index).to(next(model.parameters()).device)
    assert batch.images is not None
    intervals, measured = model.config.intervals, model.measured(batch.images)
    label = (
        ((measured.depth - intervals.nearest) / intervals.width).long().clamp(0, intervals.n_bins - 1).cpu()
    )
    generator = make_generator("head start", seed, data.condition, data.names[index])
    chosen, weight = sample_rows(label, most, generator)
    if not len(chosen):
        return SceneRows()
    taken = measured.take(chosen.to(measured.view.device))
    feature = features_at(model.maps(batch), taken, batch.images).cpu()
    finite = torch.isfinite(feature).all(dim=1)
    if not bool(finite.any()):
        return SceneRows(problem=f"the features of scene '{data.names[index]}' are not finite numbers")
    scene = torch.full((len(chosen),), number)
    return SceneRows(LabelledRows(feature, label[chosen], weight, scene).take(finite))


def _fit(rows: LabelledRows, intervals: DepthIntervalsConfig, penalty: float, tolerance: float) -> Linear:
    # Mean weight 1: a penalty then means the same for a sample as for as many pixels.
    weight = rows.weight / rows.weight.mean()
    return fit_linear(
        rows.feature, rows.label, intervals.n_bins, penalty, sample_weight=weight, tolerance=tolerance
    )


def _held_out_error(
    rows: LabelledRows, fold: Int[Tensor, " row"], intervals: DepthIntervalsConfig, penalty: float
) -> float:
    """Relative error of the expected depth, against the middle of the interval; each pixel by its weight."""
    total, weights = 0.0, 0.0
    for number in torch.unique(fold).tolist():
        held = rows.take(fold == number)
        linear = _fit(rows.take(fold != number), intervals, penalty, TOLERANCE)
        depth = expected_depth(linear.scores(held.feature), intervals)
        truth = middles(intervals)[held.label]
        total += float(((depth - truth).abs() / truth * held.weight).sum())
        weights += float(held.weight.sum())
    return total / weights
