"""The renderer against the textbook version, closed-form surfaces and finite differences."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ponderv2.errors import ResourceError
from ponderv2.geometry.rays import RayBundle
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.renderer.config import (
    DecoderConfig,
    ErrorBoundedSamplerConfig,
    FieldConfig,
    GuidedSamplerConfig,
    NeusSamplerConfig,
    RendererConfig,
    UniformSamplerConfig,
    VolsdfConfig,
)
from ponderv2.renderer.renderer import RenderedRays, Renderer, RenderOutput
from ponderv2.renderer.sampling import draw_noise
from tests.renderer import textbook

SMALL = NeusSamplerConfig(initial=UniformSamplerConfig(n_samples=10), n_importance=6)
INDOOR = FieldConfig(
    sdf=DecoderConfig(hidden=16, n_blocks=1),
    color=DecoderConfig(hidden=16, n_blocks=0),
    semantic=DecoderConfig(hidden=16, n_blocks=0),
    geometry_channels=6,
)
OUTDOOR = FieldConfig(
    sdf=DecoderConfig(hidden=16, n_blocks=5, points_factor=1.0),
    color=DecoderConfig(hidden=16, n_blocks=3, points_factor=1.0),
    semantic=DecoderConfig(hidden=16, n_blocks=3, points_factor=1.0),
    geometry_channels=6,
    share_volume=True,
)
SHALLOW = FieldConfig(
    sdf=DecoderConfig(hidden=8, n_blocks=0, points_factor=1.0),
    color=DecoderConfig(hidden=8, n_blocks=0, points_factor=0.5),
    semantic=DecoderConfig(hidden=8, n_blocks=0, points_factor=0.5),
    geometry_channels=6,
    use_gradient=False,
    gradient_in_volume_units=True,
)
DISTANCE_ONLY = INDOOR.model_copy(update={"color": None})


def _volume(
    rng: torch.Generator, *, centres: bool = False, dtype: torch.dtype = torch.float64
) -> FeatureVolume:
    values = torch.randn(2, 8, 4, 5, 6, generator=rng, dtype=dtype)
    lower = torch.tensor([[-0.55, -0.55, -0.55], [-0.4, -0.5, -0.3]], dtype=dtype)
    return FeatureVolume(values.requires_grad_(), lower, -lower, corners_are_centres=centres)


def _rays(rng: torch.Generator, n: int, dtype: torch.dtype = torch.float64) -> RayBundle:
    """From outside towards the middle, ordered by scene."""
    origins = F.normalize(torch.randn(n, 3, generator=rng, dtype=dtype), dim=-1)
    aim = (torch.rand(n, 3, generator=rng, dtype=dtype) - 0.5) * 0.3
    return RayBundle(origins, F.normalize(aim - origins, dim=-1), torch.arange(n) * 2 // n)


def _renderer(field: FieldConfig, n_semantic: int = 5, **settings: object) -> Renderer:
    config = RendererConfig(**({"field": field, "sampler": SMALL} | settings))
    return Renderer(config, n_channels=8, n_semantic=n_semantic).double()


def _total(output: RenderOutput | textbook.TextbookOutput) -> Tensor:
    """A number that every output and the eikonal term enter, with different weights."""
    terms = [
        output.color,
        output.distance,
        output.normal,
        output.sdf,
        output.weights,
        output.gradients.norm(dim=-1),
    ]
    terms += [] if output.semantic is None else [output.semantic]
    weights = torch.Generator().manual_seed(3)
    return torch.stack(
        [(t * torch.randn(t.shape, generator=weights, dtype=t.dtype)).sum() for t in terms]
    ).sum()


@pytest.mark.parametrize(
    "field", [INDOOR, OUTDOOR, SHALLOW, DISTANCE_ONLY], ids=["indoor", "outdoor", "shallow", "plain"]
)
@pytest.mark.parametrize("opacity", ["neus", "volsdf"])
@pytest.mark.parametrize("centres", [True, False])
def test_outputs_and_gradients_are_those_of_the_textbook(
    rng: torch.Generator, field: FieldConfig, opacity: str, centres: bool
) -> None:
    settings = {"opacity": VolsdfConfig()} if opacity == "volsdf" else {}
    renderer = _renderer(field, n_semantic=0 if field is DISTANCE_ONLY else 5, **settings)
    volume, rays = _volume(rng, centres=centres), _rays(rng, 12)
    ours = renderer(volume, rays, draw_noise(12, rng, renderer.config))
    theirs = textbook.render(renderer, volume, rays, ours.starts, ours.samples.steps)
    for name in ("sdf", "gradients", "color", "distance", "normal", "weights", "semantic"):
        if getattr(theirs, name) is not None:
            torch.testing.assert_close(getattr(ours, name), getattr(theirs, name), msg=name)
    inputs = [volume.values, *(p for p in renderer.parameters() if p.requires_grad)]
    found = torch.autograd.grad(_total(ours), inputs, allow_unused=True, materialize_grads=True)
    expected = torch.autograd.grad(_total(theirs), inputs, allow_unused=True, materialize_grads=True)
    for mine, other in zip(found, expected, strict=True):
        # torch's softplus is cut off where its curvature is 2e-7: the textbook has that error
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-6)


def test_signed_distance_and_its_gradient_agree_by_finite_differences(rng: torch.Generator) -> None:
    renderer = _renderer(OUTDOOR)
    volume = _volume(rng)
    points = (torch.rand(50, 3, generator=rng, dtype=torch.float64) - 0.5) * 0.4
    scene = torch.arange(50) % 2
    with torch.no_grad():
        field = renderer.over(volume)
        found = field.evaluate(points, scene, F.normalize(points, dim=-1))
        torch.testing.assert_close(field.signed_distance(points, scene), found.sdf)
        for axis in range(3):
            step = torch.zeros(3, dtype=torch.float64)
            step[axis] = 1e-7
            ahead = field.signed_distance(points + step, scene)
            behind = field.signed_distance(points - step, scene)
            torch.testing.assert_close((ahead - behind) / 2e-7, found.gradient[:, axis], rtol=1e-4, atol=1e-5)


class _Known:
    """A renderer whose distance is channel 0 of its volume."""

    def __init__(self, sdf: Tensor, inv_s: float = 400.0) -> None:
        self.renderer = _renderer(
            SHALLOW.model_copy(update={"gradient_in_volume_units": False}), 0, sampler=NeusSamplerConfig()
        )
        with torch.no_grad():
            for p in self.renderer.field.sdf_decoder.parameters():
                p.zero_()
            first = self.renderer.field.sdf_decoder
            first.fc_c[0].weight[0, 0] = 1.0  # pyright: ignore[reportIndexIssue]
            first.get_submodule("lin0").weight[0, 0] = 1.0  # pyright: ignore[reportIndexIssue]
            first.points_factor = 0.0
            self.renderer.field.deviation_network.variance.fill_(torch.tensor(inv_s).log().item() / 10)
        values = torch.zeros(1, 8, *sdf.shape, dtype=torch.float64)
        values[0, 0] = sdf
        box = torch.full((1, 3), 0.5, dtype=torch.float64)
        self.volume = FeatureVolume(values, -box, box)

    def render(self, origins: Tensor, directions: Tensor) -> RenderOutput:
        rays = RayBundle(origins, directions, torch.zeros(len(origins)).long())
        with torch.no_grad():
            return self.renderer(self.volume, rays)


def _cells(n: int) -> tuple[Tensor, Tensor, Tensor]:
    at = (torch.arange(n, dtype=torch.float64) + 0.5) / n - 0.5
    z, y, x = torch.meshgrid(at, at, at, indexing="ij")
    return x, y, z


def test_a_plane_is_rendered_at_its_distance_with_its_normal(rng: torch.Generator) -> None:
    x, y, z = _cells(16)
    normal = F.normalize(torch.tensor([0.2, -0.1, 1.0], dtype=torch.float64), dim=0)
    known = _Known(x * normal[0] + y * normal[1] + z * normal[2] + 0.1)
    origins = torch.tensor([[0.0, 0.0, 0.4], [0.1, -0.1, 0.3]], dtype=torch.float64)
    directions = F.normalize(torch.tensor([[0.0, 0.0, -1.0], [0.2, 0.1, -1.0]], dtype=torch.float64), dim=-1)
    output = known.render(origins, directions)
    expected = -(origins @ normal + 0.1) / (directions @ normal)
    torch.testing.assert_close(output.distance, expected, rtol=0, atol=4e-3)
    torch.testing.assert_close(output.normal, normal.expand(2, -1), rtol=0, atol=0.02)
    torch.testing.assert_close(output.opacity, torch.ones(2, dtype=torch.float64), rtol=0, atol=0.01)


def test_a_ball_is_rendered_at_its_distance_with_its_normal() -> None:
    x, y, z = _cells(48)
    known = _Known((x**2 + y**2 + z**2).sqrt() - 0.3)
    origins = torch.tensor([[0.45, 0.0, 0.0], [0.45, 0.1, 0.1], [0.45, 0.4, 0.4]], dtype=torch.float64)
    directions = torch.tensor([[-1.0, 0.0, 0.0]], dtype=torch.float64).expand(3, -1)
    output = known.render(origins, directions)
    reach = (0.09 - origins[:2, 1:].square().sum(-1)).sqrt()
    torch.testing.assert_close(output.distance[:2], 0.45 - reach, rtol=0, atol=5e-3)
    normal = torch.cat([reach[:, None], origins[:2, 1:]], dim=-1) / 0.3
    torch.testing.assert_close(output.normal[:2], normal, rtol=0, atol=0.03)
    assert float(output.opacity[2]) < 0.05


@pytest.mark.parametrize(
    "sampler",
    [
        SMALL,
        UniformSamplerConfig(n_samples=9),
        ErrorBoundedSamplerConfig(n_samples=6, n_evaluated=8, n_extra=3),
    ],
)
@pytest.mark.parametrize("opacity", ["neus", "volsdf"])
def test_rays_that_miss_leave_everything_finite(rng: torch.Generator, sampler: object, opacity: str) -> None:
    renderer = _renderer(INDOOR, sampler=sampler, opacity={"kind": opacity})
    volume, rays = _volume(rng), _rays(rng, 6)
    away = RayBundle(rays.origins, -rays.directions, rays.scene)
    output = renderer(volume, away, draw_noise(6, rng, renderer.config))
    assert not output.far.any() and not output.distance.any()
    _total(output).backward()
    for tensor in (volume.values, *(p for p in renderer.parameters() if p.requires_grad)):
        assert tensor.grad is None or tensor.grad.isfinite().all()


def test_rendering_in_chunks_changes_nothing(rng: torch.Generator) -> None:
    renderer = _renderer(INDOOR)
    volume, rays = _volume(rng), _rays(rng, 20)
    whole, parts = renderer(volume, rays), renderer.render(volume, rays, chunk=7)
    for name in ("color", "distance", "normal", "semantic", "opacity"):
        torch.testing.assert_close(getattr(parts, name), getattr(whole, name))
        assert not getattr(parts, name).requires_grad


def test_running_out_of_memory_halves_the_chunk_and_then_says_so(
    rng: torch.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    renderer = _renderer(INDOOR)
    volume, rays = _volume(rng), _rays(rng, 300)
    expected = renderer.render(volume, rays)
    original, sizes = renderer._render_chunk, []

    def limited(field: object, part: RayBundle) -> RenderedRays:
        sizes.append(len(part))
        if len(part) > limit:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return original(field, part)

    monkeypatch.setattr(renderer, "_render_chunk", limited)
    limit = 150
    torch.testing.assert_close(renderer.render(volume, rays, chunk=512).color, expected.color)
    assert sizes == [300, 256, 128, 128, 44]
    limit = 10
    with pytest.raises(ResourceError):
        renderer.render(volume, rays, chunk=512)


def test_training_noise_decides_everything(rng: torch.Generator) -> None:
    renderer = _renderer(INDOOR, guided=GuidedSamplerConfig(n_free=4, n_near=6))
    volume, rays = _volume(rng), _rays(rng, 8)
    noise = draw_noise(8, rng, renderer.config)
    target = torch.full((8,), 0.9, dtype=torch.float64)
    first, second = renderer(volume, rays, noise, target), renderer(volume, rays, noise, target)
    assert torch.equal(first.color, second.color)
    assert first.starts.shape == (8, 10) and ((first.starts[:, 4:] - 0.9).abs() <= 0.05 + 1e-9).all()
    assert renderer(volume, rays, noise).starts.shape == (8, 16)
    assert renderer(volume, rays).starts.shape == (8, 16)


def test_gradient_reaches_a_channels_last_volume_all_the_same(rng: torch.Generator) -> None:
    renderer, rays = _renderer(INDOOR), _rays(rng, 6)
    volume = _volume(rng)
    values = volume.values.detach().contiguous(memory_format=torch.channels_last_3d).requires_grad_()
    _total(renderer(volume, rays)).backward()
    _total(renderer(FeatureVolume(values, volume.lower, volume.upper), rays)).backward()
    assert volume.values.grad is not None and values.grad is not None
    torch.testing.assert_close(values.grad, volume.values.grad)


def test_state_names_are_the_published_ones() -> None:
    decoders = {f"{d}_decoder.lin0.{w}" for d in ("sdf", "rgb", "semantic") for w in ("weight", "bias")}
    decoders |= {
        f"{d}_decoder.{n}.{w}"
        for d in ("sdf", "rgb", "semantic")
        for n in ("fc_c.0", "fc_p")
        for w in ("weight", "bias")
    }
    decoders |= {f"sdf_decoder.{n}.{w}" for n in ("lin1", "fc_c.1") for w in ("weight", "bias")}
    scalars = {"laplace_density.beta", "laplace_density.beta_min", "deviation_network.variance"}
    assert set(_renderer(INDOOR).state_dict()) == {f"field.{name}" for name in decoders | scalars}
    official = Renderer(RendererConfig(), n_channels=128, n_semantic=512).state_dict()
    assert tuple(official["field.rgb_decoder.fc_c.0.weight"].shape) == (128, 134)
    assert tuple(official["field.semantic_decoder.fc_c.0.weight"].shape) == (128, 131)


def test_autocast_does_not_lower_the_precision(rng: torch.Generator) -> None:
    renderer = _renderer(INDOOR).float()
    volume, rays = _volume(rng, dtype=torch.float32), _rays(rng, 6, dtype=torch.float32)
    plain = renderer(volume, rays)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(renderer(volume, rays).color, plain.color)
