"""The streamed PCA against scikit-learn's on the same vectors, and against what whitening means."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from sklearn.decomposition import PCA

from ponderv2.errors import PresetError, SceneError
from ponderv2.image_features.pca import Pca, PcaFit


@pytest.fixture
def vectors(rng: torch.Generator) -> torch.Tensor:
    """Correlated, far from zero, with distinct variances."""
    scale = torch.diag(torch.linspace(3.0, 0.1, 12))
    mixing = torch.linalg.qr(torch.randn(12, 12, generator=rng)).Q
    return torch.randn(500, 12, generator=rng) @ scale @ mixing + 40.0


def fitted(vectors: torch.Tensor, n_components: int, cuts: int = 7) -> Pca:
    fit = PcaFit()
    for block in vectors.tensor_split(cuts):
        fit.add(block)
    return fit.result(n_components)


def test_components_equal_scikit_learns(vectors: torch.Tensor) -> None:
    expected = PCA(5, svd_solver="full").fit(vectors.double().numpy())

    found = fitted(vectors, 5)

    torch.testing.assert_close(found.mean, torch.from_numpy(expected.mean_))
    torch.testing.assert_close(found.components, torch.from_numpy(expected.components_), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(found.explained_variance, torch.from_numpy(expected.explained_variance_))
    assert found.explained_share == pytest.approx(expected.explained_variance_ratio_.sum())
    assert found.n_vectors == 500


@pytest.mark.parametrize("whiten", [1.0, 0.0])
def test_projection_equals_scikit_learns(vectors: torch.Tensor, whiten: float) -> None:
    expected = PCA(4, svd_solver="full", whiten=bool(whiten)).fit_transform(vectors.double().numpy())
    matrix, offset = fitted(vectors, 4).projection(whiten)
    found = vectors.double() @ matrix.T + offset
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=1e-6, atol=1e-7)
    if whiten:
        torch.testing.assert_close(torch.cov(found.T), torch.eye(4, dtype=torch.float64))


def test_half_whitened_components_keep_the_root_of_their_deviation(vectors: torch.Tensor) -> None:
    pca = fitted(vectors, 4)
    matrix, offset = pca.projection(0.5)
    found = torch.cov((vectors.double() @ matrix.T + offset).T)
    torch.testing.assert_close(found, torch.diag(pca.explained_variance.sqrt()), rtol=1e-6, atol=1e-8)


def test_the_cut_into_blocks_does_not_matter(vectors: torch.Tensor) -> None:
    one, many = fitted(vectors, 6, cuts=1), fitted(vectors, 6, cuts=100)
    torch.testing.assert_close(one.components, many.components)
    torch.testing.assert_close(one.explained_variance, many.explained_variance)


def test_vectors_that_are_not_finite_do_not_count(vectors: torch.Tensor) -> None:
    spoiled = torch.cat([vectors, torch.full((3, 12), torch.nan)])
    torch.testing.assert_close(fitted(spoiled, 3).components, fitted(vectors, 3).components)


def test_directions_without_variance_stay_zero_when_whitened() -> None:
    flat = torch.zeros(50, 3)
    flat[:, 0] = torch.linspace(-1.0, 1.0, 50)
    matrix, offset = fitted(flat, 2).projection(1.0)
    found = flat.double() @ matrix.T + offset
    assert bool(torch.isfinite(found).all())
    assert float(found[:, 1].abs().max()) < 1e-6


def test_more_components_than_channels_are_refused(vectors: torch.Tensor) -> None:
    with pytest.raises(PresetError, match="48 channels were asked for, but the network gives 12") as caught:
        fitted(vectors, 48)
    assert caught.value.fix == "--set data.image_features.n_channels=12"
    with pytest.raises(PresetError, match="no image"):
        PcaFit().result(2)


def test_it_comes_back_bit_for_bit_and_damage_is_named(vectors: torch.Tensor, tmp_path: Path) -> None:
    pca = fitted(vectors, 5)
    path = tmp_path / "pca.safetensors"
    pca.write(path)
    found = Pca.read(path)
    assert torch.equal(found.components, pca.components)
    assert torch.equal(found.mean, pca.mean)
    assert (found.total_variance, found.n_vectors) == (pca.total_variance, pca.n_vectors)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(SceneError, match=r"pca\.safetensors is damaged"):
        Pca.read(path)
