"""Volumes from points: the mean per cell, and that a point is stored where it is read."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import CubeFrameConfig, DensifyConfig
from ponderv2.lift.densify import _resizing, mean_per_cell
from ponderv2.lift.kinds import build_lift
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame

OFFSET = torch.tensor([300, 500])
GRID = (9, 7, 5)


def room_points(rng: torch.Generator, extent: tuple[float, ...] = (4.0, 3.0, 2.0)) -> Tensor:
    return torch.rand(500, 3, generator=rng) * torch.tensor(extent) + torch.tensor([10.0, -5.0, 1.0])


def cell_centres(volume: FeatureVolume) -> Tensor:
    """[scene, z, y, x, 3] positions that the volume itself claims for its cells."""
    n_z, n_y, n_x = volume.values.shape[2:]
    axes = []
    for count in (n_x, n_y, n_z):
        index = torch.arange(count, dtype=torch.float32)
        axes.append(index / (count - 1) if volume.corners_are_centres else (index + 0.5) / count)
    z, y, x = torch.meshgrid(axes[2], axes[1], axes[0], indexing="ij")
    share = torch.stack([x, y, z], dim=-1)
    lower, upper = volume.lower[:, None, None, None], volume.upper[:, None, None, None]
    return lower + share * (upper - lower)


def trilinear(volume: FeatureVolume, points: Tensor, scene: int) -> Tensor:
    """Values at points by the library's lookup, from the meaning of the box."""
    unit = 2 * (points - volume.lower[scene]) / (volume.upper[scene] - volume.lower[scene]) - 1
    grid = unit.view(1, 1, 1, -1, 3)
    values = volume.values[scene : scene + 1].contiguous()
    sampled = torch.nn.functional.grid_sample(values, grid, align_corners=volume.corners_are_centres)
    return sampled[0, :, 0, 0].T


def looped_volume(feature: Tensor, position: Tensor, scene: Tensor, volume: FeatureVolume) -> Tensor:
    """The mean over the points of every cell, one point at a time."""
    n_z, n_y, n_x = volume.values.shape[2:]
    sums, counts = torch.zeros_like(volume.values), torch.zeros(len(volume.values), n_z, n_y, n_x)
    for row in range(len(feature)):
        s = int(scene[row])
        share = (position[row] - volume.lower[s]) / (volume.upper[s] - volume.lower[s])
        x, y, z = (share * torch.tensor([n_x, n_y, n_z])).floor().long().tolist()
        sums[s, :, z, y, x] += feature[row]
        counts[s, z, y, x] += 1
    return sums / counts[:, None].clamp(min=1)


def frame_of(coord: Tensor, cube_size: float | None = None, **settings: Any) -> VolumeFrame:
    return volume_frame(coord, OFFSET, CubeFrameConfig(cube_size=cube_size, cells=GRID, **settings))


def densify(
    feature: Tensor,
    coord: Tensor,
    offset: Tensor,
    frame: VolumeFrame,
    config: DensifyConfig = DensifyConfig(),
) -> FeatureVolume:
    return build_lift(config)(PointFeatures(feature, coord, offset), frame).volume()


def test_longest_side_becomes_one_and_the_floor_lies_at_the_bottom(rng: torch.Generator) -> None:
    coord = room_points(rng)
    frame = frame_of(coord)
    position = frame.to_volume(coord, batch_index(OFFSET))
    for part in position.split([300, 200]):
        size = part.amax(0) - part.amin(0)
        torch.testing.assert_close(size.max(), torch.tensor(1.0), atol=1e-4, rtol=0)
        torch.testing.assert_close(part[:, 2].min(), torch.tensor(-0.5), atol=1e-4, rtol=0)
        torch.testing.assert_close((part.amax(0) + part.amin(0))[:2], torch.zeros(2), atol=1e-4, rtol=0)


def test_matrix_and_scale_say_the_same(rng: torch.Generator) -> None:
    coord = room_points(rng)
    frame = frame_of(coord, cube_size=6.0)
    scene = batch_index(OFFSET)
    torch.testing.assert_close(frame.scale, torch.full((2,), 1 / 6))
    homogeneous = torch.cat([coord, torch.ones(500, 1)], 1)
    moved = torch.einsum("pij,pj->pi", frame.world_to_volume[scene], homogeneous)
    torch.testing.assert_close(frame.to_volume(coord, scene), moved[:, :3], atol=1e-5, rtol=0)


