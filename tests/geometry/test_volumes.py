"""Trilinear interpolation against torch's grid_sample, finite differences and hand-made volumes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.interpolation import (
    RowIndex,
    contracted_sum,
    corners_at,
    weighted_sum,
)
from ponderv2.geometry.volumes import FeatureVolume, used_rows

LOWER, UPPER = (-0.6, -0.5, -0.4), (0.5, 0.7, 0.6)


def _volume(rng: torch.Generator, *, centres: bool, dtype: torch.dtype = torch.float64) -> FeatureVolume:
    values = torch.randn(2, 3, 4, 5, 6, generator=rng, dtype=dtype)
    corners = (torch.tensor([c, c], dtype=dtype) for c in (LOWER, UPPER))
    return FeatureVolume(values, *corners, corners_are_centres=centres)


def _points(rng: torch.Generator, n: int, reach: float = 1.0) -> tuple[Tensor, Tensor]:
    lower, upper = (torch.tensor(c, dtype=torch.float64) for c in (LOWER, UPPER))
    unit = torch.rand(n, 3, generator=rng, dtype=torch.float64)
    unit = (unit - 0.5) * reach + 0.5
    return lower + unit * (upper - lower), torch.randint(0, 2, (n,), generator=rng)


def trilinear(volume: FeatureVolume, points: Tensor, scene: Tensor) -> tuple[Tensor, Tensor]:
    """Value and Jacobian [point, channel, 3]."""
    found = corners_at(volume, points, scene).interpolate(volume.rows())
    return found[:, 0], found[:, 1:].transpose(1, 2)


def _grid_sample(volume: FeatureVolume, points: Tensor, scene: Tensor) -> Tensor:
    unit = (points - volume.lower[scene]) / (volume.upper - volume.lower)[scene]
    grid = (2 * unit - 1)[None, :, None, None].expand(2, -1, -1, -1, -1)
    padding = "zeros" if volume.corners_are_centres else "border"
    found = F.grid_sample(volume.values, grid, align_corners=volume.corners_are_centres, padding_mode=padding)
    return found[scene, :, torch.arange(len(points)), 0, 0]


@pytest.mark.parametrize("centres", [True, False])
def test_value_and_jacobian_are_those_of_grid_sample(rng: torch.Generator, centres: bool) -> None:
    volume = _volume(rng, centres=centres)
    points, scene = _points(rng, 200, reach=1.3 if centres else 1.0)
    points.requires_grad_()
    value, jacobian = trilinear(volume, points, scene)
    expected = _grid_sample(volume, points, scene)
    torch.testing.assert_close(value, expected)
    alone = corners_at(volume, points, scene).interpolate(volume.rows(), 1)[:, 0]
    torch.testing.assert_close(alone, expected)
    for channel in range(3):
        (slope,) = torch.autograd.grad(expected[:, channel].sum(), points, retain_graph=True)
        torch.testing.assert_close(jacobian[:, channel], slope)


def test_gradients_through_the_jacobian_are_those_of_a_double_backward(rng: torch.Generator) -> None:
    volume = _volume(rng, centres=True)
    volume.values.requires_grad_()
    points, scene = _points(rng, 50)
    points.requires_grad_()
    weight = torch.randn(50, 3, 3, generator=rng, dtype=torch.float64)

    _, jacobian = trilinear(volume, points, scene)
    ours = torch.autograd.grad((jacobian**2 * weight).sum(), (volume.values, points))
    expected = _grid_sample(volume, points, scene)
    rows = [torch.autograd.grad(expected[:, c].sum(), points, create_graph=True)[0] for c in range(3)]
    theirs = torch.autograd.grad((torch.stack(rows, dim=1) ** 2 * weight).sum(), (volume.values, points))
    for mine, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_outside_is_zero_and_the_outer_half_cell_is_constant(rng: torch.Generator) -> None:
    volume = _volume(rng, centres=False)
    points, scene = _points(rng, 100)
    outside = points.clone()
    outside[:, 1] = volume.upper[scene, 1] + 0.01
    assert not trilinear(volume, outside, scene)[0].any()
    edge = volume.lower[scene].clone()
    value, jacobian = trilinear(volume, edge, scene)
    torch.testing.assert_close(value, volume.values[scene, :, 0, 0, 0])
    assert not jacobian.any()


def test_weighted_sums_pass_gradcheck_and_gradgradcheck(rng: torch.Generator) -> None:
    rows = torch.randn(7, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    coefficient = torch.randn(5, 3, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    index = RowIndex(torch.randint(0, 7, (5, 4), generator=rng), 7)
    assert torch.autograd.gradcheck(lambda r, c: weighted_sum(r, c, index), (rows, coefficient))
    assert torch.autograd.gradgradcheck(lambda r, c: weighted_sum(r, c, index), (rows, coefficient))
    vector = torch.randn(5, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    fixed = coefficient.detach()
    assert torch.autograd.gradcheck(lambda r, v: contracted_sum(r, fixed, index, v), (rows, vector))


def test_used_rows_are_the_rows_and_send_their_gradient_to_the_volume(rng: torch.Generator) -> None:
    for layout in (torch.contiguous_format, torch.channels_last_3d):
        volume = _volume(rng, centres=True)
        values = volume.values.contiguous(memory_format=layout).requires_grad_()
        volume = FeatureVolume(values, volume.lower, volume.upper)
        points, scene = _points(rng, 4)
        used, index = corners_at(volume, points, scene).index.compact
        parts = tuple(volume.rows(part).detach() for part in (slice(0, 1), slice(1, None)))
        weights = torch.randn(len(used), 3, generator=rng, dtype=torch.float64)
        first, second = used_rows(values, parts, used)
        torch.testing.assert_close(torch.cat([first, second], dim=1), volume.rows()[used])
        (ours,) = torch.autograd.grad((torch.cat([first, second], dim=1) * weights).sum(), values)
        (theirs,) = torch.autograd.grad((volume.rows()[used] * weights).sum(), values)
        torch.testing.assert_close(ours, theirs)
        assert index.n_rows == len(used) and int(index.index.max()) == len(used) - 1


def test_no_points_give_no_values(rng: torch.Generator) -> None:
    volume = _volume(rng, centres=True)
    value, jacobian = trilinear(volume, torch.zeros(0, 3).double(), torch.zeros(0).long())
    assert value.shape == (0, 3) and jacobian.shape == (0, 3, 3)
