"""Heads that start as a probe: labelled features of the training scenes, gathered from all processes.

Every scene is encoded as in evaluation, block by block where it is large, by one of the processes; of its
features those of a bounded sample of labelled points are kept. All processes then hold the same rows and fit
the same head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.collectives import process_rank, world_size
from ponderv2.data.datasets import LabelledDataset, SceneDataset
from ponderv2.data.sweeps import with_sweeps_behind
from ponderv2.errors import SceneError
from ponderv2.evaluation.probes import ChosenFit, LabelledRows, Minimum, sample_rows
from ponderv2.models.encoder_model import EncoderModel
from ponderv2.models.voxel_features import encode_voxels
from ponderv2.randomness import make_generator
from ponderv2.scenes.scene import PointCloud
from ponderv2.sparse.normalisation import BatchNorm
from ponderv2.training.ranks import run_in_all
from ponderv2.training.report import Reporter

MOST_ROWS = 40_000
"""Labelled points of all scenes together that a head is fitted to."""
LEAST_ROWS = 20
"""Of each scene, however many there are."""
MOST_WARNINGS = 5
MOST_NAMES = 8
"""Of classes in a warning."""

PointTargets = Callable[[LabelledDataset, PointCloud], Float[Tensor, "point target"]]
"""Further numbers of every point that a head learns."""


@dataclass(frozen=True)
class HeadRows:
    """Labelled points of one dataset."""

    data: LabelledDataset
    rows: LabelledRows
    target: Float[Tensor, "row target"] | None = None
    """Of a `PointTargets`."""


@dataclass(frozen=True)
class SceneRows:
    """What a process found in a scene; picklable."""

    rows: LabelledRows | None = None
    """None: nothing is labelled."""
    target: Tensor | None = None
    problem: str = ""
    """Why the scene is left out."""


def labelled_rows(
    model: EncoderModel,
    trainings: Sequence[LabelledDataset],
    seed: int,
    report: Reporter,
    targets: PointTargets | None = None,
) -> list[HeadRows]:
    """Features of labelled points of the training scenes, dataset by dataset. All processes must call it.

    Labels are those of the budget. A scene that cannot be read is left out, with a warning.

    Raises:
        SceneError: a dataset has no labelled point in any scene.
    """
    jobs = [(data, index) for data in trainings for index in range(len(data))]
    most = max(LEAST_ROWS, MOST_ROWS // len(jobs))

    def sample(number: int) -> SceneRows:
        return _sampled(model, *jobs[number], _Sampling(most, seed, number), targets)

    found = iter(rows_of_scenes(model, jobs, sample, "encoding labelled points for the head", report))
    every = [_of_dataset(data, list(islice(found, len(data)))) for data in trainings]
    for one in every:
        text = missing_classes(one.data, one.rows.label)
        if text is not None:
            report.warn(text)
    return every


def rows_of_scenes(
    model: EncoderModel,
    jobs: Sequence[tuple[SceneDataset, int]],
    sample: Callable[[int], SceneRows],
    label: str,
    report: Reporter,
) -> list[SceneRows]:
    """What `sample` finds in each scene of `jobs`, by its number there; the model is in evaluation mode.

    Each is encoded by one of the processes, which all call this together. A scene that cannot be read is left
    out, with a warning. `label`: of the progress.
    """
    rank, world = process_rank(), world_size()
    mode = model.training
    model.eval()
    found: list[SceneRows] = []
    rounds = range(0, len(jobs), world)
    for first in report.track(rounds, label, len(rounds)):
        number = first + rank

        def encode(number: int = number) -> list[SceneRows]:
            return [] if number >= len(jobs) else [_readable(jobs[number], number, sample)]

        found += [one for part in run_in_all(encode) for one in part]
    model.train(mode)
    problems = [one.problem for one in found if one.problem]
    for text in problems[:MOST_WARNINGS]:
        report.warn(f"left out of the fit of the head: {text}")
    if len(problems) > MOST_WARNINGS:
        report.warn(f"{len(problems) - MOST_WARNINGS} more scenes are left out of the fit of the head")
    return found


def _readable(job: tuple[SceneDataset, int], number: int, sample: Callable[[int], SceneRows]) -> SceneRows:
    try:
        return sample(number)
    except SceneError as error:
        return SceneRows(problem=error.message)
    except OSError as error:
        data, index = job
        return SceneRows(problem=f"scene '{data.names[index]}' cannot be read: {error}")


def missing_classes(data: LabelledDataset, label: Int[Tensor, " row"]) -> str | None:
    """What to say where classes of a data set are none of those that something is fitted to."""
    names = data.store.info.label_set(data.label_field).class_names
    there = set(label.tolist())
    missing = [name for number, name in enumerate(names) if number not in there]
    if not missing:
        return None
    listed = ", ".join(missing[:MOST_NAMES]) + (", ..." if len(missing) > MOST_NAMES else "")
    return (
        f"{len(missing)} of {len(names)} classes have no labelled point in '{data.split}' of "
        f"{data.store.root} and are never predicted: {listed}"
    )


def _of_dataset(data: LabelledDataset, scenes: Sequence[SceneRows]) -> HeadRows:
    nothing = SceneError(
        f"no training scene of {data.store.root} has a labelled point to fit the head to",
        fix="--set data.label_field=NAME, or prepare the scenes with labels",
    )
    rows = joined_rows(scenes, data.store.root, nothing)
    extra = [one.target for one in scenes if one.target is not None]
    return HeadRows(data, rows, torch.cat(extra) if extra else None)


def joined_rows(scenes: Sequence[SceneRows], root: Path, nothing: SceneError) -> LabelledRows:
    """The rows of all scenes. Raises SceneError: why no scene could be encoded, or `nothing`."""
    usable = [one.rows for one in scenes if one.rows is not None]
    problem = next((one.problem for one in scenes if one.problem), "")
    if not usable and problem:
        raise SceneError(
            f"no training scene of {root} could be encoded: {problem}",
            fix="prepare the scenes again, or give another checkpoint",
        )
    if not usable:
        raise nothing
    return LabelledRows.cat(usable)


@dataclass(frozen=True)
class _Sampling:
    """Which points of a scene are taken."""

    most: int
    seed: int
    scene: int
    """Number of the scene among those of all datasets."""


def _sampled(
    model: EncoderModel,
    data: LabelledDataset,
    index: int,
    sampling: _Sampling,
    targets: PointTargets | None,
) -> SceneRows:
    """The sample of a scene that can be read. Raises SceneError, OSError."""
    # Points of sweeps have no class, so that none of them is chosen.
    cloud = with_sweeps_behind(data.training_scene(index), data.config.sweeps).cloud
    label = cloud.labels[data.label_field].long()
    generator = make_generator("head start", sampling.seed, data.condition, data.names[index])
    chosen, weight = sample_rows(label, sampling.most, generator)
    if not len(chosen):
        return SceneRows()
    found = encode_voxels(model, cloud, data.config, data.condition, only=chosen)
    rows = found.feature[found.inverse[chosen]]
    finite = torch.isfinite(rows).all(dim=1)
    if not bool(finite.any()):
        return SceneRows(problem=f"the features of scene '{data.names[index]}' are not finite numbers")
    scene = torch.full((len(chosen),), sampling.scene)
    return SceneRows(
        LabelledRows(rows, label[chosen], weight, scene).take(finite),
        None if targets is None else targets(data, cloud)[chosen][finite],
    )


def describe(chosen: ChosenFit, rows: LabelledRows, what: str, report: Reporter) -> None:
    """Reports what was fitted, and a fit that has not converged."""
    n_scenes = len(torch.unique(rows.scene))
    balance = {None: "none", "sqrt": "by the root of their frequency", "balanced": "balanced"}[chosen.balance]
    held_out = chosen.scores.get((chosen.balance, chosen.penalty))
    score = "" if held_out is None else f", mIoU {100 * held_out:.1f} on held-out points"
    report.note(
        f"{what} fitted to {len(rows)} labelled points of {n_scenes} scenes: penalty {chosen.penalty:g}, "
        f"class weights {balance}{score}"
    )
    warn_of_convergence(chosen.linear.minimum, what, report)


def warn_of_convergence(minimum: Minimum, what: str, report: Reporter) -> None:
    """Reports a fit that has not converged."""
    if not minimum.converged:
        report.warn(
            f"the fit of the {what} has not converged: the largest derivative is {minimum.gradient:.1e} "
            f"after {minimum.n_evaluations} evaluations"
        )


@torch.no_grad()
def take_statistics(norm: BatchNorm, rows: LabelledRows) -> None:
    """Mean and variance of the features become those of a head's norm, each row by what it stands for."""
    share = (rows.weight / rows.weight.sum()).double()[:, None]
    feature = rows.feature.double()
    mean = (feature * share).sum(dim=0)
    _copy(norm.running_mean, mean)
    _copy(norm.running_var, ((feature - mean).square() * share).sum(dim=0))


def _copy(buffer: Tensor | None, value: Tensor) -> None:
    assert buffer is not None
    buffer.copy_(value)
