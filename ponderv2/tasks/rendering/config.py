"""Settings of the pretext task: pre-training by rendering held-out pixels. Never imports torch."""

from __future__ import annotations

from ponderv2.data.config import PretrainDataConfig
from ponderv2.errors import PresetError
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

    def with_target_sizes(self, data: PretrainDataConfig) -> RenderingConfig:
        """With the channels of the image features that the data has.

        Raises PresetError where the settings name another number, or the data has none.
        """
        if self.targets is None or self.targets.image_features is None:
            return self
        target, features = self.targets.image_features, data.image_features
        if features is None:
            raise PresetError(
                "the model renders image features and data.image_features is null",
                fix="--set data.image_features={}",
            )
        if target.n_channels not in (None, features.n_channels):
            raise PresetError(
                f"the model renders {target.n_channels} channels of image features, "
                f"data.image_features stores {features.n_channels}",
                fix=f"--set model.targets.image_features.n_channels={features.n_channels}",
            )
        target = target.model_copy(update={"n_channels": features.n_channels})
        targets = self.targets.model_copy(update={"image_features": target})
        return self.model_copy(update={"targets": targets})
