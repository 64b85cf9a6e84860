"""Image metrics against scikit-image, torchmetrics and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from ponderv2.evaluation.images import depth_errors, normal_error, normals_from_depth, psnr, ssim


@pytest.fixture
def pictures(rng):
    truth = torch.rand(40, 50, 3, generator=rng)
    return (truth + 0.1 * torch.randn(40, 50, 3, generator=rng)).clamp(0, 1), truth


def test_psnr_matches_scikit_image(pictures):
    from skimage.metrics import peak_signal_noise_ratio

    expected = peak_signal_noise_ratio(pictures[1].numpy(), pictures[0].numpy(), data_range=1.0)
    assert psnr(*pictures) == pytest.approx(expected, abs=1e-4)


def test_psnr_of_a_constant_error():
    grey = torch.full((4, 4, 3), 0.5)
    assert psnr(grey + 0.1, grey) == pytest.approx(20.0, abs=1e-4)
    assert math.isinf(psnr(grey, grey))


def test_psnr_counts_only_valid_pixels():
    grey = torch.full((4, 4, 3), 0.5)
    wrong = grey.clone()
    wrong[0] += 0.1
    wrong[1:] = 1.0
    valid = torch.zeros(4, 4, dtype=torch.bool)
    valid[0] = True
    assert psnr(wrong, grey, valid) == pytest.approx(20.0, abs=1e-4)
    assert math.isnan(psnr(wrong, grey, torch.zeros(4, 4, dtype=torch.bool)))


def test_ssim_matches_scikit_image(pictures):
    from skimage.metrics import structural_similarity

    expected = structural_similarity(
        pictures[0].double().numpy(),
        pictures[1].double().numpy(),
        channel_axis=-1,
        data_range=1.0,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
    )
    assert ssim(*pictures) == pytest.approx(expected, abs=1e-6)


def test_ssim_matches_torchmetrics(pictures):
    from torchmetrics.functional.image import structural_similarity_index_measure

    first, second = (picture.double().movedim(-1, 0)[None] for picture in pictures)
    expected = structural_similarity_index_measure(first, second, data_range=1.0)
    assert ssim(*pictures) == pytest.approx(float(expected), abs=2e-3)


def test_ssim_of_a_picture_smaller_than_its_window_is_nan():
    assert math.isnan(ssim(torch.zeros(5, 40, 3), torch.zeros(5, 40, 3)))


def test_depth_errors_ignore_pixels_without_measurement():
    truth = torch.tensor([[1.0, 2.0, 0.0, 4.0]])
    found = depth_errors(
        torch.tensor([[1.1, 1.7, 9.0, 4.0]]), truth, torch.tensor([[True, True, True, False]])
    )
    assert found.mean_absolute == pytest.approx(0.2)
    assert found.root_mean_square == pytest.approx(math.sqrt((0.01 + 0.09) / 2))
    assert found.n_pixels == 2
    assert math.isnan(depth_errors(truth, torch.zeros_like(truth)).mean_absolute)


def test_normal_error_is_the_angle_between_directions():
    up, tilted = torch.zeros(2, 2, 3), torch.zeros(2, 2, 3)
    up[..., 2] = 1.0
    tilted[..., 0], tilted[..., 2] = math.sin(0.3), math.cos(0.3)
    tilted[0, 0] = 0.0  # unknown
    assert normal_error(tilted * 5, up) == pytest.approx(math.degrees(0.3), abs=1e-4)


def test_normals_from_depth_of_a_tilted_plane():
    intrinsics = torch.tensor([[50.0, 0, 15.5], [0, 50.0, 11.5], [0, 0, 1]])
    normal = torch.tensor([0.3, -0.2, -1.0]) / np.linalg.norm([0.3, -0.2, -1.0])
    y, x = torch.meshgrid(torch.arange(24.0), torch.arange(32.0), indexing="ij")
    reach = torch.stack([x, y, torch.ones_like(x)], dim=-1) @ torch.linalg.inv(intrinsics).T
    depth = (-2.0) / (reach @ normal)
    found = normals_from_depth(depth, intrinsics)
    assert torch.allclose(found[1:-1, 1:-1], normal.expand(22, 30, 3), atol=1e-3)
    assert (found[0] == 0).all()
