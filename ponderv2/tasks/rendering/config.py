"""Settings of the pretext task: pre-training by rendering held-out pixels. Never imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ponderv2.heads.config import OrthogonalEmbeddingsConfig
from ponderv2.models.config import PretextConfig, TextTargetConfig

if TYPE_CHECKING:
    from ponderv2.tasks.rendering.task import RenderingTask


class RenderingConfig(PretextConfig):
    """The model of the pretext: encoder, volume and renderer (`kind: pretext`)."""

    def task(self) -> RenderingTask:
        """Pre-training with this model."""
        from ponderv2.tasks.rendering.task import RenderingTask

        return RenderingTask(self)

    def without_files(self) -> RenderingConfig:
        """The same model as it stands in a checkpoint, which holds the text embeddings that a file gave."""
        if not isinstance(self.semantic, TextTargetConfig):
            return self
        semantic = self.semantic.model_copy(update={"embeddings": OrthogonalEmbeddingsConfig()})
        return self.model_copy(update={"semantic": semantic})
