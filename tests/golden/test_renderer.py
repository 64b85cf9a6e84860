"""The renderer against outputs, losses and gradients of the published one."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.compositing import laplace_density, neus_alpha, neus_inv_s, volsdf_width
from ponderv2.renderer.config import ErrorBoundedSamplerConfig
from ponderv2.renderer.losses import RayTargets, eikonal_loss, psnr, render_losses
from ponderv2.renderer.renderer import Renderer, RenderOutput
from ponderv2.renderer.sampling import RayNoise
from tests.golden.cases import Case, fill_weights
from tests.golden.compare import (
    FEATURES,
    FORMS,
    PARAMETER_GRADIENT,
    SAMPLES,
    SAMPLES_P99,
    assert_norm,
    assert_parameter_gradients,
    assert_relative_l2,
    assert_rows,
    cells_first,
    skip_without,
)
from tests.golden.official_renderer import LOSS_NAMES, channels, loss_config, renderer_config, volume_of

KIND = "renderer"


@dataclass(frozen=True)
class Setting:
    case: Case
    renderer: Renderer
    volume: FeatureVolume
    rays: RayBundle

    def render(self, phase: str) -> RenderOutput:
        noise = None if phase == "eval" else _noise(self.case)
        return self.renderer(self.volume, self.rays, noise)


@pytest.fixture(scope="module")
def setting(case: Case) -> Setting:
    return setting_of(case)


def setting_of(case: Case) -> Setting:
    """The renderer with the weights of a case, its volume and its rays."""
    renderer = Renderer(renderer_config(case.config), *channels(case.config))
    fill_weights(renderer, case)
    values = case.tensor("in_volume")
    values = (values if values.ndim == 5 else values[None]).requires_grad_()
    origins = case.tensor("in_ray_o")
    scene = case.tensor("in_ray_scene") if "in_ray_scene" in case else torch.zeros(len(origins)).long()
    rays = RayBundle(origins, case.tensor("in_ray_d"), scene)
    return Setting(case, renderer, volume_of(case.config, values), rays)


def _natural(name: str) -> tuple[str, int]:
    """`in_rand_pdf_10` comes after `in_rand_pdf_2`."""
    stem = name.rstrip("0123456789")
    return stem, int(name[len(stem) :] or 0)


def _noise(case: Case) -> RayNoise:
    """Random numbers by name: the first `uniform` array, the `pdf` arrays in order, any other `uniform`."""
    names = sorted((name for name in case.names if name.startswith("in_rand")), key=_natural)
    even = [name for name in names if "uniform" in name or "init" in name or "extra" in name]
    rounds: list[Tensor] = []
    for name in names:
        if name not in even:
            array = case.tensor(name)
            rounds += (
                [array] if array.ndim == 2 else list(array.unbind(0 if len(array) < array.shape[1] else 1))
            )
    extra = case.tensor(even[1]) if len(even) > 1 else None
    return RayNoise(case.tensor(even[0]), tuple(rounds), extra)


def _samples(setting: Setting, output: RenderOutput) -> dict[str, Tensor]:
    """Everything per sample, under the official names."""
    field, rays, sampler = setting.renderer.field, setting.rays, setting.renderer.config.sampler
    slope = (output.gradients * rays.directions[:, None]).sum(-1)
    inv_s = neus_inv_s(field.deviation_network.variance)
    width = volsdf_width(field.laplace_density.beta, field.laplace_density.beta_min)
    found = {
        "z_vals": output.starts,
        "near_far": torch.stack([output.near, output.far], dim=-1),
        "weights": output.weights,
        "sdf": output.sdf,
        "gradients": output.gradients,
        "field_alphas": neus_alpha(output.sdf, slope, output.samples.steps, inv_s),
        "field_density": laplace_density(output.sdf, width),
    }
    if output.sample_color is not None:
        found["field_rgb"] = output.sample_color
    coarse, new = output.samples.coarse_weights, output.samples.new_starts
    if coarse is not None and new is not None and not isinstance(sampler, ErrorBoundedSamplerConfig):
        found["init_weights"] = coarse
        found["importance_points"] = rays.origins[:, None] + rays.directions[:, None] * new[..., None]
    return found


@pytest.mark.parametrize("phase", ["eval", "train"])
def test_pictures_and_samples_are_the_published_ones(setting: Setting, phase: str) -> None:
    case = setting.case
    phases = {name.split("_")[1] for name in case.names if name.startswith("out_")}
    assert phases & {"eval", "train"}, f"{case.name} holds no outputs"
    skip_without(case, f"out_{phase}_")
    with torch.no_grad():
        output = setting.render(phase)
    compared = 0
    for name, actual in {"rgb": output.color, "depth": output.distance}.items():
        compared += assert_rows(case, f"out_{phase}_{name}", _channels(actual), FEATURES)
    samples = _samples(setting, output) | {"normal": output.normal}
    if output.semantic is not None:
        samples["semantic"] = output.semantic
    for name, actual in samples.items():
        compared += assert_rows(case, f"out_{phase}_{name}", actual, SAMPLES, SAMPLES_P99)
    compared += _compare_semantic_samples(setting, output, phase)
    assert compared >= 3, f"{case.name} holds nothing to compare in phase {phase}"


def _channels(values: Tensor) -> Tensor:
    """[ray] -> [ray, 1]: the last axis is that of channels."""
    return values[:, None] if values.ndim == 1 else values


def _compare_semantic_samples(setting: Setting, output: RenderOutput, phase: str) -> int:
    """Semantic features of every sample of the first rays of `in_ray_rows`."""
    case, name = setting.case, f"out_{phase}_field_semantic"
    stored = [form for form in ("", "__proj", "__sample") if f"{name}{form}" in case.arrays]
    if not stored or output.semantic is None:
        return 0
    every = case.tensor("in_ray_rows") if "in_ray_rows" in case else torch.arange(len(output.starts))
    rows = every[: _n_rays(case, f"{name}{stored[0]}", output.starts.shape[1])]
    feature = _semantic_per_sample(setting, output, rows)
    shaped = feature.view(len(rows), -1, feature.shape[-1])
    expected = case.tensor(f"{name}{stored[0]}")
    by_ray = expected.ndim == (2 if stored[0] == "__proj" else 3)
    return assert_rows(case, name, shaped if by_ray else feature, SAMPLES, SAMPLES_P99)


def _n_rays(case: Case, name: str, n_samples: int) -> int:
    """How many rays an array of samples holds: one row a ray, or one a sample."""
    expected = case.tensor(name)
    if name.endswith("__sample"):
        return len(case.tensor("in_ray_rows"))
    if expected.ndim >= 2 and expected.shape[1] == n_samples:
        return len(expected)
    return -(-len(expected) // n_samples)


def _semantic_per_sample(setting: Setting, output: RenderOutput, rows: Tensor) -> Tensor:
    field, rays = setting.renderer.over(setting.volume), setting.rays.part(rows)
    starts = output.starts[rows]
    points = (rays.origins[:, None] + rays.directions[:, None] * starts[..., None]).reshape(-1, 3)
    directions = rays.directions[:, None].expand(-1, starts.shape[1], -1).reshape(-1, 3)
    scene = rays.scene[:, None].expand_as(starts).reshape(-1)
    with torch.no_grad():
        found = field.evaluate(points, scene, directions)
        assert found.semantic_input is not None
        return field.semantic(found.semantic_input, torch.ones(len(points)))


def _targets(case: Case) -> RayTargets:
    n_rays = len(case.tensor("in_ray_o"))
    label = case.tensor("in_target_label") if "in_target_label" in case else torch.full((n_rays,), -1)
    color = case.tensor("in_target_rgb") if "in_target_rgb" in case else torch.zeros(n_rays, 3)
    hit = torch.ones(n_rays, dtype=torch.bool)
    return RayTargets(color, case.tensor("in_target_depth").reshape(-1), label.reshape(-1), hit)


def test_losses_and_gradients_are_the_published_ones(setting: Setting) -> None:
    case, compared = setting.case, 0
    if "out_train_loss" not in case:
        pytest.skip(f"{case.name} holds no losses")
    config = loss_config(case.config).model_copy(update={"supervise_class_zero": True})
    embedding = case.tensor("in_class_embedding") if "in_class_embedding" in case else None
    output = setting.render("train")
    losses = render_losses(output, _targets(case), embedding, config)
    for ours, theirs in LOSS_NAMES.items():
        if f"out_train_{theirs}" in case:
            expected = case.scalar(f"out_train_{theirs}")
            assert float(getattr(losses, ours).detach()) == pytest.approx(expected, rel=1e-4, abs=1e-9), (
                theirs
            )
            compared += 1
    assert float(losses.total().detach()) == pytest.approx(case.scalar("out_train_loss"), rel=1e-4)
    if "out_train_psnr" in case:
        measured = psnr(output, _targets(case), config)
        assert float(measured) == pytest.approx(case.scalar("out_train_psnr"), rel=1e-4)
    assert compared > 0

    setting.renderer.zero_grad()
    (gradient,) = _backward(setting, losses.total())
    _compare_volume(case, "out_train_grad_volume", gradient)
    assert_norm(case, "out_train_grad_volume_norm", gradient, 1e-3)
    assert_parameter_gradients(case, "out_train", setting.renderer, PARAMETER_GRADIENT)


def _compare_volume(case: Case, name: str, values: Tensor) -> None:
    """A volume as it lies, or reduced over its cells."""
    if name in case.arrays:
        expected = case.tensor(name)
        assert_relative_l2(values.reshape(expected.shape), expected, 1e-3, name)
    reduced = tuple(form for form in FORMS if form)
    assert_rows(case, name, cells_first(values), 1e-3, forms_read=reduced)


def _backward(setting: Setting, loss: Tensor) -> tuple[Tensor]:
    setting.volume.values.grad = None
    loss.backward()
    assert setting.volume.values.grad is not None
    return (setting.volume.values.grad,)


def test_eikonal_term_and_its_gradient_are_the_published_ones(setting: Setting) -> None:
    case = setting.case
    if "out_train_eikonal_unweighted" not in case:
        pytest.skip(f"{case.name} holds no eikonal term of its own")
    loss = eikonal_loss(setting.render("train").gradients)
    assert float(loss.detach()) == pytest.approx(case.scalar("out_train_eikonal_unweighted"), rel=1e-4)
    (gradient,) = _backward(setting, loss)
    _compare_volume(case, "out_train_eikonal_grad_volume", gradient)
