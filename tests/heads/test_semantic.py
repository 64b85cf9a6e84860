"""The segmentation head and its loss."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.errors import PresetError
from ponderv2.heads.config import LinearHeadConfig, SegmentationLossConfig
from ponderv2.heads.kinds import build_head
from ponderv2.heads.lovasz import lovasz_gradient, lovasz_softmax
from ponderv2.heads.semantic import SegmentationLosses, read_class_weights, segmentation_losses

BOTH = SegmentationLossConfig()


def jaccard_loss(wrong: set[int], truth: list[int]) -> float:
    """1 - intersection over union of a class when exactly the points in `wrong` are predicted wrongly."""
    predicted = [t != (i in wrong) for i, t in enumerate(map(bool, truth))]
    union = sum(p or bool(t) for p, t in zip(predicted, truth, strict=True))
    intersection = sum(p and bool(t) for p, t in zip(predicted, truth, strict=True))
    return 1.0 - intersection / union


def textbook_lovasz(logits: Tensor, segment: Tensor) -> float:
    """The Lovász extension by its definition (equation 9), class by class and point by point."""
    kept = [i for i in range(len(segment)) if segment[i] >= 0]
    probability = torch.softmax(logits.double(), dim=1)
    losses = []
    for c in range(logits.shape[1]):
        truth = [int(segment[i] == c) for i in kept]
        if not any(truth):
            continue
        error = [abs(t - float(probability[i, c])) for t, i in zip(truth, kept, strict=True)]
        order = sorted(range(len(kept)), key=lambda i: -error[i])
        wrong: set[int] = set()
        loss, before = 0.0, 0.0
        for i in order:
            wrong.add(i)
            after = jaccard_loss(wrong, truth)
            loss += error[i] * (after - before)
            before = after
        losses.append(loss)
    return sum(losses) / len(losses)


def test_lovasz_matches_the_textbook_loop(rng: torch.Generator) -> None:
    for n_points, n_classes in ((1, 3), (17, 4), (40, 6)):
        logits = torch.randn(n_points, n_classes, generator=rng)
        segment = torch.randint(-1, n_classes - 1, (n_points,), generator=rng)
        segment[0] = 1
        assert float(lovasz_softmax(logits, segment)) == pytest.approx(
            textbook_lovasz(logits, segment), abs=1e-5
        )


def sorted_lovasz(logits: Tensor, segment: Tensor) -> float:
    """A second way: by errors in rising order.

    With the points sorted by error, e_1 <= ... <= e_n, the extension is sum_i (e_i - e_(i-1)) times the
    Jaccard loss of the set {i, ..., n}: an integral over thresholds, without any gradient.
    """
    kept = (segment >= 0).nonzero()[:, 0].tolist()
    probability = torch.softmax(logits.double(), dim=1)
    present = sorted({int(segment[i]) for i in kept})
    losses = []
    for c in present:
        truth = [int(segment[i] == c) for i in kept]
        error = [abs(t - float(probability[i, c])) for t, i in zip(truth, kept, strict=True)]
        order = sorted(range(len(kept)), key=error.__getitem__)
        below, total = 0.0, 0.0
        for place, i in enumerate(order):
            total += (error[i] - below) * jaccard_loss(set(order[place:]), truth)
            below = error[i]
        losses.append(total)
    return sum(losses) / len(losses)


@pytest.mark.parametrize(
    ("n_points", "n_classes", "n_present"), [(30, 5, 5), (30, 8, 2), (12, 4, 1), (2, 3, 1)]
)
def test_lovasz_is_an_integral_over_thresholds(
    rng: torch.Generator, n_points: int, n_classes: int, n_present: int
) -> None:
    """With ignored points, and with classes that do not occur."""
    logits = 2.0 * torch.randn(n_points, n_classes, generator=rng)
    segment = torch.randint(-1, n_present, (n_points,), generator=rng)
    segment[0] = 0
    assert float(lovasz_softmax(logits, segment)) == pytest.approx(sorted_lovasz(logits, segment), abs=1e-5)


def test_ignored_points_and_scores_of_absent_classes_do_not_move_lovasz(rng: torch.Generator) -> None:
    logits = torch.randn(20, 4, generator=rng)
    segment = torch.randint(0, 4, (20,), generator=rng)
    more = torch.cat([logits, 50.0 * torch.randn(5, 4, generator=rng)])
    ignored = torch.cat([segment, torch.full((5,), -1)])
    torch.testing.assert_close(lovasz_softmax(more, ignored), lovasz_softmax(logits, segment))


def test_weighted_cross_entropy_is_that_of_torch(rng: torch.Generator) -> None:
    logits = torch.randn(40, 5, generator=rng)
    segment = torch.randint(-1, 5, (40,), generator=rng)
    # Weights such as one over the number of points of a class add up to less than one.
    for smoothing, scale in ((0.0, 1.0), (0.1, 1.0), (0.1, 1.0e-6)):
        weights = scale * torch.tensor([1.0, 0.0, 2.5, 0.3, 4.0])
        config = SegmentationLossConfig(lovasz=0.0, label_smoothing=smoothing)
        own = segmentation_losses(logits, segment, config, weights).total()
        expected = F.cross_entropy(
            logits, segment, weight=weights, ignore_index=-1, label_smoothing=smoothing
        )
        torch.testing.assert_close(own, expected)


def test_smoothed_cross_entropy_written_out(rng: torch.Generator) -> None:
    """(1 - s) of the target's own term and s / K of every class."""
    logits, segment = torch.randn(3, 4, generator=rng), torch.tensor([2, -1, 0])
    config = SegmentationLossConfig(lovasz=0.0, label_smoothing=0.2)
    log_p = torch.log_softmax(logits.double(), dim=1)
    expected = -sum(0.8 * float(log_p[i, segment[i]]) + 0.05 * float(log_p[i].sum()) for i in (0, 2))
    own = float(segmentation_losses(logits, segment, config).total())
    assert own == pytest.approx(expected / 2, rel=1e-5)


