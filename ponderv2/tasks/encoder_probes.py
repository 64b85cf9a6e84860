"""Probes of features on labelled scenes: nearest neighbours, a linear layer, and purity without training.

Scenes are read one after the other; what is kept of them is a bounded sample of labelled voxels. Like a
whole evaluation, a probe predicts the class of every point.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ponderv2.data.config import LabelBudgetConfig, LabelledDataConfig, PointDataConfig
from ponderv2.data.datasets import LabelledDataset
from ponderv2.errors import CheckpointError, SceneError
from ponderv2.evaluation.config import LinearProbeConfig, NeighboursConfig, ProbeDataConfig, PurityConfig
from ponderv2.evaluation.neighbours import LabelledFeatures, Purity, knn_classes, neighbour_purity
from ponderv2.evaluation.probes import LabelledRows, Linear, chosen_fit, fit_linear, sample_rows
from ponderv2.evaluation.semantic import confusion_matrix
from ponderv2.randomness import make_generator
from ponderv2.scenes.folders import SceneFolders
from ponderv2.tasks.feature_sources import FeatureSource
from ponderv2.tasks.head_start import LEAST_ROWS, missing_classes
from ponderv2.training.report import Reporter

Predict = Callable[[Float[Tensor, "voxel channel"]], Int[Tensor, " voxel"]]


@dataclass(frozen=True)
class LabelledScenes:
    """Scenes with a class per point, as many classes for training and evaluation."""

    data: LabelledDataset
    n_classes: int

    def labels(self, index: int) -> Int[Tensor, " point"]:
        """Class of every point that a probe may see; -1 = none. Raises SceneError for other classes."""
        return self.data.training_scene(index).cloud.labels[self.data.label_field].long()


def labelled_scenes(
    store: SceneFolders, split: str, points: PointDataConfig, settings: ProbeDataConfig, *, budget: bool
) -> LabelledScenes:
    """The scenes of a split, with `budget` those and the labels that a probe may see.

    Raises SceneError where there are no scenes; where the data set does not name its classes, also where a
    scene has no labels.
    """
    config = LabelledDataConfig(
        voxel=points.voxel,
        features=points.features,
        fields=points.fields,
        label_field=settings.label_field,
        budget=settings.budget if budget else LabelBudgetConfig(),
    )
    data = LabelledDataset(store, split, config)
    names = store.info.label_set(data.label_field).class_names
    if names:
        data.expect_classes(len(names))
        return LabelledScenes(data, len(names))
    every = (data.labelled_scene(index).cloud.labels[data.label_field] for index in range(len(data)))
    largest = max(int(one.max()) for one in every)
    return LabelledScenes(data, largest + 1)


def labelled_voxels(
    source: FeatureSource, scenes: LabelledScenes, n_points: int, seed: int, report: Reporter
) -> LabelledFeatures:
    """Features of about `n_points` labelled voxels at most, evenly over scenes and their classes.

    It is the sample of labelled points that a head starts from (`head_start.py`), one of each voxel.

    Raises:
        SceneError: no point has a class, or what the features of a scene raise.
        CheckpointError: no feature is finite.
    """
    data, found, n_seen = scenes.data, [], 0
    most = max(LEAST_ROWS, n_points // len(data))
    for index in report.track(range(len(data)), f"{source.name}: features of {data.split}", len(data)):
        label = scenes.labels(index)
        generator = make_generator("head start", seed, data.condition, data.names[index])
        chosen, weight = sample_rows(label, most, generator)
        if not len(chosen):
            continue
        voxels = source.features(data.scene(index))
        first = _first_of_each(voxels.inverse[chosen], len(voxels.feature))
        chosen, weight = chosen[first], weight[first]
        row = voxels.inverse[chosen]
        n_seen += len(row)
        finite = torch.isfinite(voxels.feature[row]).all(dim=1)
        chosen, weight, row = chosen[finite], weight[finite], row[finite]
        scene = torch.full((len(chosen),), index)
        found.append(LabelledFeatures(voxels.feature[row], label[chosen], voxels.coord[row], scene, weight))
    if not n_seen:
        raise _no_classes(scenes)
    points = LabelledFeatures.cat(found)
    if not len(points):
        raise CheckpointError(
            f"the features of {source.name} are not finite numbers",
            fix="give another checkpoint of its run: previous.pth, best.pth",
        )
    return points.to(source.device)


def _first_of_each(voxel: Int[Tensor, " row"], n_voxels: int) -> Int[Tensor, " first"]:
    """The first row of every voxel, ascending."""
    first = torch.full((n_voxels,), len(voxel))
    first.scatter_reduce_(0, voxel, torch.arange(len(voxel)), reduce="amin")
    return first[first < len(voxel)].sort().values


def _no_classes(scenes: LabelledScenes) -> SceneError:
    data = scenes.data
    return SceneError(
        f"no point of {len(data)} scenes of '{data.split}' has a class in '{data.label_field}'",
        fix="--set data.label_field=NAME, or prepare the scenes with labels",
    )


@dataclass(frozen=True)
class FittedProbe:
    """A rule from features to classes."""

    protocol: str
    predict: Predict
    n_trained: int
    """Numbers that were fitted."""


FitProbe = Callable[[LabelledFeatures, int], FittedProbe]
"""From labelled features and the number of classes to a probe."""


def fit_neighbours(settings: NeighboursConfig) -> FitProbe:
    """Nothing is trained: the labelled features are the probe."""

    def fit(points: LabelledFeatures, n_classes: int) -> FittedProbe:
        def predict(feature: Tensor) -> Tensor:
            return knn_classes(feature, points, n_classes, settings.k, settings.temperature)

        return FittedProbe("knn", predict, 0)

    return fit


def fit_linear_layer(settings: LinearProbeConfig) -> FitProbe:
    """A linear layer, by logistic regression."""

    def fit(points: LabelledFeatures, n_classes: int) -> FittedProbe:
        device, on_cpu = points.feature.device, points.to("cpu")
        if settings.penalty is None:
            rows = LabelledRows(on_cpu.feature, on_cpu.label, on_cpu.weight, on_cpu.scene)
            linear = chosen_fit(rows, n_classes, device=device).linear
        else:
            linear = fit_linear(
                points.feature,
                points.label,
                n_classes,
                settings.penalty,
                "balanced" if settings.balanced else None,
                sample_weight=points.weight / points.weight.mean(),
            )
        layer = Linear(linear.weight.float(), linear.bias.float(), linear.minimum)

        def predict(feature: Tensor) -> Tensor:
            return layer.scores(feature).argmax(dim=1)

        return FittedProbe("linear", predict, layer.weight.numel() + layer.bias.numel())

    return fit


@dataclass
class ProbeResult:
    """How well a probe classifies the points of some scenes."""

    protocol: str
    source: FeatureSource
    confusion: Int[Tensor, "true_class predicted_class"]
    n_trained: int
    n_labelled: int
    """Voxels that it was fitted on."""
    note: str | None = None
    """What to know of their classes."""
    seconds: list[float] = field(default_factory=list)
    """Of every scene, from its points to their classes."""

    @property
    def milliseconds(self) -> float:
        """Of the scene in the middle."""
        return 1000.0 * median(self.seconds)


def probe(
    source: FeatureSource,
    fits: Sequence[FitProbe],
    training: tuple[LabelledScenes, ProbeDataConfig],
    evaluated: LabelledScenes,
    report: Reporter,
) -> list[ProbeResult]:
    """Fits every probe on the labels that `training` allows, and compares it with all labels of others.

    The features of a scene are computed once for all probes. Raises SceneError where training scenes have
    no labels or other classes.
    """
    scenes, settings = training
    points = labelled_voxels(source, scenes, settings.n_points, settings.seed, report)
    note = missing_classes(scenes.data, points.label)
    scale = _standardised(points.feature) if source.has_units else _unchanged
    points = replace(points, feature=scale(points.feature))
    n = max(scenes.n_classes, evaluated.n_classes)
    probes = [fit(points, n) for fit in fits]
    results = [
        ProbeResult(
            one.protocol, source, torch.zeros(n, n, dtype=torch.int64), one.n_trained, len(points), note
        )
        for one in probes
    ]
    data = evaluated.data
    for index in report.track(range(len(data)), f"{source.name}: probes on {data.split}", len(data)):
        scene = data.labelled_scene(index)
        truth = evaluated.labels(index)
        started = time.perf_counter()
        voxels = source.features(scene)
        encoding = time.perf_counter() - started
        for one, result in zip(probes, results, strict=True):
            started = time.perf_counter()
            predicted = one.predict(scale(voxels.feature.to(source.device))).cpu()[voxels.inverse]
            result.seconds.append(encoding + time.perf_counter() - started)
            result.confusion += confusion_matrix(predicted, truth, n)
    if results and not int(results[0].confusion.sum()):
        raise _no_classes(evaluated)
    return results


def purity(
    source: FeatureSource, scenes: LabelledScenes, settings: PurityConfig, seed: int, report: Reporter
) -> Purity:
    """How often the nearest neighbours of a point in feature space have its label. Nothing is fitted."""
    points = labelled_voxels(source, scenes, settings.n_points, seed, report)
    if source.has_units:
        points = replace(points, feature=_standardised(points.feature)(points.feature))
    distance = float("inf") if settings.distance is None else settings.distance
    return neighbour_purity(points, scenes.n_classes, settings.k, distance)


def _unchanged(feature: Tensor) -> Tensor:
    return feature


def _standardised(feature: Float[Tensor, "point channel"]) -> Callable[[Tensor], Tensor]:
    """Every channel to mean 0 and deviation 1 on these features; constant channels to 0."""
    mean, deviation = feature.mean(dim=0), feature.std(dim=0, correction=0)
    return lambda values: (values - mean) / deviation.clamp(min=1e-6)
