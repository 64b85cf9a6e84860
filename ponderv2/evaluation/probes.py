"""Linear probes: logistic regression on the features of a frozen encoder, fitted until it has converged.

Scores are `feature @ weight.T + bias`. Rows are weighted, so that a sample of the points of a scene stands
for all of them; features are standardised for the fit, and the result applies to the features as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

MAX_ITERATIONS = 1000
HISTORY = 20
"""Steps that L-BFGS remembers."""
ABSENT_BIAS = -10.0
"""Score of a class without a labelled point, below the mean of the others: its probability is under 5e-5."""
PENALTIES = (100.0, 10.0, 1.0, 0.1)
"""Grid of `chosen_fit`, the strongest first."""
MOST_COMPARED = 4000
"""Rows on which `chosen_fit` compares."""
OTHER_BALANCES: tuple[Literal["balanced"] | None, ...] = (None, "balanced")
"""Class weights that `chosen_fit` compares with those by the root."""
COMPARED_TOLERANCE = 3e-4
FOLDS = 3
"""Parts of the scenes, each of which is held out once in `chosen_fit`."""

Balance = Literal["balanced", "sqrt"] | None
"""Class weights: inversely proportional to the weight of the rows of a class, to its root, or all alike."""
ClassWeight = Balance | Float[Tensor, " class"]


@dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended."""

    converged: bool
    gradient: float
    """Largest absolute derivative there."""
    n_evaluations: int


def minimise(
    parameters: Sequence[Tensor],
    objective: Callable[[], Float[Tensor, ""]],
    tolerance: float,
    max_iterations: int = MAX_ITERATIONS,
) -> Minimum:
    """L-BFGS with a line search (strong Wolfe conditions) on some parameters, in place; deterministic.

    It has converged where no derivative of the objective exceeds the tolerance.
    """
    optimiser = torch.optim.LBFGS(
        list(parameters),
        max_iter=max_iterations,
        max_eval=2 * max_iterations,
        tolerance_grad=tolerance,
        tolerance_change=0.0,
        history_size=HISTORY,
        line_search_fn="strong_wolfe",
    )
    count = 0

    def closure() -> Tensor:
        nonlocal count
        count += 1
        optimiser.zero_grad()
        with torch.enable_grad():
            value = objective()
            value.backward()
        return value

    optimiser.step(closure)
    closure()
    slopes = [one.grad for one in parameters if one.grad is not None]
    gradient = max((float(slope.abs().max()) for slope in slopes), default=0.0)
    optimiser.zero_grad()
    return Minimum(gradient <= tolerance, gradient, count)


@dataclass(frozen=True)
class Linear:
    """Scores = feature @ weight.T + bias."""

    weight: Float[Tensor, "class channel"]
    bias: Float[Tensor, " class"]
    minimum: Minimum = Minimum(True, 0.0, 0)
    """Of the fit; `minimum.converged` is to be looked at."""

    def scores(self, feature: Float[Tensor, "point channel"]) -> Float[Tensor, "point class"]:
        """Logits of every class."""
        return feature @ self.weight.T + self.bias


def fit_linear(  # noqa: PLR0913 - data, weights and criterion of one fit
    feature: Float[Tensor, "point channel"],
    label: Int[Tensor, " point"],
    n_classes: int,
    penalty: float = 1.0,
    class_weight: ClassWeight = None,
    *,
    sample_weight: Float[Tensor, " point"] | None = None,
    rivals: Bool[Tensor, "point class"] | None = None,
    tolerance: float | None = None,
    max_iterations: int = MAX_ITERATIONS,
) -> Linear:
    """Multinomial logistic regression with a quadratic penalty on the weights, by L-BFGS.

    Minimises sum_i w_i CE_i + penalty / 2 * |weight|^2 over standardised features, with w_i the product of
    sample and class weight: scikit-learn's `LogisticRegression(C=1 / penalty)` behind a `StandardScaler`, for
    three and more classes (for two, scikit-learn penalises one vector in place of two). The bias is not
    penalised. Computed in the precision and on the device of the features; deterministic.

    Args:
        feature: Rows as they are. A channel that does not vary is left out of the score.
        label: Class of each row; rows of -1 do not count.
        n_classes: Rows of the result. A class that no row has gets a score below all others.
        penalty: 1 / C of scikit-learn; above 0.
        class_weight: One per class, or a `Balance`.
        sample_weight: One per row, none below 0.
        rivals: Classes that a row may have, its own included: those of its data set. By default all.
        tolerance: Largest derivative of the mean loss at convergence; 1e-5 for float64, 1e-4 (that of
            scikit-learn) otherwise.
        max_iterations: Of L-BFGS; where they do not suffice, `minimum.converged` of the result is False.

    Raises:
        ValueError: no labelled row, a label that is no class, or a penalty that is not above 0.
    """
    if not penalty > 0:
        raise ValueError(f"expected a penalty above 0, got {penalty}")
    if len(label) and int(label.max()) >= n_classes:
        raise ValueError(f"label {int(label.max())} found, there are {n_classes} classes")
    weight = torch.ones(len(label), dtype=feature.dtype, device=feature.device)
    weight = weight if sample_weight is None else sample_weight.to(weight)
    counted = (label >= 0) & (weight > 0)
    feature, label, weight = feature[counted].detach(), label[counted], weight[counted]
    if not len(label):
        raise ValueError("there is no labelled row")
    weight = weight * _class_weights(label, n_classes, class_weight, weight)[label]
    present, target = torch.unique(label, return_inverse=True)
    others = None if rivals is None else ~rivals[counted][:, present]
    mean, scale = standardisation(feature)
    rows = (feature - mean) / scale
    share, strength = weight / weight.sum(), penalty / float(weight.sum())
    inner = torch.zeros(len(present), rows.shape[1], dtype=rows.dtype, device=rows.device, requires_grad=True)
    offset = torch.zeros(len(present), dtype=rows.dtype, device=rows.device, requires_grad=True)

    def objective() -> Tensor:
        scores = rows @ inner.T + offset
        scores = scores if others is None else scores.masked_fill(others, -torch.inf)
        entropy = F.cross_entropy(scores, target, reduction="none")
        return (entropy * share).sum() + 0.5 * strength * inner.square().sum()

    limit = tolerance or (1e-5 if feature.dtype == torch.float64 else 1e-4)
    minimum = minimise([inner, offset], objective, limit, max_iterations)
    # Weights and biases of the present classes sum to zero: the largest of their scores is at least 0.
    result = feature.new_zeros(n_classes, feature.shape[1])
    bias = feature.new_full((n_classes,), ABSENT_BIAS)
    result[present] = inner.detach() / scale
    bias[present] = offset.detach() - (inner.detach() / scale) @ mean
    return Linear(result, bias, minimum)


