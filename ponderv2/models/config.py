"""Settings of models: encoder, lift, projection, renderer; what all models with an encoder share."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig
from ponderv2.datasets import vocabulary
from ponderv2.encoder.config import MaskConfig
from ponderv2.encoder.kinds import EncoderConfig
from ponderv2.encoder.prompts import Prompts
from ponderv2.heads.config import EmbeddingsConfig, OrthogonalEmbeddingsConfig
from ponderv2.lift.config import CubeFrameConfig, DensifyConfig, FrameConfig
from ponderv2.lift.kinds import LiftConfig, ProjectionConfig
from ponderv2.renderer.config import RendererConfig, RenderLossConfig, TargetsConfig

Rows = tuple[NonNegativeInt, ...]
"""Row of the embeddings for each label of a dataset."""


PIXELS = 32
"""Stride of image networks: a smaller block would share a feature with its neighbours."""


class ClassTargetConfig(StrictConfig):
    """Render one score per class and compare it with the label of the pixel (cross-entropy)."""

    kind: Literal["classes"] = "classes"
    n_classes: PositiveInt


class TextTargetConfig(StrictConfig):
    """Render a feature per pixel, compared with the text embedding of its label (PonderV2, section 3.3)."""

    kind: Literal["text"] = "text"
    n_classes: PositiveInt
    n_channels: PositiveInt = 512
    embeddings: EmbeddingsConfig = OrthogonalEmbeddingsConfig()
    """Text by a CLIP model, from a file, or orthogonal directions; `orthogonal` and the path of a file are
    accepted as short forms. A checkpoint that is loaded brings its own."""
    class_names: tuple[str, ...] | None = None
    """Name of each row, for `kind: clip`. None: the shared vocabulary where n_classes is 36, else the names
    that the dataset gives its classes."""
    valid_index: dict[str, Rows] | Rows | None = None
    """Row of the embeddings for each label of a dataset, by the name of the dataset; or of the only dataset;
    all rows in order when not given."""
    point_head: bool = False
    """Also classify each point by its own feature, against the same embeddings."""
    point_loss_weight: float = Field(default=1.0, ge=0.0)
    include_point_loss: bool = True
    """False: the point loss is reported and not trained, as in the published code."""

    @model_validator(mode="after")
    def _rows_exist(self) -> TextTargetConfig:
        index = self.valid_index
        for rows in index.values() if isinstance(index, dict) else [index or ()]:
            if rows and max(rows) >= self.n_classes:
                raise ValueError(f"valid_index names row {max(rows)}, there are {self.n_classes}")
        if self.class_names is not None and len(self.class_names) != self.n_classes:
            raise ValueError(f"{len(self.class_names)} class_names for {self.n_classes} classes")
        return self

    @property
    def names(self) -> tuple[str, ...] | None:
        """Name of each row, where it is known."""
        shared = vocabulary.CLASS_NAMES if self.n_classes == len(vocabulary.CLASS_NAMES) else None
        return self.class_names or shared

    def rows_of(self, condition: str) -> Rows | None:
        """Row of each label of a dataset; None: all rows in order. Raises ValueError for unknown datasets."""
        if not isinstance(self.valid_index, dict):
            return self.valid_index
        if condition not in self.valid_index:
            known = ", ".join(self.valid_index)
            raise ValueError(f"valid_index knows the datasets {known}, not '{condition}'")
        return self.valid_index[condition]


SemanticTargetConfig = Annotated[ClassTargetConfig | TextTargetConfig, Field(discriminator="kind")]


class PretextConfig(StrictConfig):
    """Pre-training by rendering: encoder, volume, renderer and what the images are compared with."""

    kind: Literal["pretext"] = "pretext"
    encoder: EncoderConfig
    mask: MaskConfig | None = None
    """Block masking of the input, voxels or images. None: no masking."""
    frame: FrameConfig = CubeFrameConfig()
    lift: LiftConfig = DensifyConfig()
    projection: ProjectionConfig
    renderer: RendererConfig = RendererConfig()
    losses: RenderLossConfig = RenderLossConfig()
    semantic: SemanticTargetConfig | None = None
    """None: pre-training needs no labels."""
    targets: TargetsConfig | None = None
    """Further targets, which need no labels either. None: colour, depth and distance alone."""
    conditions: tuple[str, ...] = ()
    """Datasets that have an embedding of their own; none when empty."""
    context_channels: PositiveInt = 256
    ray_box: PositiveFloat = 0.55
    """Half side of the box that a ray must meet to be supervised, in sides of the frame: 0.5 is its range."""
    freeze_encoder: ClassVar[bool] = False
    train_decoder: ClassVar[bool] = False

    @property
    def prompts(self) -> Prompts:
        """Datasets that encoder and embeddings distinguish."""
        return Prompts(self.encoder.conditions, self.conditions)

    @model_validator(mode="after")
    def _parts_agree(self) -> PretextConfig:
        if self.lift.needs != self.encoder.gives:
            raise ValueError(f"lift '{self.lift.kind}' needs features of {self.lift.needs}")
        if self.mask is not None and self.encoder.needs == "points_and_images":
            raise ValueError("mask goes with points or with images: pre-train each branch with it, alone")
        if self.mask is not None and self.encoder.needs == "images" and self.mask.block_size % PIXELS:
            raise ValueError(f"images are hidden in blocks of a multiple of {PIXELS} pixels: mask.block_size")
        if self.mask is not None and self.encoder.needs == "images" and self.mask.hide != "token":
            raise ValueError("mask.hide is for points: of images, blocks are hidden throughout the network")
        hides_points = self.mask is not None and self.mask.hide == "remove"
        if hides_points and isinstance(self.semantic, TextTargetConfig) and self.semantic.point_head:
            raise ValueError("semantic.point_head classifies all points: set mask.hide to token")
        if self.lift.kind == "densify" and self.lift.corners_are_centres and self.frame.kind != "range":
            raise ValueError("lift.corners_are_centres goes with frame {kind: range}")
        if self.lift.needs_cube and (self.frame.kind != "cube" or self.frame.box != "cube"):
            raise ValueError("lift.align_with_sampling: false goes with frame {kind: cube, box: cube}")
        width = self.encoder.context_channels
        if self.conditions and width not in (0, self.context_channels):
            raise ValueError(
                f"context_channels is {self.context_channels}, encoder.context_channels {width}: "
                "both are the width of the vector of a dataset"
            )
        return self

    @model_validator(mode="after")
    def _semantic_target_and_loss_agree(self) -> PretextConfig:
        if self.semantic is None:
            return self
        if isinstance(self.semantic, TextTargetConfig) and isinstance(self.semantic.valid_index, dict):
            missing = [name for name in self.conditions if name not in self.semantic.valid_index]
            if missing:
                raise ValueError(f"semantic.valid_index has no rows for the dataset '{missing[0]}'")
        loss = self.losses.semantic_target.kind
        if (self.semantic.kind, loss) not in {("classes", "classes"), ("text", "contrastive")}:
            raise ValueError(
                f"semantic kind '{self.semantic.kind}' does not go with semantic_target kind '{loss}'"
            )
        return self


class EncoderModelConfig(StrictConfig):
    """What all models of tasks share."""

    encoder: EncoderConfig | None = None
    """None: that of the checkpoint which is fine-tuned."""
    freeze_encoder: bool = False
    """Train the head alone on the features of the encoder. Its normalisations use their stored statistics,
    also in training."""
    train_decoder: bool = False
    """With `freeze_encoder`: train those of its stages that restore the resolution, too."""
    head_init: Literal["auto", "probe", "random"] = "auto"
    """What the head starts from. probe: logistic regression on the features of the training scenes as the
    encoder gives them before training (Kumar et al. 2022), fitted to convergence within the label budget.
    auto: probe with a pre-trained encoder whose checkpoint does not bring a head of this kind, else random.
    """
    recalibrate_norms: bool = False
    """Estimate the running statistics of the encoder's normalisations again, on training scenes, before
    anything is fitted or trained."""
    condition: str | None = None
    """Name that a prompted encoder gets in place of that of the dataset: the prompt of a new dataset."""
    conditions: tuple[str, ...] = ()
    """Datasets in the order of the rows of `embedding_table`; empty: that of the encoder."""

    @property
    def prompts(self) -> Prompts:
        """Datasets that encoder and embeddings distinguish."""
        names = self.encoder.conditions if self.encoder is not None else ()
        return Prompts(names, (self.conditions or names) if names else (), self.condition)

    @property
    def context_channels(self) -> int:
        """Width of the learned vector of a dataset."""
        return self.encoder.context_channels if self.encoder is not None else 0

    def knows(self, condition: str) -> bool:
        """Whether the model has a part for the dataset."""
        return self.prompts.knows(condition)
