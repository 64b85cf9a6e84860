"""What the lifts of images allocate: counted tensor by tensor, never by time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ponderv2.geometry.features import ImageFeatures, ImageMap
from ponderv2.lift.config import DepthBinsConfig, RangeFrameConfig
from ponderv2.lift.frustum_pooling.config import FrustumPoolingConfig
from ponderv2.lift.image_lift import ImageLift
from ponderv2.lift.kinds import build_lift
from ponderv2.lift.projected_sampling.config import ProjectedSamplingConfig
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame

VIEWS, CHANNELS, ROWS, COLUMNS, BINS = 3, 4, 40, 60, 100
OF_A_VIEW = ROWS * COLUMNS * BINS
"""Pixels times depths."""
DEPTHS = DepthBinsConfig(n_bins=BINS, nearest=1.0, width=0.5)


class Sizes(TorchDispatchMode):
    """Numbers in each tensor that is made; views share those of another one."""

    def __init__(self) -> None:
        super().__init__()
        self.made: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        in_place = func.overloadpacket.__name__.endswith("_") or "out" in (kwargs or {})
        if not func.is_view and not in_place:
            self.made += [one.numel() for one in tree_leaves(result) if isinstance(one, Tensor)]
        return result


def sizes_of(run: Callable[[], Any]) -> tuple[list[int], Any]:
    with Sizes() as sizes:
        result = run()
    return sizes.made, result


def small_range() -> VolumeFrame:
    """Ten metres ahead, two deep: most depths of most pixels lie outside. Cells of 0.5 x 0.4 x 0.5 m."""
    config = RangeFrameConfig(lower=(9.0, -4.0, -1.0), upper=(11.0, 4.0, 1.0), cells=(4, 20, 4))
    return volume_frame(torch.zeros(0, 3), torch.zeros(1, dtype=torch.long), config)


def features(dtype: torch.dtype = torch.float32) -> tuple[ImageFeatures, Tensor, Tensor]:
    """Views along +x of one scene; leaves of features and probabilities."""
    generator = torch.Generator().manual_seed(0)
    feature = torch.randn(VIEWS, CHANNELS, ROWS, COLUMNS, generator=generator, dtype=dtype)
    likely = torch.rand(VIEWS, BINS, ROWS, COLUMNS, generator=generator, dtype=dtype)
    axes = torch.tensor([[0.0, -1.0, 0.0], [0.0, 0.0, -1.0], [1.0, 0.0, 0.0]])
    cameras = torch.eye(4).repeat(VIEWS, 1, 1)
    cameras[:, :3, :3] = axes
    cameras[:, 0, 3] = torch.arange(VIEWS) * 0.3
    intrinsics = torch.tensor([[40.0, 0.0, 29.5], [0.0, 40.0, 19.5], [0.0, 0.0, 1.0]]).expand(VIEWS, 3, 3)
    feature.requires_grad_()
    likely.requires_grad_()
    empty = ImageFeatures(feature, intrinsics, cameras, torch.zeros(VIEWS, dtype=torch.long), 1)
    return empty.with_maps([ImageMap(feature, intrinsics, likely)]), feature, likely


CONFIGS = [FrustumPoolingConfig(depth=DEPTHS), ProjectedSamplingConfig(depth=DEPTHS)]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: one.kind)
def test_nothing_is_as_large_as_pixels_times_depths(
    config: FrustumPoolingConfig | ProjectedSamplingConfig,
) -> None:
    lift = build_lift(config, CHANNELS)
    assert isinstance(lift, ImageLift)
    given, _, _ = features()
    made, volume = sizes_of(lambda: lift.lift(given, small_range()))
    assert len(volume.rows) > 0.9 * volume.n_cells  # the cells are seen
    largest = max(made)
    assert largest < OF_A_VIEW / 2, "as large as all pixels of one view at half of their depths"


@pytest.mark.parametrize("config", CONFIGS, ids=lambda one: one.kind)
def test_the_gradient_of_the_depths_is_made_once_for_all_views(
    config: FrustumPoolingConfig | ProjectedSamplingConfig,
) -> None:
    lift = build_lift(config, CHANNELS)
    assert isinstance(lift, ImageLift)
    given, feature, likely = features()
    volume = lift.lift(given, small_range())
    made, _ = sizes_of(lambda: volume.rows.square().sum().backward())
    assert max(made) == likely.numel()  # never times channels
    assert sum(size == likely.numel() for size in made) == 1
    assert sum(size == feature.numel() for size in made) == 1
    assert likely.grad is not None and likely.grad.abs().sum() > 0


def test_positions_of_one_depth_are_there_even_where_a_map_is_larger_than_a_block(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lift = build_lift(CONFIGS[0], CHANNELS).double()
    assert isinstance(lift, ImageLift)
    given, _, _ = features(torch.float64)
    expected = lift.lift(given, small_range())
    for block in (7, ROWS * COLUMNS, 3 * ROWS * COLUMNS + 1):
        monkeypatch.setattr("ponderv2.lift.frustum_pooling.lift.BLOCK", block)
        found = lift.lift(given, small_range())
        torch.testing.assert_close(found.rows, expected.rows, rtol=1e-12, atol=1e-12)
        assert torch.equal(found.number, expected.number)
