"""Lifts of image features against loops in double precision, and in closed form."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy import ndarray
from torch import Tensor
from torch.nn import functional as F

from ponderv2.geometry.features import ImageFeatures, ImageMap, PointFeatures
from ponderv2.geometry.volumes import SparseVolume
from ponderv2.lift.config import DepthBinsConfig, RangeFrameConfig
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.frustum_pooling.lift import FrustumPooling, pooled
from ponderv2.lift.image_depth import DeepDepthHead, depth_cross_entropy
from ponderv2.lift.kinds import AnyLift, build_lift
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig
from ponderv2.lift.projected_sampling.lift import ProjectedSampling
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame
from ponderv2.scenes.batch import ImageBatch

LOWER, UPPER, CELLS = (-2.0, -3.0, -1.0), (4.0, 3.0, 2.0), (6, 5, 3)
ROWS, COLUMNS, STRIDE = 6, 8, 4


def frame_of(n_scenes: int = 1) -> VolumeFrame:
    config = RangeFrameConfig(lower=LOWER, upper=UPPER, cells=CELLS)
    return volume_frame(torch.zeros(0, 3).double(), torch.zeros(n_scenes, dtype=torch.long), config)


def camera(rng: np.random.Generator) -> ndarray:
    """World to camera: looks along +x from behind the range, slightly turned."""
    axes = np.array([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    angle = rng.uniform(-0.3, 0.3)
    turn = np.array(
        [[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]]
    )
    matrix = np.eye(4)
    matrix[:3, :3] = axes @ turn
    matrix[:3, 3] = -matrix[:3, :3] @ np.array([-3.0, rng.uniform(-0.5, 0.5), 0.3])
    return matrix


def features_of(seed: int = 0, views: tuple[int, ...] = (0, 0, 1), n_maps: int = 2) -> ImageFeatures:
    """Maps at strides 4, 8 of images of 24 x 32 pixels; channels 3."""
    rng = np.random.default_rng(seed)
    image = np.array([[20.0, 0.0, 15.2], [0.0, 22.0, 11.4], [0.0, 0.0, 1.0]])
    maps = []
    for level in range(n_maps):
        size = STRIDE * 2**level
        to_map = np.array([[1 / size, 0, 0.5 / size - 0.5], [0, 1 / size, 0.5 / size - 0.5], [0, 0, 1]])
        rows, columns = ROWS * STRIDE // size, COLUMNS * STRIDE // size
        maps.append(
            ImageMap(
                torch.tensor(rng.normal(size=(len(views), 3, rows, columns))),
                torch.tensor(to_map @ image).expand(len(views), 3, 3),
            )
        )
    cameras = torch.tensor(np.stack([camera(rng) for _ in views]))
    empty = ImageFeatures(
        maps[0].feature,
        maps[0].intrinsics,
        cameras,
        torch.tensor(views),
        max(views) + 1,
        padded_size=(ROWS * STRIDE, COLUMNS * STRIDE),
    )
    return empty.with_maps(maps)


def linear_at(values: ndarray, place: tuple[float, ...]) -> ndarray:
    """Multilinear interpolation at array positions (zeros outside); values: [channel, *axes]."""
    total = np.zeros(values.shape[0])
    lowest = [math.floor(one) for one in place]
    for corner in np.ndindex(*(2,) * len(place)):
        index = tuple(low + step for low, step in zip(lowest, corner, strict=True))
        if all(0 <= one < size for one, size in zip(index, values.shape[1:], strict=True)):
            weight = math.prod(1 - abs(one - position) for one, position in zip(index, place, strict=True))
            total += weight * values[(slice(None), *index)]
    return total


def projected_by_loops(
    features: ImageFeatures, bins: DepthBinsConfig | None, corner: bool, mean: bool
) -> ndarray:
    """[scene, channel, z, y, x]."""
    n_x, n_y, n_z = CELLS
    out = np.zeros((features.n_scenes, 3, n_z, n_y, n_x))
    count = np.zeros((features.n_scenes, 1, n_z, n_y, n_x))
    size = (np.array(UPPER) - LOWER) / CELLS
    for view, scene in enumerate(features.view_scene.tolist()):
        matrix = features.world_to_camera[view].numpy()
        for z, y, x in np.ndindex(n_z, n_y, n_x):
            point = LOWER + (np.array([x, y, z]) + (0.0 if corner else 0.5)) * size
            in_camera = (matrix @ [*point, 1.0])[:3]
            depth = in_camera[2]
            if depth <= 0 or (bins and not bins.nearest <= depth < bins.nearest + bins.n_bins * bins.width):
                continue
            first = (features.maps[0].intrinsics[view].numpy() @ in_camera)[:2] / depth
            if not (-0.5 < first[0] < COLUMNS - 0.5 and -0.5 < first[1] < ROWS - 0.5):
                continue
            count[scene, 0, z, y, x] += 1
            for one in features.maps:
                column, row = (one.intrinsics[view].numpy() @ in_camera)[:2] / depth
                value = linear_at(one.feature[view].detach().numpy(), (row, column))
                if bins is not None:
                    assert one.depth_probability is not None
                    place = ((depth - bins.nearest) / bins.width - 0.5, row, column)
                    value = value * linear_at(one.depth_probability[view].detach().numpy()[None], place)[0]
                out[scene, :, z, y, x] += value
    return out / np.maximum(count, 1) if mean else out


BINS = DepthBinsConfig(n_bins=7, nearest=1.0, width=1.1)


def projected(config: ProjectedSamplingConfig) -> tuple[ImageFeatures, SparseVolume, ProjectedSampling]:
    torch.manual_seed(0)
    lift = build_lift(config, 3).double()
    assert isinstance(lift, ProjectedSampling)
    features = lift.with_depth(features_of())
    return features, lift(features, frame_of(2)), lift


@pytest.mark.parametrize("depth", [BINS, None])
@pytest.mark.parametrize("corner", [False, True])
@pytest.mark.parametrize("reduction", ["sum", "mean"])
def test_projected_sampling_is_the_loop(depth: DepthBinsConfig | None, corner: bool, reduction: str) -> None:
    config = ProjectedSamplingConfig.model_validate(
        {"depth": depth, "published_corners": corner, "reduction": reduction}
    )
    features, volume, _ = projected(config)
    expected = projected_by_loops(features, depth, corner, reduction == "mean")
    assert 0 < len(volume.number) < volume.n_cells and (np.abs(expected) > 1e-3).any()
    np.testing.assert_allclose(volume.dense().detach().numpy(), expected, atol=1e-9)


def test_a_linear_image_is_looked_up_exactly() -> None:
    """f(u, v) = 2u - 3v + 1 and equal probabilities: the value at a node is f at its projection / n_bins."""
    features = features_of(views=(0,), n_maps=1)
    row, column = torch.meshgrid(torch.arange(ROWS), torch.arange(COLUMNS), indexing="ij")
    plane = (2.0 * column - 3.0 * row + 1.0).double()[None, None].expand(1, 3, -1, -1)
    bins = DepthBinsConfig(n_bins=4, nearest=0.0, width=5.0)
    equal = torch.full((1, 4, ROWS, COLUMNS), 0.25, dtype=torch.float64)
    features = replace(features, feature=plane, depth_probability=equal)
    config = ProjectedSamplingConfig(depth=bins, pointwise=False)
    volume = ProjectedSampling(config, 3)(features, frame_of()).dense()[0, 0]
    size = (np.array(UPPER) - LOWER) / CELLS
    compared = 0
    for z, y, x in np.ndindex(*volume.shape):
        point = np.array([*(LOWER + (np.array([x, y, z]) + 0.5) * size), 1.0])
        at = features.intrinsics[0].numpy() @ (features.world_to_camera[0].numpy() @ point)[:3]
        u, v, depth = at[0] / at[2], at[1] / at[2], at[2]
        if 0 <= u <= COLUMNS - 1 and 0 <= v <= ROWS - 1 and 2.5 <= depth <= 17.5:
            assert float(volume[z, y, x]) == pytest.approx((2 * u - 3 * v + 1) / 4, abs=1e-9)
            compared += 1
    assert compared > 20


def test_a_scaled_scene_has_the_same_volume() -> None:
    """Depths stay in metres where an augmentation scales the scene and its cameras."""
    config = ProjectedSamplingConfig(depth=BINS)
    features, volume, lift = projected(config)
    scale = torch.diag(torch.tensor([1.5, 1.5, 1.5, 1.0], dtype=torch.float64))
    moved = replace(features, world_to_camera=features.world_to_camera @ torch.linalg.inv(scale))
    larger = RangeFrameConfig(
        lower=tuple(1.5 * one for one in LOWER),  # pyright: ignore
        upper=tuple(1.5 * one for one in UPPER),  # pyright: ignore
        cells=CELLS,
    )
    frame = volume_frame(torch.zeros(0, 3).double(), torch.zeros(2, dtype=torch.long), larger)
    torch.testing.assert_close(lift(moved, frame).dense(), volume.dense())


def pooled_by_loops(features: ImageFeatures, bins: DepthBinsConfig, corner: bool) -> ndarray:
    n_x, n_y, n_z = CELLS
    out = np.zeros((features.n_scenes, 3, n_z, n_y, n_x))
    size = (np.array(UPPER) - LOWER) / CELLS
    half = 0.0 if corner else 0.5
    for one in features.maps:
        assert one.depth_probability is not None
        rows, columns = one.feature.shape[2:]
        stride = COLUMNS * STRIDE / columns
        for view, scene in enumerate(features.view_scene.tolist()):
            inverse = np.linalg.inv(features.world_to_camera[view].numpy())
            for number, row, column in np.ndindex(bins.n_bins, rows, columns):
                shift = (0.5 / stride - 0.5) if corner else 0.0
                depth = bins.nearest + (number + half) * bins.width
                ray = np.linalg.inv(one.intrinsics[view].numpy()) @ [column + shift, row + shift, 1.0]
                place = ((inverse @ [*(ray * depth), 1.0])[:3] - LOWER) / size
                cell = np.trunc(place) if corner else np.floor(place)
                if (cell < 0).any() or (cell >= CELLS).any():
                    continue
                x, y, z = cell.astype(int)
                share = float(one.depth_probability[view, number, row, column].detach())
                out[scene, :, z, y, x] += share * one.feature[view, :, row, column].detach().numpy()
    return out


@pytest.mark.parametrize("corner", [False, True])
def test_frustum_pooling_is_the_loop(corner: bool) -> None:
    torch.manual_seed(0)
    bins = DepthBinsConfig(n_bins=9, nearest=1.0, width=0.7)
    lift = build_lift(FrustumPoolingConfig(depth=bins, published_corners=corner), 3).double()
    assert isinstance(lift, FrustumPooling)
    features = lift.with_depth(features_of())
    volume = lift(features, frame_of(2))
    expected = pooled_by_loops(features, bins, corner)
    assert (np.abs(expected) > 1e-3).sum() > 30
    np.testing.assert_allclose(volume.dense().detach().numpy(), expected, atol=1e-9)


def test_pooling_in_blocks_has_the_gradients_of_the_sum() -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(5, 3, dtype=torch.float64, generator=generator, requires_grad=True)
    weight = torch.rand(11, dtype=torch.float64, generator=generator, requires_grad=True)
    pixel, row = (torch.randint(n, (11,), generator=generator) for n in (5, 4))
    assert torch.autograd.gradcheck(lambda p, w: pooled(p, w, pixel, row, 4), (pixels, weight))


@pytest.mark.parametrize("config", [ProjectedSamplingConfig(depth=BINS), FrustumPoolingConfig(depth=BINS)])
def test_gradients_reach_features_and_depths(config: AnyLift) -> None:
    lift = build_lift(config, 3).double()
    features = lift.with_depth(features_of())  # pyright: ignore
    lift(features, frame_of(2)).rows.square().sum().backward()
    for name, parameter in lift.named_parameters():
        assert parameter.grad is not None and bool(parameter.grad.abs().sum() > 0), name


def test_convolutions_of_the_volume_follow() -> None:
    torch.manual_seed(0)
    lift = build_lift(ProjectedSamplingConfig(depth=BINS, n_convolutions=3), 3).double().eval()
    features = lift.with_depth(features_of())  # pyright: ignore
    found = lift(features, frame_of(2)).dense()
    values = lift.lift(features, frame_of(2)).dense()  # pyright: ignore
    for convolution, norm, _ in lift.convolutions:  # pyright: ignore
        values = F.conv3d(values, convolution.weight, convolution.bias, padding=1)
        values = (values / math.sqrt(1 + norm.eps)).relu()
    torch.testing.assert_close(found, values)


def test_images_that_show_nothing_of_the_range_give_an_empty_volume() -> None:
    features = features_of()
    away = torch.eye(4, dtype=torch.float64)
    away[2, 3] = -500.0
    features = replace(features, world_to_camera=away.expand(3, 4, 4))
    for config in (ProjectedSamplingConfig(depth=BINS), FrustumPoolingConfig(depth=BINS)):
        lift = build_lift(config, 3).double()
        volume = lift(lift.with_depth(features), frame_of(2))  # pyright: ignore
        assert len(volume.number) == 0 and float(volume.dense().abs().sum()) == 0.0


def test_lifts_of_images_refuse_features_of_points() -> None:
    points = PointFeatures(torch.zeros(1, 3), torch.zeros(1, 3), torch.tensor([1]))
    with pytest.raises(ValueError, match="features of images"):
        build_lift(ProjectedSamplingConfig(), 3)(points, frame_of())


def image_batch(depth: Tensor | None) -> ImageBatch:
    return ImageBatch(
        torch.zeros(1, 3, 8, 8), torch.eye(3)[None], torch.eye(4)[None], torch.zeros(1).long(), depth=depth
    )


def test_depth_is_compared_in_the_interval_of_the_nearest_measurement() -> None:
    """Binary cross-entropy of the one-hot interval, as torch computes it, averaged over measured cells."""
    bins = DepthBinsConfig(n_bins=5, nearest=1.0, width=0.5)
    probability = torch.randn(1, 5, 2, 2, generator=torch.Generator().manual_seed(0)).softmax(1)
    depth = torch.zeros(1, 8, 8)
    depth[0, 1, 2], depth[0, 3, 3] = 2.9, 1.6  # one cell: the nearest counts, interval 1
    depth[0, 6, 7] = 3.4  # interval 4
    depth[0, 1, 6] = 9.0  # beyond the last one
    maps = [ImageMap(torch.zeros(1, 3, 2, 2), torch.eye(3)[None], probability)]
    found = depth_cross_entropy(maps, image_batch(depth), (8, 8), bins)
    expected = [
        F.binary_cross_entropy(
            probability[0, :, row, column], F.one_hot(torch.tensor(number), 5).float(), reduction="sum"
        )
        for row, column, number in ((0, 0, 1), (1, 1, 4))
    ]
    torch.testing.assert_close(found, torch.stack(expected).mean())
    assert float(depth_cross_entropy(maps, image_batch(torch.zeros(1, 8, 8)), (8, 8), bins)) == 0.0
    with pytest.raises(ValueError, match="have none"):
        depth_cross_entropy(maps, image_batch(None), (8, 8), bins)


def test_the_deep_head_has_the_published_layers() -> None:
    head = DeepDepthHead(DepthBinsConfig(n_bins=118, head="deep"), 256)
    assert tuple(head(torch.rand(2, 256, 3, 4)).shape) == (2, 118, 3, 4)
    branches = [one[0] for one in head.pooling.branches]  # pyright: ignore
    assert [one.dilation[0] for one in branches] == [1, 6, 12, 18]
    assert [one.out_channels for one in branches] == [96] * 4 and len(head.blocks) == 3
