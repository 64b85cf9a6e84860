"""What the models of all tasks share: the encoder, its prompts, and whether it is frozen."""

from __future__ import annotations

from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.encoder.build import build_encoder
from ponderv2.encoder.config import PromptedSparseUNetConfig
from ponderv2.geometry.voxels import SparseVoxels, batch_index
from ponderv2.models.config import EncoderOnlyConfig
from ponderv2.scenes.batch import Batch
from ponderv2.tasks.instances.config import InstancesModelConfig
from ponderv2.tasks.segmentation.config import SegmentationModelConfig


class EncoderModel(nn.Module):
    """The encoder is mounted as `backbone`, as in pre-training, so that its weights fit by name.

    Subclasses add their heads and then call `freeze`.
    """

    def __init__(self, settings: SegmentationModelConfig | InstancesModelConfig | EncoderOnlyConfig) -> None:
        super().__init__()
        if settings.encoder is None:
            raise ValueError("the encoder is not known yet")
        self.settings = settings
        self.n_channels = settings.encoder.out_channels
        self.backbone = build_encoder(settings.encoder)
        if isinstance(settings.encoder, PromptedSparseUNetConfig):
            self.conditions = settings.conditions or settings.encoder.conditions
            self.embedding_table = nn.Embedding(len(self.conditions), settings.encoder.context_channels)

    def freeze(self) -> None:
        """Leave encoder and prompts as they are, where the settings say so."""
        if self.settings.freeze_encoder:
            for name, parameter in self.named_parameters():
                if name.startswith(("backbone.", "embedding_table.")):
                    parameter.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> EncoderModel:
        """Switch between training and evaluation; a frozen encoder stays in evaluation."""
        super().train(mode)
        if self.settings.freeze_encoder:
            self.backbone.eval()
        return self

    def encode(self, batch: Batch) -> Float[Tensor, "point channel"]:
        """Feature of every point; without gradient where the encoder is frozen.

        Raises:
            ValueError: a dataset that a prompted encoder does not know.
        """
        voxels = SparseVoxels(batch.feature, batch.grid_coord, batch_index(batch.offset), len(batch.offset))
        with torch.no_grad() if self.settings.freeze_encoder else nullcontext():
            if not isinstance(self.settings.encoder, PromptedSparseUNetConfig):
                return self.backbone(voxels)
            condition = self.settings.condition or batch.condition
            return self.backbone(voxels, self._context(condition), condition)

    def _context(self, condition: str) -> Float[Tensor, "1 context"]:
        if condition not in self.conditions:
            raise ValueError(f"expected a condition out of {self.conditions}, got {condition!r}")
        return self.embedding_table.weight[self.conditions.index(condition)][None]


class EncoderOnlyModel(EncoderModel):
    """`backbone` and, of a prompted encoder, `embedding_table`."""

    def __init__(self, config: EncoderOnlyConfig) -> None:
        super().__init__(config)
        self.config = config
        self.freeze()
