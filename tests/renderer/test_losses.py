"""Loss terms against the textbook forms and by hand."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.renderer.config import ClassesConfig, RenderLossConfig
from ponderv2.renderer.losses import (
    RayTargets,
    RenderLosses,
    contrastive_loss,
    eikonal_loss,
    free_space_loss,
    psnr,
    render_losses,
    sdf_loss,
    semantic_loss,
)
from ponderv2.renderer.renderer import RenderOutput
from ponderv2.renderer.sampling import RaySamples


def _output(rng: torch.Generator, n: int = 12, n_samples: int = 7, n_semantic: int = 6) -> RenderOutput:
    starts = torch.rand(n, n_samples, generator=rng).sort(-1).values
    zeros = torch.zeros(n)
    samples = RaySamples(F.pad(starts, (0, 1)), starts, torch.zeros_like(starts))
    return RenderOutput(
        color=torch.rand(n, 3, generator=rng),
        distance=torch.rand(n, generator=rng).requires_grad_(),
        normal=torch.rand(n, 3, generator=rng),
        semantic=torch.randn(n, n_semantic, generator=rng).requires_grad_(),
        opacity=zeros,
        weights=torch.zeros(n, n_samples),
        sdf=torch.randn(n, n_samples, generator=rng) * 0.2,
        gradients=torch.randn(n, n_samples, 3, generator=rng),
        starts=starts,
        near=zeros,
        far=zeros,
        samples=samples,
        sample_color=None,
    )


def _targets(rng: torch.Generator, n: int = 12, n_classes: int = 4) -> RayTargets:
    distance = torch.rand(n, generator=rng)
    distance[::5] = -1.0
    hit = torch.ones(n, dtype=torch.bool)
    hit[3] = False
    label = torch.randint(-1, n_classes, (n,), generator=rng)
    return RayTargets(torch.rand(n, 3, generator=rng), distance, label, hit).masked()


def _pairwise(
    feature: Tensor, label: Tensor, measured: Tensor, embedding: Tensor, temperature: float
) -> Tensor:
    """The published form: one logit per pair of rays, each ray its own class."""
    target = torch.where((label >= 0)[:, None], embedding[label.clamp(min=0)], 0.0)
    logits = F.normalize(feature, dim=-1) @ target.T / temperature
    own = torch.where(measured & (target.abs().sum(-1) > 0), torch.arange(len(label)), -1)
    return F.cross_entropy(logits, own, ignore_index=-1)


def test_contrastive_loss_is_that_over_all_pairs_of_rays(rng: torch.Generator) -> None:
    embedding = F.normalize(torch.randn(4, 6, generator=rng), dim=-1)
    feature = torch.randn(12, 6, generator=rng, requires_grad=True)
    targets = _targets(rng)
    measured = targets.distance > 0
    ours = contrastive_loss(feature, targets.label, measured, embedding, 0.1)
    theirs = _pairwise(feature, targets.label, measured, embedding, 0.1)
    torch.testing.assert_close(ours, theirs)
    (mine,), (other,) = torch.autograd.grad(ours, feature), torch.autograd.grad(theirs, feature)
    torch.testing.assert_close(mine, other)


def test_contrastive_loss_without_labels_is_zero_with_a_gradient(rng: torch.Generator) -> None:
    feature = torch.randn(3, 6, generator=rng, requires_grad=True)
    none = torch.full((3,), -1)
    loss = contrastive_loss(feature, none, torch.ones(3, dtype=torch.bool), torch.eye(6)[:2], 0.01)
    loss.backward()
    assert float(loss.detach()) == 0.0 and feature.grad is not None and feature.grad.isfinite().all()


def test_class_scores_are_compared_by_cross_entropy(rng: torch.Generator) -> None:
    output, targets = _output(rng), _targets(rng)
    config = RenderLossConfig(semantic_target=ClassesConfig())
    assert output.semantic is not None
    label = torch.where(targets.hit & (targets.distance > 0), targets.label, -1)
    expected = F.cross_entropy(output.semantic, label, ignore_index=-1)
    torch.testing.assert_close(semantic_loss(output, targets, None, config), expected)
    without = RenderLossConfig(semantic_target=ClassesConfig(), supervise_class_zero=False)
    expected = F.cross_entropy(output.semantic, torch.where(label > 0, label, -1), ignore_index=-1)
    torch.testing.assert_close(semantic_loss(output, targets, None, without), expected)


def test_band_and_free_space_match_the_loop(rng: torch.Generator) -> None:
    output, targets = _output(rng), _targets(rng)
    free, near = [], []
    for ray in range(12):
        target = float(targets.distance[ray])
        for t, sdf in zip(output.starts[ray].tolist(), output.sdf[ray].tolist(), strict=True):
            if target > 0 and t < target - 0.1:
                free.append(max(0.0, 0.1 - sdf))
            elif target > 0 and abs(t - target) <= 0.1:
                near.append(abs(t + sdf - target))
    measured = float(free_space_loss(output, targets.distance, 0.1))
    assert measured == pytest.approx(sum(free) / len(free), rel=1e-5)
    assert float(sdf_loss(output, targets.distance, 0.1)) == pytest.approx(sum(near) / len(near), rel=1e-5)


def test_a_unit_gradient_has_no_eikonal_loss(rng: torch.Generator) -> None:
    gradients = F.normalize(torch.randn(4, 5, 3, generator=rng), dim=-1)
    assert float(eikonal_loss(gradients)) < 1e-10
    assert float(eikonal_loss(gradients * 3)) == pytest.approx(4.0, rel=1e-5)


def test_misses_are_left_out_or_black(rng: torch.Generator) -> None:
    output, targets = _output(rng), _targets(rng)
    assert not targets.hit.all()
    kept = (output.color - targets.color)[targets.hit].abs().mean()
    color = render_losses(output, targets, None, RenderLossConfig(color=1.0, semantic=0)).color
    torch.testing.assert_close(color, kept)
    black = RenderLossConfig(color=1.0, semantic=0, color_of_misses=True)
    expected = (output.color - targets.color * targets.hit[:, None]).abs().mean()
    torch.testing.assert_close(render_losses(output, targets, None, black).color, expected)


def test_psnr_of_a_known_error() -> None:
    rng = torch.Generator().manual_seed(0)
    output = _output(rng)
    targets = RayTargets(output.color + 0.1, torch.ones(12), torch.zeros(12).long(), torch.ones(12).bool())
    assert float(psnr(output, targets, RenderLossConfig())) == pytest.approx(20.0, abs=1e-3)


def test_nothing_to_compare_gives_zeros_not_nan(rng: torch.Generator) -> None:
    output = _output(rng)
    nothing = torch.zeros(12, dtype=torch.bool)
    targets = RayTargets(torch.rand(12, 3), torch.full((12,), -1.0), torch.full((12,), -1), nothing)
    losses = render_losses(output, targets, torch.eye(6), RenderLossConfig(eikonal=0.0))
    assert float(losses.total().detach()) == 0.0


@pytest.mark.parametrize("term", [field.name for field in fields(RenderLosses)])
def test_every_term_reaches_the_total(term: str) -> None:
    zero = torch.zeros(())
    losses = RenderLosses(**{field.name: zero for field in fields(RenderLosses)} | {term: torch.tensor(2.5)})
    assert float(losses.total()) == 2.5


def test_rays_without_a_colour_count_for_neither_colour_loss_nor_psnr(rng: torch.Generator) -> None:
    output, targets = _output(rng), _targets(rng)
    colored = torch.arange(12) % 3 == 0
    some = replace(targets, colored=colored)
    config = RenderLossConfig(color=1.0, semantic=0)
    counted = targets.hit & colored
    expected = (output.color - targets.color)[counted].abs().mean()
    torch.testing.assert_close(render_losses(output, some, None, config).color, expected)
    square = (output.color - targets.color)[counted].square().mean()
    torch.testing.assert_close(psnr(output, some, config), -10.0 * torch.log10(square))
    whole, none = (render_losses(output, one, None, config) for one in (targets, some))
    assert torch.equal(whole.depth, none.depth) and torch.equal(whole.sdf, none.sdf)
    nothing = replace(targets, colored=torch.zeros(12, dtype=torch.bool))
    assert float(render_losses(output, nothing, None, config).color) == 0.0
    assert bool(torch.isnan(psnr(output, nothing, config)))
