"""The pre-training model: batch -> features -> volume -> rendered rays, compared with recorded pixels.

PonderV2, section 3. State names are those of the published model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import assert_never

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from ponderv2.collectives import global_mean
from ponderv2.encoder.masking import hide_pixels, mask_blocks, new_mask_token
from ponderv2.geometry.features import Features
from ponderv2.geometry.rays import HIT_NEAR, RayBundle, rays_that_hit, rays_through_pixels
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.heads.text_embeddings import embedding_rows
from ponderv2.lift.image_depth import EstimatesDepth
from ponderv2.lift.kinds import build_lift, build_projection
from ponderv2.lift.volume_frame import VolumeFrame, volume_frame
from ponderv2.models.config import ClassTargetConfig, PretextConfig, TextTargetConfig
from ponderv2.models.encoder_model import EncoderModel, rows_of_points
from ponderv2.models.ray_features import composited_features
from ponderv2.randomness import scene_generators
from ponderv2.renderer.decoder import in_blocks
from ponderv2.renderer.losses import (
    NO_DISTANCE,
    RayTargets,
    RenderLosses,
    psnr,
    render_losses,
    with_targets,
)
from ponderv2.renderer.renderer import Renderer, RenderOutput
from ponderv2.renderer.sampling import RayNoise, draw_noise_of_scenes
from ponderv2.scenes.batch import Batch, PixelBatch


@dataclass(frozen=True)
class PretextStep:
    """What one training step of the pretext task measured."""

    losses: RenderLosses
    psnr: Float[Tensor, ""]
    """Of the rendered rays, decibel."""
    point_loss: Float[Tensor, ""]
    """Of the point head, neither weighted nor necessarily part of the losses."""
    output: RenderOutput
    without_target: Float[Tensor, ""] | None = None
    """Share of the rays that have no target, as they miss the range of the volume or end beyond it. None
    where volumes are cubes around their scenes."""


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes after encoder and projection: all that rendering needs."""

    features: Features
    volume: FeatureVolume
    frame: VolumeFrame


