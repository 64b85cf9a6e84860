"""The mostly empty way through the projection against the dense one, and layers that keep little."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift import sparse_input_conv as cell_unit
from ponderv2.lift.config import ConvBlock3DConfig, DoubleConvUNet3DConfig, UNet3DConfig
from ponderv2.lift.kinds import build_projection
from ponderv2.lift.sparse_input_conv import dilation
from ponderv2.lift.volume_layers import max_pool2, normed_convolution
from ponderv2.sparse.normalisation import BatchNorm, batch_norm_rows, relu_

CONFIGS = [
    UNet3DConfig(f_maps=4, n_levels=3, out_channels=5),
    DoubleConvUNet3DConfig(f_maps=4, n_levels=3, out_channels=5),
    ConvBlock3DConfig(out_channels=5),
]
Result = list[Tensor]


def cells(rng: torch.Generator, size: tuple[int, int, int], share: float = 0.1) -> SparseVolume:
    number = (torch.rand(2, *size, generator=rng) < share).flatten().nonzero()[:, 0]
    rows = torch.randn(len(number), 6, dtype=torch.float64, generator=rng).requires_grad_()
    return SparseVolume(rows, number, (2, *size), torch.zeros(2, 3), torch.ones(2, 3))


def outcome(model: torch.nn.Module, volume: Tensor | SparseVolume, rows: Tensor) -> Result:
    """Values, gradients of input and parameters, running statistics."""
    found = model(volume)
    weights = torch.sin(torch.arange(found.numel(), dtype=found.dtype)).view(found.shape)
    parameters = list(model.parameters())
    gradients = torch.autograd.grad((found * weights).sum(), [rows, *parameters], allow_unused=True)
    return [found, *(g for g in gradients if g is not None), *(b.double() for b in model.buffers())]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
@pytest.mark.parametrize("size", [(8, 9, 7), (2, 5, 1), (3, 3, 3), (4, 1, 6)])
@pytest.mark.parametrize("training", [True, False])
def test_occupied_cells_alone_give_what_the_dense_volume_gives(
    rng: torch.Generator,
    config: UNet3DConfig | DoubleConvUNet3DConfig | ConvBlock3DConfig,
    size: tuple[int, int, int],
    training: bool,
) -> None:
    model = build_projection(config, 6).double().train(training)
    for norm in model.modules():
        if isinstance(norm, BatchNorm):
            torch.nn.init.normal_(norm.weight, generator=rng)
            torch.nn.init.normal_(norm.bias, generator=rng)
            torch.nn.init.normal_(norm.running_mean, generator=rng)
    volume = cells(rng, size)
    assert len(volume.rows) and cell_unit.is_mostly_empty(volume)
    sparse = outcome(copy.deepcopy(model), volume, volume.rows)
    dense = outcome(copy.deepcopy(model), volume.dense(), volume.rows)
    for one, other in zip(sparse, dense, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


def test_a_dilation_reaches_the_cells_that_a_dense_convolution_reaches(rng: torch.Generator) -> None:
    volume = cells(rng, (6, 1, 4))
    reach = dilation(volume.number, volume.shape)
    mask = torch.zeros(2, 1, 6, 1, 4).flatten().index_fill(0, volume.number, 1.0).view(2, 1, 6, 1, 4)
    seen = F.conv3d(mask, torch.ones(1, 1, 3, 3, 3), padding=1).flatten()
    assert torch.equal(reach.number, seen.nonzero()[:, 0])
    kernel_map = reach.kernel_map
    assert torch.equal((kernel_map.table < kernel_map.n_in).sum(1).float(), seen[reach.number])
    pairs = {
        (int(i), entry, q)
        for q, row in enumerate(kernel_map.table)
        for entry, i in enumerate(row)
        if i < kernel_map.n_in
    }
    mirrored = {
        (i, entry, int(q))
        for i, row in enumerate(kernel_map.mirrored)
        for entry, q in enumerate(row)
        if q < kernel_map.n_out
    }
    assert pairs == mirrored


@pytest.mark.parametrize("affine", [True, False])
def test_rows_are_normalised_as_the_library_does(rng: torch.Generator, affine: bool) -> None:
    rows = (torch.randn(70_000, 3, dtype=torch.float64, generator=rng) + 5.0).requires_grad_()
    weight = torch.randn(3, dtype=torch.float64, generator=rng).requires_grad_() if affine else None
    bias = torch.randn(3, dtype=torch.float64, generator=rng).requires_grad_() if affine else None
    cotangent = torch.randn(70_000, 3, dtype=torch.float64, generator=rng)
    mine, mean, variance = batch_norm_rows(rows, weight, bias, 1e-3)
    theirs = F.batch_norm(rows, None, None, weight, bias, True, 0.0, 1e-3)
    torch.testing.assert_close(mine, theirs)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, unbiased=False))
    inputs = [rows] if weight is None or bias is None else [rows, weight, bias]
    found = torch.autograd.grad(mine, inputs, cotangent)
    expected = torch.autograd.grad(theirs, inputs, cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)


def test_statistics_of_rows_stay_exact_where_the_mean_is_large(rng: torch.Generator) -> None:
    rows = torch.randn(200_000, 4, generator=rng) + 100.0
    _, mean, variance = batch_norm_rows(rows, None, None, 1e-5)
    torch.testing.assert_close(mean, rows.double().mean(0).float(), rtol=1e-6, atol=0)
    torch.testing.assert_close(variance, rows.double().var(0, unbiased=False).float(), rtol=1e-5, atol=0)


@pytest.mark.parametrize("channels_last", [True, False])
def test_layers_that_keep_little_equal_the_plain_ones(rng: torch.Generator, channels_last: bool) -> None:
    layout = torch.channels_last_3d if channels_last else torch.contiguous_format
    x = torch.randn(2, 4, 5, 6, 7, dtype=torch.float64, generator=rng).to(memory_format=layout)
    x = x.requires_grad_()
    weight = torch.randn(3, 4, 3, 3, 3, dtype=torch.float64, generator=rng).requires_grad_()
    norm, plain = BatchNorm(4).double(), torch.nn.BatchNorm3d(4).double()
    mine = max_pool2(relu_(normed_convolution(x, norm, weight)))
    dense = F.conv3d(plain(x.contiguous()), weight, padding=1)
    theirs = F.max_pool3d(torch.relu(dense), 2, ceil_mode=True)
    torch.testing.assert_close(mine, theirs)
    cotangent = torch.randn(mine.shape, dtype=torch.float64, generator=rng)
    found = torch.autograd.grad(mine, (x, weight, *norm.parameters()), cotangent)
    expected = torch.autograd.grad(theirs, (x, weight, *plain.parameters()), cotangent)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(norm.running_mean, plain.running_mean)
    torch.testing.assert_close(norm.running_var, plain.running_var)