def test_a_scene_without_points_is_refused() -> None:
    with pytest.raises(ValueError, match="points"):
        volume_frame(torch.rand(5, 3), torch.tensor([5, 5]), CubeFrameConfig())


@pytest.mark.parametrize("box", ["cube", "bounds"])
def test_aligned_volume_matches_the_loop(rng: torch.Generator, box: str) -> None:
    coord, feature = room_points(rng), torch.randn(500, 3, generator=rng)
    frame = frame_of(coord, box=box)
    volume = densify(feature, coord, OFFSET, frame)
    assert volume.values.shape == (2, 3, 5, 7, 9)
    scene = batch_index(OFFSET)
    expected = looped_volume(feature, frame.to_volume(coord, scene), scene, volume)
    torch.testing.assert_close(volume.values, expected)


def test_reading_at_a_cell_centre_of_the_cube_returns_what_was_put_there(rng: torch.Generator) -> None:
    coord = room_points(rng)
    frame = frame_of(coord)
    centres = cell_centres(densify(torch.ones(500, 1), coord, OFFSET, frame))[0].reshape(-1, 3)
    feature = torch.randn(len(centres), 2, generator=rng)
    points = (centres - frame.world_to_volume[0, :3, 3]) / frame.scale[0]
    tensors = (
        getattr(frame, name)[:1] for name in ("world_to_volume", "scale", "half_range", "lower", "upper")
    )
    one = VolumeFrame(*tensors, frame.cells)
    volume = densify(feature, points, torch.tensor([len(points)]), one)
    torch.testing.assert_close(trilinear(volume, centres, 0), feature, atol=1e-4, rtol=0)


def test_reading_at_a_cell_centre_of_fitted_bounds_returns_what_was_put_there(rng: torch.Generator) -> None:
    axes = [torch.arange(count) * 0.5 + 3.0 for count in GRID]
    points = torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1).reshape(-1, 3)
    offset = torch.tensor([len(points)])
    scale = float(volume_frame(points, offset, CubeFrameConfig()).scale)
    # With half a step around a lattice of as many points as cells, every point is the centre of a cell.
    config = CubeFrameConfig(cells=GRID, box="bounds", margin=0.25 * scale, padding=0.5)
    frame = volume_frame(points, offset, config)
    feature = torch.randn(len(points), 2, generator=rng)
    volume = densify(feature, points, offset, frame)
    position = frame.to_volume(points, torch.zeros(len(points), dtype=torch.long))
    torch.testing.assert_close(cell_centres(volume)[0].movedim((0, 1, 2), (2, 1, 0)).reshape(-1, 3), position)
    torch.testing.assert_close(trilinear(volume, position, 0), feature, atol=1e-4, rtol=0)


def test_bounds_hold_all_points_and_waste_nothing(rng: torch.Generator) -> None:
    coord = room_points(rng, (4.0, 3.0, 0.5))
    frame = frame_of(coord, box="bounds")
    volume = densify(torch.ones(500, 1), coord, OFFSET, frame)
    position = frame.to_volume(coord, batch_index(OFFSET))
    for scene, part in enumerate(position.split([300, 200])):
        assert torch.all(part >= volume.lower[scene]) and torch.all(part <= volume.upper[scene])
        height = volume.upper[scene, 2] - volume.lower[scene, 2]
        assert float(height) < 0.125 + 2 * 0.05 + 0.01
    assert float(volume.values.mean()) > 0.3


def test_points_outside_a_fixed_cube_are_left_out(rng: torch.Generator) -> None:
    coord = room_points(rng)
    frame = frame_of(coord, cube_size=2.0)
    volume = densify(torch.ones(500, 1), coord, OFFSET, frame)
    assert set(volume.values.unique().tolist()) <= {0.0, 1.0}


