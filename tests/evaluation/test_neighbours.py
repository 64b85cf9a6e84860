"""Nearest neighbours against scikit-learn and against slow loops."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from ponderv2.evaluation.neighbours import (
    LabelledFeatures,
    knn_classes,
    nearest_neighbours,
    neighbour_purity,
)


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(5)


def points(generator: torch.Generator, n: int, n_classes: int = 4, channels: int = 6) -> LabelledFeatures:
    """Features that tell a little of the class; three scenes of 4 m."""
    label = torch.randint(0, n_classes, (n,), generator=generator)
    centre = torch.randn(n_classes, channels, generator=generator)
    feature = centre[label] + 1.5 * torch.randn(n, channels, generator=generator)
    coord = 4.0 * torch.rand(n, 3, generator=generator)
    scene = torch.randint(0, 3, (n,), generator=generator)
    return LabelledFeatures(feature, label, coord, scene, torch.ones(n))


@pytest.mark.parametrize("k", [1, 7, 20])
@pytest.mark.parametrize("temperature", [0.07, 1.0])
def test_the_weighted_vote_is_that_of_scikit_learn(
    generator: torch.Generator, k: int, temperature: float
) -> None:
    everything = points(generator, 500)
    bank = LabelledFeatures(*(one[:300] for one in vars(everything).values()))
    query = everything.feature[300:]

    def weights(distance: np.ndarray) -> np.ndarray:
        return np.exp((1.0 - distance) / temperature)

    model = KNeighborsClassifier(k, weights=weights, metric="cosine", algorithm="brute")
    expected = model.fit(bank.feature.double().numpy(), bank.label.numpy()).predict(query.double().numpy())
    found = knn_classes(query, bank, 4, k, temperature)
    assert np.array_equal(found.numpy(), expected)


def test_parts_of_the_queries_give_what_all_of_them_give(generator: torch.Generator) -> None:
    bank, query = torch.randn(50, 8, generator=generator), torch.randn(31, 8, generator=generator)
    whole, parts = nearest_neighbours(query, bank, 5), nearest_neighbours(query, bank, 5, pairs_at_once=170)
    assert torch.equal(whole.index, parts.index)
    torch.testing.assert_close(whole.similarity, parts.similarity)
    assert nearest_neighbours(query[:0], bank, 5).index.shape == (0, 5)


def test_the_length_of_a_feature_is_ignored(generator: torch.Generator) -> None:
    bank, query = torch.randn(50, 8, generator=generator), torch.randn(9, 8, generator=generator)
    scale = 10.0 ** torch.randint(-3, 4, (50, 1), generator=generator)
    assert torch.equal(
        nearest_neighbours(query, bank, 5).index, nearest_neighbours(query, bank * scale, 5).index
    )


def test_a_bank_that_is_smaller_than_k_votes_with_all_of_it(generator: torch.Generator) -> None:
    bank = points(generator, 3)
    found = nearest_neighbours(bank.feature, bank.feature, 20)
    assert found.index.shape == (3, 3) and torch.equal(found.index[:, 0], torch.arange(3))
    assert torch.equal(knn_classes(bank.feature, bank, 4, 20, 0.01), bank.label)
    with pytest.raises(ValueError, match="at least one row"):
        nearest_neighbours(bank.feature, bank.feature[:0], 1)


def test_a_small_temperature_does_not_overflow(generator: torch.Generator) -> None:
    bank = points(generator, 40)
    assert torch.equal(knn_classes(bank.feature, bank, 4, 20, 1e-6), bank.label)


def shares(all_points: LabelledFeatures, k: int, distance: float) -> Iterator[tuple[int, float]]:
    """Class and share of every point that counts, by a loop over points."""
    unit = all_points.feature / all_points.feature.norm(dim=1, keepdim=True)
    for i in range(len(all_points)):
        allowed = [
            j
            for j in range(len(all_points))
            if j != i
            and (
                all_points.scene[j] != all_points.scene[i]
                or float((all_points.coord[j] - all_points.coord[i]).norm()) >= distance
            )
        ]
        if sum(bool(all_points.label[j] == all_points.label[i]) for j in allowed) < k:
            continue
        nearest = sorted(allowed, key=lambda j: -float(unit[i] @ unit[j]))[:k]
        yield (
            int(all_points.label[i]),
            sum(bool(all_points.label[j] == all_points.label[i]) for j in nearest) / k,
        )


@pytest.mark.parametrize("distance", [0.0, 0.5, 3.0, float("inf")])
def test_purity_is_that_of_a_loop_over_points(generator: torch.Generator, distance: float) -> None:
    some = points(generator, 90)
    found = neighbour_purity(some, 5, 4, distance, pairs_at_once=1000)
    expected = list(shares(some, 4, distance))
    for number in range(5):
        own = [share for label, share in expected if label == number]
        assert int(found.n_counted[number]) == len(own)
        if own:
            assert float(found.of_class[number]) == pytest.approx(sum(own) / len(own))
    assert found.of_class[4].isnan()
    assert found.over_points == pytest.approx(sum(share for _, share in expected) / len(expected))
    assert found.mean == pytest.approx(float(found.of_class[:4].mean()))


def test_features_of_the_class_alone_are_pure_and_random_ones_at_chance(generator: torch.Generator) -> None:
    some = points(generator, 1500)
    one_hot = torch.eye(4)[some.label]
    perfect = replace(some, feature=one_hot)
    assert neighbour_purity(perfect, 4, 10, 1.0).mean == 1.0
    noise = torch.randn(1500, 16, generator=generator)
    random = neighbour_purity(replace(some, feature=noise), 4, 10, 1.0)
    assert random.mean == pytest.approx(random.mean_chance, abs=0.02)
    assert random.mean_chance == pytest.approx(0.25, abs=0.02)


def test_a_point_does_not_find_itself_nor_what_lies_beside_it(generator: torch.Generator) -> None:
    """Two points at one place have one feature; only the far ones may answer."""
    feature = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    coord = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [2.0, 0, 0], [2.1, 0, 0]])
    some = LabelledFeatures(
        feature, torch.tensor([0, 0, 1, 0]), coord, torch.zeros(4, dtype=torch.long), torch.ones(4)
    )
    found = neighbour_purity(some, 2, 1, 1.0)
    # The first two find the third point, of another class; the fourth finds one of the first two.
    assert found.n_counted.tolist() == [3, 0] and float(found.of_class[0]) == pytest.approx(1 / 3)


def test_no_allowed_neighbour_counts_nothing(generator: torch.Generator) -> None:
    some = points(generator, 30)
    alone = replace(some, scene=torch.zeros_like(some.scene))
    found = neighbour_purity(alone, 4, 5, float("inf"))
    assert found.n_counted.sum() == 0 and np.isnan(found.mean) and np.isnan(found.over_points)
