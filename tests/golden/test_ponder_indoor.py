"""The whole indoor pre-training model against one training step and one evaluation of the published code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.voxels import scene_of_each
from ponderv2.models.pretext import EncodedScenes, PretextModel
from ponderv2.renderer.sampling import RayNoise
from ponderv2.scenes.batch import PixelBatch, SceneBatch
from tests.golden.cases import (
    Case,
    assert_p99,
    assert_parameter_gradients,
    assert_relative_l2,
    assert_rows,
    fill_weights,
    seeded_normal,
)
from tests.golden.official_configs import pretext_config

KIND = "ponder_indoor"
LOSSES = ("color", "depth", "semantic", "free_space", "sdf", "eikonal")
OFFICIAL = {"color": "rgb_loss"} | {name: f"{name}_loss" for name in LOSSES[1:]}


@pytest.fixture(scope="module")
def model(case: Case) -> PretextModel:
    model = PretextModel(pretext_config(case.config))
    fill_weights(model, case)
    if "in_class_embedding" in case:
        model.class_embedding.copy_(case.tensor("in_class_embedding"))
    return model


@pytest.fixture(scope="module")
def batch(case: Case) -> SceneBatch:
    return _batch(case)


def _batch(case: Case) -> SceneBatch:
    n_scenes, n_views, _ = case.arrays["in_pixel_x"].shape
    x, y = case.tensor("in_pixel_x"), case.tensor("in_pixel_y")
    scene = torch.arange(n_scenes)[:, None, None].expand_as(x)
    view = torch.arange(n_views)[None, :, None].expand_as(x)
    millimetres = case.tensor("in_depth_scale")[scene] * case.tensor("in_depth").float()[scene, view, y, x]
    pixels = PixelBatch(
        intrinsics=case.tensor("in_intrinsic")[..., :3, :3].reshape(-1, 3, 3),
        world_to_camera=case.tensor("in_extrinsic").reshape(-1, 4, 4),
        view_scene=torch.arange(n_scenes).repeat_interleave(n_views),
        view=(scene * n_views + view).reshape(-1),
        pixel=torch.stack([x, y], dim=-1).reshape(-1, 2).float(),
        color=case.tensor("in_rgb_u8").float()[scene, view, y, x].reshape(-1, 3) / 255.0,
        depth=millimetres.reshape(-1),
        label=case.tensor("in_semantic")[scene, view, y, x].reshape(-1),
    )
    return SceneBatch(
        coord=case.tensor("in_coord"),
        grid_coord=case.tensor("in_grid_coord"),
        feature=case.tensor("in_feat"),
        offset=case.tensor("in_offset"),
        segment=case.tensor("in_segment"),
        units_per_metre=torch.ones(n_scenes),
        condition=str(case.config["conditions"][0]),
        names=tuple(f"scene{i}" for i in range(n_scenes)),
        pixels=pixels,
    )


def _noise(case: Case) -> RayNoise:
    uniform, importance = case.tensor("in_rand_uniform"), case.tensor("in_rand_pdf")
    return RayNoise(uniform.flatten(0, 1), (importance.flatten(0, 1),))


def _rows(volume: Tensor) -> Tensor:
    return volume.permute(0, 2, 3, 4, 1).flatten(0, 3)


def test_rays_and_targets_are_the_published_ones(case: Case, model: PretextModel, batch: SceneBatch) -> None:
    encoded = _frames_only(model, batch)
    rays = model.rays(batch, encoded)
    scale = case.tensor("out_cube_depth_scale") / case.tensor("in_depth_scale")
    torch.testing.assert_close(encoded.scale, scale, rtol=1e-5, atol=0)
    torch.testing.assert_close(rays.rays.origins, case.tensor("out_ray_o"), rtol=0, atol=1e-5)
    torch.testing.assert_close(rays.rays.directions, case.tensor("out_ray_d"), rtol=0, atol=1e-5)
    torch.testing.assert_close(rays.color, case.tensor("out_target_rgb"), rtol=0, atol=1e-5)
    torch.testing.assert_close(rays.distance, case.tensor("out_target_depth")[:, 0], rtol=0, atol=1e-5)


def _frames_only(model: PretextModel, batch: SceneBatch) -> Any:
    from ponderv2.encoder.frames import scene_frames

    return scene_frames(batch.coord, batch.offset, model.config.frame)


def test_one_training_step_is_the_published_one(case: Case, model: PretextModel, batch: SceneBatch) -> None:
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    encoded = model.build_volume(batch)
    encoded.feature.retain_grad()
    encoded.volume.values.retain_grad()
    rays = model.rays(batch, encoded.frames)
    output = model.renderer(encoded.volume, rays.rays, _noise(case))
    step = model.compare(batch, encoded, rays, output)
    model.zero_grad()
    step.losses.total().backward()
    model.load_state_dict(state)

    assert_rows(case, "out_train_backbone", encoded.feature, 1e-3)
    assert_rows(case, "out_train_volume", _rows(encoded.volume.values), 1e-3)
    _assert_pictures(case, "out_train", output, 1e-3)
    for name in LOSSES:
        expected = case.scalar(f"out_train_{OFFICIAL[name]}")
        assert float(getattr(step.losses, name)) == pytest.approx(expected, rel=1e-4), name
    assert float(step.losses.total()) == pytest.approx(case.scalar("out_train_loss"), rel=1e-4)
    assert float(step.psnr) == pytest.approx(case.scalar("out_train_psnr"), rel=1e-4)
    assert float(step.point_loss) == pytest.approx(case.scalar("out_train_ppt_loss"), rel=1e-3)
    gradient = encoded.volume.values.grad
    assert gradient is not None and encoded.feature.grad is not None
    assert float(gradient.norm()) == pytest.approx(case.scalar("out_train_grad_volume_norm"), rel=1e-3)
    assert_rows(case, "out_train_grad_volume", _rows(gradient), 5e-3)
    expected_norm = case.scalar("out_train_grad_backbone_norm")
    assert float(encoded.feature.grad.norm()) == pytest.approx(expected_norm, rel=5e-3)
    assert_rows(case, "out_train_grad_backbone", encoded.feature.grad, 5e-3)
    assert_parameter_gradients(case, "out_train", model, 5e-2)


def test_evaluation_is_the_published_one(case: Case, model: PretextModel, batch: SceneBatch) -> None:
    model.eval()
    with torch.no_grad():
        encoded = model.build_volume(batch)
        rays = model.rays(batch, encoded.frames)
        output = model.renderer(encoded.volume, rays.rays)
        step = model.compare(batch, encoded, rays, output)
    assert_rows(case, "out_eval_backbone", encoded.feature, 1e-4)
    assert_rows(case, "out_eval_volume", _rows(encoded.volume.values), 1e-4)
    _assert_pictures(case, "out_eval", output, 1e-4)
    assert float(step.point_loss) == pytest.approx(case.scalar("out_eval_ppt_loss"), rel=1e-4)


def _assert_pictures(case: Case, prefix: str, output: Any, bound: float) -> None:
    loose = max(bound, 1e-3)
    assert_relative_l2(output.color, case.tensor(f"{prefix}_rgb"), bound, "rgb")
    assert_relative_l2(output.distance, case.tensor(f"{prefix}_depth"), bound, "depth")
    assert_relative_l2(output.normal, case.tensor(f"{prefix}_normal"), loose, "normal")
    rows = case.tensor("in_ray_rows")
    for own, name in ((output.starts, "z_vals"), (output.sdf, "sdf"), (output.gradients, "gradients")):
        assert_relative_l2(own[rows].reshape(-1), case.tensor(f"{prefix}_{name}").reshape(-1), loose, name)
    assert_relative_l2(output.weights[rows], case.tensor(f"{prefix}_weights"), loose, "weights")
    assert_p99(output.weights[rows], case.tensor(f"{prefix}_weights"), 5e-3, "weights")
    if f"{prefix}_semantic" in case:
        assert_relative_l2(output.semantic[rows], case.tensor(f"{prefix}_semantic"), loose, "semantic")
        r = (
            seeded_normal(f"proj/{prefix}_semantic", (output.semantic.shape[-1],))
            / output.semantic.shape[-1] ** 0.5
        )
        assert_relative_l2(
            output.semantic @ r, case.tensor(f"{prefix}_semantic__proj"), loose, "semantic__proj"
        )


def test_the_point_loss_reaches_the_backbone_only_when_it_is_included(
    case: Case, model: PretextModel, batch: SceneBatch
) -> None:
    feature = model.train().encode(batch).detach().requires_grad_()
    state = model.config.semantic
    assert state is not None and not state.include_point_loss
    included = PretextModel(
        model.config.model_copy(update={"semantic": state.model_copy(update={"include_point_loss": True})})
    )
    included.load_state_dict(model.state_dict())
    loss = included._point_loss(feature, batch)
    loss.backward()
    assert float(feature.grad.norm()) == pytest.approx(
        case.scalar("out_train_ppt_grad_backbone_norm"), rel=5e-3
    )
    head = included.proj_head.weight.grad
    assert float(head.norm()) == pytest.approx(case.scalar("out_train_ppt_grad_head_norm"), rel=5e-3)


def test_a_batch_is_not_changed_by_a_step(case: Case, model: PretextModel, batch: SceneBatch) -> None:
    before = replace(batch, feature=batch.feature.clone(), coord=batch.coord.clone())
    model.eval()
    with torch.no_grad():
        encoded: EncodedScenes = model.build_volume(batch)
    assert len(encoded.feature) == len(scene_of_each(batch.offset))
    torch.testing.assert_close(batch.feature, before.feature)
    torch.testing.assert_close(batch.coord, before.coord)
