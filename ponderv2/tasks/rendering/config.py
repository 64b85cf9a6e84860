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
        """With the sizes of the targets, which the settings of the data decide.

        Raises PresetError where the settings name others, or the data has none.
        """
        if self.targets is None:
            return self
        sizes = {}
        if self.targets.image_features is not None:
            if data.image_features is None:
                raise PresetError(
                    "the model renders image features and data.image_features is null",
                    fix="--set data.image_features={}",
                )
            sizes["image_features"] = ("n_channels", data.image_features.n_channels)
        if self.targets.clusters is not None:
            sizes["clusters"] = ("n_clusters", data.clusters_used.n_clusters)
        changes = {}
        for target, (name, size) in sizes.items():
            settings = getattr(self.targets, target)
            own = getattr(settings, name)
            if own not in (None, size):
                raise PresetError(
                    f"model.targets.{target}.{name} is {own}, data.{target}.{name} is {size}",
                    fix=f"--set model.targets.{target}.{name}=null",
                )
            changes[target] = settings.model_copy(update={name: size})
        return self.model_copy(update={"targets": self.targets.model_copy(update=changes)})