class PretextModel(EncoderModel):
    """Encoder, lift, projection and renderer, trained by comparing rendered rays with images."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__(config)
        self.config = config
        self.lift = build_lift(config.lift, self.n_channels)
        self.proj_net = build_projection(config.projection, self.n_channels)
        semantic = config.semantic
        self.renderer = Renderer(config.renderer, config.projection.out_channels, _n_semantic(config))
        self.mtoken = None
        hides_points = config.mask is not None and config.encoder.needs == "points"
        if hides_points and config.mask is not None and config.mask.hide == "token":
            self.mtoken = nn.Parameter(new_mask_token(config.encoder.in_channels))
        self.add_embeddings()
        if isinstance(semantic, TextTargetConfig):
            self.class_embedding: Tensor
            self.register_buffer("class_embedding", text_embeddings(semantic))
            self.logit_scale = nn.Parameter(torch.tensor(100.0).log(), requires_grad=False)
            if semantic.point_head:
                self.proj_head = nn.Linear(self.n_channels, semantic.n_channels)
        # Last, so that the other weights of a new model do not depend on it.
        n_outputs = {} if config.targets is None else config.targets.n_outputs
        if n_outputs:
            width = self.n_channels if self._targets_read_encoder else config.projection.out_channels
            self.target_heads = nn.ModuleDict({name: nn.Linear(width, n) for name, n in n_outputs.items()})

    def encode(self, batch: Batch, generator: torch.Generator | None = None) -> Features:
        """Features of a batch. With a generator, and where the settings say so, parts are hidden first."""
        if self.config.mask is not None and generator is not None:
            generators = scene_generators(generator, len(batch.offset), batch.slots)
            if self.config.encoder.needs == "points":
                batch = mask_blocks(batch, self.mtoken, self.config.mask, generators)
            else:
                batch = hide_pixels(batch, self.config.mask, generators)
        return super().encode(batch)

    def build_volume(
        self, batch: Batch, generator: torch.Generator | None = None, deferred: bool = False
    ) -> EncodedScenes:
        """Encoder, lift and projection of every cell. `deferred`: as in `proj_net.project`."""
        features = self.encode(batch, generator)
        if isinstance(self.lift, EstimatesDepth):
            features = self.lift.with_depth(features)
        frame = volume_frame(batch.coord, batch.offset, self.config.frame)
        return EncodedScenes(features, self.proj_net.project(self.lift(features, frame), deferred), frame)

    def forward(self, batch: Batch, generator: torch.Generator) -> PretextStep:
        """One training step: render the pixels of the batch and compare them.

        `generator` is a CPU generator that starts alike in all processes of the run.
        """
        encoded = self.build_volume(batch, generator, deferred=True)
        rays = self.rays(batch, encoded.frame)
        # Rays lie scene by scene; each scene has its own numbers, whatever process it is on.
        counts = torch.bincount(rays.rays.scene, minlength=len(batch.offset)).tolist()
        generators = scene_generators(generator, len(counts), batch.slots)
        noise = draw_noise_of_scenes(counts, generators, self.config.renderer, batch.feature.device)
        return self.compare(batch, encoded, rays, self.render(encoded, rays, noise))

    def render(self, encoded: EncodedScenes, rays: TargetRays, noise: RayNoise) -> RenderOutput:
        """Rays of a training step, with the features that the targets are made of."""
        of_volume = self.renders_features and not self._targets_read_encoder
        output = self.renderer(
            encoded.volume, rays.rays, noise, rays.targets.distance, with_features=of_volume
        )
        if self.renders_features and self._targets_read_encoder:
            output = replace(output, encoder_feature=self._encoder_feature(encoded, rays.rays, output))
        return output

    @property
    def _targets_read_encoder(self) -> bool:
        return self.config.targets is not None and self.config.targets.source == "encoder"

    def _encoder_feature(
        self, encoded: EncodedScenes, rays: RayBundle, output: RenderOutput
    ) -> Float[Tensor, "ray channel"]:
        targets, frame = self.config.targets, encoded.frame
        cells = frame.cells if targets is None or targets.cells is None else targets.cells
        volume = self.lift(encoded.features, replace(frame, cells=cells))
        with torch.autocast(output.weights.device.type, enabled=False):
            volume = replace(volume, rows=volume.rows.to(output.weights.dtype))
            return composited_features(volume, rays, output.starts, output.weights)

    @property
    def renders_features(self) -> bool:
        """Whether a target is made of the composited features of the volume."""
        return hasattr(self, "target_heads")

    def compare(
        self, batch: Batch, encoded: EncodedScenes, rays: TargetRays, output: RenderOutput
    ) -> PretextStep:
        """Losses of rendered rays against the pixels that they were made for."""
        targets, rows = rays.targets, self.class_rows(batch.condition)
        losses = render_losses(output, targets, rows, self.config.losses)
        if self.config.targets is not None:
            losses = with_targets(losses, output, self.head_outputs(output), targets, self.config.targets)
        point = self._point_loss(encoded.features, batch)
        losses = replace(losses, point=point * self._point_weight())
        if isinstance(self.lift, EstimatesDepth) and batch.images is not None:
            losses = replace(losses, lift_depth=self.lift.depth_loss(encoded.features, batch.images))
        missed = None
        if self.config.frame.kind == "range":
            lost = (~targets.hit).sum().to(output.distance.dtype)
            missed = global_mean(lost, lost.new_tensor(float(len(targets.hit))))
        return PretextStep(losses, psnr(output, targets, self.config.losses), point.detach(), output, missed)

    def head_outputs(self, output: RenderOutput) -> dict[str, Float[Tensor, "ray _"]]:
        """What is rendered of each target that is made of the features of the volume.

        Linear layers commute with compositing: W sum_i w_i V(x_i) + b sum_i w_i = sum_i w_i (W V(x_i) + b).
        In the precision of the renderer.
        """
        if not self.renders_features:
            return {}
        with torch.autocast(output.opacity.device.type, enabled=False):
            return self._head_outputs(output)

    def _head_outputs(self, output: RenderOutput) -> dict[str, Float[Tensor, "ray _"]]:
        layers = {name: layer for name, layer in self.target_heads.items() if isinstance(layer, nn.Linear)}
        if output.encoder_feature is not None:
            return {name: one(output.encoder_feature) for name, one in layers.items()}
        feature = output.volume_feature
        if feature is None:
            return {}
        opacity = output.opacity[:, None]
        return {name: F.linear(feature, one.weight) + opacity * one.bias for name, one in layers.items()}

    def rays(self, batch: Batch, frame: VolumeFrame) -> TargetRays:
        """The pixels of a batch as rays in the frame of their scene's volume, with their targets."""
        if batch.pixels is None:
            raise ValueError("the batch has no pixels to render")
        if self.config.frame.kind == "range":
            return rays_of_pixels(batch.pixels, frame, self.config.ray_box, 0.0).within(frame)
        return rays_of_pixels(batch.pixels, frame, self.config.ray_box)

    def class_rows(self, condition: str) -> Float[Tensor, "class channel"] | None:
        """Text embedding of each label of a dataset; None where the model renders none."""
        semantic = self.config.semantic
        if not isinstance(semantic, TextTargetConfig):
            return None
        rows = semantic.rows_of(condition)
        return self.class_embedding if rows is None else self.class_embedding[list(rows)]

    def _point_loss(self, features: Features, batch: Batch) -> Float[Tensor, ""]:
        rows = self.class_rows(batch.condition)
        if rows is None or not hasattr(self, "proj_head"):
            return features.feature.new_zeros(())
        feature = rows_of_points(features)
        trained = self._point_weight() > 0
        with torch.set_grad_enabled(trained and torch.is_grad_enabled()):
            logits = in_blocks(lambda part: (class_cosines(self.proj_head(part), rows),), feature)[0]
            return point_loss(logits, batch.segment, self.logit_scale)

    def _point_weight(self) -> float:
        semantic = self.config.semantic
        if not isinstance(semantic, TextTargetConfig) or not semantic.include_point_loss:
            return 0.0
        return semantic.point_loss_weight


