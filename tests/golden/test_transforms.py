"""Geometry, colour and voxel transforms against stored numbers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from ponderv2.data.augmentation import centre_shift, middle
from ponderv2.data.preprocess import normalised_color
from ponderv2.data.voxelise import (
    fnv_hash,
    grid_cells,
    group_by_voxel,
    offset_in_voxel,
    ravel_hash,
    voxelise,
)
from ponderv2.geometry.cameras import Camera
from ponderv2.geometry.transforms import flip_matrix, rotation_matrix, scale_matrix
from ponderv2.scenes.scene import Frame, PointCloud, Scene
from tests.golden.cases import Case
from tests.golden.compare import assert_absolute, skip_without

KIND = "transforms"


def grid_size(case: Case) -> float:
    """Edge of a voxel: as the case says, else worked out from its positions and voxel indices."""
    for given in (case.config.get("grid_size"), case.arrays.get("in_grid_size")):
        if given is not None:
            return float(given)
    for order in ("fnv", "ravel"):
        if f"out_grid_{order}_index" in case:
            coord = case.tensor("in_coord")[case.tensor(f"out_grid_{order}_index")].double()
            cell = case.tensor(f"out_grid_{order}_grid_coord").double()
            return fitted_size(coord.numpy(), cell.numpy())
    pytest.skip(f"{case.name} has no voxels")


def fitted_size(coord: np.ndarray, cell: np.ndarray) -> float:
    """The size, to four digits, whose floor(coord / size) differs from the indices by one shift per axis."""
    slopes = [
        np.polyfit(cell[:, axis], coord[:, axis], 1)[0] for axis in range(3) if np.ptp(cell[:, axis]) > 0
    ]
    for digits in (1, 2, 3, 4):
        size = float(f"{np.mean(slopes):.{digits}g}")
        shift = np.floor(coord / size) - cell
        if (
            np.ptp(shift, axis=0).max() <= 1
            and (shift == np.median(shift, axis=0)).all(axis=1).mean() > 0.999
        ):
            return size
    raise AssertionError(f"no grid size fits the voxel indices; their slopes are {slopes}")


def test_the_size_of_voxels_follows_from_their_indices(rng: torch.Generator) -> None:
    coord = torch.rand(4000, 3, generator=rng, dtype=torch.float64).numpy() * [6.0, 4.0, 3.0] - 2.0
    for size in (0.02, 0.05, 0.037, 0.1):
        cell = np.floor(coord / size)
        assert fitted_size(coord, cell - cell.min(axis=0)) == size


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
    skip_without(case, f"out_{name}_")
    moved = torch.stack([frame.camera.world_to_camera for frame in scene.frames])
    assert_absolute(case, f"out_{name}_coord", scene.cloud.coord, 1e-5)
    assert_absolute(case, f"out_{name}_extrinsic", moved, 1e-6)
    assert_absolute(case, f"out_{name}_normal", scene.cloud.normal, 1e-6)


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
    skip_without(case, "out_scale_")
    scaled = scene_of(case).moved(scale_matrix(1.07))
    assert_scene(case, scaled, "scale")
    if "out_scale_depth_scale" not in case:
        return
    depth_scale = case.scalar("in_depth_scale") * scaled.units_per_metre
    assert depth_scale == pytest.approx(float(case.arrays["out_scale_depth_scale"][0]), rel=1e-9)


def test_flip(case: Case) -> None:
    assert_scene(case, scene_of(case).moved(flip_matrix(True, True)), "flip_xy")


def test_normalised_colors(case: Case) -> None:
    skip_without(case, "out_normalize_")
    color = case.tensor("in_color").float()
    if "out_normalize_color" in case:
        expected = case.tensor("out_normalize_color")
        torch.testing.assert_close(normalised_color(color[: len(expected)]), expected, rtol=0, atol=1e-6)
    if "out_normalize_rgb" in case:
        expected = case.tensor("out_normalize_rgb")
        picture = color[: expected.numel() // 3].reshape(expected.shape) / 255.0
        torch.testing.assert_close(picture, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ["fnv", "ravel"])
def test_voxel_hash_and_selection(case: Case, order: str) -> None:
    skip_without(case, f"out_grid_{order}_index")
    cells, _ = grid_cells(case.tensor("in_coord"), grid_size(case))
    key = fnv_hash(cells) if order == "fnv" else ravel_hash(cells)
    if f"out_grid_{order}_hash" in case:
        np.testing.assert_array_equal(key.numpy().view(np.uint64), case.arrays[f"out_grid_{order}_hash"])
    groups = group_by_voxel(key, case.tensor(f"in_grid_{order}_sort_order"))
    index = groups.pick(case.tensor(f"in_grid_{order}_draw"))
    torch.testing.assert_close(index, case.tensor(f"out_grid_{order}_index"))
    torch.testing.assert_close(cells[index], case.tensor(f"out_grid_{order}_grid_coord"))


@pytest.mark.parametrize("order", ["fnv", "ravel"])
def test_own_sorting_gives_the_voxels_in_the_stored_order(case: Case, order) -> None:
    skip_without(case, f"out_grid_{order}_grid_coord")
    voxels = voxelise(case.tensor("in_coord"), grid_size(case), order)
    torch.testing.assert_close(voxels.grid_coord, case.tensor(f"out_grid_{order}_grid_coord"))
    if f"out_grid_{order}_inverse" in case:
        torch.testing.assert_close(voxels.inverse, case.tensor(f"out_grid_{order}_inverse"))
    if f"out_grid_{order}_min_coord" in case:
        lower = case.tensor(f"out_grid_{order}_min_coord").flatten().float()
        torch.testing.assert_close(voxels.lower, lower, rtol=0, atol=1e-6)


def test_displacement_is_the_offset_plus_the_lowest_cell(case: Case) -> None:
    skip_without(case, "out_grid_fnv_displacement")
    coord = case.tensor("in_coord")
    index = case.tensor("out_grid_fnv_index")
    _, lowest = grid_cells(coord, grid_size(case))
    displacement = offset_in_voxel(coord[index], grid_size(case)) + lowest
    assert_absolute(case, "out_grid_fnv_displacement", displacement, 1e-4)


def test_fragments(case: Case) -> None:
    skip_without(case, "out_grid_test_")
    cells, _ = grid_cells(case.tensor("in_coord"), grid_size(case))
    groups = group_by_voxel(fnv_hash(cells), case.tensor("in_grid_fnv_sort_order"))
    fragments = groups.fragments()
    assert len(fragments) == int(case.arrays["out_grid_test_count"])
    if "out_grid_test_index" in case:
        torch.testing.assert_close(torch.stack(fragments), case.tensor("out_grid_test_index"))
    torch.testing.assert_close(cells[fragments[0]], case.tensor("out_grid_test_grid_coord"))
