"""What all models share: the encoder, the prompts of its datasets, and whether it is frozen."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import nullcontext

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from ponderv2.encoder.encoder import Prompt, StartsFromWeights
from ponderv2.encoder.kinds import build_encoder
from ponderv2.geometry.features import Features, FusedFeatures, PointFeatures
from ponderv2.models.config import EncoderModelConfig, PretextConfig
from ponderv2.scenes.batch import Batch


class EncoderModel(nn.Module):
    """The encoder is mounted as `backbone`, so that its weights fit every model by name.

    Subclasses call `add_embeddings` and `freeze` when it is the turn of those parts; the order of new modules
    decides which random numbers they start from.
    """

    def __init__(self, config: EncoderModelConfig | PretextConfig) -> None:
        super().__init__()
        if config.encoder is None:
            raise ValueError("the encoder is not known yet")
        self.config = config
        self.encoder_config = config.encoder
        self.prompts = config.prompts
        self.n_channels = config.encoder.out_channels
        self.backbone = build_encoder(config.encoder)

    def add_embeddings(self) -> None:
        """The learned vector of every dataset, where the model has them."""
        if self.prompts.rows:
            self.embedding_table = nn.Embedding(len(self.prompts.rows), self.config.context_channels)

    @property
    def stages(self) -> tuple[tuple[str, ...], ...]:
        """What the names of the encoder's parameters begin with, stage by stage; prompts are of the first."""
        each = [tuple(f"backbone.{one}" for one in stage.prefixes) for stage in self.encoder_config.stages]
        return (("embedding_table.", *each[0]), *each[1:])

    @property
    def decoder(self) -> tuple[str, ...]:
        """What the names of the parameters of decoding stages begin with, which are trained where the rest of
        the encoder is frozen; empty unless the settings say so."""
        stages = self.encoder_config.stages if self.config.train_decoder else ()
        return tuple(f"backbone.{one}" for stage in stages if stage.decodes for one in stage.prefixes)

    def load_start_weights(self) -> tuple[nn.Module, ...]:
        """Takes the published weights that the settings of the encoder name, for a new run; the parts of the
        encoder that have them, none where the settings name none.

        Raises PresetError and ResourceError.
        """
        return self.backbone.load_start_weights() if isinstance(self.backbone, StartsFromWeights) else ()

    def freeze(self) -> None:
        """Leave encoder and prompts as they are, where the settings say so."""
        if self.config.freeze_encoder:
            trained = self.decoder or ("\0",)
            for name, parameter in self.named_parameters():
                if name.startswith(("backbone.", "embedding_table.")) and not name.startswith(trained):
                    parameter.requires_grad_(False)
            self.train(self.training)

    def train(self, mode: bool = True) -> EncoderModel:
        """Switch between training and evaluation; what is frozen of the encoder stays in evaluation."""
        super().train(mode)
        if self.config.freeze_encoder:
            self.backbone.eval()
            trained = self.decoder or ("\0",)
            for name, module in self.named_modules():
                if f"{name}.".startswith(trained):
                    module.training = mode
        return self

    def prompt(self, condition: str) -> Prompt | None:
        """What the encoder gets for a dataset. Raises ValueError for a dataset that it does not know."""
        if not self.prompts:
            return None
        context = self.embedding_table.weight[[self.prompts.row(condition)]] if self.prompts.rows else None
        return Prompt(self.prompts.index(condition), context)

    def encode(self, batch: Batch) -> Features:
        """Features of a batch; without gradient where the encoder is frozen.

        Raises:
            ValueError: a dataset that a prompted encoder does not know.
        """
        is_frozen = self.config.freeze_encoder and not self.config.train_decoder
        with torch.no_grad() if is_frozen else nullcontext():
            return self.backbone(batch, self.prompt(batch.condition))

    def encode_points(self, batch: Batch) -> Float[Tensor, "point channel"]:
        """Feature of every point. Raises ValueError as `encode`, and for an encoder of images."""
        return rows_of_points(self.encode(batch))


def rows_of_points(features: Features) -> Float[Tensor, "point channel"]:
    """One row per point. Raises ValueError for features of images."""
    if not isinstance(features, PointFeatures | FusedFeatures):
        raise ValueError("features of points are needed; the encoder gives features of images")
    return features.feature


@torch.no_grad()
def calibrate_normalisation(
    model: EncoderModel, batches: Iterable[Batch], leaving: Collection[nn.Module] = ()
) -> None:
    """Replace the stored statistics of the encoder's normalisations by their average over some batches.

    For a frozen encoder whose statistics do not apply: those of random weights, or of other data. Of a
    prompted encoder, normalisations of datasets that no batch is of keep theirs.

    `leaving`: parts of the encoder whose statistics apply; they are in evaluation meanwhile.
    """
    left = {module for part in leaving for module in part.modules()}
    norms = [one for one in model.backbone.modules() if isinstance(one, _BatchNorm) and one not in left]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    training = model.backbone.training
    waiting: set[nn.Module] = set(norms)

    def reset_at_first_use(norm: nn.Module, _: object) -> None:
        if norm in waiting:
            waiting.remove(norm)
            assert isinstance(norm, _BatchNorm)
            norm.reset_running_stats()

    hooks = [norm.register_forward_pre_hook(reset_at_first_use) for norm in norms]
    for norm in norms:
        norm.momentum = None
    model.backbone.train()
    for part in leaving:
        part.eval()
    for norm in norms:  # also of networks that settings keep in evaluation
        norm.train()
    for batch in batches:
        model.encode(batch)
    model.backbone.train(training)
    for norm, momentum, hook in zip(norms, momenta, hooks, strict=True):
        norm.momentum = momentum
        hook.remove()
