"""Pre-training in a range around a LiDAR: published space, rays without a target, removed voxels."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from ponderv2.encoder.config import MaskConfig
from ponderv2.encoder.encoder import voxels_of
from ponderv2.encoder.masking import hidden_blocks, mask_blocks
from ponderv2.geometry.features import PointFeatures
from ponderv2.lift.config import DensifyConfig, RangeFrameConfig
from ponderv2.lift.kinds import build_lift
from ponderv2.lift.volume_frame import volume_frame
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel, rays_of_pixels
from ponderv2.randomness import scene_generators
from ponderv2.scenes.batch import Batch, PixelBatch
from tests.models.test_pretext_conditions import batch_of

LOWER, UPPER = (-54.0, -54.0, -5.0), (54.0, 54.0, 3.0)
PUBLISHED = RangeFrameConfig(lower=LOWER, upper=UPPER, cells=(180, 180, 5), stretch=True)


def pixels_to(points: torch.Tensor) -> PixelBatch:
    """One camera at (1, -2, 0.5) that looks along x, and rays to points."""
    turn = torch.tensor([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = turn, -turn @ torch.tensor([1.0, -2.0, 0.5])
    in_camera = points @ turn.T + pose[:3, 3]
    n = len(points)
    return PixelBatch(
        intrinsics=torch.tensor([[[500.0, 0, 400], [0, 500, 200], [0, 0, 1]]]),
        world_to_camera=pose[None],
        view_scene=torch.zeros(1, dtype=torch.long),
        view=torch.zeros(n, dtype=torch.long),
        pixel=500 * in_camera[:, :2] / in_camera[:, 2:] + torch.tensor([400.0, 200.0]),
        color=torch.rand(n, 3),
        depth=in_camera[:, 2],
        label=torch.zeros(n, dtype=torch.long),
    )


def test_the_published_distance_is_measured_in_a_cube_of_side_one(rng: torch.Generator) -> None:
    points = torch.rand(40, 3, generator=rng) * torch.tensor([40.0, 30.0, 4.0]) + torch.tensor([5.0, -15, -2])
    frame = volume_frame(points, torch.tensor([40]), PUBLISHED)
    found = rays_of_pixels(pixels_to(points), frame, 0.5, 0.0)
    extent = np.array(UPPER) - np.array(LOWER)
    start = (np.array([1.0, -2.0, 0.5]) - LOWER) / extent
    end = (points.double().numpy() - LOWER) / extent
    expected = np.linalg.norm(end - start, axis=1)
    np.testing.assert_allclose(found.targets.distance, expected, rtol=2e-4)
    np.testing.assert_allclose(found.rays.directions, (end - start) / expected[:, None], atol=2e-4)
    np.testing.assert_allclose(found.rays.origins + 0.5, np.tile(start, (40, 1)), atol=1e-5)
    assert bool(found.targets.hit.all())


def test_points_lie_in_the_published_cells_and_are_read_from_their_centres(rng: torch.Generator) -> None:
    coord = torch.rand(300, 3, generator=rng) * torch.tensor([107.0, 107.0, 7.9]) + torch.tensor(LOWER)
    frame = volume_frame(coord, torch.tensor([300]), PUBLISHED)
    lift = build_lift(DensifyConfig(corners_are_centres=True))
    volume = lift(PointFeatures(torch.ones(300, 1), coord, torch.tensor([300])), frame)
    cell = np.trunc((coord.double().numpy() - LOWER) / (0.6, 0.6, 1.6)).astype(int)
    number = np.unique((cell[:, 2] * 180 + cell[:, 1]) * 180 + cell[:, 0])
    assert volume.corners_are_centres and len(np.setdiff1d(volume.number.numpy(), number)) <= 2
    torch.testing.assert_close(volume.upper - volume.lower, torch.ones(1, 3))


def range_config(**rest: Any) -> PretextConfig:
    return PretextConfig.model_validate(
        {
            "encoder": {
                "kind": "sparse_unet",
                "base_channels": 4,
                "channels": [6, 6, 6, 6],
                "layers": [1, 1, 1, 1],
            },
            "frame": {"kind": "range", "lower": [-1, -1, -1], "upper": [3, 2, 2], "cells": [8, 6, 6]},
            "projection": {"kind": "conv3d", "out_channels": 8},
            "renderer": {
                "field": {"sdf": {"hidden": 8}, "color": {"hidden": 8}, "geometry_channels": 4},
                "sampler": {"kind": "neus", "initial": {"n_samples": 8}, "n_importance": 4},
            },
            **rest,
        }
    )


def test_rays_that_miss_the_range_or_end_beyond_it_are_skipped_and_counted(rng: torch.Generator) -> None:
    batch = batch_of("ScanNet", rng)
    model = PretextModel(range_config()).train()
    frame = volume_frame(batch.coord, batch.offset, model.config.frame)
    # near, beyond the range, and of a camera outside that looks away
    points = torch.tensor([[2.0, -1.0, 0.5], [2.5, 1.0, 1.0], [30.0, 4.0, 0.5], [9.0, -2.0, 0.5]])
    inside = pixels_to(points)
    away = inside.world_to_camera.clone()
    away[0, :3, 3] -= away[0, :3, :3] @ torch.tensor([50.0, 0.0, 0.0])
    pixels = replace(
        inside,
        intrinsics=inside.intrinsics.expand(2, 3, 3),
        world_to_camera=torch.cat([inside.world_to_camera, away]),
        view_scene=torch.tensor([0, 1]),
        view=torch.tensor([0, 0, 0, 1]),
    )
    batch = replace(batch, pixels=pixels)
    rays = model.rays(batch, frame)
    assert rays.targets.hit.tolist() == [False, True, False, False] or rays.targets.hit.sum() <= 2
    assert not bool((rays.targets.distance > 0)[2:].any())
    step = model(batch, torch.Generator().manual_seed(0))
    assert step.without_target is not None
    lost = float((~rays.targets.hit).double().mean())
    assert float(step.without_target) == pytest.approx(lost) and lost >= 0.5
    step.losses.total().backward()
    assert all(torch.isfinite(one.grad).all() for one in model.parameters() if one.grad is not None)


def test_a_removed_block_never_influences_a_visible_feature(rng: torch.Generator) -> None:
    batch = batch_of("ScanNet", rng)
    mask = MaskConfig(block_size=3, ratio=0.6, hide="remove")
    model = PretextModel(range_config(mask=mask.model_dump())).eval()
    assert model.mtoken is None and "mtoken" not in model.state_dict()

    def generators() -> list[torch.Generator]:
        return scene_generators(torch.Generator().manual_seed(1), 2)

    hidden = hidden_blocks(voxels_of(batch), mask, generators())
    assert 0 < int(hidden.sum()) < len(hidden)
    other = replace(batch, feature=torch.where(hidden[:, None], 99.0, batch.feature))
    first, second = (mask_blocks(one, None, mask, generators()) for one in (batch, other))
    assert torch.equal(first.feature, batch.feature[~hidden]) and torch.equal(first.feature, second.feature)
    assert torch.equal(first.coord, batch.coord[~hidden]) and first.n_scenes == 2
    counts = [int((~hidden)[: int(batch.offset[0])].sum()), int((~hidden).sum())]
    assert first.offset.tolist() == counts
    encoded = [model.encode(one, torch.Generator().manual_seed(1)) for one in (batch, other)]
    torch.testing.assert_close(encoded[0].feature, encoded[1].feature, atol=0, rtol=0)
    assert len(encoded[0].feature) < len(batch.coord)


def test_a_scene_keeps_a_block_and_what_hidden_points_need_is_refused(rng: torch.Generator) -> None:
    batch: Batch = batch_of("ScanNet", rng)
    mask = MaskConfig(block_size=3, ratio=1.0, hide="remove")
    kept = mask_blocks(batch, None, mask, torch.Generator().manual_seed(1))
    assert bool((torch.diff(kept.offset, prepend=torch.zeros(1, dtype=torch.long)) > 0).all())
    text = {"kind": "text", "n_classes": 6, "point_head": True}
    with pytest.raises(ValidationError, match="classifies all points"):
        range_config(mask=mask.model_dump(), semantic=text)
    with pytest.raises(ValidationError, match="corners_are_centres goes with"):
        range_config(frame={"kind": "cube"}, lift={"kind": "densify", "corners_are_centres": True})
