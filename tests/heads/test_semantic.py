"""The segmentation head and its loss."""

from __future__ import annotations

from dataclasses import fields

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.heads.build import build_head
from ponderv2.heads.config import LinearHeadConfig, SegmentationLossConfig
from ponderv2.heads.lovasz import lovasz_gradient, lovasz_softmax
from ponderv2.heads.semantic import SegmentationLosses, segmentation_losses

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
