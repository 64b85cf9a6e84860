"""The pre-training task: points -> features -> volume -> pictures, compared with the real ones.

PonderV2, section 3: the encoder sees the cloud, the renderer draws chosen pixels of posed photographs,
and the difference trains both. State names are those of the published model.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import assert_never

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.encoder.build import build_encoder, build_projection
from ponderv2.encoder.densify import pool
from ponderv2.encoder.frames import SceneFrames, scene_frames
from ponderv2.encoder.masking import mask_blocks, new_mask_token
from ponderv2.geometry.cells import CellVolume
from ponderv2.geometry.volumes import FeatureVolume
from ponderv2.geometry.voxels import SparseVoxels, scene_of_each
from ponderv2.models.config import ClassTargetConfig, PretextConfig, TextTargetConfig
from ponderv2.models.pixel_rays import TargetRays, rays_of_pixels
from ponderv2.models.text_targets import class_cosines, point_loss, text_embeddings
from ponderv2.randomness import generators_of_scenes
from ponderv2.renderer.decoder import in_blocks
from ponderv2.renderer.losses import RayTargets, psnr, render_losses
from ponderv2.renderer.renderer import Renderer, RenderOutput
from ponderv2.renderer.sampling import draw_noise_of_scenes
from ponderv2.scenes.batch import SceneBatch


@dataclass(frozen=True)
class PretextLosses:
    """Each term already weighted. A term that is not used is exactly zero, not absent."""

    color: Float[Tensor, ""]
    depth: Float[Tensor, ""]
    sdf: Float[Tensor, ""]
    free_space: Float[Tensor, ""]
    eikonal: Float[Tensor, ""]
    semantic: Float[Tensor, ""]
    point: Float[Tensor, ""]

    def total(self) -> Float[Tensor, ""]:
        """The number to call backward on: every field, always."""
        return torch.stack([getattr(self, term.name) for term in fields(self)]).sum()


@dataclass(frozen=True)
class PretextStep:
    """What one training step of the pretext task measured."""

    losses: PretextLosses
    psnr: Float[Tensor, ""]
    """Of the rendered rays, decibel."""
    point_loss: Float[Tensor, ""]
    """Of the point head, neither weighted nor necessarily part of the losses."""
    output: RenderOutput


@dataclass(frozen=True)
class EncodedScenes:
    """Scenes after encoder and projection: all that rendering needs."""

    feature: Float[Tensor, "point channel"]
    volume: FeatureVolume
    frames: SceneFrames


class PretextModel(nn.Module):
    """Encoder, projection and renderer, trained by the pictures that they make."""

    def __init__(self, config: PretextConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = build_encoder(config.encoder)
        n_features = config.encoder.out_channels
        self.proj_net = build_projection(config.projection, n_features)
        semantic = config.semantic
        self.renderer = Renderer(config.renderer, config.projection.out_channels, _n_semantic(config))
        if config.mask is not None:
            self.mtoken = nn.Parameter(new_mask_token(config.encoder.in_channels))
        if config.conditions:
            self.embedding_table = nn.Embedding(len(config.conditions), config.context_channels)
        if isinstance(semantic, TextTargetConfig):
            self.class_embedding: Tensor
            self.register_buffer("class_embedding", text_embeddings(semantic))
            self.logit_scale = nn.Parameter(torch.tensor(100.0).log(), requires_grad=False)
            if semantic.point_head:
                self.proj_head = nn.Linear(n_features, semantic.n_channels)

    def encode(
        self, batch: SceneBatch, generator: torch.Generator | None = None
    ) -> Float[Tensor, "point channel"]:
        """Feature of every point. With a generator, and where the settings say so, parts are hidden first."""
        scene = scene_of_each(batch.offset)
        voxels = SparseVoxels(batch.feature, batch.grid_coord, scene, len(batch.offset))
        if self.config.mask is not None and generator is not None:
            generators = generators_of_scenes(generator, voxels.n_scenes, batch.slots)
            voxels = mask_blocks(voxels, self.mtoken, self.config.mask, generators).voxels
        return self.backbone(voxels, self._context(batch.condition), batch.condition)

    def build_volume(self, batch: SceneBatch, generator: torch.Generator | None = None) -> EncodedScenes:
        """Encoder, pooling to a grid and projection of every cell."""
        feature = self.encode(batch, generator)
        frames = scene_frames(batch.coord, batch.offset, self.config.frame)
        cells = pool(feature, batch.coord, batch.offset, frames, self.config.densify)
        return EncodedScenes(feature, cells.with_values(self.proj_net(cells)), frames)

    def project(self, cells: CellVolume) -> FeatureVolume:
        """The projection, whose last convolution is left to the cells that are read; `forward` renders it."""
        values, last = self.proj_net.before_last(cells)
        return replace(cells.with_values(values), last=last)

    def forward(self, batch: SceneBatch, generator: torch.Generator) -> PretextStep:
        """One training step: render the pixels of the batch and compare them.

        `generator` is a CPU generator that starts alike in all processes of the run.
        """
        feature = self.encode(batch, generator)
        frames = scene_frames(batch.coord, batch.offset, self.config.frame)
        cells = pool(feature, batch.coord, batch.offset, frames, self.config.densify)
        encoded = EncodedScenes(feature, self.project(cells), frames)
        rays = self.rays(batch, frames)
        # Rays lie scene by scene; each scene has its own numbers, whatever process it is on.
        counts = torch.bincount(rays.rays.scene, minlength=len(batch.offset)).tolist()
        generators = generators_of_scenes(generator, len(counts), batch.slots)
        noise = draw_noise_of_scenes(counts, generators, self.config.renderer, batch.feature.device)
        output = self.renderer(encoded.volume, rays.rays, noise, target_distance=rays.distance)
        return self.compare(batch, encoded, rays, output)

    def compare(
        self, batch: SceneBatch, encoded: EncodedScenes, rays: TargetRays, output: RenderOutput
    ) -> PretextStep:
        """Losses of rendered rays against the pixels that they were made for."""
        assert batch.pixels is not None
        label = torch.where(rays.hit, batch.pixels.label, -1)
        targets = RayTargets(rays.color, rays.distance, label, rays.hit, rays.colored)
        rendered = render_losses(output, targets, self.class_rows(batch.condition), self.config.losses)
        point = self._point_loss(encoded.feature, batch)
        losses = PretextLosses(
            **{term.name: getattr(rendered, term.name) for term in fields(rendered)},
            point=point * self._point_weight(),
        )
        return PretextStep(losses, psnr(output, targets, self.config.losses), point.detach(), output)

    def rays(self, batch: SceneBatch, frames: SceneFrames) -> TargetRays:
        """The pixels of a batch as rays in the frame of their scene's volume, with their targets."""
        if batch.pixels is None:
            raise ValueError("the batch has no pixels to render")
        return rays_of_pixels(batch.pixels, frames, self.config.ray_box)

    def _context(self, condition: str) -> Float[Tensor, "1 context"] | None:
        if not self.config.conditions:
            return None
        if condition not in self.config.conditions:
            known = ", ".join(self.config.conditions)
            raise ValueError(f"the model knows the datasets {known}, not '{condition}'")
        return self.embedding_table.weight[[self.config.conditions.index(condition)]]

    def class_rows(self, condition: str) -> Float[Tensor, "class channel"] | None:
        """Text embedding of each label of a dataset; None where the model renders none."""
        semantic = self.config.semantic
        if not isinstance(semantic, TextTargetConfig):
            return None
        rows = semantic.rows_of(condition)
        return self.class_embedding if rows is None else self.class_embedding[list(rows)]

    def _point_loss(self, feature: Float[Tensor, "point channel"], batch: SceneBatch) -> Float[Tensor, ""]:
        rows = self.class_rows(batch.condition)
        if rows is None or not hasattr(self, "proj_head"):
            return feature.new_zeros(())
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
