"""Settings of the encoders and of masking. Never imports torch.

The settings of every encoder say what the rest of the program asks of it: `needs` (which part of a batch it
reads), `gives` (what its features belong to), `in_channels` and `out_channels`, `conditions` (datasets that
it distinguishes), `context_channels` (width of their learned vectors), `stages` (its layers, in their order);
of encoders of points also `grid_multiple`, `bytes_per_voxel`.
`differences_from_published()` is what an export notes, of encoders that have a published form.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from ponderv2.config import StrictConfig

BYTES_PER_VOXEL = 8000
"""Memory that a voxel needs in the full-size network, with a reserve: 5400 to 5900 were measured."""


@dataclass(frozen=True)
class EncoderStage:
    """Layers of an encoder that belong together. The stages of an encoder name all of its parameters."""

    prefixes: tuple[str, ...]
    """What the names of its parameters begin with, within the encoder."""
    decodes: bool = False
    """Whether it restores resolution: `--protocol decoder` trains it, on the others, which are frozen."""


class _UNetConfig(StrictConfig):
    """What all sparse U-Nets share. The first half of `channels` and `layers` goes down, the second up."""

    needs: ClassVar[Literal["points"]] = "points"
    gives: ClassVar[Literal["points"]] = "points"

    in_channels: PositiveInt = 6
    base_channels: PositiveInt = 32
    """Width of the stem, and of the finest skip connection."""
    channels: tuple[PositiveInt, ...] = (32, 64, 128, 256, 256, 128, 96, 96)
    layers: tuple[PositiveInt, ...] = (2, 3, 4, 6, 2, 2, 2, 2)
    """Residual blocks per stage."""
    n_classes: NonNegativeInt = 0
    """Width of a final 1x1x1 convolution; 0: none, features are returned."""
    pool_scenes: bool = False
    """No decoder: the deepest features (or classes) averaged per scene. Published as `cls_mode`."""
    norm_eps: PositiveFloat = 1.0e-3
    norm_momentum: PositiveFloat = 0.01
    """Of the normalisations in residual blocks."""
    pad: PositiveInt = 96
    """Voxels beyond the largest index. With 1, as in SpUNet-v1m2, strided convolutions drop border voxels."""

    @model_validator(mode="after")
    def _stages_agree(self) -> _UNetConfig:
        if len(self.channels) != len(self.layers) or len(self.channels) % 2 or not self.channels:
            raise ValueError(
                f"channels and layers need one even length, got {len(self.channels)} and {len(self.layers)}"
            )
        return self

    @property
    def n_stages(self) -> int:
        """How often the resolution is halved."""
        return len(self.channels) // 2

    @property
    def out_channels(self) -> int:
        """Width of the result."""
        if self.n_classes:
            return self.n_classes
        return self.channels[self.n_stages - 1] if self.pool_scenes else self.channels[-1]

    @property
    def stages(self) -> tuple[EncoderStage, ...]:
        """Stem, the stages that halve the resolution, those that restore it, each from first to last."""
        n = self.n_stages
        down = [EncoderStage((f"down.{s}.", f"enc.{s}.")) for s in range(n)]
        up = [EncoderStage((f"up.{s}.", f"dec.{s}."), decodes=True) for s in reversed(range(n))]
        final = [EncoderStage(("final.",), decodes=True)] if self.n_classes else []
        return (EncoderStage(("conv_input.",)), *down, *([] if self.pool_scenes else up), *final)

    @property
    def grid_multiple(self) -> int:
        """Voxels by a multiple of which a cloud may be moved without changing its features."""
        return 2**self.n_stages

    def differences_from_published(self) -> list[str]:
        """Settings that the published code does not have, so that it would compute something else."""
        usual = {name: type(self).model_fields[name].default for name in ("norm_eps", "pad")}
        return [
            f"encoder.{name} {getattr(self, name)}: SpUNet-v1m1 and v1m3 have {value}"
            for name, value in usual.items()
            if getattr(self, name) != value
        ]

    @property
    def bytes_per_voxel(self) -> float:
        """Memory that a voxel takes in evaluation."""
        return BYTES_PER_VOXEL * max(self.out_channels / 96.0, 0.1)


class SparseUNetConfig(_UNetConfig):
    """SpUNet-v1m1; SpUNet-v1m2 with norm_eps 1e-5, norm_momentum 0.1, unit_norm_momentum 0.02, pad 1."""

    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0
    kind: Literal["sparse_unet"] = "sparse_unet"
    unit_norm_momentum: PositiveFloat | None = None
    """Of the normalisations after stem, down, up and shortcut convolutions; None: `norm_momentum`."""


class PromptedSparseUNetConfig(_UNetConfig):
    """SpUNet-v1m3: one normalisation per dataset, modulated by a learned vector (point prompt training)."""

    kind: Literal["prompted_sparse_unet"] = "prompted_sparse_unet"
    conditions: tuple[str, ...] = ("ScanNet", "S3DIS", "Structured3D")
    """Names of the datasets, in the order of their normalisations."""
    context_channels: PositiveInt = 256
    norm_decouple: bool = True
    """One set of statistics per dataset; otherwise one for all."""
    norm_adaptive: bool = True
    """Scale and shift from the context vector."""
    norm_affine: bool = True
    zero_init: bool = False
    """The modulation starts as the identity."""

    @model_validator(mode="after")
    def _conditions_named(self) -> PromptedSparseUNetConfig:
        if not self.conditions or len(set(self.conditions)) != len(self.conditions):
            raise ValueError(f"conditions need distinct names, got {self.conditions}")
        return self


class MaskConfig(StrictConfig):
    """Hide whole blocks of voxels or, of images, of pixels."""

    block_size: PositiveInt = 8
    """Voxels, or pixels of an image, along the edge of a block."""
    ratio: float = Field(default=0.8, ge=0.0, le=1.0)
    """Share of the blocks of each scene, or image, that is hidden."""
    hide: Literal["token", "remove"] = "token"
    """One learned vector takes the place of what is known of hidden voxels (PonderV2), or they are removed
    (UniPAD), so that fewer are encoded and where they were is hidden too."""
