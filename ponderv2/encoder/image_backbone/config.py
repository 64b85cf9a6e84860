"""Settings of the encoder of images. Never imports torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from ponderv2.config import NO_EFFECT, StrictConfig
from ponderv2.encoder.config import EncoderStage

N_STAGES = 4
"""Of a network: what it computes at strides of 4, 8, 16 and 32 pixels. Of a ViT the quarters of its blocks,
all at the stride of its patches."""
Stage = Annotated[int, Field(ge=0, lt=N_STAGES)]

STEM = ("stem", "conv1", "bn1", "conv_stem", "patch_embed", "cls_token", "reg_token", "pos_embed", "norm_pre")
"""Beginnings of the names of parameters before the first stage, of the known families."""
STAGES = (("stages", "."), ("layer", ""), ("layers", "."), ("blocks", "."))
"""What these networks call their stages, and what comes before the number."""


class ImageBackboneConfig(StrictConfig):
    """Images to maps of one width, the finest first; `ponder export` takes out the network of timm.

    With `used_stages: [1, 2, 3], n_maps: 4` the maps have strides 8, 16, 32 and 64, as in the ablation of
    UniPAD; with `used_stages: [3], n_maps: 1` there is one map at stride 32, as in its final runs.
    """

    needs: ClassVar[Literal["images"]] = "images"
    gives: ClassVar[Literal["images"]] = "images"
    conditions: ClassVar[tuple[str, ...]] = ()
    context_channels: ClassVar[int] = 0
    in_channels: ClassVar[int] = 3

    kind: Literal["image_backbone"] = "image_backbone"
    network: Annotated[str, Field(min_length=1)] = "convnext_small"
    """Name of a network in timm: a ConvNeXt, a ResNet, a ViT or another one with stages."""
    weights: Annotated[Literal["random", "hub", "package"] | Path, NO_EFFECT] = "random"
    """What it starts from in a new run: random numbers; those of timm, from the cache or the hub; those of
    the extra image-features, for tf_efficientnet_lite0; or a file (safetensors or .pth). A checkpoint brings
    its own."""
    frozen_stages: Annotated[NonNegativeInt, Field(le=N_STAGES)] = 0
    """First stages, with all before them, that are not trained and stay in evaluation. 1 in UniPAD."""
    norm_eval: bool = False
    """Batch norms of the network use their stored statistics in training too: a step has few images."""
    drop_path: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Largest probability of leaving out a residual branch in training, at the last block."""
    used_stages: tuple[Stage, ...] = (1, 2, 3)
    """Which ones the pyramid gets, ascending; the last one is among them."""
    stage_norm: bool = True
    """A LayerNorm of its own for the result of every used stage."""
    n_maps: PositiveInt = 4
    """One for each used stage; further ones are strided convolutions of the last."""
    channels: PositiveInt = 128
    """Of every map."""

    @model_validator(mode="after")
    def _stages_in_order(self) -> ImageBackboneConfig:
        used = list(self.used_stages)
        if used != sorted(set(used)) or used[-1:] != [N_STAGES - 1]:
            raise ValueError(f"used_stages ascend and end with {N_STAGES - 1}, got {used}")
        if self.n_maps < len(used):
            raise ValueError(f"n_maps is {self.n_maps}, there are {len(used)} stages")
        return self

    @property
    def out_channels(self) -> int:
        """Width of the maps."""
        return self.channels

    @property
    def stages(self) -> tuple[EncoderStage, ...]:
        """Stem, the stages of the network, what joins them. Names that no stage knows are of the last one."""
        stem = EncoderStage(tuple(f"network.{name}" for name in STEM))
        each = _numbers_of_stages(self.network)[:-1]
        network = [
            EncoderStage(tuple(f"network.{name}{dot}{n}." for name, dot in STAGES for n in numbers))
            for numbers in each
        ]
        return (
            stem,
            *network,
            EncoderStage(("network.",)),
            EncoderStage(("norms.", "pyramid."), decodes=True),
        )


def _numbers_of_stages(name: str) -> tuple[tuple[int, ...], ...]:
    """How a network of timm numbers what belongs to each stage."""
    if "resne" in name and not name.startswith("resnetv2"):
        return tuple((n + 1,) for n in range(N_STAGES))
    if "efficientnet" in name or name.startswith("mobilenetv"):
        return ((0, 1), (2,), (3, 4), (5, 6))
    if name.startswith(("vit_", "deit", "eva")):
        sizes = {"large": 24, "huge": 32, "giant": 40}
        depth = next((n for word, n in sizes.items() if word in name), 12)
        quarter = depth // N_STAGES
        return tuple(tuple(range(n * quarter, (n + 1) * quarter)) for n in range(N_STAGES))
    return tuple((n,) for n in range(N_STAGES))
