"""Linear probes against scikit-learn, on features of very different scales; samples of rows by counting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.evaluation.probes import (
    LabelledRows,
    chosen_fit,
    fit_linear,
    sample_rows,
    standardisation,
)

sklearn = pytest.importorskip("sklearn")


def _rows(n: int = 400, n_classes: int = 5, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Overlapping classes of unequal sizes; one channel is constant, their scales span seven decades."""
    generator = torch.Generator().manual_seed(3)
    share = torch.tensor([0.5, 0.25, 0.15, 0.07, 0.03])[:n_classes]
    label = torch.multinomial(share, n, replacement=True, generator=generator)
    centre = torch.randn(n_classes, 8, generator=generator, dtype=torch.float64)
    feature = centre[label] + 1.5 * torch.randn(n, 8, generator=generator, dtype=torch.float64)
    feature = (feature + 2.0) * torch.logspace(-3, 4, 8, dtype=torch.float64)
    feature[:, 3] = 7.0
    return feature.to(dtype), label


def _scikit_learn(feature: Tensor, label: Tensor, c: float, class_weight: str | None, weight: Tensor | None):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    scaler = StandardScaler().fit(feature.numpy())
    model = LogisticRegression(C=c, class_weight=class_weight, tol=1e-9, max_iter=10000)
    model.fit(
        scaler.transform(feature.numpy()),
        label.numpy(),
        sample_weight=None if weight is None else weight.numpy(),
    )
    coefficient = model.coef_ / scaler.scale_
    return coefficient, model.intercept_ - coefficient @ scaler.mean_


@pytest.mark.parametrize(("class_weight", "weighted"), [(None, False), ("balanced", False), (None, True)])
@pytest.mark.parametrize("c", [0.01, 1.0, 30.0])
def test_equals_the_logistic_regression_of_scikit_learn(c: float, class_weight, weighted: bool) -> None:
    feature, label = _rows()
    weight = torch.rand(len(label), generator=torch.Generator().manual_seed(1)).double() if weighted else None
    fitted = fit_linear(feature, label, 5, 1.0 / c, class_weight, sample_weight=weight, tolerance=1e-8)
    coefficient, intercept = _scikit_learn(feature, label, c, class_weight, weight)
    assert fitted.minimum.converged
    scale = feature.std(0).numpy()
    np.testing.assert_allclose(fitted.weight.numpy() * scale, coefficient * scale, atol=2e-5)
    np.testing.assert_allclose(fitted.bias.numpy(), intercept, atol=1e-4)
    scores = feature.numpy() @ coefficient.T + intercept
    np.testing.assert_allclose(fitted.scores(feature).numpy(), scores, atol=1e-4)


