"""One batch normalisation per dataset, scaled and shifted by a learned vector (PDNorm)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from ponderv2.encoder.config import PromptedSparseUNetConfig
from ponderv2.sparse.normalisation import BatchNorm


@dataclass(frozen=True)
class Prompt:
    """Which dataset a batch comes from."""

    index: int
    """Position in the encoder's `conditions`."""
    context: Float[Tensor, "1 context"] | None
    """The learned vector of the dataset; None where nothing is modulated."""


class PromptedNorm(nn.Module):
    """y = norm_d(x) (1 + scale) + shift with (shift, scale) = Linear(SiLU(context)) and d the dataset."""

    def __init__(self, channels: int, config: PromptedSparseUNetConfig) -> None:
        super().__init__()

        def norm() -> BatchNorm:
            return BatchNorm(
                channels, eps=config.norm_eps, momentum=config.norm_momentum, affine=config.norm_affine
            )

        if config.norm_decouple:
            self.bns = nn.ModuleList([norm() for _ in config.conditions])
        else:
            self.bn = norm()
        if config.norm_adaptive:
            self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(config.context_channels, 2 * channels))
        self.decoupled, self.adaptive = config.norm_decouple, config.norm_adaptive

    def forward(self, x: Float[Tensor, "voxel channel"], prompt: Prompt) -> Float[Tensor, "voxel channel"]:
        x = self.bns[prompt.index](x) if self.decoupled else self.bn(x)
        if not self.adaptive:
            return x
        if prompt.context is None:
            raise ValueError("an adaptive normalisation needs the context vector of the dataset")
        shift, scale = self.modulation(prompt.context).chunk(2, dim=1)
        return x * (1.0 + scale) + shift


def normalise(
    norm: nn.Module, x: Float[Tensor, "voxel channel"], prompt: Prompt | None
) -> Float[Tensor, "voxel channel"]:
    """Apply a plain or a prompted normalisation."""
    return norm(x, prompt) if isinstance(norm, PromptedNorm) else norm(x)
