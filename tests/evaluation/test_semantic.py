"""Segmentation metrics against scikit-learn and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from ponderv2.evaluation.semantic import confusion_matrix, segmentation_metrics

sklearn_metrics = pytest.importorskip("sklearn.metrics")


@pytest.fixture
def classes(rng: torch.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Predictions that are right half of the time; some truths are ignored."""
    truth = torch.randint(-1, 6, (500,), generator=rng)
    guess = torch.randint(0, 6, (500,), generator=rng)
    right = torch.rand(500, generator=rng) < 0.5
    return torch.where(right & (truth >= 0), truth, guess), truth


def test_confusion_matches_scikit_learn(classes) -> None:
    predicted, truth = classes
    kept = truth >= 0
    expected = sklearn_metrics.confusion_matrix(truth[kept], predicted[kept], labels=range(6))
    assert torch.equal(confusion_matrix(predicted, truth, 6), torch.from_numpy(expected))


def test_means_match_scikit_learn(classes) -> None:
    predicted, truth = classes
    kept = truth >= 0
    metrics = segmentation_metrics(confusion_matrix(predicted, truth, 6))
    jaccard = sklearn_metrics.jaccard_score(truth[kept], predicted[kept], average=None)
    torch.testing.assert_close(metrics.iou, torch.from_numpy(jaccard))
    assert metrics.mean_iou == pytest.approx(jaccard.mean())
    assert metrics.mean_accuracy == pytest.approx(
        sklearn_metrics.balanced_accuracy_score(truth[kept], predicted[kept])
    )
    assert metrics.overall_accuracy == pytest.approx(
        sklearn_metrics.accuracy_score(truth[kept], predicted[kept])
    )


def test_scenes_are_pooled_not_averaged(classes) -> None:
    predicted, truth = classes
    parts = sum(confusion_matrix(p, t, 6) for p, t in zip(predicted.split(70), truth.split(70), strict=True))
    assert torch.equal(torch.as_tensor(parts), confusion_matrix(predicted, truth, 6))


def test_absent_class_lowers_the_published_mean_and_is_left_out_of_the_other() -> None:
    confusion = torch.tensor([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    published = segmentation_metrics(confusion)
    skipping = segmentation_metrics(confusion, skip_absent=True)
    assert published.mean_iou == pytest.approx((3 / 4 + 4 / 5 + 0) / 3)
    assert skipping.mean_iou == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert published.mean_accuracy == pytest.approx((3 / 4 + 1) / 3)
    assert skipping.mean_accuracy == pytest.approx((3 / 4 + 1) / 2)
    assert skipping.present == (True, True, False) and math.isnan(float(skipping.iou[2]))
    assert published.overall_accuracy == skipping.overall_accuracy == pytest.approx(7 / 8)


def test_nothing_counted_gives_zero_or_nan() -> None:
    nothing = confusion_matrix(torch.tensor([1, 2]), torch.tensor([-1, -1]), 3)
    assert segmentation_metrics(nothing).mean_iou == 0.0
    assert math.isnan(segmentation_metrics(nothing, skip_absent=True).mean_iou)


@pytest.mark.parametrize(("predicted", "truth"), [([3], [0]), ([-1], [0]), ([0], [3])])
def test_class_out_of_range_is_refused(predicted: list[int], truth: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected 0\.\.2"):
        confusion_matrix(torch.tensor(predicted), torch.tensor(truth), 3)
