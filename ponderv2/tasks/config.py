"""The tasks that an encoder can be fine-tuned for. Never imports torch."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig

TaskModelConfig = Annotated[SegmentationModelConfig | InstancesModelConfig, Field(discriminator="kind")]
"""A model of a task, chosen by `kind`."""