def test_weights_by_the_root_lie_between_balanced_and_none() -> None:
    """As scikit-learn with the roots of its balanced weights, which are n / (classes * rows of the class)."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    feature, label = _rows()
    counts = torch.bincount(label, minlength=5)
    roots = {c: float((len(label) / (5 * counts[c])) ** 0.5) for c in range(5)}
    scaler = StandardScaler().fit(feature.numpy())
    model = LogisticRegression(C=0.5, class_weight=roots, tol=1e-9, max_iter=10000)
    model.fit(scaler.transform(feature.numpy()), label.numpy())
    fitted = fit_linear(feature, label, 5, 2.0, "sqrt", tolerance=1e-8)
    ours = fitted.scores(feature).softmax(1).numpy()
    np.testing.assert_allclose(ours, model.predict_proba(scaler.transform(feature.numpy())), atol=1e-5)


def test_in_single_precision_the_scores_stay_close() -> None:
    feature, label = _rows(dtype=torch.float32)
    fitted = fit_linear(feature, label, 5, 1.0)
    coefficient, intercept = _scikit_learn(feature.double(), label, 1.0, None, None)
    assert fitted.minimum.converged and fitted.weight.dtype == torch.float32
    scores = feature.double().numpy() @ coefficient.T + intercept
    np.testing.assert_allclose(fitted.scores(feature).numpy(), scores, atol=2e-2)


def test_separable_classes_converge_because_of_the_penalty() -> None:
    feature = torch.tensor([[0.0], [1.0], [10.0], [11.0], [20.0], [21.0]], dtype=torch.float64)
    label = torch.tensor([0, 0, 1, 1, 2, 2])
    fitted = fit_linear(feature, label, 3, 1e-3)
    assert fitted.minimum.converged and fitted.scores(feature).argmax(1).tolist() == label.tolist()


def test_rows_without_label_and_of_no_weight_do_not_count() -> None:
    feature, label = _rows()
    more = torch.cat([feature, 100 * feature[:50], -feature[:50]])
    labels = torch.cat([label, torch.full((50,), -1), label[:50]])
    weight = torch.cat([torch.ones(450), torch.zeros(50)]).double()
    one, other = fit_linear(feature, label, 5), fit_linear(more, labels, 5, sample_weight=weight)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


def test_a_class_without_points_is_never_the_answer() -> None:
    feature, label = _rows()
    kept = label != 2
    fitted = fit_linear(feature[kept], label[kept], 6)
    far = feature * 50.0
    assert not set(fitted.scores(torch.cat([feature, far, -far])).argmax(1).tolist()) & {2, 5}
    assert torch.all(fitted.weight[[2, 5]] == 0)


def test_too_few_iterations_are_reported() -> None:
    feature, label = _rows()
    assert not fit_linear(feature, label, 5, 1e-4, max_iterations=2).minimum.converged


def test_the_same_rows_give_the_same_bytes() -> None:
    feature, label = _rows(dtype=torch.float32)
    one, other = fit_linear(feature, label, 5), fit_linear(feature, label, 5)
    assert torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"penalty": 0.0}, "penalty"), ({"n_classes": 4}, "label 4"), ({"label": -1}, "no labelled row")],
)
def test_what_cannot_be_fitted_is_refused(change: dict[str, float], message: str) -> None:
    feature, label = _rows()
    label = torch.full_like(label, -1) if "label" in change else label
    with pytest.raises(ValueError, match=message):
        fit_linear(feature, label, int(change.get("n_classes", 5)), change.get("penalty", 1.0))


def test_standardisation_is_that_of_scikit_learn() -> None:
    from sklearn.preprocessing import StandardScaler

    feature, _ = _rows()
    mean, deviation = standardisation(feature)
    truth = StandardScaler().fit(feature.numpy())
    np.testing.assert_allclose(mean.numpy(), truth.mean_, rtol=1e-12)
    np.testing.assert_allclose(deviation.numpy(), truth.scale_, rtol=1e-12)


def test_a_sample_is_even_over_the_classes_and_stands_for_all() -> None:
    label = torch.cat([torch.full((n,), c) for c, n in ((0, 1000), (3, 200), (4, 6), (-1, 500))])
    label = label[torch.randperm(len(label), generator=torch.Generator().manual_seed(0))]
    index, weight = sample_rows(label, 100, torch.Generator().manual_seed(1))
    assert torch.equal(index, torch.unique(index)) and len(index) == 100
    counts = torch.bincount(label[index], minlength=5).tolist()
    assert counts == [47, 0, 0, 47, 6]
    total = torch.zeros(5).index_add_(0, label[index], weight)
    assert total.tolist() == pytest.approx([1000, 0, 0, 200, 6], rel=1e-5)
    again, _ = sample_rows(label, 100, torch.Generator().manual_seed(1))
    other, _ = sample_rows(label, 100, torch.Generator().manual_seed(2))
    assert torch.equal(index, again) and not torch.equal(index, other)


def test_a_sample_of_few_labels_is_all_of_them() -> None:
    label = torch.tensor([-1, 2, -1, 0, 2])
    index, weight = sample_rows(label, 50, torch.Generator())
    assert index.tolist() == [1, 3, 4] and weight.tolist() == [1.0, 1.0, 1.0]
    assert not len(sample_rows(torch.full((4,), -1), 50, torch.Generator())[0])


def test_the_penalty_is_chosen_on_scenes_that_were_held_out() -> None:
    """Many channels without meaning mislead a fit that trusts them: a strong penalty is better."""
    generator = torch.Generator().manual_seed(0)
    scene = torch.arange(8).repeat_interleave(30)
    label = torch.randint(0, 3, (240,), generator=generator)
    useful = torch.nn.functional.one_hot(label, 3) + 1.2 * torch.randn(240, 3, generator=generator)
    noise = torch.randn(240, 60, generator=generator)
    rows = LabelledRows(torch.cat([useful, noise], 1).double(), label, torch.ones(240), scene)
    chosen = chosen_fit(rows, 3)
    assert len(chosen.scores) == 6 and chosen.penalty >= 10.0
    best = max(chosen.scores.values())
    assert chosen.scores[chosen.balance, chosen.penalty] == best
    assert best > chosen.scores["sqrt", 0.1]


def test_one_scene_is_split_by_its_points() -> None:
    feature, label = _rows()
    rows = LabelledRows(feature, label, torch.ones(len(label)), torch.zeros(len(label), dtype=torch.long))
    assert len(chosen_fit(rows, 5).scores) == 6
