"""The whole indoor pre-training model against one training step and one evaluation of the published code."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from ponderv2.encoder import masking
from ponderv2.geometry.voxels import SparseVoxels, batch_index
from ponderv2.models.pretext import EncodedScenes, PretextModel
from ponderv2.renderer.sampling import RayNoise
from ponderv2.scenes.batch import Batch, PixelBatch
from tests.golden.cases import Case, fill_weights
from tests.golden.compare import (
    BACKBONE_GRADIENT,
    FEATURES,
    RENDERED,
    RENDERED_P99,
    SAMPLES,
    SAMPLES_P99,
    TRAINED_FEATURES,
    TRAINED_PARAMETER_GRADIENT,
    assert_absolute,
    assert_norm,
    assert_parameter_gradients,
    assert_rows,
    cells_first,
    skip_without,
)
from tests.golden.official_configs import pretext_config

KIND = "ponder_indoor"
LOSSES = ("color", "depth", "semantic", "free_space", "sdf", "eikonal")
OFFICIAL = {"color": "rgb_loss"} | {name: f"{name}_loss" for name in LOSSES[1:]}


@pytest.fixture(scope="module")
def model(case: Case) -> PretextModel:
    return model_of(case)


@pytest.fixture(scope="module")
def batch(case: Case) -> Batch:
    return batch_of(case)


def model_of(case: Case) -> PretextModel:
    """The published model with the weights of a case."""
    model = PretextModel(pretext_config(case.config))
    fill_weights(model, case)
    if "in_class_embedding" in case:
        model.class_embedding.copy_(case.tensor("in_class_embedding"))
    return model


def batch_of(case: Case) -> Batch:
    """The scenes and pixels of a case."""
    n_scenes, n_views, _ = case.tensor("in_pixel_x").shape
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
    return Batch(
        coord=case.tensor("in_coord"),
        grid_coord=case.tensor("in_grid_coord"),
        feature=case.tensor("in_feat"),
        offset=case.tensor("in_offset"),
        segment=case.tensor("in_segment"),
        units_per_metre=torch.ones(n_scenes),
        condition=condition_of(case),
        names=tuple(f"scene{i}" for i in range(n_scenes)),
        pixels=pixels,
    )


def condition_of(case: Case) -> str:
    """The dataset that the scenes of a case come from: stored, or the only one, or the first."""
    if "in_condition" in case.arrays:
        return str(np.atleast_1d(case.arrays["in_condition"])[0])
    given = case.meta.get("condition", case.config.get("condition"))
    if isinstance(given, list | tuple):
        given = given[0]
    return str(given or case.config["conditions"][0])


MASKS = ("in_mask", "in_hidden", "in_masked")
"""Which voxels are hidden, one entry a voxel; the published code hides them in both modes."""


def masked(case: Case, model: PretextModel, batch: Batch, mode: str) -> Batch:
    """The batch with hidden voxels behind the learned vector of the model."""
    if model.config.mask is None:
        return batch
    names = [name.replace("in_", f"in_{mode}_") for name in MASKS] + list(MASKS)
    name = next((name for name in names if name in case), None)
    hidden = case.tensor(name).reshape(-1).bool() if name else _hidden_by_noise(case, model, batch)
    return replace(batch, feature=torch.where(hidden[:, None], model.mtoken, batch.feature))


def _hidden_by_noise(case: Case, model: PretextModel, batch: Batch) -> Tensor:
    """From the random number of each block: those with the smallest numbers of a scene are kept."""
    scene = batch_index(batch.offset)
    voxels = SparseVoxels(batch.feature, batch.grid_coord, scene, len(batch.offset))
    noise = case.tensor("in_rand_mask").reshape(-1).double()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(masking, "_noise", lambda counts, generator: noise)
        return masking.hidden_blocks(voxels, model.config.mask, torch.Generator())


def _noise(case: Case) -> RayNoise:
    uniform, importance = case.tensor("in_rand_uniform"), case.tensor("in_rand_pdf")
    return RayNoise(uniform.flatten(0, 1), (importance.flatten(0, 1),))


def test_rays_and_targets_are_the_published_ones(case: Case, model: PretextModel, batch: Batch) -> None:
    encoded = _frames_only(model, batch)
    rays = model.rays(batch, encoded)
    scale = encoded.scale * case.tensor("in_depth_scale")
    assert_absolute(case, "out_cube_depth_scale", scale, 1e-9, relative=1e-5)
    assert_absolute(case, "out_ray_o", rays.rays.origins, 1e-5)
    assert_absolute(case, "out_ray_d", rays.rays.directions, 1e-5)
    assert_absolute(case, "out_target_rgb", rays.targets.color, 1e-5)
    assert_absolute(case, "out_target_depth", rays.targets.distance[:, None], 1e-5)


def _frames_only(model: PretextModel, batch: Batch) -> Any:
    from ponderv2.lift.volume_frame import volume_frame

    return volume_frame(batch.coord, batch.offset, model.config.frame)


def test_one_training_step_is_the_published_one(case: Case, model: PretextModel, batch: Batch) -> None:
    skip_without(case, "out_train")
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    encoded = model.build_volume(masked(case, model, batch, "train"))
    encoded.features.feature.retain_grad()
    encoded.volume.values.retain_grad()
    rays = model.rays(batch, encoded.frame)
    output = model.renderer(encoded.volume, rays.rays, _noise(case))
    step = model.compare(batch, encoded, rays, output)
    model.zero_grad()
    step.losses.total().backward()
    model.load_state_dict(state)

    assert_rows(case, "out_train_backbone", encoded.features.feature, TRAINED_FEATURES)
    assert_rows(case, "out_train_volume", cells_first(encoded.volume.values), TRAINED_FEATURES)
    _assert_rendered(case, "out_train", output, TRAINED_FEATURES, None)
    for name in LOSSES:
        _assert_scalar(case, f"out_train_{OFFICIAL[name]}", getattr(step.losses, name), 1e-4)
    _assert_scalar(case, "out_train_loss", step.losses.total(), 1e-4)
    _assert_scalar(case, "out_train_psnr", step.psnr, 1e-4)
    _assert_scalar(case, "out_train_ppt_loss", step.point_loss, 1e-3)
    gradient = encoded.volume.values.grad
    assert gradient is not None and encoded.features.feature.grad is not None
    assert_norm(case, "out_train_grad_volume_norm", gradient, 1e-3)
    assert_rows(case, "out_train_grad_volume", cells_first(gradient), 5e-3)
    assert_norm(case, "out_train_grad_backbone_norm", encoded.features.feature.grad, 5e-3)
    assert_rows(case, "out_train_grad_backbone", encoded.features.feature.grad, BACKBONE_GRADIENT)
    assert_parameter_gradients(case, "out_train", model, TRAINED_PARAMETER_GRADIENT)


def _assert_scalar(case: Case, name: str, value: Tensor, bound: float) -> None:
    if name in case:
        assert float(value.detach()) == pytest.approx(case.scalar(name), rel=bound), name


def test_evaluation_is_the_published_one(case: Case, model: PretextModel, batch: Batch) -> None:
    skip_without(case, "out_eval")
    model.eval()
    with torch.no_grad():
        encoded = model.build_volume(masked(case, model, batch, "eval"))
        rays = model.rays(batch, encoded.frame)
        output = model.renderer(encoded.volume, rays.rays)
        step = model.compare(batch, encoded, rays, output)
    assert_rows(case, "out_eval_backbone", encoded.features.feature, FEATURES)
    assert_rows(case, "out_eval_volume", cells_first(encoded.volume.values), FEATURES)
    _assert_rendered(case, "out_eval", output, RENDERED, RENDERED_P99)
    _assert_scalar(case, "out_eval_ppt_loss", step.point_loss, 1e-4)


def _assert_rendered(case: Case, prefix: str, output: Any, bound: float, p99: float | None) -> None:
    """Colour and depth by the bounds given, the rest by those of samples."""
    compared = assert_rows(case, f"{prefix}_rgb", output.color, bound, p99)
    compared += assert_rows(case, f"{prefix}_depth", output.distance[:, None], bound, p99)
    samples = {"normal": output.normal, "z_vals": output.starts, "sdf": output.sdf}
    samples |= {"gradients": output.gradients, "weights": output.weights}
    if output.semantic is not None:
        samples["semantic"] = output.semantic
    for name, values in samples.items():
        strict = SAMPLES_P99 if name == "weights" else None
        compared += assert_rows(case, f"{prefix}_{name}", values, SAMPLES, strict)
    assert compared, f"{case.name} holds nothing rendered under {prefix}"


def test_the_point_loss_reaches_the_backbone_only_when_it_is_included(
    case: Case, model: PretextModel, batch: Batch
) -> None:
    if "out_train_ppt_grad_backbone_norm" not in case:
        pytest.skip(f"{case.name} holds no gradient of the point loss")
    features = model.train().encode(masked(case, model, batch, "train"))
    feature = features.feature.detach().requires_grad_()
    state = model.config.semantic
    assert state is not None and not state.include_point_loss
    included = PretextModel(
        model.config.model_copy(update={"semantic": state.model_copy(update={"include_point_loss": True})})
    )
    included.load_state_dict(model.state_dict())
    loss = included._point_loss(replace(features, feature=feature), batch)
    loss.backward()
    assert_norm(case, "out_train_ppt_grad_backbone_norm", feature.grad, 5e-3)
    assert_norm(case, "out_train_ppt_grad_head_norm", included.proj_head.weight.grad, 5e-3)


def test_a_batch_is_not_changed_by_a_step(case: Case, model: PretextModel, batch: Batch) -> None:
    before = replace(batch, feature=batch.feature.clone(), coord=batch.coord.clone())
    model.eval()
    with torch.no_grad():
        encoded: EncodedScenes = model.build_volume(batch)
    assert len(encoded.features.feature) == len(batch_index(batch.offset))
    torch.testing.assert_close(batch.feature, before.feature)
    torch.testing.assert_close(batch.coord, before.coord)