def standardisation(
    feature: Float[Tensor, "point channel"],
) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
    """Mean and deviation of each channel, biased as scikit-learn's; 1 where a channel is constant."""
    variance, mean = torch.var_mean(feature, dim=0, correction=0)
    noise = torch.finfo(feature.dtype).eps * mean.abs().clamp(min=1e-30) * 10.0
    deviation = variance.sqrt()
    return mean, torch.where(deviation > noise, deviation, torch.ones_like(deviation))


def _class_weights(
    label: Int[Tensor, " point"],
    n_classes: int,
    wanted: ClassWeight,
    weight: Float[Tensor, " point"],
) -> Float[Tensor, " class"]:
    """One factor per class."""
    if wanted is None:
        return weight.new_ones(n_classes)
    if isinstance(wanted, Tensor):
        if len(wanted) != n_classes:
            raise ValueError(f"{len(wanted)} class weights given, there are {n_classes} classes")
        return wanted.to(weight)
    total = weight.new_zeros(n_classes).index_add_(0, label, weight)
    n_present = int((total > 0).sum())
    balanced = weight.sum() / (n_present * total.clamp(min=1e-30))
    return torch.where(
        total > 0, balanced if wanted == "balanced" else balanced.sqrt(), torch.zeros_like(total)
    )


def sample_rows(
    label: Int[Tensor, " point"], most: int, generator: torch.Generator
) -> tuple[Int[Tensor, " row"], Float[Tensor, " row"]]:
    """At most `most` labelled rows of a scene, as evenly over its classes as there are rows, ascending.

    The second result says for how many labelled rows of its class each stands, so that sums over the sample
    estimate sums over the scene.
    """
    labelled = torch.nonzero(label >= 0)[:, 0]
    known = label[labelled]
    classes, count = torch.unique(known, return_counts=True)
    if not len(classes):
        return labelled, torch.zeros(0)
    quota = _even_quota(count.tolist(), most)
    # A random order, then a stable sort by class: the first of each class are a random choice.
    shuffled = torch.randperm(len(labelled), generator=generator)
    order = shuffled[torch.argsort(known[shuffled], stable=True)]
    first = torch.cumsum(count, 0) - count
    index, weight = [], []
    for start, n, taken in zip(first.tolist(), count.tolist(), quota, strict=True):
        index.append(order[start : start + taken])
        weight.append(torch.full((taken,), n / max(taken, 1)))
    chosen, weights = labelled[torch.cat(index)], torch.cat(weight)
    ascending = torch.argsort(chosen)
    return chosen[ascending], weights[ascending]


