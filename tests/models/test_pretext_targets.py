"""Further targets of the pretext: what is rendered for them, and the terms against loops and closed forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.nn import functional as F

from ponderv2.geometry.transforms import flip_matrix, rotation_matrix, scale_matrix
from ponderv2.geometry.volumes import ChannelMap, FeatureVolume
from ponderv2.models.config import PretextConfig
from ponderv2.models.pretext import PretextModel, rays_of_pixels
from ponderv2.renderer.config import GuidedSamplerConfig, RendererConfig, TargetsConfig, VolsdfConfig
from ponderv2.renderer.losses import cluster_loss, image_feature_loss, normal_loss
from ponderv2.renderer.renderer import Renderer
from ponderv2.renderer.sampling import draw_noise
from ponderv2.scenes.batch import Batch, PixelBatch
from tests.models.test_pretext_conditions import batch_of, config, step_of
from tests.renderer.test_renderer import DISTANCE_ONLY, INDOOR, OUTDOOR, SMALL, _rays, _volume

TARGETS = {
    "image_features": {"n_channels": 5},
    "clusters": {"n_clusters": 4},
    "normal": {"weight": 0.5},
}


def with_targets(**targets: Any) -> PretextConfig:
    return config().model_copy(update={"targets": TargetsConfig.model_validate(targets)})


def with_values(batch: Batch, rng: torch.Generator, **changes: Any) -> Batch:
    """Random targets; every third ray has none."""
    assert batch.pixels is not None
    n = len(batch.pixels.depth)
    some = torch.arange(n) % 3 > 0
    values = {
        "image_feature": torch.randn(n, 5, generator=rng) * some[:, None],
        "cluster": torch.where(some, torch.randint(4, (n,), generator=rng), -1),
        "normal": F.normalize(torch.randn(n, 3, generator=rng), dim=1) * some[:, None],
    }
    return replace(batch, pixels=replace(batch.pixels, **(values | changes)))


@pytest.mark.parametrize("field", [INDOOR, OUTDOOR, DISTANCE_ONLY], ids=["indoor", "outdoor", "plain"])
@pytest.mark.parametrize("deferred", [False, True])
def test_a_constant_volume_is_rendered_as_the_constant_times_the_opacity(
    field: Any, deferred: bool, rng: torch.Generator
) -> None:
    renderer = Renderer(RendererConfig(field=field, sampler=SMALL, opacity=VolsdfConfig()), 8).double()
    constant = torch.randn(8, generator=rng, dtype=torch.float64)
    volume = _volume(rng)
    values = constant[:, None, None, None].expand_as(volume.values).clone()
    last = None
    expected = constant
    if deferred:
        last = ChannelMap(
            torch.randn(8, 8, generator=rng, dtype=torch.float64),
            torch.randn(8, generator=rng, dtype=torch.float64),
        )
        expected = last(constant[None])[0]
    volume = FeatureVolume(values, volume.lower, volume.upper, last=last)
    rays = _rays(rng, 12)
    output = renderer(volume, rays, draw_noise(12, rng, renderer.config), with_features=True)
    assert output.volume_feature is not None and (output.opacity > 1e-3).all()
    torch.testing.assert_close(output.opacity, output.weights.sum(1))
    torch.testing.assert_close(output.volume_feature, output.opacity[:, None] * expected)


@pytest.mark.parametrize("field", [INDOOR, OUTDOOR, DISTANCE_ONLY], ids=["indoor", "outdoor", "plain"])
def test_composited_features_are_sums_of_trilinear_look_ups(field: Any, rng: torch.Generator) -> None:
    renderer = Renderer(RendererConfig(field=field, sampler=SMALL), 8).double()
    volume, rays = _volume(rng), _rays(rng, 12)
    output = renderer(volume, rays, draw_noise(12, rng, renderer.config), with_features=True)
    assert output.volume_feature is not None
    for ray in range(12):
        scene = int(rays.scene[ray])
        points = rays.origins[ray] + output.starts[ray, :, None] * rays.directions[ray]
        edge = volume.upper[scene] - volume.lower[scene]
        place = 2.0 * (points - volume.lower[scene]) / edge - 1.0
        inside = (place.abs() <= 1).all(dim=1)
        looked_up = F.grid_sample(
            volume.values[scene : scene + 1],
            place[None, None, None],
            padding_mode="border",
            align_corners=False,
        )[0, :, 0, 0].T
        expected = (output.weights[ray, :, None] * looked_up * inside[:, None]).sum(0)
        torch.testing.assert_close(output.volume_feature[ray], expected)
    plain = renderer(volume, rays, draw_noise(12, torch.Generator().manual_seed(1), renderer.config))
    assert plain.volume_feature is None


def test_gradients_of_composited_features_are_those_of_finite_differences(rng: torch.Generator) -> None:
    field = INDOOR.model_copy(update={"color": None})
    # Guided samples: their places do not depend on the volume.
    guided = GuidedSamplerConfig(n_free=3, n_near=4, width=0.2)
    renderer = Renderer(RendererConfig(field=field, guided=guided), 4).double()
    lower = torch.full((1, 3), -0.5, dtype=torch.float64)
    values = torch.randn(1, 4, 2, 3, 2, generator=rng, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(4, 4, generator=rng, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(4, generator=rng, dtype=torch.float64, requires_grad=True)
    rays = _rays(rng, 3)
    rays = replace(rays, scene=torch.zeros(3, dtype=torch.long))
    noise = draw_noise(3, rng, renderer.config)
    target = torch.full((3,), 0.9, dtype=torch.float64)

    def rendered(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        volume = FeatureVolume(values, lower, -lower, last=ChannelMap(weight, bias))
        output = renderer(volume, rays, noise, target, with_features=True)
        assert output.volume_feature is not None
        return output.volume_feature

    assert torch.autograd.gradcheck(rendered, (values, weight, bias), atol=1e-6, rtol=1e-4)


def test_a_model_without_targets_has_the_weights_and_losses_that_it_had(rng: torch.Generator) -> None:
    batch = batch_of("ScanNet", rng)
    torch.manual_seed(0)
    plain = PretextModel(config())
    torch.manual_seed(0)
    model = PretextModel(with_targets(**TARGETS))
    state, extended = plain.state_dict(), model.state_dict()
    heads = {f"target_heads.{n}.{p}" for n in ("image_features", "clusters") for p in ("weight", "bias")}
    assert set(extended) - set(state) == heads
    assert all(torch.equal(extended[name], value) for name, value in state.items())
    assert extended["target_heads.image_features.weight"].shape == (5, 8)
    before, after = step_of(plain, batch).losses, step_of(model, with_values(batch, rng)).losses
    names = ("color", "depth", "sdf", "free_space", "eikonal", "semantic", "point")
    for name in names:
        assert torch.equal(getattr(before, name), getattr(after, name)), name
    # Nothing is added to the sum of the terms that there were.
    assert torch.equal(before.total(), torch.stack([getattr(before, name) for name in names]).sum())


def test_every_target_reaches_its_head_and_the_encoder(rng: torch.Generator) -> None:
    batch = with_values(batch_of("ScanNet", rng), rng)
    for name in TARGETS:
        model = PretextModel(with_targets(**{name: TARGETS[name]}))
        term = getattr(step_of(model, batch).losses, name)
        assert float(term.detach()) > 0
        term.backward()
        first = next(p for n, p in model.backbone.named_parameters() if p.grad is not None)
        assert first.grad is not None and float(first.grad.abs().sum()) > 0
        for parameter in getattr(model, "target_heads", torch.nn.Module()).parameters():
            assert parameter.grad is not None and float(parameter.grad.abs().sum()) > 0


@pytest.mark.parametrize("absent", ["zero rows", "left out"])
def test_rays_without_targets_add_nothing_and_give_finite_gradients(
    absent: str, rng: torch.Generator
) -> None:
    batch = batch_of("ScanNet", rng)
    if absent == "zero rows":
        n = 20
        batch = with_values(
            batch,
            rng,
            image_feature=torch.zeros(n, 5),
            cluster=torch.full((n,), -1),
            normal=torch.zeros(n, 3),
        )
    torch.manual_seed(0)
    model = PretextModel(with_targets(**TARGETS))
    losses = step_of(model, batch).losses
    terms = (losses.image_features, losses.clusters, losses.normal)
    assert [float(term.detach()) for term in terms] == [0.0, 0.0, 0.0]
    losses.total().backward()
    assert all(p.grad is None or bool(torch.isfinite(p.grad).all()) for p in model.parameters())


def test_rays_that_miss_have_no_targets(rng: torch.Generator) -> None:
    batch = with_values(batch_of("ScanNet", rng), rng)
    assert batch.pixels is not None
    away = batch.pixels.pixel.clone()
    away[::2] += 500.0
    batch = replace(batch, pixels=replace(batch.pixels, pixel=away))
    model = PretextModel(with_targets(**TARGETS))
    targets = model.rays(batch, model.build_volume(batch).frame).targets
    assert not targets.hit[::2].any() and targets.hit[1::2].any()
    assert targets.image_feature is not None and targets.cluster is not None and targets.normal is not None
    assert (targets.image_feature[::2] == 0).all() and (targets.normal[::2] == 0).all()
    assert (targets.cluster[::2] == -1).all()


@pytest.mark.parametrize("moved", ["turned", "mirrored", "scaled"])
def test_normals_move_with_the_scene(moved: str, rng: torch.Generator) -> None:
    batch = with_values(batch_of("ScanNet", rng), rng)
    assert batch.pixels is not None and batch.pixels.normal is not None
    motion = {
        "turned": rotation_matrix(0.7, "z", None),
        "mirrored": flip_matrix(True, False),
        "scaled": scale_matrix(1.3),
    }[moved]
    model = PretextModel(with_targets(**TARGETS))
    frame = model.build_volume(batch).frame
    inverse = torch.linalg.inv(motion.double())
    cameras = (batch.pixels.world_to_camera.double() @ inverse).float()
    pixels: PixelBatch = replace(batch.pixels, world_to_camera=cameras)
    before, after = (rays_of_pixels(one, frame, 9.0).targets.normal for one in (batch.pixels, pixels))
    assert before is not None and after is not None
    turned = F.normalize(before.double() @ motion[:3, :3].double().T, dim=1)
    torch.testing.assert_close(after.double(), turned, rtol=1e-4, atol=1e-5)


def test_terms_match_the_loops(rng: torch.Generator) -> None:
    rendered, feature = torch.randn(9, 4, generator=rng), torch.randn(9, 4, generator=rng)
    feature[::3] = 0.0
    known = [i for i in range(9) if i % 3]
    cosine = sum(1 - float(rendered[i] @ feature[i] / rendered[i].norm() / feature[i].norm()) for i in known)
    assert float(image_feature_loss(rendered, feature, "cosine")) == pytest.approx(cosine / 6, rel=1e-5)
    huber = 0.0
    for i in known:
        for d in (rendered[i] - feature[i]).abs().tolist():
            huber += (0.5 * d * d if d < 1 else d - 0.5) / 4
    assert float(image_feature_loss(rendered, feature, "smooth_l1")) == pytest.approx(huber / 6, rel=1e-5)
    cluster = torch.tensor([0, -1, 2, 3, -1, 1, 0, 0, 2])
    entropy = F.cross_entropy(rendered, cluster, ignore_index=-1)
    torch.testing.assert_close(cluster_loss(rendered, cluster), entropy)
    normal = torch.tensor([[0.0, 0.0, 1.0], [0.0, 0.0, 0.0]])
    tilted = torch.tensor([[0.3, 0.0, 0.3], [1.0, 2.0, 3.0]])  # 45 degrees, not of unit length
    half = 0.5**0.5
    assert float(normal_loss(tilted, normal)) == pytest.approx(half + (1 - half) + (1 - half), rel=1e-5)


def test_constant_targets_are_learned_as_constants(rng: torch.Generator) -> None:
    """The head of an opaque ray through a constant volume gives W v + b, of a transparent one nothing."""
    model = PretextModel(with_targets(**TARGETS))
    batch = batch_of("ScanNet", rng)
    output = step_of(model, batch).output
    value = torch.randn(8, generator=rng)
    constant = replace(output, volume_feature=output.opacity[:, None] * value)
    head = model.target_heads["image_features"]
    assert isinstance(head, torch.nn.Linear)
    found = model.head_outputs(constant)["image_features"]
    torch.testing.assert_close(found, output.opacity[:, None] * head(value))


def test_targets_of_the_encoder_pass_by_the_network_that_makes_the_volume(rng: torch.Generator) -> None:
    batch = with_values(batch_of("ScanNet", rng), rng)
    model = PretextModel(with_targets(**TARGETS, source="encoder", cells=(6, 5, 4)))
    head = model.target_heads["image_features"]
    assert isinstance(head, torch.nn.Linear)
    assert head.in_features == model.n_channels
    # Nothing of the renderer but its weights: without them the volume has no gradient at all.
    step_of(model, batch).losses.image_features.backward()
    assert all(
        parameter.grad is None or not bool(parameter.grad.any())
        for name, parameter in model.renderer.named_parameters()
        if "rgb_decoder" in name
    )
    first = next(p for n, p in model.backbone.named_parameters() if p.grad is not None)
    assert first.grad is not None and float(first.grad.abs().sum()) > 0
    assert head.weight.grad is not None and bool(head.weight.grad.any())


def test_cells_of_the_encoder_are_refused_where_the_volume_is_composited() -> None:
    with pytest.raises(ValueError, match="set source to encoder"):
        TargetsConfig.model_validate({**TARGETS, "cells": (6, 5, 4)})


@pytest.mark.parametrize("source", ["volume", "encoder"])
def test_targets_are_rendered_in_full_precision_when_the_rest_is_not(
    source: str, rng: torch.Generator
) -> None:
    batch = with_values(batch_of("ScanNet", rng), rng)
    torch.manual_seed(0)
    model = PretextModel(with_targets(**TARGETS, source=source))
    state = {name: value.clone() for name, value in model.state_dict().items()}
    expected = step_of(model, batch).losses
    model.load_state_dict(state)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        losses = step_of(model, batch).losses
    for name in TARGETS:
        term = getattr(losses, name)
        assert term.dtype == torch.float32
        assert float(term.detach()) == pytest.approx(float(getattr(expected, name).detach()), rel=0.05)
    losses.total().backward()
    gradient = model.target_heads["clusters"].get_parameter("weight").grad
    assert gradient is not None and bool(torch.isfinite(gradient).all()) and bool(gradient.any())
