"""Fits a refined scene to its own frames, from a pre-trained model's volume or from nothing.

Per ray: samples around the measured depth and some before it. The signed distance near the surface is
compared with the measured one, free space is kept free (Azinovic et al. 2022), colour goes through NeuS
weights.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from ponderv2.errors import SceneError
from ponderv2.geometry.rays import RayBundle, rays_through_pixels
from ponderv2.reconstruction.config import RefineConfig
from ponderv2.reconstruction.refined_scene import RefinedScene, ShadedRays, empty_scene
from ponderv2.reconstruction.scene_field import SceneField
from ponderv2.renderer.config import GuidedSamplerConfig
from ponderv2.renderer.sampling import guided_samples
from ponderv2.scenes.scene import Frame

Item = TypeVar("Item")

MARGIN = 0.2
"""Metres of the box beyond everything that was measured and every camera."""
EMPTY = 0.1
"""Metres: signed distance of cells that nothing is known about."""


@dataclass(frozen=True)
class PixelTargets:
    """Rays in the frame of the scene and what they should show."""

    rays: RayBundle
    frame: Int[Tensor, " ray"]
    color: Float[Tensor, "ray 3"]
    """0..1."""
    distance: Float[Tensor, " ray"]
    """Along the ray, scene units; 0 = no measurement."""
    colored: Bool[Tensor, " ray"] | None = None
    """Whether a colour was recorded and no mask hides it; None = all have one."""


@dataclass(frozen=True)
class Recording:
    """The images of frames of one size, decoded, and their cameras."""

    color: UInt8[Tensor, "frame row column 3"]
    """0 where there is none."""
    depth: Float[Tensor, "frame row column"]
    """Metres along the optical axis; 0 = no measurement."""
    intrinsics: Float[Tensor, "frame 3 3"]
    world_to_camera: Float[Tensor, "frame 4 4"]
    colored: Bool[Tensor, "frame row column"] | None = None
    """Pixels with a colour that no mask hides; None = all."""

    @staticmethod
    def read(frames: Sequence[Frame], tracked: Iterable[Frame] | None = None) -> Recording:
        """All images of `frames`. SceneError: none, or of several sizes.

        `tracked` is an iterable over the same frames that reports progress.
        """
        if not frames:
            raise SceneError("the scene has no frames to fit", fix="prepare it with its depth images")
        sizes = {(frame.camera.width, frame.camera.height) for frame in frames}
        if len(sizes) > 1:
            raise SceneError(f"the frames have several sizes: {sorted(sizes)}", fix="prepare the scene again")
        width, height = sizes.pop()
        color = torch.zeros(len(frames), height, width, 3, dtype=torch.uint8)
        depth = torch.zeros(len(frames), height, width)
        whole = all(frame.has_color and frame.mask_path is None for frame in frames)
        colored = None if whole else torch.zeros(len(frames), height, width, dtype=torch.bool)
        for index, frame in enumerate(frames if tracked is None else tracked):
            depth[index] = frame.read_depth()
            if frame.has_color:
                color[index] = frame.read_color()
                if colored is not None:
                    colored[index] = frame.read_visible()
        return Recording(
            color,
            depth,
            torch.stack([frame.camera.intrinsics for frame in frames]),
            torch.stack([frame.camera.world_to_camera for frame in frames]),
            colored,
        )

    def __len__(self) -> int:
        return len(self.color)

    def pixels(
        self, frame: Int[Tensor, " ray"], row: Int[Tensor, " ray"], column: Int[Tensor, " ray"]
    ) -> PixelTargets:
        """The rays through some pixels."""
        made = rays_through_pixels(
            torch.stack([column, row], dim=-1).float(),
            frame,
            self.intrinsics,
            self.world_to_camera,
            torch.zeros(len(self), dtype=torch.int64),
        )
        color = self.color[frame, row, column].float() / 255.0
        distance = self.depth[frame, row, column] * made.distance_per_depth
        colored = None if self.colored is None else self.colored[frame, row, column]
        return PixelTargets(made.rays, frame, color, distance, colored)

    def random_pixels(self, n_rays: int, generator: torch.Generator) -> PixelTargets:
        """Pixels drawn uniformly from all frames."""
        _, height, width, _ = self.color.shape
        frame, row, column = (
            torch.randint(most, (n_rays,), generator=generator) for most in (len(self), height, width)
        )
        return self.pixels(frame, row, column)

    def surface_points(self, most: int = 3_000_000) -> Float[Tensor, "point 3"]:
        """What the frames measured: every n-th pixel in both directions, at most `most` of them."""
        stride = math.ceil(math.sqrt(self.depth.numel() / most))
        points = []
        for index in range(len(self)):
            measured: Bool[Tensor, "row column"] = self.depth[index, ::stride, ::stride] > 0
            row, column = torch.nonzero(measured).unbind(dim=-1)
            found = self.pixels(torch.full_like(row, index), row * stride, column * stride)
            points.append(found.rays.origins + found.rays.directions * found.distance[:, None])
        return torch.cat(points)


@dataclass(frozen=True)
class RefineLosses:
    """Each term already weighted. A term that is not used is exactly zero, not absent."""

    color: Float[Tensor, ""]
    distance: Float[Tensor, ""]
    """Signed distance of samples within the truncation of the measured surface."""
    free_space: Float[Tensor, ""]
    """Of samples before that, which should be at least the truncation away from any surface."""
    depth: Float[Tensor, ""]
    """Of the rendered distance."""
    opacity: Float[Tensor, ""]
    exposure: Float[Tensor, ""]
    """Keeps the mean exposure of all frames at 1."""

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        return torch.stack([getattr(self, term.name) for term in fields(self)]).sum()


@dataclass(frozen=True)
class RefineStep:
    """What is reported after each step."""

    step: int
    progress: float
    """0..1, by steps or by time, whichever is nearer to its end."""
    losses: dict[str, float]


def initial_scene(
    recording: Recording,
    frame_ids: tuple[str, ...],
    fitted: Bool[Tensor, " frame"],
    config: RefineConfig,
    start: SceneField | None,
) -> RefinedScene:
    """Cells around what the recording measured, holding the distances and colours of `start` there.

    Without a start everything is empty and grey. `fitted` marks the `frame_ids` that the recording holds.
    """
    surface = recording.surface_points()
    centres = torch.linalg.inv(recording.world_to_camera.double())[:, :3, 3].float()
    everything = torch.cat([surface, centres])
    box = everything.amin(dim=0) - MARGIN, everything.amax(dim=0) + MARGIN
    scene = empty_scene(config, surface, box, frame_ids)
    scene.fitted.copy_(fitted)
    generator = torch.Generator().manual_seed(config.seed)
    with torch.no_grad():
        for table in scene.features:
            table.normal_(0.0, 0.01, generator=generator)
        for parameter in scene.decoder.parameters():
            parameter.uniform_(-0.15, 0.15, generator=generator)
        for parameter in scene.decoder[-1].parameters():
            parameter.zero_()
        scene.distances[0].fill_(EMPTY)
        if start is not None:
            _copy_start(scene, start)
    return scene


@torch.no_grad()
def misfit(scene: RefinedScene, recording: Recording, config: RefineConfig) -> float:
    """Total loss of the scene as it is, on one batch of rays: which of two starts is nearer to the frames."""
    generator = torch.Generator().manual_seed(config.seed)
    targets = recording.random_pixels(config.n_rays, generator)
    starts = training_samples(scene, targets, config, generator)
    frames = torch.nonzero(scene.fitted)[:, 0]
    losses = refine_losses(scene, scene.shade(targets.rays, starts), starts, targets, frames[targets.frame])
    return float(losses.total())


def refine(
    scene: RefinedScene,
    recording: Recording,
    config: RefineConfig,
    on_step: Callable[[RefineStep], None] = lambda step: None,
) -> int:
    """Optimises the scene in place and returns the number of steps done.

    Ends after `steps` or `max_seconds`. Same seed and number of steps on one machine: same result.
    """
    frames = torch.nonzero(scene.fitted)[:, 0]
    optimiser = torch.optim.Adam(_groups(scene, config), betas=(0.9, 0.99), eps=1e-15, fused=True)
    rates = [group["lr"] for group in optimiser.param_groups]
    generator = torch.Generator().manual_seed(config.seed)
    started = time.monotonic()
    for step in range(config.steps):
        progress = step / config.steps
        if config.max_seconds is not None:
            progress = max(progress, (time.monotonic() - started) / config.max_seconds)
        if progress >= 1.0:
            return step
        _set_schedule(scene, optimiser, rates, progress)
        targets = recording.random_pixels(config.n_rays, generator)
        starts = training_samples(scene, targets, config, generator)
        losses = refine_losses(
            scene, scene.shade(targets.rays, starts), starts, targets, frames[targets.frame]
        )
        optimiser.zero_grad(set_to_none=True)
        losses.total().backward()
        optimiser.step()
        reported = {term.name: float(getattr(losses, term.name).detach()) for term in fields(losses)}
        on_step(RefineStep(step + 1, progress, reported))
    return config.steps


def training_samples(
    scene: RefinedScene, targets: PixelTargets, config: RefineConfig, generator: torch.Generator
) -> Float[Tensor, "ray sample"]:
    """Where rays are sampled, ascending: around the measured distance, else where there is surface."""
    guided = GuidedSamplerConfig(n_free=config.n_free, n_near=config.n_near, width=config.truncation)
    n_samples = config.n_free + config.n_near
    noise = torch.rand(len(targets.rays), n_samples, generator=generator)
    starts = guided_samples(guided, scene.interval(targets.rays), targets.distance, noise).starts
    blind = torch.nonzero(targets.distance <= 0)[:, 0]
    starts[blind] = scene.place_samples(targets.rays.part(blind), 64, n_samples, generator)
    return starts


def refine_losses(
    scene: RefinedScene,
    shaded: ShadedRays,
    starts: Float[Tensor, "ray sample"],
    targets: PixelTargets,
    frame: Int[Tensor, " ray"],
) -> RefineLosses:
    """`frame` numbers each ray's frame among `scene.frame_ids`. Rays without a colour have no colour term."""
    config = scene.config
    color = shaded.color * scene.exposure[frame].exp() if config.exposure else shaded.color
    measured = targets.distance > 0
    truth = targets.distance[:, None] - starts
    near = measured[:, None] & (truth.abs() <= config.truncation)
    free = measured[:, None] & (truth > config.truncation)
    opaque = measured & (shaded.opacity.detach() > 0.5)
    level = scene.exposure[scene.fitted].mean(dim=0)
    squared = (color - targets.color) ** 2
    compared = squared.mean() if targets.colored is None else _mean(squared.mean(dim=-1), targets.colored)
    return RefineLosses(
        color=config.color_weight * compared,
        distance=config.distance_weight * _mean((shaded.sdf - truth).abs(), near),
        free_space=config.free_space_weight * _mean(F.relu(config.truncation - shaded.sdf), free),
        depth=config.depth_weight * _mean((shaded.distance - targets.distance).abs(), opaque),
        opacity=config.opacity_weight * _mean((1.0 - shaded.opacity) ** 2, measured),
        exposure=(level**2).sum(),
    )


