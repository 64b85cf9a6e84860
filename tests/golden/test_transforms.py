"""Geometry, colour and voxel transforms against stored numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.geometry.cameras import Camera
from ponderv2.scenes.augment_geometry import (
    centre_shift,
    flip_matrix,
    middle,
    rotation_matrix,
    scale_matrix,
)
from ponderv2.scenes.features import normalised_color
from ponderv2.scenes.scene import Frame, PointCloud, Scene
from ponderv2.scenes.voxelise import (
    fnv_hash,
    grid_cells,
    group_by_voxel,
    offset_in_voxel,
    ravel_hash,
    voxelise,
)
from tests.golden.cases import Case

KIND = "transforms"
GRID_SIZE = 0.02


def scene_of(case: Case) -> Scene:
    intrinsics = torch.eye(3, dtype=torch.float64)
    frames = tuple(
        Frame(str(i), Camera(intrinsics, extrinsic, 8, 8), 0.001, Path("unused"), Path("unused"))
        for i, extrinsic in enumerate(case.tensor("in_extrinsic"))
    )
    labels = {"segment": case.tensor("in_segment"), "instance": case.tensor("in_instance")}
    cloud = PointCloud(
        case.tensor("in_coord"), case.tensor("in_color").float(), case.tensor("in_normal").float(), labels
    )
    return Scene("golden", cloud, frames)


def assert_scene(case: Case, scene: Scene, name: str) -> None:
    torch.testing.assert_close(scene.cloud.coord, case.tensor(f"out_{name}_coord"), rtol=0, atol=1e-5)
    moved = torch.stack([frame.camera.world_to_camera for frame in scene.frames])
    torch.testing.assert_close(moved, case.tensor(f"out_{name}_extrinsic"), rtol=0, atol=1e-6)
    if f"out_{name}_normal" in case:
        torch.testing.assert_close(scene.cloud.normal, case.tensor(f"out_{name}_normal"), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("name", "apply_z"), [("center_shift_z", True), ("center_shift_xy", False)])
def test_centre_shift(case: Case, name: str, apply_z: bool) -> None:
    assert_scene(case, centre_shift(scene_of(case), apply_z), name)


@pytest.mark.parametrize(
    ("name", "axis", "half_turns", "about_middle"),
    [
        ("rotate_z", "z", 0.3, False),
        ("rotate_x", "x", 1 / 64, True),
        ("rotate_y", "y", -1 / 64, True),
        ("rotate_z_mid", "z", -0.77, True),
    ],
)
def test_rotation(case: Case, name: str, axis, half_turns: float, about_middle: bool) -> None:
    scene = scene_of(case)
    centre = middle(scene.cloud.coord) if about_middle else None
    assert_scene(case, scene.moved(rotation_matrix(half_turns * math.pi, axis, centre)), name)


def test_scale(case: Case) -> None:
    scaled = scene_of(case).moved(scale_matrix(1.07))
    assert_scene(case, scaled, "scale")
    depth_scale = case.scalar("in_depth_scale") * scaled.units_per_metre
    assert depth_scale == pytest.approx(float(case.arrays["out_scale_depth_scale"][0]), rel=1e-9)


def test_flip(case: Case) -> None:
    assert_scene(case, scene_of(case).moved(flip_matrix(True, True)), "flip_xy")


def test_normalised_colors(case: Case) -> None:
    color = case.tensor("in_color").float()
    torch.testing.assert_close(
        normalised_color(color[:200]), case.tensor("out_normalize_color"), rtol=0, atol=1e-6
    )
    picture = color[:64].reshape(8, 8, 3) / 255.0
    torch.testing.assert_close(picture, case.tensor("out_normalize_rgb"), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["fnv", "ravel"])
def test_voxel_hash_and_selection(case: Case, order: str) -> None:
    cells, _ = grid_cells(case.tensor("in_coord"), GRID_SIZE)
    key = fnv_hash(cells) if order == "fnv" else ravel_hash(cells)
    if f"out_grid_{order}_hash" in case:
        np.testing.assert_array_equal(key.numpy().view(np.uint64), case.arrays[f"out_grid_{order}_hash"])
    groups = group_by_voxel(key, case.tensor(f"in_grid_{order}_sort_order"))
    index = groups.pick(case.tensor(f"in_grid_{order}_draw"))
    torch.testing.assert_close(index, case.tensor(f"out_grid_{order}_index"))
    torch.testing.assert_close(cells[index], case.tensor(f"out_grid_{order}_grid_coord"))


@pytest.mark.parametrize("order", ["fnv", "ravel"])
def test_own_sorting_gives_the_voxels_in_the_stored_order(case: Case, order) -> None:
    voxels = voxelise(case.tensor("in_coord"), GRID_SIZE, order)
    torch.testing.assert_close(voxels.grid_coord, case.tensor(f"out_grid_{order}_grid_coord"))
    if f"out_grid_{order}_inverse" in case:
        torch.testing.assert_close(voxels.inverse, case.tensor(f"out_grid_{order}_inverse"))
    if f"out_grid_{order}_min_coord" in case:
        lower = case.tensor(f"out_grid_{order}_min_coord").flatten().float()
        torch.testing.assert_close(voxels.lower, lower, rtol=0, atol=1e-6)


def test_displacement_is_the_offset_plus_the_lowest_cell(case: Case) -> None:
    coord = case.tensor("in_coord")
    index = case.tensor("out_grid_fnv_index")
    _, lowest = grid_cells(coord, GRID_SIZE)
    displacement = offset_in_voxel(coord[index], GRID_SIZE) + lowest
    torch.testing.assert_close(displacement, case.tensor("out_grid_fnv_displacement"), rtol=0, atol=1e-4)


def test_fragments(case: Case) -> None:
    cells, _ = grid_cells(case.tensor("in_coord"), GRID_SIZE)
    groups = group_by_voxel(fnv_hash(cells), case.tensor("in_grid_fnv_sort_order"))
    fragments = groups.fragments()
    assert len(fragments) == int(case.arrays["out_grid_test_count"])
    torch.testing.assert_close(torch.stack(fragments), case.tensor("out_grid_test_index"))
    torch.testing.assert_close(cells[fragments[0]], case.tensor("out_grid_test_grid_coord"))