def _n_semantic(config: PretextConfig) -> int:
    match config.semantic:
        case None:
            return 0
        case ClassTargetConfig():
            return config.semantic.n_classes
        case TextTargetConfig():
            return config.semantic.n_channels
        case _:
            assert_never(config.semantic)


@dataclass(frozen=True)
class TargetRays:
    """Rays in volume units, and what the images recorded along them."""

    rays: RayBundle
    targets: RayTargets

    def within(self, frame: VolumeFrame) -> TargetRays:
        """The same, without the targets of rays whose measured point lies outside the cells of the volume."""
        targets, scene = self.targets, self.rays.scene
        ends = self.rays.origins + self.rays.directions * targets.distance[:, None]
        lower, upper = frame.lower.to(ends.dtype)[scene], frame.upper.to(ends.dtype)[scene]
        inside = ((ends >= lower) & (ends <= upper)).all(dim=1) | (targets.distance <= 0)
        return TargetRays(self.rays, replace(targets, hit=targets.hit & inside).masked())


def rays_of_pixels(
    pixels: PixelBatch, frame: VolumeFrame, half_side: float, near_plane: float = HIT_NEAR
) -> TargetRays:
    """Rays from optical centres through pixel centres, in the frame of each scene's volume.

    Depth along the optical axis becomes distance along the ray. Rays that miss the box
    `half_side` / 0.5 times the size of the range, beyond `near_plane`, have no target.
    """
    world_to_camera = frame.cameras(pixels.world_to_camera, pixels.view_scene)
    through = rays_through_pixels(
        pixels.pixel, pixels.view, pixels.intrinsics, world_to_camera, pixels.view_scene
    )
    corner = (frame.half_range * (2 * half_side)).to(pixels.pixel.dtype)
    hit = rays_that_hit(through.rays, -corner, corner, near_plane)
    distance = torch.where(pixels.depth > 0, pixels.depth * through.distance_per_depth, NO_DISTANCE)
    targets = RayTargets(
        pixels.color,
        distance,
        pixels.label,
        hit,
        pixels.colored,
        pixels.image_feature,
        pixels.cluster,
        _normals_of_rays(pixels, world_to_camera),
    )
    return TargetRays(through.rays, targets.masked())


def _normals_of_rays(
    pixels: PixelBatch, world_to_camera: Float[Tensor, "view 4 4"]
) -> Float[Tensor, "ray 3"] | None:
    """From the frame of the camera to that of the rays: a plane n p_camera = d is (A^T n) p = d' there."""
    if pixels.normal is None:
        return None
    linear = world_to_camera[:, :3, :3].to(pixels.normal.dtype)[pixels.view]
    return F.normalize(torch.einsum("rij,ri->rj", linear, pixels.normal), dim=1)


def text_embeddings(config: TextTargetConfig) -> Float[Tensor, "class channel"]:
    """One unit row per class. Raises PresetError and ResourceError as `embedding_rows`."""
    return embedding_rows(config.embeddings, (config.n_classes, config.n_channels), config.names)


def class_cosines(
    embedded: Float[Tensor, "point channel"], class_rows: Float[Tensor, "class channel"]
) -> Float[Tensor, "point class"]:
    """Cosine similarity with each class. The few products are divided by the length, not the features."""
    length = torch.linalg.vector_norm(embedded, dim=1, keepdim=True).clamp(min=1e-12)
    return embedded @ class_rows.T / length


def point_loss(
    cosines: Float[Tensor, "point class"], segment: Int[Tensor, " point"], logit_scale: Float[Tensor, ""]
) -> Float[Tensor, ""]:
    """Cross-entropy of cosine similarities with the class rows (point prompt training).

    Over the labelled points of all processes; 0 without labels.
    """
    total = F.cross_entropy(cosines * logit_scale.exp(), segment, ignore_index=-1, reduction="sum")
    return global_mean(total, (segment >= 0).sum().to(total.dtype))
