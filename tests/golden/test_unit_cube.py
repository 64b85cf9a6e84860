"""The frame of a scene and the published way of pooling points into a volume."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.features import PointFeatures
from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import CubeFrameConfig, DensifyConfig
from ponderv2.lift.kinds import build_lift
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame
from tests.golden.cases import Case, seeded_normal
from tests.golden.compare import assert_absolute, assert_relative_l2, assert_rows, cells_first

KIND = "unit_cube"
BORDER = 1e-4
"""Cells: a point that is nearer to the border of one may fall to the other side by rounding."""


@pytest.fixture(scope="module")
def frame(case: Case) -> VolumeFrame:
    shape = case.config["grid_shape"]
    config = CubeFrameConfig(cells=tuple(shape) if isinstance(shape, list) else (shape,) * 3)
    return volume_frame(case.tensor("in_coord"), case.tensor("in_offset"), config)


def test_points_and_cameras_equal_the_published_cube(case: Case, frame: VolumeFrame) -> None:
    scene = batch_index(case.tensor("in_offset"))
    edge = 1.0 / frame.scale
    limit = 0.5 - 1e-5
    inside = frame.to_volume(case.tensor("in_coord"), scene).clamp(-limit, limit)
    assert_absolute(case, "out_cube_coord", (inside + 0.5) * edge[scene, None], 1e-5)
    assert_absolute(case, "out_cube_pc_scale", edge, 1e-5)
    if "in_extrinsic" in case:
        extrinsic = case.tensor("in_extrinsic") @ torch.linalg.inv(frame.world_to_volume)[:, None]
        assert_absolute(case, "out_cube_extrinsic", extrinsic, 1e-5)
    if "in_depth_scale" in case:
        depth_scale = case.tensor("in_depth_scale") * frame.scale
        assert_absolute(case, "out_cube_depth_scale", depth_scale, 1e-9, relative=1e-6)


def borderline(case: Case, frame: VolumeFrame, config: DensifyConfig) -> int:
    """How many points lie at a border of their cell: as stored, else found here."""
    if "aux_near_cell_border" in case:
        return int(case.tensor("aux_near_cell_border").sum())
    scene = batch_index(case.tensor("in_offset"))
    position = (frame.to_volume(case.tensor("in_coord"), scene) + 0.5) / frame.scale[scene, None]
    part = (position / config.grid_size) % 1.0
    return int(((part < BORDER) | (part > 1 - BORDER)).any(1).sum())


def test_volume_and_its_gradient_equal_the_published_pooling(case: Case, frame: VolumeFrame) -> None:
    config = DensifyConfig(grid_size=case.config["grid_size"], align_with_sampling=False)
    feature = case.tensor("in_feat").requires_grad_()
    features = PointFeatures(feature, case.tensor("in_coord"), case.tensor("in_offset"))
    volume = build_lift(config)(features, frame).dense()
    rows, near = cells_first(volume), borderline(case, frame, config)
    occupied = (rows != 0).any(-1).view(len(volume), -1).sum(1)
    if "out_dense_mean_shape" in case:
        assert list(volume.shape) == case.tensor("out_dense_mean_shape").tolist()
    for name in ("out_dense_mean_nonzero_per_scene", "out_dense_mean_nonzero_count"):
        if name in case:
            expected = case.tensor(name).reshape(-1)
            own = occupied if len(expected) == len(occupied) else occupied.sum()[None]
            assert (own - expected).abs().max() <= near
    for cells, values in (("cells", "values"), ("_rows", "_sample")):
        if f"out_dense_mean_{values}" in case:
            found = rows[case.tensor(f"out_dense_mean_{cells}")]
            differing = int(((found - case.tensor(f"out_dense_mean_{values}")).abs() > 1e-4).any(1).sum())
            assert differing <= 2 * near, f"{differing} cells differ, {near} points at borders"
    for name, sums in (("sum", volume.sum((2, 3, 4))), ("sumsq", volume.pow(2).sum((2, 3, 4)))):
        if f"out_dense_mean_{name}" in case:
            assert_relative_l2(sums, case.tensor(f"out_dense_mean_{name}"), 1e-3, name)

    (volume * seeded_normal("cotangent", tuple(volume.shape))).sum().backward()
    assert feature.grad is not None
    _compare_gradient(case, feature.grad, near)


def _compare_gradient(case: Case, gradient: Tensor, near: int) -> None:
    """Rows differ only around points at borders; sums over rows cannot tell them apart and are looser."""
    name = "out_dense_mean_grad_feat"
    for rows, values in ((None, name), (f"{name}__rows", f"{name}__sample")):
        if values in case.arrays:
            own = gradient if rows is None else gradient[case.tensor(rows)]
            difference = (own - case.tensor(values)).abs().amax(1)
            assert int((difference > 1e-4).sum()) <= 40 * near
    assert_rows(case, name, gradient, 5e-2, forms_read=("proj", "step", "mean", "std"))
