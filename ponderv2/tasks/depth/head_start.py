"""The head of depth as a converged linear probe: logistic regression on the intervals of measured pixels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from ponderv2.collectives import process_rank, world_size
from ponderv2.errors import SceneError
from ponderv2.evaluation.probes import LabelledRows, Linear, fit_linear, sample_rows
from ponderv2.lift.config import DepthIntervalsConfig
from ponderv2.randomness import make_generator
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.tasks.depth.data import DepthDataset
from ponderv2.tasks.depth.model import DepthModel, expected_depth, features_at, middles
from ponderv2.tasks.head_start import take_statistics
from ponderv2.training.ranks import run_in_all
from ponderv2.training.report import Reporter

MOST_ROWS = 16_000
"""Pixels of all scenes together that the head is fitted to."""
LEAST_ROWS = 20
"""Of each scene, however many there are."""
MOST_COMPARED = 4000
"""Pixels on which penalties are compared."""
PENALTIES = (100.0, 10.0, 1.0, 0.1)
"""Which are compared, the strongest first."""
FOLDS = 3
TOLERANCE = 1.0e-3
"""Largest derivative of the mean loss at convergence, of fits that are compared."""
LAST_TOLERANCE = 3.0e-4
"""Of the last fit."""


@dataclass(frozen=True)
class _OneScene:
    """What a process found in a scene; picklable."""

    rows: LabelledRows | None = None
    problem: str = ""


def fit_head(model: DepthModel, trainings: Sequence[DepthDataset], seed: int, report: Reporter) -> None:
    """Logistic regression on pixels of the training scenes becomes the head; all processes call it together.

    The penalty is that with the smallest relative error of the expected depth when each third of the scenes
    is held out once. A scene that cannot be read is left out, with a warning.

    Raises SceneError where no pixel has a depth.
    """
    rows = _rows(model, trainings, seed, report)
    intervals, head = model.config.intervals, model.head
    device = next(model.parameters()).device
    compared = rows.take(
        torch.arange(min(len(rows), MOST_COMPARED)) * len(rows) // min(len(rows), MOST_COMPARED)
    )
    scenes, number = torch.unique(compared.scene, return_inverse=True)
    fold = number % FOLDS if len(scenes) >= FOLDS else torch.arange(len(compared)) % FOLDS
    scores = {one: _held_out_error(compared, fold, intervals, one) for one in PENALTIES}
    penalty = min(scores, key=lambda one: scores[one])
    linear = _fit(rows, intervals, penalty, LAST_TOLERANCE)
    assert isinstance(head.norm, BatchNorm)
    take_statistics(head.norm, rows)
    head.start_as(linear.weight.to(device), linear.bias.to(device))
    report.note(
        f"head fitted to {len(rows)} pixels of {len(torch.unique(rows.scene))} scenes: penalty {penalty:g}, "
        f"relative error {scores[penalty]:.3f} on held-out pixels"
    )
    if not linear.minimum.converged:
        report.warn(
            f"the fit of the head has not converged: the largest derivative is {linear.minimum.gradient:.1e} "
            f"after {linear.minimum.n_evaluations} evaluations"
        )


def _rows(model: DepthModel, trainings: Sequence[DepthDataset], seed: int, report: Reporter) -> LabelledRows:
    """Features of pixels of all training scenes; the label is the interval of the depth."""
    jobs = [(data, index) for data in trainings for index in range(len(data))]
    most = max(LEAST_ROWS, MOST_ROWS // len(jobs))
    rank, world = process_rank(), world_size()
    mode = model.training
    model.eval()
    found: list[_OneScene] = []
    rounds = range(0, len(jobs), world)
    for first in report.track(rounds, "encoding measured pixels for the head", len(rounds)):
        number = first + rank

        def encode(number: int = number) -> list[_OneScene]:
            return [] if number >= len(jobs) else [_of_scene(model, *jobs[number], most, seed, number)]

        found += [one for part in run_in_all(encode) for one in part]
    model.train(mode)
    for one in found:
        if one.problem:
            report.warn(f"left out of the fit of the head: {one.problem}")
    usable = [one.rows for one in found if one.rows is not None]
    if not usable:
        raise SceneError(
            f"no pixel of a training scene of {trainings[0].store.root} has a measured depth within the "
            "intervals of the model",
            fix="prepare the scenes with depth images or a LiDAR, or set model.intervals",
        )
    return LabelledRows.cat(usable)


@torch.no_grad()
def _of_scene(
    model: DepthModel, data: DepthDataset, index: int, most: int, seed: int, number: int
) -> _OneScene:
    try:
        batch = data.images_of(index).to(next(model.parameters()).device)
    except (SceneError, OSError) as error:
        return _OneScene(problem=getattr(error, "message", f"scene '{data.names[index]}': {error}"))
    assert batch.images is not None
    intervals, measured = model.config.intervals, model.measured(batch.images)
    label = (
        ((measured.depth - intervals.nearest) / intervals.width).long().clamp(0, intervals.n_bins - 1).cpu()
    )
    generator = make_generator("head start", seed, data.condition, data.names[index])
    chosen, weight = sample_rows(label, most, generator)
    if not len(chosen):
        return _OneScene()
    taken = measured.take(chosen.to(measured.view.device))
    feature = features_at(model.maps(batch), taken, batch.images).cpu()
    finite = torch.isfinite(feature).all(dim=1)
    if not bool(finite.any()):
        return _OneScene(problem=f"the features of scene '{data.names[index]}' are not finite numbers")
    scene = torch.full((len(chosen),), number)
    return _OneScene(LabelledRows(feature, label[chosen], weight, scene).take(finite))


def _fit(rows: LabelledRows, intervals: DepthIntervalsConfig, penalty: float, tolerance: float) -> Linear:
    # Mean weight 1: a penalty then means the same for a sample as for as many pixels.
    weight = rows.weight / rows.weight.mean()
    return fit_linear(
        rows.feature, rows.label, intervals.n_bins, penalty, sample_weight=weight, tolerance=tolerance
    )


def _held_out_error(
    rows: LabelledRows, fold: torch.Tensor, intervals: DepthIntervalsConfig, penalty: float
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