def _even_quota(count: Sequence[int], most: int) -> list[int]:
    """How many of each, at most `most` together, the smallest completely; at least one of each."""
    quota, left = [0] * len(count), most
    for place, number in enumerate(sorted(range(len(count)), key=lambda one: count[one])):
        quota[number] = min(count[number], max(1, left // (len(count) - place)))
        left -= quota[number]
    return quota


@dataclass(frozen=True)
class LabelledRows:
    """Sampled features of scenes, on the CPU."""

    feature: Float[Tensor, "row channel"]
    label: Int[Tensor, " row"]
    weight: Float[Tensor, " row"]
    """For how many points of its scene a row stands."""
    scene: Int[Tensor, " row"]
    """Number of the scene."""
    rivals: Bool[Tensor, "row class"] | None = None
    """Classes of the data set of a row; None: all."""

    def __len__(self) -> int:
        return len(self.label)

    @staticmethod
    def cat(parts: Sequence[LabelledRows]) -> LabelledRows:
        """The rows of all parts."""
        rivals = [one.rivals for one in parts if one.rivals is not None]
        return LabelledRows(
            torch.cat([one.feature for one in parts]),
            torch.cat([one.label for one in parts]),
            torch.cat([one.weight for one in parts]),
            torch.cat([one.scene for one in parts]),
            torch.cat(rivals) if len(rivals) == len(parts) else None,
        )

    def take(self, chosen: Tensor) -> LabelledRows:
        """Some of the rows."""
        rivals = None if self.rivals is None else self.rivals[chosen]
        return LabelledRows(
            self.feature[chosen], self.label[chosen], self.weight[chosen], self.scene[chosen], rivals
        )


@dataclass(frozen=True)
class ChosenFit:
    """A linear classifier with the penalty and class weights that did best on held-out scenes."""

    linear: Linear
    penalty: float
    balance: Balance
    scores: dict[tuple[Balance, float], float]
    """Mean IoU on the held-out rows, by (balance, penalty); empty where there was nothing to compare on."""


def chosen_fit(
    rows: LabelledRows,
    n_classes: int,
    penalties: Sequence[float] = PENALTIES,
    device: str | torch.device = "cpu",
) -> ChosenFit:
    """Fits with the best of a few penalties, and with the best of the class weights at that penalty.

    They are compared by the mean IoU of the held-out rows when each third of the scenes (of the rows, where
    there are fewer than three scenes) is held out once. The penalty is chosen with class weights by the root
    (`sqrt`); of equals the stronger one wins, and `sqrt` before the others. Then all rows are fitted.

    Raises ValueError as `fit_linear`.
    """
    rows = rows.take(rows.label >= 0)
    compared = rows.take(every_nth(len(rows), MOST_COMPARED))
    fold = folds_of(compared)
    scores: dict[tuple[Balance, float], float] = {}
    best: tuple[Balance, float] = ("sqrt", 1.0)
    if len(torch.unique(fold)) > 1 and len(torch.unique(compared.label)) > 1:
        for penalty in penalties:
            scores["sqrt", penalty] = _held_out_iou(compared, fold, n_classes, ("sqrt", penalty), device)
        _, penalty = max(scores, key=lambda key: scores[key])
        for balance in OTHER_BALANCES:
            scores[balance, penalty] = _held_out_iou(compared, fold, n_classes, (balance, penalty), device)
        best = max(scores, key=lambda key: scores[key])
    linear = _fit(rows, n_classes, best, device, tolerance=None)
    return ChosenFit(linear, best[1], best[0], scores)


def every_nth(n: int, most: int) -> Int[Tensor, " row"]:
    """At most `most` of n numbers, evenly spread."""
    return torch.arange(n) if n <= most else torch.arange(most) * n // most


def folds_of(rows: LabelledRows) -> Int[Tensor, " row"]:
    """Which of the parts of the scenes, or of the rows where there are too few scenes, each row is in."""
    scenes, number = torch.unique(rows.scene, return_inverse=True)
    return number % FOLDS if len(scenes) >= FOLDS else torch.arange(len(rows)) % FOLDS


def _fit(
    rows: LabelledRows,
    n_classes: int,
    choice: tuple[Balance, float],
    device: str | torch.device,
    tolerance: float | None = COMPARED_TOLERANCE,
) -> Linear:
    balance, penalty = choice
    # Mean weight 1: a penalty then means the same for a sample as for as many points.
    weight = rows.weight / rows.weight.mean()
    is_rough = tolerance is not None or torch.device(device).type == "mps"
    precision = torch.float32 if is_rough else torch.float64
    return fit_linear(
        rows.feature.to(device, precision),
        rows.label.to(device),
        n_classes,
        penalty,
        balance,
        sample_weight=weight.to(device),
        rivals=None if rows.rivals is None else rows.rivals.to(device),
        tolerance=tolerance,
    )


def _held_out_iou(
    rows: LabelledRows,
    fold: Int[Tensor, " row"],
    n_classes: int,
    choice: tuple[Balance, float],
    device: str | torch.device,
) -> float:
    """Mean over the classes that occur of the intersection over union, each row by its weight."""
    counts = torch.zeros(n_classes, n_classes, dtype=torch.float64)
    for number in torch.unique(fold).tolist():
        held = rows.take(fold == number)
        linear = _fit(rows.take(fold != number), n_classes, choice, device)
        scores = linear.scores(held.feature.to(linear.weight)).cpu()
        scores = scores if held.rivals is None else scores.masked_fill(~held.rivals, -torch.inf)
        found = scores.argmax(dim=1)
        counts.view(-1).index_add_(0, held.label * n_classes + found, held.weight.double())
    hit = counts.diagonal()
    union = counts.sum(0) + counts.sum(1) - hit
    there = counts.sum(1) > 0
    return float((hit[there] / union[there]).mean())
