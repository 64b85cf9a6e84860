"""Generative convolution against the dense transposed one; children and interpolation against plain ones."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from ponderv2.sparse.generated_levels import children, interpolated_at_children, pruned, rows_at
from ponderv2.sparse.kernel_maps import Level
from ponderv2.sparse.layers import GenerativeConvolution
from tests.sparse import twins


def empty_level() -> Level:
    return Level(torch.zeros(0, 4, dtype=torch.long), (4, 4, 4), 2)


def test_generative_convolution_equals_dense_transposed_convolution(rng):
    level = twins.random_level(rng)
    layer = GenerativeConvolution(3, 4, bias=True).double()
    x = torch.randn(len(level), 3, generator=rng, dtype=torch.float64, requires_grad=True)
    ours, finer = layer(x, level)
    dense = F.conv_transpose3d(
        twins.to_dense(x, level), layer.weight.permute(4, 0, 1, 2, 3), layer.bias, stride=2
    )
    theirs = twins.from_dense(dense, finer)
    torch.testing.assert_close(ours, theirs)
    cotangent = torch.sin(torch.arange(ours.numel(), dtype=ours.dtype)).view_as(ours)
    of = (x, *layer.parameters())
    for one, other in zip(
        torch.autograd.grad(ours, of, cotangent), torch.autograd.grad(theirs, of, cotangent), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_children_are_the_eight_voxels_inside_in_lexicographic_order(rng):
    level = twins.random_level(rng)
    finer, order = children(level)
    expected = sorted(
        [scene, 2 * x + a, 2 * y + b, 2 * z + c]
        for scene, x, y, z in level.indices.tolist()
        for a in (0, 1)
        for b in (0, 1)
        for c in (0, 1)
    )
    assert finer.indices.tolist() == expected
    assert finer.extent == (14, 14, 14)
    assert torch.equal(finer.indices[:, 1:] // 2, level.indices[order // 8, 1:])
    assert finer.strided(2, 2)[1].indices.tolist() == level.indices.tolist()


def test_rows_of_a_pruned_level_are_found_again(rng):
    level = twins.random_level(rng)
    keep = torch.rand(len(level), generator=rng) < 0.4
    rest = pruned(level, keep)
    assert torch.equal(rest.indices, level.indices[keep])
    assert torch.equal(rows_at(level, rest), keep.nonzero()[:, 0])
    found = rows_at(rest, level)
    assert torch.equal(found >= 0, keep)
    assert torch.equal(rest.indices[found[keep]], level.indices[keep])


def test_grids_of_unequal_size_are_compared_by_position():
    small = Level(torch.tensor([[0, 1, 1, 1], [1, 0, 0, 2]]), (3, 3, 3), 2)
    large = Level(torch.tensor([[0, 1, 1, 1], [0, 8, 0, 0], [1, 0, 0, 2]]), (9, 9, 9), 2)
    assert rows_at(small, large).tolist() == [0, -1, 1]
    assert rows_at(large, small).tolist() == [0, 2]


def test_interpolation_in_a_full_grid_equals_that_of_torch(rng):
    level = Level(torch.ones(2, 4, 4, 4).nonzero(), (4, 4, 4), 2)
    value = torch.randn(len(level), 2, generator=rng, dtype=torch.float64)
    theirs = F.interpolate(twins.to_dense(value, level), scale_factor=2, mode="trilinear")
    inner = ((children(level)[0].indices[:, 1:] > 0) & (children(level)[0].indices[:, 1:] < 7)).all(1)
    ours = interpolated_at_children(value, level)
    assert 0 < inner.sum() < len(inner)
    torch.testing.assert_close(ours[inner], twins.from_dense(theirs, children(level)[0])[inner])


def test_interpolation_leaves_out_what_is_empty(rng):
    level = twins.random_level(rng)
    ones = torch.ones(len(level), 1)
    torch.testing.assert_close(interpolated_at_children(ones, level), torch.ones(8 * len(level), 1))
    alone = Level(torch.tensor([[0, 3, 3, 3], [0, 3, 3, 4]]), (7, 7, 7), 1)
    value = torch.tensor([[0.0], [1.0]])
    found = interpolated_at_children(value, alone)[:, 0]
    finer = children(alone)[0]
    expected = {6: 0.0, 7: 0.25, 8: 0.75, 9: 1.0}
    torch.testing.assert_close(found, torch.tensor([expected[z] for z in finer.indices[:, 3].tolist()]))


def test_no_voxels_have_no_children(rng):
    level = empty_level()
    feature, finer = GenerativeConvolution(3, 4)(torch.zeros(0, 3), level)
    assert feature.shape == (0, 4)
    assert len(finer) == 0
    assert len(interpolated_at_children(torch.zeros(0, 2), level)) == 0
    assert rows_at(level, level).tolist() == []
    assert rows_at(level, twins.random_level(rng)).unique().tolist() == [-1]
