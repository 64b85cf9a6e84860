"""Settings of the pretext task: pre-training by rendering held-out pixels. Never imports torch."""

from __future__ import annotations

from ponderv2.heads.config import OrthogonalEmbeddingsConfig
from ponderv2.models.config import PretextConfig, TextTargetConfig


class RenderingConfig(PretextConfig):
    """The model of the pretext: encoder, volume and renderer (`kind: pretext`)."""

    def without_files(self) -> RenderingConfig:
        """The same model as it stands in a checkpoint, which holds the text embeddings that a file gave."""
        if not isinstance(self.semantic, TextTargetConfig):
            return self
        semantic = self.semantic.model_copy(update={"embeddings": OrthogonalEmbeddingsConfig()})
        return self.model_copy(update={"semantic": semantic})