def test_published_volume_is_the_mean_over_groups_of_small_cells(rng: torch.Generator) -> None:
    coord, feature = room_points(rng), torch.randn(500, 3, generator=rng)
    frame = frame_of(coord)
    config = DensifyConfig(grid_size=0.1, align_with_sampling=False)
    volume = densify(feature, coord, OFFSET, frame, config)
    assert volume.corners_are_centres
    torch.testing.assert_close(volume.upper, torch.full((2, 3), 0.5505))
    scene = batch_index(OFFSET)
    position = frame.to_volume(coord, scene)
    sums, counts = torch.zeros(2, 3, 5, 7, 9), torch.zeros(2, 5, 7, 9)
    for s, (start, end) in enumerate([(0, 300), (300, 500)]):
        metres = (position[start:end] + 0.5) / frame.scale[s]
        resolution = int((metres.max(0).values // 0.1 - metres.min(0).values // 0.1).max()) + 2
        for row, cell in enumerate((metres // 0.1).long()):
            x, y, z = (int(c // (resolution / size)) for c, size in zip(cell.tolist(), GRID, strict=True))
            sums[s, :, z, y, x] += feature[start + row]
            counts[s, z, y, x] += 1
    torch.testing.assert_close(volume.values, sums / counts[:, None].clamp(min=1))


@pytest.mark.parametrize("size", [5, 12])
def test_enlarging_matrix_equals_linear_interpolation(rng: torch.Generator, size: int) -> None:
    grid = torch.randn(1, 1, 4, generator=rng)
    matrix = _resizing(torch.tensor([4]), 6, size)[0, :, :4].float()
    expected = torch.nn.functional.interpolate(grid, size=size, mode="linear", align_corners=False)
    torch.testing.assert_close(grid[0, 0] @ matrix.T, expected[0, 0])


def test_small_published_scenes_are_resized_as_the_library_does(rng: torch.Generator) -> None:
    coord, feature = torch.rand(200, 3, generator=rng) * 0.4, torch.randn(200, 2, generator=rng)
    offset = torch.tensor([200])
    frame = volume_frame(coord, offset, CubeFrameConfig(cells=(12, 11, 10)))
    config = DensifyConfig(grid_size=0.1, align_with_sampling=False)
    volume = densify(feature, coord, offset, frame, config)
    position = frame.to_volume(coord, torch.zeros(200, dtype=torch.long)) + 0.5
    cell = (position / frame.scale).clamp(min=0) // 0.1
    resolution = int((cell.amax(0) - cell.amin(0)).max()) + 2
    number = ((cell[:, 2] * resolution + cell[:, 1]) * resolution + cell[:, 0]).long()
    occupied, means = mean_per_cell(feature, number)
    rows = torch.zeros(resolution**3, means.shape[1]).index_copy(0, occupied, means)
    grid = rows.T.view(1, 2, resolution, resolution, resolution)
    expected = torch.nn.functional.interpolate(grid, size=(10, 11, 12), mode="trilinear")
    torch.testing.assert_close(volume.values, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("align", [True, False])
def test_gradients_agree_with_finite_differences(rng: torch.Generator, align: bool) -> None:
    coord = torch.cat([torch.rand(30, 3, generator=rng) * 4, torch.rand(20, 3, generator=rng) * 0.3]).double()
    feature = torch.randn(50, 2, generator=rng, dtype=torch.float64).requires_grad_()
    offset = torch.tensor([30, 50])
    frame = volume_frame(coord, offset, CubeFrameConfig(cells=(4, 4, 5)))
    config = DensifyConfig(grid_size=0.2, align_with_sampling=align)
    assert torch.autograd.gradcheck(lambda f: densify(f, coord, offset, frame, config).values, (feature,))


def test_half_precision_features_keep_their_type(rng: torch.Generator) -> None:
    coord, feature = room_points(rng), torch.randn(500, 3, generator=rng)
    frame = frame_of(coord)
    exact = densify(feature, coord, OFFSET, frame).values
    rounded = densify(feature.bfloat16(), coord, OFFSET, frame).values
    assert rounded.dtype == torch.bfloat16
    torch.testing.assert_close(rounded.float(), exact, atol=0.05, rtol=0.02)
