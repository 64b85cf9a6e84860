"""Crops: what is kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ponderv2.data.config import LocalCropConfig, SphereCropConfig
from ponderv2.data.crops import (
    Region,
    crop,
    nearest_points,
    overlapping_blocks,
    random_region,
    sphere_crop,
)
from ponderv2.scenes.scene import PointCloud, Scene


@pytest.fixture
def scene(rng: torch.Generator) -> Scene:
    coord = torch.rand(300, 3, generator=rng) * 4.0
    labels = {"row": torch.arange(300)}
    return Scene("room", PointCloud(coord, coord * 2.0, coord * 3.0, labels))


def test_sphere_crop_keeps_the_nearest(scene: Scene, rng: torch.Generator) -> None:
    kept, _ = sphere_crop(scene.cloud, SphereCropConfig(n_points=40), rng)
    centre = scene.cloud.coord[kept[0]]
    distance = (scene.cloud.coord - centre).norm(dim=1)
    assert set(kept.tolist()) == set(torch.argsort(distance)[:40].tolist())


def test_share_and_small_scenes(scene: Scene, rng: torch.Generator) -> None:
    assert len(sphere_crop(scene.cloud, SphereCropConfig(n_points=None, share=0.6), rng)[0]) == 180
    assert torch.equal(sphere_crop(scene.cloud, SphereCropConfig(n_points=300), rng)[0], torch.arange(300))
    assert len(nearest_points(scene.cloud.coord, torch.zeros(3), 999)) == 300


@pytest.mark.parametrize("shape", ["sphere", "box", "column"])
def test_regions_hold_what_their_shape_says(scene: Scene, shape) -> None:
    region = Region(torch.tensor([2.0, 2.0, 2.0]), 1.0, shape)
    away = (scene.cloud.coord - 2.0).tolist()
    for (x, y, z), inside in zip(away, region.contains(scene.cloud.coord).tolist(), strict=True):
        expected = {
            "sphere": x * x + y * y + z * z <= 1.0,
            "box": max(abs(x), abs(y), abs(z)) <= 1.0,
            "column": max(abs(x), abs(y)) <= 1.0,
        }
        assert inside == expected[shape]


def test_cropped_points_keep_their_fields(scene: Scene) -> None:
    cloud = crop(scene, Region(torch.full((3,), 2.0), 1.0, "sphere")).cloud
    row = cloud.labels["row"]
    assert torch.equal(cloud.coord, scene.cloud.coord[row]) and torch.equal(
        cloud.color, scene.cloud.color[row]
    )


def test_fullest_place_is_taken_where_none_suffices(scene: Scene, rng: torch.Generator) -> None:
    config = LocalCropConfig(shape="sphere", radius=0.5, min_points=10_000)
    region = random_region(scene, config, rng)
    assert int(region.contains(scene.cloud.coord).sum()) >= 1


def test_radius_is_in_metres_of_the_scene(scene: Scene, rng: torch.Generator) -> None:
    assert random_region(replace(scene, units_per_metre=0.5), LocalCropConfig(radius=2.0), rng).radius == 1.0


@pytest.mark.parametrize(("limit", "margin"), [(500, 2), (1200, 5), (10_000, 3), (1, 4)])
def test_every_voxel_is_in_one_core_and_sees_its_neighbourhood(rng: torch.Generator, limit: int, margin: int):
    cells = torch.unique(torch.randint(40, (4000, 3), generator=rng) * torch.tensor([2, 1, 1]), dim=0)
    blocks = overlapping_blocks(cells, limit, margin)
    cores = torch.cat([block.core for block in blocks])
    assert torch.equal(torch.sort(cores).values, torch.arange(len(cells)))
    for block in blocks:
        core, seen = cells[block.core], set(block.context.tolist())
        box = ((cells >= core.amin(0) - margin) & (cells <= core.amax(0) + margin)).all(dim=1)
        assert seen == set(torch.nonzero(box)[:, 0].tolist())
        narrow = int((core.amax(0) - core.amin(0)).max()) < margin
        assert len(seen) <= limit or narrow