def _mean(values: Tensor, counted: Tensor) -> Tensor:
    return (values * counted).sum() / counted.sum().clamp(min=1)


def _groups(scene: RefinedScene, config: RefineConfig) -> list[dict]:
    return [
        {"params": list(scene.distances), "lr": config.distance_learning_rate},
        {"params": list(scene.features), "lr": config.volume_learning_rate},
        {
            "params": [*scene.decoder.parameters(), scene.background, scene.exposure],
            "lr": config.learning_rate,
        },
    ]


def _set_schedule(
    scene: RefinedScene, optimiser: torch.optim.Optimizer, rates: list[float], progress: float
) -> None:
    """Learning rates fall to a twentieth, `inv_s` rises until two thirds of the way."""
    low, high = scene.config.inv_s
    scene.inv_s.fill_(low * (high / low) ** min(progress * 1.5, 1.0))
    for group, rate in zip(optimiser.param_groups, rates, strict=True):
        group["lr"] = rate * 0.05**progress


def _copy_start(scene: RefinedScene, start: SceneField, chunk: int = 65536) -> None:
    """Distances and colours of `start` at the lattice points; finer lattices hold what coarser ones miss."""
    for level, table in enumerate(scene.distances):
        points = scene.grids[level].points()
        values = torch.cat([start.signed_distance(part) for part in points.split(chunk)])
        values = values.clamp(-EMPTY, EMPTY)  # what is wrong can be corrected in few steps
        known = _within(points, start)
        below = scene.signed_distance(points)
        if level == 0:
            table.copy_(torch.where(known, values, EMPTY))
        else:
            table.copy_(torch.where(known, values - below, 0.0))
    for level, table in enumerate(scene.features[:2]):
        points = scene.grids[level].points()
        inward = -F.normalize(scene.gradient(points), dim=-1)
        colors = torch.cat(
            [start.color(a, b) for a, b in zip(points.split(chunk), inward.split(chunk), strict=True)]
        )
        wanted = torch.logit(colors.clamp(0.02, 0.98))
        before = scene.grids[0].corners(points).interpolate(scene.features[0])[:, :3] if level else 0.0
        table[:, :3] = torch.where(_within(points, start)[:, None], wanted - before, table[:, :3])


def _within(points: Tensor, start: SceneField) -> Tensor:
    return ((points >= start.lower) & (points <= start.upper)).all(dim=-1)
