"""The whole outdoor pre-training model against one training step and one evaluation of the published code.

Inputs besides the points: `in_ray_start` and `in_ray_end` in metres (ends are points of the LiDAR),
`in_ray_offset`, and where they are rendered `in_ray_color` and `in_ray_segment`.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ponderv2.geometry.voxels import batch_index
from ponderv2.lift.config import RangeFrameConfig
from ponderv2.models.pretext import PretextModel, TargetRays
from ponderv2.renderer.renderer import RenderOutput
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
from tests.golden.official_outdoor import outdoor_config
from tests.golden.test_ponder_indoor import LOSSES, OFFICIAL, masked

KIND = "ponder_outdoor"
RENDERED_ARRAYS = ("rgb", "depth", "normal", "semantic", "z_vals", "sdf", "weights", "gradients")
READ = {"out_ray_o", "out_ray_d", "out_target_depth"}
READ |= {
    f"out_{mode}_{name}" for mode in ("train", "eval") for name in (*RENDERED_ARRAYS, "backbone", "volume")
}
READ |= {f"out_train_{name}" for name in (*OFFICIAL.values(), "loss", "psnr")}
READ |= {f"out_train_grad_{name}" for name in ("volume_norm", "volume_norm_per_scene", "volume", "names")}
READ |= {f"out_train_grad_{name}" for name in ("backbone_norm", "backbone", "norm", "dot")}
"""Outputs that the tests below compare."""


@pytest.fixture(scope="module")
def model(case: Case) -> PretextModel:
    return model_of(case)


@pytest.fixture(scope="module")
def batch(case: Case) -> Batch:
    return batch_of(case)


def model_of(case: Case) -> PretextModel:
    """The published model with the weights of a case."""
    model = PretextModel(outdoor_config(case.config))
    fill_weights(model, case)
    if "in_class_embedding" in case:
        model.class_embedding.copy_(case.tensor("in_class_embedding"))
    return model


def batch_of(case: Case, dtype: torch.dtype = torch.float32) -> Batch:
    """The scenes of a case. Each ray is the middle pixel of a camera of its own, its end at its depth."""
    start, end = case.tensor("in_ray_start").double(), case.tensor("in_ray_end").double()
    n_rays, n_scenes = len(start), len(case.tensor("in_offset"))
    label = case.tensor("in_ray_segment") if "in_ray_segment" in case else torch.full((n_rays,), -1)
    color = case.tensor("in_ray_color") if "in_ray_color" in case else torch.zeros(n_rays, 3)
    pixels = PixelBatch(
        intrinsics=torch.eye(3, dtype=dtype).expand(n_rays, 3, 3),
        world_to_camera=cameras_towards(start, end).to(dtype),
        view_scene=batch_index(case.tensor("in_ray_offset")),
        view=torch.arange(n_rays),
        pixel=torch.zeros(n_rays, 2, dtype=dtype),
        color=color.to(dtype),
        depth=(end - start).norm(dim=1).to(dtype),
        label=_labels(case, label),
    )
    n_points = int(case.tensor("in_offset")[-1])
    segment = case.tensor("in_segment") if "in_segment" in case else torch.full((n_points,), -1)
    return Batch(
        coord=case.tensor("in_coord").to(dtype),
        grid_coord=case.tensor("in_grid_coord"),
        feature=case.tensor("in_feat").to(dtype),
        offset=case.tensor("in_offset"),
        segment=segment,
        units_per_metre=torch.ones(n_scenes),
        condition="",
        names=tuple(f"scene{i}" for i in range(n_scenes)),
        pixels=pixels,
    )


def _labels(case: Case, label: Tensor) -> Tensor:
    """The published code takes -1 for an index from the end: an unlabelled point is of the last class."""
    if not case.config.get("render_semantic"):
        return label
    rows = case.config.get("valid_index") or [list(range(len(case.config["class_name"])))]
    n_classes = len(rows[0]) if isinstance(rows[0], list) else len(rows)
    return torch.where(label < 0, n_classes - 1, label)


def cameras_towards(start: Tensor, end: Tensor) -> Tensor:
    """World to camera of cameras at `start` whose optical axis meets `end`."""
    forward = F.normalize(end - start, dim=1)
    aside = F.one_hot(forward.abs().argmin(dim=1), 3).to(forward.dtype)
    right = F.normalize(torch.linalg.cross(aside, forward, dim=1), dim=1)
    rotation = torch.stack([right, torch.linalg.cross(forward, right, dim=1), forward], dim=1)
    pose = torch.eye(4, dtype=start.dtype).repeat(len(start), 1, 1)
    pose[:, :3, :3] = rotation
    pose[:, :3, 3] = -(rotation @ start[:, :, None])[:, :, 0]
    return pose


def noise_of(case: Case) -> RayNoise:
    """Random numbers of the rays, scene by scene."""
    uniform, importance = case.tensor("in_rand_uniform"), case.tensor("in_rand_pdf")
    return RayNoise(uniform.reshape(-1, uniform.shape[-1]), (importance.reshape(-1, importance.shape[-1]),))


def test_rays_and_targets_are_the_published_ones(case: Case, model: PretextModel, batch: Batch) -> None:
    """The range is 0..1 there, and -0.5..0.5 here; also by the formula, where the case has no rays."""
    rays = rays_of(model, batch)
    frame = model.config.frame
    assert isinstance(frame, RangeFrameConfig)
    box = torch.tensor([*frame.lower, *frame.upper], dtype=torch.float64)
    start, end = (
        (case.tensor(f"in_ray_{name}").double() - box[:3]) / (box[3:] - box[:3]) for name in ("start", "end")
    )
    distance = (end - start).norm(dim=1)
    torch.testing.assert_close(rays.rays.origins.double() + 0.5, start, rtol=0, atol=1e-5)
    torch.testing.assert_close(
        rays.rays.directions.double(), (end - start) / distance[:, None], rtol=0, atol=1e-5
    )
    torch.testing.assert_close(rays.targets.distance.double(), distance, rtol=0, atol=1e-5)
    assert_absolute(case, "out_ray_o", rays.rays.origins + 0.5, 1e-5)
    assert_absolute(case, "out_ray_d", rays.rays.directions, 1e-5)
    assert_absolute(case, "out_target_depth", rays.targets.distance[:, None], 1e-5)


def rays_of(model: PretextModel, batch: Batch) -> TargetRays:
    from ponderv2.lift.volume_frame import volume_frame

    return model.rays(batch, volume_frame(batch.coord, batch.offset, model.config.frame))


def test_one_training_step_is_the_published_one(case: Case, model: PretextModel, batch: Batch) -> None:
    skip_without(case, "out_train")
    model.train()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    encoded = model.build_volume(masked(case, model, batch, "train"))
    encoded.features.feature.retain_grad()
    encoded.volume.values.retain_grad()
    rays = model.rays(batch, encoded.frame)
    output = model.renderer(encoded.volume, rays.rays, noise_of(case))
    step = model.compare(batch, encoded, rays, output)
    model.zero_grad()
    step.losses.total().backward()
    model.load_state_dict(state)

    assert_rows(case, "out_train_backbone", encoded.features.feature, TRAINED_FEATURES)
    assert_rows(case, "out_train_volume", cells_first(encoded.volume.values), TRAINED_FEATURES)
    assert_rendered(case, "out_train", output, TRAINED_FEATURES, None)
    for name in LOSSES:
        _assert_scalar(case, f"out_train_{OFFICIAL[name]}", getattr(step.losses, name))
    _assert_scalar(case, "out_train_loss", step.losses.total())
    _assert_scalar(case, "out_train_psnr", step.psnr)
    gradient = encoded.volume.values.grad
    assert gradient is not None and encoded.features.feature.grad is not None
    assert_norm(case, "out_train_grad_volume_norm", gradient, 1e-3)
    assert_rows(case, "out_train_grad_volume", cells_first(gradient), 5e-3)
    assert_norm(case, "out_train_grad_backbone_norm", encoded.features.feature.grad, 5e-3)
    assert_rows(case, "out_train_grad_backbone", encoded.features.feature.grad, BACKBONE_GRADIENT)
    assert_parameter_gradients(case, "out_train", model, TRAINED_PARAMETER_GRADIENT)


def _assert_scalar(case: Case, name: str, value: Tensor) -> None:
    if name in case:
        assert float(value.detach()) == pytest.approx(case.scalar(name), rel=1e-4), name


def test_evaluation_is_the_published_one(case: Case, model: PretextModel, batch: Batch) -> None:
    skip_without(case, "out_eval")
    model.eval()
    with torch.no_grad():
        encoded = model.build_volume(masked(case, model, batch, "eval"))
        output = model.renderer(encoded.volume, model.rays(batch, encoded.frame).rays)
    assert_rows(case, "out_eval_backbone", encoded.features.feature, FEATURES)
    assert_rows(case, "out_eval_volume", cells_first(encoded.volume.values), FEATURES)
    assert_rendered(case, "out_eval", output, RENDERED, RENDERED_P99)


def assert_rendered(case: Case, prefix: str, output: RenderOutput, bound: float, p99: float | None) -> None:
    """Colour, where it is rendered, and depth by the bounds given, the rest by those of samples."""
    compared = assert_rows(case, f"{prefix}_depth", output.distance[:, None], bound, p99)
    if case.config["renderer"]["field"].get("rgb_decoder"):
        compared += assert_rows(case, f"{prefix}_rgb", output.color, bound, p99)
    samples = {"normal": output.normal, "z_vals": output.starts, "sdf": output.sdf}
    samples |= {"gradients": output.gradients, "weights": output.weights}
    if output.semantic is not None:
        samples["semantic"] = output.semantic
    for name, values in samples.items():
        strict = SAMPLES_P99 if name == "weights" else None
        compared += assert_rows(case, f"{prefix}_{name}", values, SAMPLES, strict)
    assert compared, f"{case.name} holds nothing rendered under {prefix}"


def test_every_output_of_the_case_is_compared(case: Case) -> None:
    left = unread(case)
    if left:
        pytest.skip(f"{case.name}: no test compares {', '.join(left)}")


def unread(case: Case) -> list[str]:
    """Outputs that no test here compares."""
    return [name for name in case.names if name.startswith("out_") and name not in READ]
