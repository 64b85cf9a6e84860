"""Settings of whole models: what is joined to what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig
from ponderv2.encoder.config import (
    DensifyConfig,
    EncoderConfig,
    MaskConfig,
    ProjectionConfig,
    SceneFrameConfig,
)
from ponderv2.renderer.config import RendererConfig, RenderLossConfig


class ClassTargetConfig(StrictConfig):
    """Render one score per class and compare it with the label of the pixel (cross-entropy)."""

    kind: Literal["classes"] = "classes"
    n_classes: PositiveInt


class TextTargetConfig(StrictConfig):
    """Render a feature per pixel, compared with the text embedding of its label (PonderV2, section 3.3)."""

    kind: Literal["text"] = "text"
    n_classes: PositiveInt
    n_channels: PositiveInt = 512
    embeddings: Path | Literal["orthogonal"] = "orthogonal"
    """A `.npy` file [class, channel] of text embeddings, or mutually orthogonal directions instead of text.
    A checkpoint that is loaded brings its own."""
    valid_index: tuple[int, ...] | None = None
    """Row of the embeddings for each label of the dataset; all rows in order when not given."""
    point_head: bool = False
    """Also classify each point by its own feature, against the same embeddings."""
    point_loss_weight: float = Field(default=1.0, ge=0.0)
    include_point_loss: bool = True
    """False: the point loss is reported and not trained, as in the published code."""


SemanticTargetConfig = Annotated[ClassTargetConfig | TextTargetConfig, Field(discriminator="kind")]


class PretextConfig(StrictConfig):
    """Pre-training by rendering: encoder, volume, renderer and what the pictures are compared with."""

    kind: Literal["pretext"] = "pretext"
    encoder: EncoderConfig
    mask: MaskConfig | None = None
    """Hide blocks of voxels behind a learned feature. None: see everything."""
    frame: SceneFrameConfig = SceneFrameConfig()
    densify: DensifyConfig = DensifyConfig()
    projection: ProjectionConfig
    renderer: RendererConfig = RendererConfig()
    losses: RenderLossConfig = RenderLossConfig()
    semantic: SemanticTargetConfig | None = None
    """None: pre-training needs no labels."""
    conditions: tuple[str, ...] = ()
    """Datasets that have an embedding of their own; none when empty."""
    context_channels: PositiveInt = 256
    ray_box: PositiveFloat = 0.55
    """Half side of the cube around the scene that a ray must meet to be supervised."""

    @model_validator(mode="after")
    def _semantic_target_and_loss_agree(self) -> PretextConfig:
        if self.semantic is None:
            return self
        loss = self.losses.semantic_target.kind
        if (self.semantic.kind, loss) not in {("classes", "classes"), ("text", "contrastive")}:
            raise ValueError(
                f"semantic kind '{self.semantic.kind}' does not go with semantic_target kind '{loss}'"
            )
        return self
