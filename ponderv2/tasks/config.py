"""The tasks, one line each, and the settings of their models. Never imports torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponderv2.tasks.encoder_only.config import EncoderOnlyConfig
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.rendering.config import RenderingConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig

DownstreamConfig = (
    SegmentationModelConfig
    | InstancesModelConfig
)  # fmt: skip
"""Tasks that an encoder is fine-tuned for: `ponder finetune`, by the `kind` of their settings."""

DownstreamModelConfig = Annotated[DownstreamConfig, Field(discriminator="kind")]
"""In a preset: `model: {kind: segmentation, ...}`."""

ModelConfig = Annotated[RenderingConfig | EncoderOnlyConfig | DownstreamConfig, Field(discriminator="kind")]
"""Everything that a checkpoint may hold a model of."""

PretrainModelConfig = RenderingConfig
"""What `ponder pretrain` trains."""

DEFAULT = SegmentationModelConfig()
"""What is fine-tuned where a preset does not choose a task."""
