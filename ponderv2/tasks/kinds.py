"""The tasks: the list of the settings of their models, and the task of each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, assert_never

from pydantic import Field

from ponderv2.tasks.depth.config import DepthModelConfig
from ponderv2.tasks.detection.config import DetectionModelConfig
from ponderv2.tasks.encoder_only.config import EncoderOnlyConfig
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.rendering.config import RenderingConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig

if TYPE_CHECKING:
    from ponderv2.tasks.task import Task

DownstreamConfig = (
    SegmentationModelConfig
    | DepthModelConfig
    | InstancesModelConfig
    | DetectionModelConfig
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


def task_of(settings: RenderingConfig | EncoderOnlyConfig | DownstreamConfig) -> Task[Any]:
    """The task with these settings of its model."""
    match settings:
        case RenderingConfig():
            from ponderv2.tasks.rendering.task import RenderingTask

            return RenderingTask(settings)
        case EncoderOnlyConfig():
            from ponderv2.tasks.encoder_only.task import EncoderOnlyTask

            return EncoderOnlyTask(settings)
        case SegmentationModelConfig():
            from ponderv2.tasks.segmentation.task import SegmentationTask

            return SegmentationTask(settings)
        case DepthModelConfig():
            from ponderv2.tasks.depth.task import DepthTask

            return DepthTask(settings)
        case InstancesModelConfig():
            from ponderv2.tasks.instances.task import InstancesTask

            return InstancesTask(settings)
        case DetectionModelConfig():
            from ponderv2.tasks.detection.task import DetectionTask

            return DetectionTask(settings)
        case _:
            assert_never(settings)
