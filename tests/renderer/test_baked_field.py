"""Rendering without gradients against the differentiable renderer, which has a textbook twin of its own."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from ponderv2.geometry.interpolation import corners_at, corners_in_box
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import ChannelMap, FeatureVolume
from ponderv2.renderer import baked_field as baked_field
from ponderv2.renderer.config import (
    DecoderConfig,
    ErrorBoundedSamplerConfig,
    FieldConfig,
    UniformSamplerConfig,
)
from tests.renderer.test_renderer import (
    DISTANCE_ONLY,
    INDOOR,
    OUTDOOR,
    SHALLOW,
    SMALL,
    _rays,
    _renderer,
    _volume,
)

BOUNDED = ErrorBoundedSamplerConfig(n_samples=9, n_evaluated=8, n_extra=3)
SAMPLERS = [
    SMALL,
    SMALL.model_copy(update={"n_rounds": 2, "normalise_points": True}),
    SMALL.model_copy(update={"normalise_points": False}),
    UniformSamplerConfig(n_samples=7),
    BOUNDED,
]
POINTED = INDOOR.model_copy(update={"sdf": DecoderConfig(hidden=16, n_blocks=1, points_factor=1.0)})
DEEP_COLOR = INDOOR.model_copy(update={"color": DecoderConfig(hidden=16, n_blocks=2)})
CLAMPED = INDOOR.model_copy(update={"clamp_points": True, "gradient_in_volume_units": True})


@pytest.mark.parametrize(
    ("field", "sampler", "centres"),
    [
        (field, SMALL, False)
        for field in (INDOOR, OUTDOOR, SHALLOW, DISTANCE_ONLY, CLAMPED, POINTED, DEEP_COLOR)
    ]
    + [(INDOOR, sampler, True) for sampler in SAMPLERS],
)
def test_rendered_rays_are_those_of_the_differentiable_renderer(
    rng: torch.Generator, field: FieldConfig, sampler: object, centres: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("POINTS_IN_CACHE", "POINTS_WITHOUT_FEATURES", "POINTS_DECODED"):
        monkeypatch.setattr(baked_field, name, 100)  # several blocks
    renderer = _renderer(field, sampler=sampler)
    volume, rays = _volume(rng, centres=centres), _rays(rng, 20)
    away = RayBundle(rays.origins[:4], -rays.directions[:4], rays.scene[:4])
    for some in (rays, away, rays.part(slice(0, 0))):
        expected, found = renderer(volume, some), renderer.render(volume, some)
        for name in ("color", "distance", "normal", "semantic", "opacity"):
            torch.testing.assert_close(getattr(found, name), getattr(expected, name).detach())


@pytest.mark.parametrize("field", [INDOOR, SHALLOW, DISTANCE_ONLY, POINTED])
def test_rays_without_semantics_are_those_of_the_differentiable_renderer(
    rng: torch.Generator, field: FieldConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baked_field, "POINTS_WITHOUT_FEATURES", 100)
    monkeypatch.setattr(baked_field, "POINTS_DECODED", 30)
    renderer = _renderer(field, n_semantic=0)
    volume, rays = _volume(rng), _rays(rng, 20)
    expected, found = renderer(volume, rays), renderer.render(volume, rays)
    assert found.semantic is None
    for name in ("color", "distance", "normal", "opacity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name).detach())


def test_the_last_map_of_a_volume_is_applied(rng: torch.Generator) -> None:
    renderer, volume, rays = _renderer(INDOOR), _volume(rng), _rays(rng, 6)
    weight = torch.randn(8, 8, generator=rng, dtype=torch.float64)
    mapped = replace(volume, last=ChannelMap(weight, torch.randn(8, generator=rng, dtype=torch.float64)))
    expected, found = renderer(mapped, rays), renderer.render(mapped, rays)
    for name in ("color", "distance", "normal", "semantic", "opacity"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name).detach())


@pytest.mark.parametrize("opacity", ["neus", "volsdf"])
def test_single_precision_stays_within_a_thousandth_of_a_grey_level(
    rng: torch.Generator, opacity: str
) -> None:
    renderer = _renderer(INDOOR, opacity={"kind": opacity}).float()
    volume, rays = _volume(rng, dtype=torch.float32), _rays(rng, 300, torch.float32)
    expected, found = renderer(volume, rays), renderer.render(volume, rays)
    assert (found.color - expected.color).abs().amax() < 1e-3 / 255 * 4
    torch.testing.assert_close(found.distance, expected.distance.detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("centres", [False, True])
@pytest.mark.parametrize("shape", [(4, 5, 6), (1, 2, 3)])
def test_corners_in_the_box_are_those_at_points(
    rng: torch.Generator, centres: bool, shape: tuple[int, int, int]
) -> None:
    values = torch.randn(2, 3, *shape, generator=rng, dtype=torch.float64)
    lower = torch.tensor([[-0.5, -0.4, -0.3], [-0.4, -0.5, -0.3]], dtype=torch.float64)
    volume = FeatureVolume(values, lower, -lower, corners_are_centres=centres)
    scene = torch.randint(2, (200,), generator=rng)
    points = torch.rand(200, 3, generator=rng, dtype=torch.float64) * 1.4 - 0.7  # some outside
    edge = (volume.upper - volume.lower)[scene]
    found = corners_in_box(volume, ((points - lower[scene]) / edge).T, scene, True).interpolate(volume.rows())
    corners = corners_at(volume, points, scene)
    both = torch.cat([corners.weight, corners.slope * edge[:, :, None]], dim=1)
    expected = torch.einsum("psk,pkc->psc", both, volume.rows()[corners.index.index])
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("field", [INDOOR, OUTDOOR, SHALLOW, DISTANCE_ONLY, CLAMPED, POINTED])
def test_distances_are_those_of_the_differentiable_field(rng: torch.Generator, field: FieldConfig) -> None:
    renderer = _renderer(field)
    volume = _volume(rng)
    points = torch.rand(50, 3, generator=rng, dtype=torch.float64) * 1.4 - 0.7
    scene = torch.randint(2, (50,), generator=rng)
    found = renderer.bake(volume).signed_distance(points, scene)
    torch.testing.assert_close(found, renderer.over(volume).signed_distance(points, scene).detach())


@pytest.mark.parametrize("field", [INDOOR, OUTDOOR, DISTANCE_ONLY])
def test_colors_are_those_of_the_differentiable_field(rng: torch.Generator, field: FieldConfig) -> None:
    renderer = _renderer(field)
    volume = _volume(rng)
    points = torch.rand(50, 3, generator=rng, dtype=torch.float64) - 0.5
    directions = torch.nn.functional.normalize(torch.randn(50, 3, generator=rng, dtype=torch.float64), dim=-1)
    scene = torch.randint(2, (50,), generator=rng)
    with torch.no_grad():
        found = renderer.bake(volume).color(points, directions, scene)
    expected = renderer.over(volume).evaluate(points, scene, directions).color
    expected = torch.zeros_like(points) if expected is None else expected.detach()
    torch.testing.assert_close(found, expected)
