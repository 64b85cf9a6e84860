"""Features of the encoder along rays against sums written out sample by sample."""

from __future__ import annotations

import torch
from torch import Tensor

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.models.ray_features import composited_features

CELLS = (2, 4, 3, 5)  # scenes, z, y, x


def sparse_volume(n_channels: int, generator: torch.Generator) -> SparseVolume:
    """A third of the cells of two boxes."""
    n_cells = CELLS[0] * CELLS[1] * CELLS[2] * CELLS[3]
    number = torch.randperm(n_cells, generator=generator)[: n_cells // 3].sort().values
    rows = torch.randn(len(number), n_channels, generator=generator, dtype=torch.float64)
    lower = torch.tensor([[-0.5, -0.3, -0.4], [-0.4, -0.3, -0.5]], dtype=torch.float64)
    return SparseVolume(rows, number, CELLS, lower, -lower)


def some_rays(generator: torch.Generator) -> tuple[RayBundle, Tensor, Tensor]:
    """Twelve rays of six samples through the boxes, some of them beyond."""
    origins = torch.rand(12, 3, generator=generator, dtype=torch.float64) - 0.5
    directions = torch.nn.functional.normalize(
        torch.randn(12, 3, generator=generator, dtype=torch.float64), dim=1
    )
    starts = torch.rand(12, 6, generator=generator, dtype=torch.float64).sort(dim=1).values * 0.6
    weights = torch.rand(12, 6, generator=generator, dtype=torch.float64)
    scene = torch.arange(12) // 6
    return RayBundle(origins, directions, scene), starts, weights / weights.sum(1, keepdim=True)


def written_out(volume: SparseVolume, point: Tensor, scene: int) -> tuple[Tensor, float]:
    """Trilinear interpolation at one point: of the rows, and of their being there."""
    known = {int(n): row for n, row in zip(volume.number, volume.rows, strict=True)}
    lower, upper = volume.lower[scene], volume.upper[scene]
    size = torch.tensor([CELLS[3], CELLS[2], CELLS[1]])
    if bool(((point < lower) | (point > upper)).any()):
        return torch.zeros(volume.rows.shape[1], dtype=torch.float64), 0.0
    cell = ((point - lower) / (upper - lower) * size - 0.5).clamp(min=0)
    cell = torch.minimum(cell, size - 1.0)
    first = torch.minimum(cell.floor(), (size - 2).double())
    total, share = torch.zeros(volume.rows.shape[1], dtype=torch.float64), 0.0
    for corner in range(8):
        bits = torch.tensor([corner & 1, corner >> 1 & 1, corner >> 2 & 1])
        fraction = cell - first
        weight = float(torch.where(bits == 1, fraction, 1 - fraction).prod())
        x, y, z = (first.long() + bits).tolist()
        number = ((scene * CELLS[1] + z) * CELLS[2] + y) * CELLS[3] + x
        if number in known:
            total, share = total + weight * known[number], share + weight
    return total, share


def test_the_mean_over_occupied_cells() -> None:
    generator = torch.Generator().manual_seed(0)
    volume = sparse_volume(4, generator)
    rays, starts, weights = some_rays(generator)
    found = composited_features(volume, rays, starts, weights)
    assert found.shape == (12, 4)
    for ray in range(12):
        total, share = torch.zeros(4, dtype=torch.float64), 0.0
        for sample in range(6):
            point = rays.origins[ray] + rays.directions[ray] * starts[ray, sample]
            value, there = written_out(volume, point, int(rays.scene[ray]))
            total, share = total + weights[ray, sample] * value, share + float(weights[ray, sample]) * there
        torch.testing.assert_close(found[ray], total / max(share, 0.05))


def test_constant_features_stay_constant_beside_empty_cells() -> None:
    generator = torch.Generator().manual_seed(1)
    volume = sparse_volume(2, generator)
    volume = SparseVolume(torch.full_like(volume.rows, 3.0), volume.number, CELLS, volume.lower, volume.upper)
    rays, starts, weights = some_rays(generator)
    found = composited_features(volume, rays, starts, weights)
    seen = found[:, 0] > 0
    assert int(seen.sum()) >= 6
    full = (found[seen] - 3.0).abs().amax(1) < 1e-9
    assert float(full.double().mean()) > 0.7  # the others see hardly any occupied cell


def test_gradients_of_rows_and_weights() -> None:
    generator = torch.Generator().manual_seed(2)
    volume = sparse_volume(2, generator)
    rays, starts, weights = some_rays(generator)

    def composited(rows: Tensor, weights: Tensor) -> Tensor:
        changed = SparseVolume(rows, volume.number, CELLS, volume.lower, volume.upper)
        return composited_features(changed, rays, starts, weights)

    inputs = (volume.rows.requires_grad_(), weights.requires_grad_())
    assert torch.autograd.gradcheck(composited, inputs)


def test_no_rays_and_no_cells() -> None:
    generator = torch.Generator().manual_seed(3)
    volume = sparse_volume(2, generator)
    rays, starts, weights = some_rays(generator)
    nothing = composited_features(volume, rays.part(slice(0, 0)), starts[:0], weights[:0])
    assert nothing.shape == (0, 2)
    empty = SparseVolume(volume.rows[:0], volume.number[:0], CELLS, volume.lower, volume.upper)
    assert bool((composited_features(empty, rays, starts, weights) == 0).all())