def test_class_weights_come_from_numbers_or_files(tmp_path: Path) -> None:
    np.save(tmp_path / "weights.npy", np.array([1.0, 2.0]))
    (tmp_path / "weights.txt").write_text("1\n2\n")
    for given in ((1.0, 2.0), tmp_path / "weights.npy", tmp_path / "weights.txt"):
        read = read_class_weights(SegmentationLossConfig(class_weights=given))
        assert read is not None and read.tolist() == [1.0, 2.0]
    assert read_class_weights(BOTH) is None
    (tmp_path / "bad.txt").write_text("1\n-2\n")
    for bad in ("bad.txt", "missing.txt"):
        with pytest.raises(PresetError, match="class weights"):
            read_class_weights(SegmentationLossConfig(class_weights=tmp_path / bad))
    with pytest.raises(ValueError, match="2 class weights given"):
        segmentation_losses(torch.zeros(1, 3), torch.zeros(1, dtype=torch.long), BOTH, torch.ones(2))


def test_lovasz_of_hard_predictions_is_one_minus_the_mean_overlap() -> None:
    """At the corners of the cube the extension equals the set function."""
    segment = torch.tensor([0, 0, 0, 1, 1, 2])
    predicted = torch.tensor([0, 0, 1, 1, 1, 0])
    logits = F.one_hot(predicted, 3) * 100.0
    expected = 1.0 - (2 / 4 + 2 / 3 + 0) / 3
    assert float(lovasz_softmax(logits, segment)) == pytest.approx(expected, abs=1e-6)


def test_lovasz_gradient_sums_to_the_loss_of_everything_wrong(rng: torch.Generator) -> None:
    truth = (torch.rand(3, 20, generator=rng) < 0.4).float()
    truth[:, 0] = 1.0
    torch.testing.assert_close(lovasz_gradient(truth).sum(dim=1), torch.ones(3))


def test_lovasz_backward_matches_differences(rng: torch.Generator) -> None:
    logits = torch.randn(6, 3, generator=rng, dtype=torch.float64)
    segment = torch.tensor([0, 1, 2, -1, 1, 0])
    logits.requires_grad_(True)
    (own,) = torch.autograd.grad(lovasz_softmax(logits, segment), logits)
    step = 1e-3
    for i, c in ((0, 0), (1, 2), (4, 1)):
        moved = logits.detach().clone()
        moved[i, c] += step
        up = textbook_lovasz(moved, segment)
        moved[i, c] -= 2 * step
        assert float(own[i, c]) == pytest.approx(
            (up - textbook_lovasz(moved, segment)) / (2 * step), abs=1e-4
        )


def test_cross_entropy_is_the_mean_over_labelled_points(rng: torch.Generator) -> None:
    logits = torch.randn(12, 5, generator=rng)
    segment = torch.randint(-1, 5, (12,), generator=rng)
    kept = segment >= 0
    losses = segmentation_losses(logits, segment, BOTH)
    expected = -torch.log_softmax(logits, 1)[kept].gather(1, segment[kept, None]).mean()
    torch.testing.assert_close(losses.cross_entropy, expected)


@pytest.mark.parametrize("term", [field.name for field in fields(SegmentationLosses)])
def test_every_term_reaches_the_total(term: str) -> None:
    values = {field.name: torch.tensor(0.0) for field in fields(SegmentationLosses)}
    values[term] = torch.tensor(3.0)
    assert float(SegmentationLosses(**values).total()) == 3.0


def test_batch_without_labels_costs_nothing_and_moves_nothing() -> None:
    logits = torch.randn(7, 4, requires_grad=True)
    total = segmentation_losses(logits, torch.full((7,), -1), BOTH).total()
    total.backward()
    assert float(total.detach()) == 0.0
    assert logits.grad is not None and (logits.grad == 0).all()


def test_empty_batch_costs_nothing() -> None:
    logits = torch.randn(0, 4, requires_grad=True)
    segmentation_losses(logits, torch.zeros(0, dtype=torch.long), BOTH).total().backward()
    assert logits.grad is not None


def test_weights_of_the_terms_are_applied(rng: torch.Generator) -> None:
    logits, segment = torch.randn(9, 3, generator=rng), torch.randint(0, 3, (9,), generator=rng)
    one = segmentation_losses(logits, segment, BOTH)
    other = segmentation_losses(logits, segment, SegmentationLossConfig(cross_entropy=2.0, lovasz=0.0))
    torch.testing.assert_close(other.total(), 2.0 * one.cross_entropy)


def test_label_beyond_the_classes_is_refused() -> None:
    with pytest.raises(ValueError, match="label 4 found, but the head has 4 classes"):
        segmentation_losses(torch.zeros(2, 4), torch.tensor([0, 4]), BOTH)


def test_head_is_linear_in_the_features(rng: torch.Generator) -> None:
    head = build_head(LinearHeadConfig(n_classes=4), 6)
    feature = torch.randn(5, 6, generator=rng)
    torch.testing.assert_close(head(feature), feature @ head.linear.weight.T + head.linear.bias)


def test_normalising_head_ignores_the_scale_of_features(rng: torch.Generator) -> None:
    head = build_head(LinearHeadConfig(n_classes=4, normalise=True), 6)
    feature = torch.randn(50, 6, generator=rng)
    torch.testing.assert_close(head(feature), head(1000.0 * feature + 5.0), atol=1e-3, rtol=1e-3)
