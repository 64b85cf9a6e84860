"""Colours of features: axes as scikit-learn finds them, the same for every cloud, signs that do not flip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from ponderv2.evaluation.feature_colors import UNKNOWN, aligned, fit_axes


@pytest.fixture
def feature(rng: torch.Generator) -> torch.Tensor:
    """500 rows of 8 channels, most variance in few directions, far from zero."""
    scale = torch.tensor([5.0, 3.0, 2.0, 0.5, 0.2, 0.1, 0.1, 0.1])
    mix = torch.linalg.qr(torch.randn(8, 8, generator=rng))[0]
    return (torch.randn(500, 8, generator=rng) * scale) @ mix + 40.0


def test_components_are_those_of_scikit_learn_up_to_the_sign(feature):
    ours = fit_axes([feature[:200], feature[200:]])
    theirs = PCA(3).fit(feature.double().numpy())
    np.testing.assert_allclose(ours.axes.abs().numpy(), np.abs(theirs.components_.T), atol=1e-6)
    expected = np.abs(theirs.transform(feature.double().numpy()))
    np.testing.assert_allclose(ours.components(feature).abs().numpy(), expected, atol=1e-5)


def test_the_largest_weight_of_every_axis_is_positive_whatever_the_order_of_the_rows(feature):
    first, second = fit_axes([feature]), fit_axes([feature.flip(0)])
    largest = first.axes.gather(0, first.axes.abs().argmax(dim=0, keepdim=True))
    assert (largest > 0).all()
    torch.testing.assert_close(first.axes, second.axes, atol=1e-9, rtol=0)


def test_a_few_wild_rows_do_not_darken_the_others(feature):
    plain, wild = fit_axes([feature]), feature.clone()
    wild[:3] += 30.0 * (feature[:3] - feature.mean(dim=0))
    color = fit_axes([wild]).colors(feature).astype(float)
    assert np.abs(color - plain.colors(feature)).mean() < 40
    assert color.std(axis=0).min() > 40


def test_equal_features_of_two_clouds_have_equal_colours(feature):
    axes = fit_axes([feature, feature[:50] + 1.0])
    assert np.array_equal(axes.colors(feature)[:10], axes.colors(feature[:10]))


def test_missing_rows_are_grey_and_ignored_and_flat_axes_half_bright(feature):
    holes = feature.clone()
    holes[5] = torch.nan
    axes = fit_axes([holes])
    torch.testing.assert_close(axes.mean, feature[torch.arange(500) != 5].double().mean(dim=0))
    assert axes.colors(holes)[5].tolist() == [UNKNOWN] * 3
    assert axes.colors(feature)[:, 0].astype(int).min() == 0 and 120 < np.median(axes.colors(feature)) < 136
    line = torch.arange(5.0)[:, None] * torch.tensor([[1.0, 2.0]])
    color = fit_axes([line]).colors(line)
    assert color[0, 0] == 0 and color[4, 0] == 255 and (color[:, 1:] == 128).all()
    with pytest.raises(ValueError, match="no finite row"):
        fit_axes([torch.full((3, 4), torch.nan)])


def test_axes_of_another_encoder_take_the_order_and_the_signs_that_agree(feature):
    reference = fit_axes([feature]).components(feature)
    other = torch.stack([-3.0 * reference[:, 2], 2.0 * reference[:, 0], reference[:, 1]], dim=1).float()
    axes = fit_axes([other])
    chosen = aligned(axes, other, reference)
    found = chosen.components(other)
    for column in range(3):
        assert np.corrcoef(found[:, column].numpy(), reference[:, column].numpy())[0, 1] > 0.99
    assert (chosen.low < chosen.high).all()
