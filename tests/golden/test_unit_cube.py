"""The frame of a scene and the published way of pooling points into a volume."""

from __future__ import annotations

import pytest
import torch

from ponderv2.encoder.config import DensifyConfig, SceneFrameConfig
from ponderv2.encoder.densify import densify
from ponderv2.encoder.frames import SceneFrames, scene_frames
from ponderv2.geometry.voxels import scene_of_each
from tests.golden.cases import Case, assert_relative_l2, seeded_normal

KIND = "unit_cube"


@pytest.fixture(scope="module")
def frames(case: Case) -> SceneFrames:
    return scene_frames(case.tensor("in_coord"), case.tensor("in_offset"), SceneFrameConfig())


def test_points_and_cameras_equal_the_published_cube(case: Case, frames: SceneFrames) -> None:
    scene = scene_of_each(case.tensor("in_offset"))
    edge = 1.0 / frames.scale
    limit = 0.5 - 1e-5
    inside = frames.cube_coord(case.tensor("in_coord"), scene).clamp(-limit, limit)
    position = (inside + 0.5) * edge[scene, None]
    torch.testing.assert_close(position, case.tensor("out_cube_coord"), rtol=0, atol=1e-5)
    torch.testing.assert_close(edge, case.tensor("out_cube_pc_scale"), rtol=0, atol=1e-5)
    extrinsic = case.tensor("in_extrinsic") @ torch.linalg.inv(frames.to_cube)[:, None]
    torch.testing.assert_close(extrinsic, case.tensor("out_cube_extrinsic"), rtol=0, atol=1e-5)
    depth_scale = case.tensor("in_depth_scale") * frames.scale
    torch.testing.assert_close(depth_scale, case.tensor("out_cube_depth_scale"), rtol=1e-6, atol=1e-9)


def test_volume_and_its_gradient_equal_the_published_pooling(case: Case, frames: SceneFrames) -> None:
    config = DensifyConfig(
        grid_shape=tuple(case.config["grid_shape"]),
        grid_size=case.config["grid_size"],
        align_with_sampling=False,
    )
    feature = case.tensor("in_feat").requires_grad_()
    volume = densify(feature, case.tensor("in_coord"), case.tensor("in_offset"), frames, config).values
    assert list(volume.shape) == case.tensor("out_dense_mean_shape").tolist()
    rows = volume.permute(0, 2, 3, 4, 1)
    occupied = (rows != 0).any(-1).flatten(1).sum(1)
    # Points at a cell border may fall to the other side.
    borderline = int(case.tensor("aux_near_cell_border").sum())
    assert (occupied - case.tensor("out_dense_mean_nonzero_per_scene")).abs().max() <= borderline
    cells = case.tensor("out_dense_mean_cells")
    values = rows.reshape(-1, volume.shape[1])[cells]
    expected = case.tensor("out_dense_mean_values")
    differing = int(((values - expected).abs() > 1e-4).any(1).sum())
    assert differing <= 2 * borderline, f"{differing} cells differ, {borderline} points at borders"
    assert_relative_l2(volume.sum((2, 3, 4)), case.tensor("out_dense_mean_sum"), 1e-3, "sum")
    assert_relative_l2(volume.pow(2).sum((2, 3, 4)), case.tensor("out_dense_mean_sumsq"), 1e-3, "sumsq")

    (volume * seeded_normal("cotangent", tuple(volume.shape))).sum().backward()
    assert feature.grad is not None
    difference = (feature.grad - case.tensor("out_dense_mean_grad_feat")).abs().amax(1)
    assert int((difference > 1e-4).sum()) <= 40 * borderline
